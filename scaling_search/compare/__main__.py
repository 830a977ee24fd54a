"""`python -m scaling_search.compare`: depth, width or resolution alone against all three, at equal MACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say
from phinas.command.parts import construct
from phinas.command.run import run
from phinas.command.run_folder import run_folder, write_json
from phinas.command.verbs import command_line
from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_choice, check_flag, check_number, check_whole
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.compound import PAPER, Coefficients
from phinas.networks.cost import cost
from phinas.networks.scale import ROUNDINGS
from phinas.networks.scaling_file import read_scaling
from phinas.pages.cost_text import macs_text
from phinas.pages.style import png
from scaling_search.compare.figure import overview_figure
from scaling_search.compare.networks import BASELINE, LINES, Point, check_factors, on_bases, points_at_equal_macs
from scaling_search.compare.outcome import Outcome, accuracy_text, contrasts, outcomes, verdicts, write_comparison
from scaling_search.compare.report import report
from scaling_search.session import (
    Subject,
    check_folder,
    conduct,
    data_hash,
    foretell,
    read_subject,
    settings_of,
    warn_of_enlarging,
)
from scaling_search.study import Evaluation, Ranges, Study, Task
from scaling_search.variant import variant_text

# What may change between the runs of one study: what else is compared, how surely, and where it runs.
_FREE_TO_CHANGE = ("factors", "figure4", "seeds", "engine", "name", "data", "dry_run")  # data is part of the evaluator
PICTURE_WIDTH = 1600  # pixels


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, names = configuration("scaling_search.compare", "compare", arguments)
    seeds, seed = check_whole("seeds", given["seeds"]), check_whole("seed", given["seed"], least=0)
    factors = check_factors(given["factors"])
    tolerance = check_number("tolerance", given["tolerance"], least=0, below=1)
    check_choice("rounding", given["rounding"], ROUNDINGS)
    for name in ("figure4", "dry_run"):
        check_flag(name, given[name])
    constants = _constants(given["scaling"])

    # Everything is checked, and the engine is up, before anything is written.
    subject = read_subject(given, construct(given, "evaluator"))
    points = points_at_equal_macs(subject.baseline, constants, factors, tolerance, given["rounding"])
    wanting: list[tuple[str, float]] = []
    if given["figure4"]:
        levels = {point.factor: point.level for point in points if point.line != BASELINE}
        more, wanting = on_bases(subject.baseline, levels, tolerance, given["rounding"])
        points += more
    folder = run_folder(given["name"])
    settings = settings_of("scaling_search.compare", given, _FREE_TO_CHANGE, subject) | {
        "scaling": list(vars(constants).values())
    }
    before = check_folder(folder, settings)
    asked = _Asked(
        folder, given, names, subject, constants, tuple(points), tuple(wanting), seeds, seed, tuple(arguments)
    )
    before = [result for result in before if result.network in asked.networks and result.replicate < seeds]
    left = len(asked.networks) * seeds - len(before)
    if given["dry_run"]:
        _introduce(asked)
        CONSOLE.print(_points_table(asked))
        foretell(subject.evaluator, asked.alike, left, before)
        return 0

    def study_at(path: Path) -> Study:
        tasks = [Task({"line": point.line, "factor": point.factor}, point.network) for point in asked.networks.values()]
        return Study(path, settings, _ranges(factors), tasks, seeds, seed)

    results = conduct(asked, left, len(before), study_at, partial(_introduce, asked), _name, partial(_save, asked))
    return _conclude(asked, results)


@dataclass(frozen=True)
class _Asked:
    """What the user asked for, and what that comes to."""

    folder: Path
    given: Mapping[str, Any]
    names: Mapping[str, str]
    subject: Subject
    constants: Coefficients
    points: tuple[Point, ...]
    wanting: tuple[tuple[str, float], ...]
    seeds: int
    seed: int
    arguments: tuple[str, ...]

    @property
    def networks(self) -> dict[str, Point]:
        """The first point of each distinct network, by its key: those are evaluated."""
        first: dict[str, Point] = {}
        for point in self.points:
            first.setdefault(point.network.key(), point)
        return first

    @property
    def alike(self) -> list[Arch]:
        """The network whose MACs are nearest to the mean of all, by which their time is foretold."""
        points = self.networks.values()
        mean = fmean(point.macs for point in points)
        return [min(points, key=lambda point: abs(point.macs - mean)).network]

    @property
    def notes(self) -> list[str]:
        """What is to be said of the networks: that lines share one, or have none at a level."""
        levels, first = {point.factor: point.level for point in self.points}, self.networks
        owners = [(point, first[point.network.key()]) for point in self.points]
        shared = [f"{_title(point)} is the network of {_title(owner)}" for point, owner in owners if owner is not point]
        return shared + [f"figure 4: {line} has no network at {levels[factor]:.3g}x" for line, factor in self.wanting]

    def kept(self, evaluations: int) -> str:
        """What a run says that ends too soon."""
        return f"{evaluations} of {len(self.networks) * self.seeds} evaluations are kept. To go on: {self.command()}"

    def command(self, **changes: object) -> str:
        """The command line that resumes this run, with options changed."""
        return command_line("scaling_search.compare", self.arguments, **{**changes, "name": self.folder.name})


def _constants(scaling: Any) -> Coefficients:
    """The constants of compound scaling that the command line calls so. Raises InputError for what is none."""
    if scaling == "paper":
        return PAPER
    if isinstance(scaling, str) and scaling.endswith((".yaml", ".yml")):
        return read_scaling(scaling).constants
    if isinstance(scaling, Sequence) and not isinstance(scaling, str) and len(scaling) == 3:
        return Coefficients(*scaling)
    raise InputError(f"scaling={scaling}: it must be paper, runs/NAME/scaling.yaml, or [alpha,beta,gamma]")


def _ranges(factors: Sequence[float]) -> Ranges:
    """What Optuna shows of each trial."""
    return {"line": LINES, "factor": (1.0, float(factors[-1]))}


def _title(point: Point) -> str:
    return point.line if point.line == BASELINE else f"{point.line} at {point.level:.3g}x"


def _name(evaluation: Evaluation) -> str:
    line, factor = evaluation.params["line"], evaluation.params["factor"]
    return str(line) if line == BASELINE else f"{line} {float(factor):g}x"


def _introduce(asked: _Asked) -> None:
    """Say what is about to happen."""
    given, baseline = asked.given, asked.subject.baseline
    levels = {point.factor: point.level for point in asked.points if point.line != BASELINE}
    at = ", ".join(
        f"{level:.3g}x"
        + ("" if abs(level / factor - 1) < 1e-6 else f" (near {factor:g}x, where not all methods have a network)")
        for factor, level in levels.items()
    )
    say(
        f"baseline {given['baseline']}{variant_text(given['variant'])}: "
        f"{macs_text(cost(baseline).macs)} at {baseline.resolution} px; "
        f"compound scaling by {asked.constants}\n"
        f"levels {at}; MACs within {given['tolerance']:.1%} of them"
    )
    for note in asked.notes:
        say(f"note: {note}")
    say(f"{len(asked.networks)} distinct networks, each with {asked.seeds} seed{'s' if asked.seeds > 1 else ''}")
    warn_of_enlarging(asked.subject, [point.network for point in asked.networks.values()])
    scaling = str(given["scaling"])
    if scaling.endswith((".yaml", ".yml")):
        record = read_scaling(scaling)
        known = record.evidence.get("baseline")
        trained = known.get("trained_key") if isinstance(known, Mapping) else baseline.key()
        if record.baseline != asked.subject.named or trained != baseline.key():
            say(
                f"warning: the constants of {scaling} were found for another baseline; "
                "give baseline=, variant= and data= as there"
            )
        if record.evidence.get("seed") == asked.seed:
            say(f"note: the constants of {scaling} won on these seeds, which flatters them; give seed={asked.seed + 1}")


def _points_table(asked: _Asked) -> Table:
    table = Table(title="networks", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for point in asked.points:
        table.add_row(*_cells(point, asked.points[0].macs))
    return table


_HEADINGS = ("scaled", "depth", "width", "px", "MACs", "ratio")  # 80 columns hold no more with the accuracy


def _cells(point: Point, whole: int) -> tuple[str, ...]:
    return (
        point.line, f"{point.depth:.2f}", f"{point.width:.2f}",
        str(point.network.resolution), f"{point.macs / 1e6:,.1f}M", f"{point.macs / whole:.2f}x",
    )  # fmt: skip


def _save(asked: _Asked, study: Study) -> list[Outcome]:
    """Write everything that is made from the study."""
    evaluations = study.evaluations
    rows = outcomes(asked.points, evaluations)
    folder = asked.folder
    write_comparison(folder / "comparison.csv", rows)
    about = _about(asked)
    write_json(
        folder / "summary.json",
        {
            "verdicts": verdicts(rows),
            "networks": [_summary(outcome) for outcome in rows],
            "contrasts": [{**vars(contrast), "told_apart": contrast.told} for contrast in contrasts(rows)],
            "evaluations": len(evaluations),
            "failures": sum(evaluation.error is not None for evaluation in evaluations),
            "seconds_of_work": round(sum(evaluation.seconds for evaluation in evaluations), 3),
            **about,
        },
    )
    png(overview_figure(rows), folder / "comparison.png", PICTURE_WIDTH)
    page = report(folder.name, rows, evaluations, about, (folder / "config.yaml").read_text(), study.left, asked.notes)
    write_atomically(folder / "report.html", page)
    return rows


def _summary(outcome: Outcome) -> dict[str, Any]:
    point = outcome.point
    return {
        "line": point.line, "factor": point.factor, "level": point.level, "macs": point.macs,
        "key": point.network.key(), "accuracy": outcome.mean, "sd": outcome.sd, "seeds": len(outcome.accuracies),
    }  # fmt: skip


def _about(asked: _Asked) -> dict[str, Any]:
    """What was compared and how, for whoever reads the results."""
    given = asked.given
    return {
        "baseline": given["baseline"],
        "baseline_macs": asked.points[0].macs,
        "baseline_key": asked.subject.baseline.key(),
        "scaling": str(given["scaling"]),
        "constants": vars(asked.constants),
        "tolerance": given["tolerance"],
        "rounding": given["rounding"],
        "evaluator": asked.names["evaluator"],
        "engine": asked.names["engine"],
        "data_hash": data_hash(asked.subject.evaluator),
        "seeds": asked.seeds,
        "seed": asked.seed,
    }


def _conclude(asked: _Asked, results: Sequence[Outcome]) -> int:
    """Say what was found, where it is, and what to type next. Returns the exit code."""
    folder = asked.folder
    if all(outcome.mean is None for outcome in results):
        reasons = sorted({error for outcome in results for error in outcome.errors})
        say(f"no network was evaluated to the end ({'; '.join(reasons)}); see {folder}/comparison.csv")
        return 1
    CONSOLE.print(_found_table(results))
    for verdict in verdicts(results):
        say(verdict)
    say(
        f"written: {folder}/ with comparison.csv, comparison.png, summary.json, study.db\n"
        f"look at it: {folder}/report.html\n"
        f"surer with more seeds:\n  {asked.command(seeds=2 * asked.seeds)}"
    )
    return 0


def _found_table(results: Sequence[Outcome]) -> Table:
    table = Table(title="accuracy at equal MACs", title_justify="left")
    for heading in (*_HEADINGS, "accuracy"):
        table.add_column(heading, no_wrap=True)
    for row in results:
        text = "failed" if row.errors and row.mean is None else "-" if row.mean is None else accuracy_text(row)
        table.add_row(*_cells(row.point, results[0].point.macs), text)
    return table


if __name__ == "__main__":
    run(main)
