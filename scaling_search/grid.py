"""`python -m scaling_search.grid`: search the constants by which depth, width and resolution of a network grow."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from nas.halving import read_halving
from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say
from phinas.command.parts import construct
from phinas.command.run import run
from phinas.command.run_folder import run_folder
from phinas.command.verbs import command_line
from phinas.engines.evaluator import Evaluator
from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_choice, check_flag, check_number, check_whole
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.compound import PAPER, Coefficients
from phinas.networks.cost import cost
from phinas.networks.scale import ROUNDINGS
from phinas.pages.cost_text import macs_text
from scaling_search.candidates import lattice
from scaling_search.plan import CONSTRAINTS, Row, Surface, explored, plan
from scaling_search.report import report, surface_picture
from scaling_search.results import Outcome, about_of, outcome, write_candidates, write_constants, write_summary
from scaling_search.session import (
    Subject,
    check_folder,
    conduct,
    foretell,
    read_subject,
    settings_of,
    warn_of_enlarging,
)  # fmt: skip
from scaling_search.study import SAMPLERS, Evaluation, Explore, Params, Ranges, Study, Task
from scaling_search.variant import variant_text

# What may change between the runs of one study: how long it goes on, and where it runs.
_FREE_TO_CHANGE = ("candidates", "seeds", "engine", "name", "data", "dry_run")  # data is part of the evaluator
_GRID_ONLY = ("phi", "constraint", "sampler", "lattice", "candidates", "halving", "name", "dry_run")
SHARES = ("depth_share", "width_of_rest")  # by which a sampler finds its way on the surface


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, names = configuration("scaling_search.grid", "grid", arguments)
    return grid(given, names, arguments)


def grid(
    given: Mapping[str, Any],
    names: Mapping[str, str],
    arguments: Sequence[str],
    evaluator: Evaluator | None = None,
) -> int:
    """One scaling search, or as much of it as is left: its settings, the choice in each group, and what was typed.

    evaluator  one that is there already, which `given` describes; None: it is constructed.
    Returns the exit code; raises InputError for what the user can mend.
    """
    count = None if given["candidates"] is None else check_whole("candidates", given["candidates"])
    seeds, seed = check_whole("seeds", given["seeds"]), check_whole("seed", given["seed"], least=0)
    check_choice("sampler", given["sampler"], ("grid", *SAMPLERS))
    if given["sampler"] != "grid" and (count is None or given["constraint"] != "realised"):
        raise InputError(f"sampler={given['sampler']} needs candidates=NUMBER and constraint=realised")
    check_flag("dry_run", given["dry_run"])
    if not isinstance(given["lattice"], dict):
        raise InputError(f"lattice={given['lattice']}: it must have step, tolerance, alpha, beta and gamma")

    # Everything is checked, and the engine is up, before anything is written.
    subject = read_subject(given, evaluator or construct(given, "evaluator"))
    surface = _surface(given, subject)
    try:
        points = lattice(**given["lattice"])
    except TypeError:
        raise InputError("lattice: it has step, tolerance, alpha, beta and gamma, and no more") from None
    planned = plan(surface, points, count)  # a sampler's surface, too, must have networks
    typical = next(row.candidate.network for row in planned if row.candidate is not None)
    rows = planned if given["sampler"] == "grid" else []
    halving = read_halving(given["halving"], subject.evaluator)
    explore = None if rows else Explore(given["sampler"], count or 0, _task_of(surface, given["lattice"]))
    folder = run_folder(given["name"])
    settings = settings_of("scaling_search.grid", given, _FREE_TO_CHANGE, subject)
    before = check_folder(folder, settings)
    asked = _Asked(folder, given, names, subject, surface, tuple(rows), typical, seeds, arguments)
    left = asked.left(before)
    if given["dry_run"]:
        _introduce(asked)
        foretell(subject.evaluator, asked.alike, left, before)
        if rows:
            CONSOLE.print(_plan_table(rows, cost(surface.baseline).macs))
        return 0

    def study_at(path: Path) -> Study:
        tasks = [_task(row) for row in asked.evaluated]
        return Study(path, settings, _ranges(given), tasks, seeds, seed, halving, explore)

    result = conduct(asked, left, len(before), study_at, partial(_introduce, asked), _name, partial(_save, asked))
    return _conclude(asked, result)


@dataclass(frozen=True)
class _Asked:
    """What the user asked for, and what that comes to."""

    folder: Path
    given: Mapping[str, Any]
    names: Mapping[str, str]
    subject: Subject
    surface: Surface
    rows: tuple[Row, ...]  # none yet where a sampler chooses
    typical: Arch  # a network of the surface
    seeds: int
    arguments: Sequence[str]

    @property
    def evaluated(self) -> list[Row]:
        """One row for each network that is evaluated."""
        return [row for row in self.rows if row.chosen and row.same_as is None]

    @property
    def alike(self) -> list[Arch]:
        """Those that are evaluated, as far as they are known; else one of their size."""
        return [row.candidate.network for row in self.evaluated if row.candidate is not None] or [self.typical]

    @property
    def wanted(self) -> int:
        return (len(self.evaluated) or int(self.given["candidates"])) * self.seeds

    def left(self, before: Sequence[Evaluation]) -> int:
        """How many of them are still to come, after those of this study before, some of which nobody asks for now."""
        known = dict.fromkeys(result.network for result in before)
        networks = [network.key() for network in self.alike] if self.rows else list(known)[: self.wanted // self.seeds]
        here = [result for result in before if result.network in networks and result.replicate < self.seeds]
        stopped = {result.network for result in here if result.stopped}
        return self.wanted - sum(result.network not in stopped for result in here) - self.seeds * len(stopped)

    def kept(self, evaluations: int) -> str:
        """What a run says that ends too soon."""
        return f"{evaluations} of {self.wanted} evaluations are kept. To go on: {self.command()}"

    def command(self, **changes: object) -> str:
        """The command line that resumes this run, with options changed."""
        return command_line("scaling_search.grid", self.arguments, **{**changes, "name": self.folder.name})

    def compare_command(self) -> str:
        """The command line that sets what was found against the single dimensions, of the same network and data."""
        arguments = [argument for argument in self.arguments if re.split("[.=]", argument)[0] not in _GRID_ONLY]
        # On other seeds: those that the constants won with flatter them.
        changed = {"scaling": f"{self.folder}/scaling.yaml", "seed": self.given["seed"] + 1}
        return command_line("scaling_search.compare", arguments, **changed)


def _surface(given: Mapping[str, Any], subject: Subject) -> Surface:
    phi = check_number("phi", given["phi"], above=0, below=20)
    tolerance = check_number("tolerance", given["tolerance"], least=0, below=1)
    check_choice("constraint", given["constraint"], CONSTRAINTS)
    check_choice("rounding", given["rounding"], ROUNDINGS)
    return Surface(subject.baseline, phi, given["constraint"], tolerance, given["rounding"])


def _ranges(given: Mapping[str, Any]) -> Ranges:
    """What Optuna shows of each trial, and what a sampler chooses."""
    if given["sampler"] != "grid":
        return dict.fromkeys(SHARES, (0.0, 1.0))
    bounds = given["lattice"]
    return {name: (float(bounds[name][0]), float(bounds[name][1])) for name in ("alpha", "beta", "gamma")}


def _task(row: Row) -> Task:
    assert row.candidate is not None  # it is evaluated
    return Task(vars(row.coefficients), row.candidate.network)


def _constants(params: Params) -> Coefficients:
    """The constants of a trial."""
    if "alpha" in params:
        return Coefficients(float(params["alpha"]), float(params["beta"]), float(params["gamma"]))
    depth = float(params["depth_share"])
    return Coefficients.of_shares(depth, (1 - depth) * float(params["width_of_rest"]))


def _task_of(surface: Surface, bounds: Mapping[str, Sequence[float]]) -> Callable[[Params], Task | None]:
    """What a sampler chose -> its network, if the constants are within their bounds and it has one."""

    def task_of(params: Params) -> Task | None:
        constants = _constants(params)
        within = all(bounds[name][0] <= value <= bounds[name][1] for name, value in vars(constants).items())
        candidate = surface.row(constants).candidate if within else None
        return Task(params, candidate.network) if candidate else None

    return task_of


def _name(evaluation: Evaluation) -> str:
    return str(_constants(evaluation.params))


def _introduce(asked: _Asked) -> None:
    """Say what is about to happen."""
    surface, rows = asked.surface, asked.rows
    base = cost(surface.baseline).macs
    say(
        f"baseline {asked.given['baseline']}{variant_text(asked.given['variant'])}: "
        f"{macs_text(base)} at {surface.baseline.resolution} px; "
        f"phi={surface.phi:g}: candidates of {macs_text(surface.macs)}"
        + (f" within {surface.tolerance:.1%}" if surface.constraint == "realised" else " by the formula alone")
    )
    if not rows:
        say(f"{asked.given['sampler']} chooses {asked.given['candidates']} networks anywhere on the surface")
    else:
        feasible = [row for row in rows if row.candidate is not None]
        low, high = min(row.formula for row in rows), max(row.formula for row in rows)
        say(
            f"{len(rows)} constants with alpha*beta^2*gamma^2 ~ 2: the formula's networks really cost {low:.2f}x to "
            f"{high:.2f}x; {len(feasible)} are kept, {sum(row.same_as is None for row in feasible)} distinct networks, "
            f"{len(asked.evaluated)} of them evaluated with {asked.seeds} seed{'s' if asked.seeds > 1 else ''}"
        )
        if any(row.coefficients == PAPER and row.candidate is None for row in rows):
            say(f"note: the paper's {PAPER} has no network of these MACs; a larger tolerance= may let it in")
        if surface.constraint == "nominal" and high / low > 1.1:
            say("warning: their costs differ, so accuracies reward what is dearer; constraint=realised compares fairly")
    warn_of_enlarging(asked.subject, asked.alike)


def _plan_table(rows: Sequence[Row], base: int) -> Table:
    table = Table(title="candidates", title_justify="left")
    for heading in ("alpha, beta, gamma", "nominal", "formula's", "realised", "layers", "px", "phi"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        if row.chosen and row.same_as is None and row.candidate is not None:
            network = row.candidate.network
            costs = (row.nominal, row.formula, row.candidate.macs / base)
            shape = (str(network.blocks), str(network.resolution), f"{row.candidate.phi:.2f}")
            table.add_row(str(row.coefficients), *(f"{ratio:.2f}x" for ratio in costs), *shape)
    return table


def _save(asked: _Asked, study: Study) -> Outcome:
    """Write everything that is made from the study."""
    rows = list(asked.rows) or explored(asked.surface, [_constants(task.params) for task in study.tasks.values()])
    result = outcome(rows, study.evaluations)
    folder = asked.folder
    write_candidates(folder / "candidates.csv", asked.surface, result)
    about = about_of(asked.given, asked.names, asked.subject, asked.surface, asked.seeds)
    if result.best is not None:
        write_constants(folder / "scaling.yaml", asked.subject.named, asked.surface, result, about)
    seconds = sum(evaluation.seconds for evaluation in study.evaluations)
    write_summary(folder / "summary.json", result, about, seconds)
    page = report(folder.name, asked.surface, result, about, (folder / "config.yaml").read_text(), study.left)
    write_atomically(folder / "report.html", page)
    surface_picture(folder / "surface.png", asked.surface, result)
    return result


def _conclude(asked: _Asked, result: Outcome) -> int:
    """Say what was found, where it is, and what to type next. Returns the exit code."""
    folder = asked.folder
    if result.best is None:
        say(f"no candidate has a result: {result.counts}; see {folder}/candidates.csv")
        return 1
    CONSOLE.print(_best_table(asked.surface, result))
    surer = "" if result.ranking.within == 0 else f"surer with more seeds:\n  {asked.command(seeds=2 * asked.seeds)}\n"
    say("\n".join([result.verdict, *result.notes]))
    say(
        f"written: {folder}/ with scaling.yaml, candidates.csv, surface.png, summary.json, study.db\n"
        f"look at it: {folder}/report.html\n"
        f"{surer}against depth, width and resolution alone:\n"
        f"  {asked.compare_command()}"
    )
    return 0


def _best_table(surface: Surface, result: Outcome, most: int = 8) -> Table:
    table = Table(title="best constants", title_justify="left")
    for heading in ("alpha, beta, gamma", "mean", "of seeds", "over seeds, 95 %", "best", "MACs"):
        table.add_column(heading, no_wrap=True)
    ranking, base = result.ranking, cost(surface.baseline).macs
    for entry in result.in_order[:most]:
        assert entry.place is not None and entry.row.candidate is not None  # it was evaluated
        low, high, sure = ranking.low[entry.place], ranking.high[entry.place], ranking.probability_best[entry.place]
        table.add_row(
            entry.label,
            f"{ranking.mean[entry.place]:.4f}",
            f"{min(entry.accuracies):.3f}-{max(entry.accuracies):.3f}",
            "-" if low is None else f"{low:.3f}-{high:.3f}",
            "-" if sure is None else f"{sure:.2f}",
            f"{entry.row.candidate.macs / base:.2f}x",
        )
    return table


if __name__ == "__main__":
    run(main)
