"""What a transfer leaves behind: `summary.json`, `table.md`, `report.html` and `transfer.png`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from phinas.command.run_folder import write_json
from phinas.files.atomic_file import write_atomically
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.pages.axes import cost_axis
from phinas.pages.cost_text import cost_short
from phinas.pages.labels import label_points
from phinas.pages.page import drawing, render
from phinas.pages.style import BLUE, MUTED, ORANGE, PAPER, png, styled
from phinas.training.data.training_data import TrainingData
from phinas.transfer.data_sets import Described
from phinas.transfer.plan import Contender, Results, contender_name

PICTURE_WIDTH = 1600  # pixels
_COLUMNS = 4  # panels beside each other
_HEADINGS = ("data set", "network", "params", "lr", "decay", "held out", "test")


@dataclass(frozen=True, eq=False)
class Entrant:
    """A data set, and what is transferred to it; `described` where it is one of table 6."""

    name: str
    source: TrainingData
    described: Described | None
    contenders: tuple[Contender, ...]

    @property
    def title(self) -> str:
        return self.name if self.described is None else self.described.title


@dataclass(frozen=True)
class Standing:
    """How a contender did.

    params    without the classifier, as table 5 counts them.
    cell      the learning rate and weight decay that did best on what is held out; None where that is not known.
    held_out  how well; None where there was nothing to choose.
    tests     accuracies on the test split, by seed.
    errors    of the trainings that failed.
    """

    contender: Contender
    params: int
    macs: int
    cell: tuple[float, float] | None
    held_out: float | None
    tests: tuple[float, ...]
    errors: tuple[str, ...]

    @property
    def mean(self) -> float | None:
        return fmean(self.tests) if self.tests else None

    @property
    def spread(self) -> float | None:
        """The standard deviation between seeds; None of fewer than two."""
        return stdev(self.tests) if len(self.tests) > 1 else None

    @property
    def text(self) -> str:
        """The test accuracy as people say it: `85.12 ± 0.40 %`."""
        if self.mean is None:
            return "–"
        spread = "" if self.spread is None else f" ± {100 * self.spread:.2f}"
        return f"{100 * self.mean:.2f}{spread} %"


@dataclass(frozen=True)
class Outcome:
    """What was found so far; `complete` where every contender was tested with all its seeds."""

    entrants: tuple[tuple[Entrant, tuple[Standing, ...]], ...]
    complete: bool

    @property
    def notes(self) -> list[str]:
        """What a reader should know besides, one sentence each."""
        said = []
        for entrant, standings in self.entrants:
            said += _gains(entrant, standings)
            for standing in standings:
                said += _edges(entrant, standing)
        for entrant, standings in self.entrants:
            for standing in standings:
                if errors := standing.errors:
                    said.append(f"{entrant.name}, {standing.contender.name}: {len(errors)} failed: {errors[0]}.")
        return said


def outcome(entrants: Sequence[Entrant], results: Results, seed: int, seeds: int) -> Outcome:
    """What the results come to; finals that were not of the best cell of the grid as it is now do not count."""
    standings = [tuple(_standing(each, results, seed, seeds) for each in entrant.contenders) for entrant in entrants]
    complete = all(len(standing.tests) == seeds for of_entrant in standings for standing in of_entrant)
    return Outcome(tuple(zip(entrants, standings, strict=True)), complete)


def _standing(contender: Contender, results: Results, seed: int, seeds: int) -> Standing:
    cell = contender.best(results, seed)
    tried = [(trial, results.of(trial)) for trial in contender.grid(seed)]
    finals = [] if cell is None else [results.of(trial) for trial in contender.finals(cell, seed, seeds)]
    held_out = [row.accuracy for trial, row in tried if row is not None and (trial.lr, trial.weight_decay) == cell]
    rows = [row for row in [*(row for _, row in tried), *finals] if row is not None]
    return Standing(
        contender,
        params_without_classifier(contender.arch),
        cost(contender.arch).macs,
        cell,
        held_out[0] if held_out else None,
        tuple(row.accuracy for row in finals if row is not None and row.accuracy is not None),
        tuple(row.error for row in rows if row.error is not None),
    )


def params_without_classifier(arch: Arch) -> int:
    """As table 5 counts parameters: they are the same on every data set."""
    of_one_class, of_two_classes = (cost(replace(arch, classes=classes)).params for classes in (1, 2))
    return 2 * of_one_class - of_two_classes


def _gains(entrant: Entrant, standings: Sequence[Standing]) -> list[str]:
    """What weights to start from are worth, of the networks that were trained from fresh ones too."""
    said = []
    by_name = {standing.contender.name: standing for standing in standings}
    for standing in standings:
        scratch = by_name.get(contender_name(standing.contender.model, "scratch"))
        if standing.contender.start == "scratch" or scratch is None or standing.mean is None or scratch.mean is None:
            continue
        points = 100 * (standing.mean - scratch.mean)
        every = min(standing.tests) > max(scratch.tests) and len(standing.tests) > 1
        said.append(
            f"{entrant.name}: {standing.contender.model} fine-tuned is {abs(points):.2f} points "
            f"{'above' if points >= 0 else 'below'} the same from scratch"
            + (", every seed above every other." if every else ".")
        )
    return said


def _edges(entrant: Entrant, standing: Standing) -> list[str]:
    """Where a grid should have gone on: its best is its end."""
    said, contender = [], standing.contender
    prefix = "" if contender.start == "pretrained" else "scratch_"
    for option, values, value in (
        ("lr", contender.lrs, None if standing.cell is None else standing.cell[0]),
        ("weight_decay", contender.weight_decays, None if standing.cell is None else standing.cell[1]),
    ):
        if value and len(values) > 2 and value in (min(values), max(values)):  # nothing lies beyond 0
            end = "smallest" if value == min(values) else "largest"
            said.append(
                f"{entrant.name}, {contender.name}: the best {prefix}{option}, {value:g}, is the {end} of the grid; "
                "one beyond it may be better."
            )
    return said


# ------------------------------------------------------------------------------------------------------------- writing


def write_all(folder: Path, found: Outcome, command: str, left: int) -> None:
    """All of them, from what was found so far.

    command  what resumes the run.
    left     trainings that are still to come.
    """
    write_json(folder / "summary.json", _summary(found, left))
    write_atomically(folder / "table.md", table_text(found))
    write_atomically(folder / "report.html", report(folder, found, command, left))
    png(transfer_figure(found), folder / "transfer.png", PICTURE_WIDTH)


def table(found: Outcome) -> list[tuple[str, ...]]:
    """Headings and rows, one for each contender, and one for each network of table 5 on the same data."""
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for entrant, standings in found.entrants:
        for standing in standings:
            cell = ("–", "–") if standing.cell is None else tuple(f"{value:g}" for value in standing.cell)
            held_out = "–" if standing.held_out is None else f"{100 * standing.held_out:.2f} %"
            params = cost_short("params", standing.params)
            rows.append((entrant.title, standing.contender.name, params, *cell, held_out, standing.text))
        for printed in () if entrant.described is None else entrant.described.results:
            params = "–" if printed.params is None else f"{printed.params:g}M"
            rows.append(
                (entrant.title, f"{printed.name} (table 5)", params, "–", "–", "–", f"{printed.accuracy:.1f} %")
            )
    return rows


def table_text(found: Outcome) -> str:
    """The table as Markdown."""
    headings, *rows = table(found)
    lines = [headings, tuple("---:" if place > 1 else "---" for place in range(len(headings))), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def report(folder: Path, found: Outcome, command: str, left: int) -> str:
    """The whole report as one page that asks for no other file."""
    failed = (error for _, standings in found.entrants for standing in standings for error in standing.errors)
    return render(
        Path(__file__).with_name("report.html"),
        folder.name,
        enumerate(failed),
        (folder / "config.yaml").read_text(),
        left=left,
        notes=found.notes,
        figure=drawing(transfer_figure(found), "Parameters against accuracy on the test split of each data set"),
        headings=_HEADINGS,
        rows=table(found)[1:],
        command=command,
    )


def _summary(found: Outcome, left: int) -> dict[str, Any]:
    return {
        "command": "phinas.transfer",
        "finished": left == 0,
        "complete": found.complete,
        "sets": {
            entrant.name: {
                "title": entrant.title,
                "classes": len(entrant.source.classes),
                "images": {
                    "train": entrant.source.train_count,
                    "held_out": entrant.source.held_out_count,
                    "test": entrant.source.test_count,
                },
                "networks": [_network(standing) for standing in standings],
            }
            for entrant, standings in found.entrants
        },
        "notes": found.notes,
    }


def _network(standing: Standing) -> dict[str, Any]:
    return {
        "model": standing.contender.model,
        "start": standing.contender.start,
        "params_without_classifier": standing.params,
        "macs": standing.macs,
        "lr": None if standing.cell is None else standing.cell[0],
        "weight_decay": None if standing.cell is None else standing.cell[1],
        "held_out": standing.held_out,
        "test": {"mean": standing.mean, "spread": standing.spread, "seeds": list(standing.tests)},
        "errors": list(standing.errors),
    }


# -------------------------------------------------------------------------------------------------------------- drawing


def transfer_figure(found: Outcome) -> Figure:
    """Parameters against accuracy, a panel for each data set; where table 5 has the data, its networks too."""
    count = len(found.entrants)
    columns = min(count, _COLUMNS)
    lines = -(-count // columns)
    with styled((max(6.4, 3.6 * columns), 3.4 * lines + 0.4)) as figure:
        panels = figure.subplots(lines, columns, squeeze=False).flat
        for axes, (entrant, standings) in zip(panels, found.entrants, strict=False):
            _panel(axes, entrant, standings)
        for axes in list(figure.axes)[count:]:
            axes.remove()
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, entrant: Entrant, standings: Sequence[Standing]) -> None:
    axes.set_title(entrant.title)
    axes.set_ylabel("Test accuracy, %")
    labels: list[tuple[float, float, str, str]] = []
    for start, color, label in (("pretrained", BLUE, "fine-tuned here"), ("scratch", MUTED, "from scratch here")):
        ours = [standing for standing in standings if standing.contender.start == start and standing.mean is not None]
        if ours:
            ours = sorted(ours, key=lambda standing: standing.params)
            heights = [100 * (standing.mean or 0) for standing in ours]
            spreads = [100 * (standing.spread or 0) for standing in ours]
            axes.errorbar([standing.params for standing in ours], heights, spreads, fmt="o-", color=color,
                          capsize=2.5, label=label, zorder=5)  # fmt: skip
            labels += [
                (standing.params, height, standing.contender.model, color)
                for standing, height in zip(ours, heights, strict=True)
            ]
    printed = () if entrant.described is None else entrant.described.results
    for of_paper, color, label in ((True, ORANGE, "EfficientNet, table 5"), (False, MUTED, "others, table 5")):
        points = [
            (1e6 * network.params, network.accuracy, network.name)
            for network in printed
            if network.ours == of_paper and network.params is not None
        ]
        if points:
            axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "s" if of_paper else "^", color=color,
                      markerfacecolor=PAPER, label=label)  # fmt: skip
            labels += [(x, y, name, color) for x, y, name in points]
    _params_axis(axes, [x for x, _, _, _ in labels] or [1e6])
    axes.margins(y=0.15)
    label_points(axes, labels)


def _params_axis(axes: Axes, values: Sequence[float]) -> None:
    """As `cost_axis`, with as few ticks as a narrow panel has room for."""
    cost_axis(axes, "params", values)
    axes.set_xlabel("Parameters without the classifier")
    spread = max(values) / min(values)
    if spread > 3:
        digits = (1, 2, 5) if spread < 30 else (1,)
        axes.xaxis.set_major_locator(
            FixedLocator([digit * 10.0**decade for decade in range(3, 12) for digit in digits])
        )
