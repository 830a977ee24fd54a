"""The picture of the whole chain in the README: search, scale, generate, train, each with results of its own.

    python -m nas.search experiment=b0 evaluator.path=anb_dataset_jsons.tar.gz
    python -m phinas.generate scaling=published phi=[0,1,2,3,4,5,6] name=published
    python -m phinas.generate scaling=dwr phi=[0,1,2,3,4,5,6] name=dwr
    python -m benchmarks.chain_picture [runs=runs] [figure=docs/chain.png]

The first panel is drawn from runs/b0-bayesian and runs/b0, the third from runs/published and runs/dwr; the second and
fourth from the tables of docs/results/scaling_cifar10.md and docs/results/train_cifar10.md, which name their commands.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from phinas.pages.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, PAPER, RED, png, styled

WIDTH = 1800  # pixels
DOCS = Path(__file__).parents[1] / "docs"
MONO = "DejaVu Sans Mono"
PLUM = "#9b4d86"  # the palette's purple, dark enough to stand behind white
STEPS = (
    ("1", "Search", "phinas search", "best.yaml", RED),
    ("2", "Scale", "phinas grid", "scaling.yaml", BLUE),
    ("3", "Generate", "phinas generate", "b1.yaml", GREEN),
    ("4", "Train", "phinas train", "", PLUM),
)
TARGET = 400  # M MACs
BUDGET = 16  # GiB


def chain_figure(runs: Path) -> Figure:
    """The chain as a strip of its four commands, and below it a panel for each."""
    with styled((10, 8.4)) as figure:
        figure.set_facecolor(PAPER)
        strip, panels = figure.subfigures(2, 1, height_ratios=(1, 7.6), hspace=0.05)
        figure.get_layout_engine().set(hspace=0.05, wspace=0.03)
        _draw_strip(strip)
        (first, second), (third, fourth) = panels.subplots(2, 2)
        _draw_search(first, runs)
        _draw_scale(second)
        _draw_generate(third, runs)
        _draw_train(fourth)
        for axes, step, says in (
            (first, STEPS[0], "500 networks looked at, ImageNet"),
            (second, STEPS[1], "12 constants at equal MACs, CIFAR-10"),
            (third, STEPS[2], "B0 by two rules of scaling"),
            (fourth, STEPS[3], "19.5M MACs, CIFAR-10, two CPU cores"),
        ):
            axes.set_title(f"{step[0]}  {step[1]}", color=step[4], fontsize=13, pad=24)
            axes.text(0, 1.035, says, transform=axes.transAxes, fontsize=9.5, color=MUTED)
    return figure


def _draw_strip(strip: Any) -> None:
    axes = strip.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 10))
    axes.axis("off")
    width, left = 14.5, 2.2
    axes.text(left + 4.5, 5, "your images,\na budget", ha="center", va="center", fontsize=9.5, color=INK)
    x = left + 11.6
    _arrow(axes, x - 2.2, x + 0.2)
    for number, (_, title, command, leaves, color) in enumerate(STEPS):
        axes.add_patch(
            FancyBboxPatch(
                (x + 0.7, 1.2), width - 1.4, 7.6, boxstyle="round,pad=0.5,rounding_size=1.2", fc=color, ec="none"
            )
        )
        axes.text(x + width / 2, 6.6, title, ha="center", va="center", color=PAPER, fontsize=11.5, fontweight="bold")
        axes.text(x + width / 2, 3.1, command, ha="center", va="center", color=PAPER, fontsize=7.6, family=MONO)
        x += width
        if number < len(STEPS) - 1:
            _arrow(axes, x + 0.4, x + 7.6)
            axes.text(x + 4, 7.2, leaves, ha="center", va="center", fontsize=7.4, family=MONO, color=INK)
            x += 8
    _arrow(axes, x + 0.4, x + 2.6)
    axes.text(x + 3.2, 5, "weights,\nONNX", ha="left", va="center", fontsize=9.5, color=INK)


def _arrow(axes: Axes, start: float, end: float) -> None:
    axes.add_patch(FancyArrowPatch((start, 5), (end, 5), arrowstyle="-|>", mutation_scale=12, lw=1.6, color=MUTED))


def _draw_search(axes: Axes, runs: Path) -> None:
    trials = [row for row in _rows(runs / "b0-bayesian" / "trials.csv") if row["accuracy"]]
    known = {row["network"]: row for row in _rows(runs / "b0" / "comparison.csv") if row["source"] == "predicted"}
    best = max(trials, key=lambda row: float(row["reward"]))
    shown = [row for row in trials if 80e6 < float(row["macs"]) < 580e6 and float(row["accuracy"]) > 0.595]
    for rows, color, label in ((trials[:100], GRID, "the first 100"), (trials[100:], ORANGE, "the other 400")):
        axes.scatter(
            [float(row["macs"]) / 1e6 for row in rows], [100 * float(row["accuracy"]) for row in rows],
            s=13, color=MUTED if color == GRID else color, alpha=0.55, lw=0, label=label, zorder=3,
        )  # fmt: skip
    b0 = known["EfficientNet-B0"]
    for row, marker, color, name, shift in (
        (best, "*", RED, "found", (-16, 25)),
        (b0, "D", INK, "B0", (9, -14)),
    ):
        x, y = float(row["macs"]) / 1e6, 100 * float(row["accuracy"])
        axes.scatter([x], [y], s=190 if marker == "*" else 48, marker=marker, color=color, ec=PAPER, lw=0.9, zorder=5)
        axes.annotate(
            f"{name}: {y:.1f}%, {x:.0f}M", (x, y), xytext=shift, textcoords="offset points", fontsize=9, color=color,
            fontweight="bold", ha="right" if shift[0] < 0 else "left", zorder=6,
        )  # fmt: skip
    macs = np.linspace(80, 580, 200)
    equal = 100 * float(best["reward"]) * (macs / TARGET) ** 0.07  # accuracy * (MACs / target) ** -0.07 is the reward
    axes.plot(macs, equal, color=RED, lw=1.1, zorder=2)
    axes.annotate(
        "equal reward", (macs[30], equal[30]), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8.5,
        color=RED, rotation=17, rotation_mode="anchor",
    )  # fmt: skip
    axes.axvline(TARGET, color=MUTED, lw=1.1, ls=(0, (4, 3)), zorder=2)
    axes.text(TARGET - 6, 0.03, "target", ha="right", fontsize=8.5, color=MUTED, transform=axes.get_xaxis_transform())
    axes.set(xlabel="MACs of one image, M", ylabel="Top-1 accuracy, predicted, %", xlim=(80, 580), ylim=(59.5, 68.5))
    axes.legend(
        loc="lower right", title=f"{len(trials) - len(shown)} lie outside", title_fontsize=8.5, handletextpad=0.1
    )


def _draw_scale(axes: Axes) -> None:
    header, *rows = _table(DOCS / "results" / "scaling_cifar10.md", "alpha, beta, gamma")
    at = {name: position for position, name in enumerate(header)}
    rows.reverse()  # the best on top
    for y, row in enumerate(rows):
        low, high = (100 * float(value) for value in row[at["true accuracy, 95 %"]].split(" to "))
        mean = 100 * float(row[at["mean"]])
        top = y == len(rows) - 1
        paper = row[0] == "1.2, 1.1, 1.15"
        color = BLUE if top else ORANGE if paper else MUTED
        axes.plot([low, high], [y, y], color=color, lw=2.4 if top or paper else 1.5, solid_capstyle="round", zorder=3)
        axes.scatter([mean], [y], s=34 if top or paper else 18, color=color, zorder=4)
        if top:
            axes.annotate(
                f"the best with probability {row[at['best with']]}", (low, y), xytext=(-8, 0),
                textcoords="offset points", ha="right", va="center", fontsize=9, color=color, fontweight="bold",
            )  # fmt: skip
        if paper:
            axes.annotate(
                "the paper's", (high, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9,
                color=color, fontweight="bold",
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylabel("depth, width, resolution times")
    axes.set_xlabel("Accuracy at twice the MACs, 95% interval, %")


def _draw_generate(axes: Axes, runs: Path) -> None:
    looks = (("published", GREEN, "B{}", "scaling=published"), ("dwr", BLUE, "{}", "scaling=dwr"))
    for name, color, text, label in looks:
        rows = _rows(runs / name / "family.csv")
        macs = [float(row["macs"]) / 1e9 for row in rows]
        memory = [float(row["memory"]) / 2**30 for row in rows]
        axes.plot(macs, memory, color=color, lw=1.9, marker="o", ms=6.5, mec=PAPER, mew=0.8, label=label, zorder=4)
        for row, x, y in zip(rows, macs, memory, strict=True):
            number = text.format(f"{float(row['phi']):g}")
            above = name == "published"
            if float(row["phi"]) == 0 and not above:
                continue
            axes.annotate(
                number if above else f"phi={number}", (x, y), xytext=(-7, 4) if above else (6, -9),
                textcoords="offset points", ha="right" if above else "left", fontsize=8.5, color=color,
            )  # fmt: skip
    axes.axhline(BUDGET, color=MUTED, lw=1.1, ls=(0, (4, 3)), zorder=2)
    axes.text(
        0.02,
        BUDGET * 1.06,
        f"a budget of {BUDGET} GiB",
        transform=axes.get_yaxis_transform(),
        fontsize=8.5,
        color=MUTED,
    )
    axes.set(xscale="log", yscale="log", xlabel="MACs of one image, G", ylabel="Memory to train at batch 32, GiB")
    for axis, ticks in ((axes.xaxis, (0.5, 1, 2, 5, 10, 20)), (axes.yaxis, (3, 5, 10, 20, 50, 100))):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(0.26, 42)
    axes.legend(loc="lower right")


def _draw_train(axes: Axes) -> None:
    page = DOCS / "results" / "train_cifar10.md"
    _, *rows = _table(page, "epoch")
    minutes = [float(row[4]) / 60 for row in rows]
    accuracy = [100 * float(row[3]) for row in rows]
    tested = re.search(r"\*\*([\d.]+)%\s+of\s+the\s+10,000\s+test\s+images\*\*", page.read_text())
    assert tested, f"{page} says no accuracy of the test images"
    axes.plot(minutes, accuracy, color=PLUM, lw=2.2, marker="o", ms=4.5, mec=PAPER, mew=0.6, zorder=4)
    change = (minutes[15] + minutes[16]) / 2
    axes.axvspan(0, change, color=GRID, alpha=0.35, lw=0, zorder=1)
    for x, text, side in ((change - 0.6, "at 24 px", "right"), (change + 0.6, "at 32 px", "left")):
        axes.text(x, 0.03, text, transform=axes.get_xaxis_transform(), ha=side, fontsize=9, color=MUTED)
    axes.annotate(
        f"{float(tested[1]):.1f}% of the test images", (minutes[-1], accuracy[-1]), xytext=(0, 13),
        textcoords="offset points", ha="right", fontsize=9.5, color=PLUM, fontweight="bold",
    )  # fmt: skip
    axes.set(xlabel="Minutes", ylabel="Accuracy on images held out, %", xlim=(0, 43.5), ylim=(40, 92))


def _table(page: Path, first: str) -> list[list[str]]:
    """The first table of `page` whose first column is `first`: its header, and its rows."""
    lines = iter(page.read_text().splitlines())
    header = next(line for line in lines if line.startswith(f"| {first} |"))
    next(lines)
    rows = [header]
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(line)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main(arguments: list[str]) -> None:
    given = {"runs": "runs", "figure": "docs/chain.png"} | dict(text.split("=", 1) for text in arguments)
    png(chain_figure(Path(given["runs"])), given["figure"], WIDTH)


if __name__ == "__main__":
    main(sys.argv[1:])
