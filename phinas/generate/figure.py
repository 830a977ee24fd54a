"""The networks of a family by what they cost, beside the ConvNets that EfficientNet was compared with."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from phinas.files.bytes import bytes_text
from phinas.generate.family import Family
from phinas.generate.rules import made_for
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.memory import memory
from phinas.networks.reference import RESNET_50, RESNET_152, efficientnet
from phinas.pages.axes import cost_axis, cost_tick
from phinas.pages.labels import label_points
from phinas.pages.style import BLUE, GREEN, MUTED, PAPER, styled

_TABLE = Path(__file__).with_name("table2_imagenet.csv")  # table 2 of arXiv 1905.11946, as printed

# Those of the table that can be built here, so that their memory is known.
_BUILT: dict[str, Arch] = {
    "ResNet-50": RESNET_50,
    "ResNet-152": RESNET_152,
    **{f"EfficientNet-B{number}": efficientnet(f"b{number}") for number in range(8)},
}


@dataclass(frozen=True)
class Point:
    """A network in a panel: `x` is the panel's cost, beside the multiply-adds; numpy takes floats of any size."""

    name: str
    macs: float
    x: float

    @property
    def efficientnet(self) -> bool:
        return self.name.startswith("EfficientNet")


def family_figure(family: Family) -> Figure:
    """MACs against parameters and against memory: the family as a line by phi, and the ConvNets of the paper's table 2.

    Parameters and MACs of those are what the paper prints; memory is that of the networks that can be built here, by
    `phinas.networks.memory`, for the same step as the family's.
    """
    members = sorted(family.members, key=lambda member: member.phi)
    names = short_names([member.name for member in members])
    macs = [float(member.cost.macs) for member in members]
    own = [
        [Point(*point) for point in zip(names, macs, map(float, sizes), strict=True)]
        for sizes in ([member.cost.params for member in members], [member.memory.total for member in members])
    ]
    built = [
        Point(name, float(cost(arch).macs), float(memory(arch, **family.memory_of).total))
        for name, arch in _BUILT.items()
    ]
    itself = family.rule.name == "published" and made_for(family.baseline)  # compared with what it is, nothing is seen
    others = [[point for point in points if not (point.efficientnet and itself)] for points in (convnets(), built)]
    with styled((12, 6.3)) as figure:
        panels = figure.subplots(1, 2, sharey=True, width_ratios=(1.3, 1))
        _macs_axis(panels[0], [point for points in (*own, *others) for point in points])
        sizes = [point.x for point in (*own[0], *others[0])]
        cost_axis(panels[0], "params", sizes)
        _with_room(panels[0], min(sizes), max(sizes))
        _memory_axis(panels[1], [point.x for point in (*own[1], *others[1])])
        panels[1].set_xlabel(f"Memory of {_step(family)}, logarithmic")
        for panel in zip(panels, own, others, strict=True):
            _draw(*panel, f"{family.baseline_name} by scaling={family.rule.name}")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        for panel in zip(panels, own, others, strict=True):
            _label(*panel)
    return figure


def convnets() -> list[Point]:
    """The networks of table 2 of arXiv 1905.11946 whose MACs it prints, each once."""
    with _TABLE.open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file) if row["flops_B"]}
    return [
        Point(name, round(1e9 * float(row["flops_B"])), round(1e6 * float(row["params_M"])))
        for name, row in rows.items()
    ]


def short_names(names: Sequence[str]) -> list[str]:
    """Names without what they all begin with, up to a `_`: B0, B1; a phi as phi=0.5."""
    shared = os.path.commonprefix(list(names)).rpartition("_")[0] if len(names) > 1 else ""
    short = [name.removeprefix(f"{shared}_") if shared else name for name in names]
    return [name.replace("phi", "phi=") if name.startswith("phi") else name.upper() if len(name) < 3 else name
            for name in short]  # fmt: skip


def _draw(axes: Axes, own: Sequence[Point], others: Sequence[Point], title: str) -> None:
    compared = [point for point in others if not point.efficientnet]
    axes.scatter(
        [point.x for point in compared], [point.macs for point in compared], s=30, facecolors=PAPER, edgecolors=MUTED,
        linewidths=1.3, zorder=3, label="ConvNets of table 2 of arXiv 1905.11946",
    )  # fmt: skip
    if efficientnets := [point for point in others if point.efficientnet]:
        axes.plot(
            [point.x for point in efficientnets], [point.macs for point in efficientnets], color=GREEN, lw=1.1,
            ls=(0, (4, 3)), marker="o", markersize=4.5, markerfacecolor=PAPER, zorder=2.5,
            label="EfficientNets of that table",
        )  # fmt: skip
    axes.plot(
        [point.x for point in own], [point.macs for point in own], color=BLUE, lw=1.9, marker="o", markersize=7,
        markeredgecolor=PAPER, markeredgewidth=0.8, zorder=5, label=title,
    )  # fmt: skip


def _label(axes: Axes, own: Sequence[Point], others: Sequence[Point]) -> None:
    """Each network by its name, but for the EfficientNets between the first and the last."""
    efficientnets = [point for point in others if point.efficientnet]
    points = [(point.x, point.macs, point.name, BLUE) for point in own]
    points += [(point.x, point.macs, point.name[-2:], GREEN) for point in efficientnets[:1] + efficientnets[-1:]]
    groups = _neighbours([point for point in others if not point.efficientnet])
    for close in sorted(groups, key=len, reverse=True):  # the largest label finds its place first
        points.append((close[0].x, close[0].macs, "\n".join(point.name for point in close), MUTED))
    marks = [(point.x, point.macs) for point in others]
    label_points(axes, points, crowd=[*marks, *_way(own), *_way(efficientnets)])


def _neighbours(points: Sequence[Point]) -> list[list[Point]]:
    """The points in groups whose marks lie upon each other: one label is for all of them."""
    groups: list[list[Point]] = []
    for point in points:
        for group in groups:
            if max(abs(math.log(point.x / group[0].x)), abs(math.log(point.macs / group[0].macs))) < 0.07:
                group.append(point)
                break
        else:
            groups.append([point])
    return groups


def _way(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Places along the line through the points, for labels to keep off."""
    count = 300 // max(1, len(points))
    return [
        (float(x), float(macs))
        for start, end in zip(points, points[1:], strict=False)
        for x, macs in zip(np.geomspace(start.x, end.x, count), np.geomspace(start.macs, end.macs, count), strict=True)
    ]


def _macs_axis(axes: Axes, points: Sequence[Point]) -> None:
    low, high = min(point.macs for point in points), max(point.macs for point in points)
    steps = (1, 2, 5) if high / low < 3e3 else (1,)
    axes.set_yscale("log")
    _ticks(axes.yaxis, [step * 10.0**decade for decade in range(3, 15) for step in steps], _macs_text)
    room = (high / low) ** 0.06
    axes.set_ylim(low / room, high * room**1.5)
    axes.set_ylabel("MACs (multiply-adds) of one image, logarithmic")


def _macs_text(value: float) -> str:
    return cost_tick("macs", value)


def _memory_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """Ticks at powers of 2, as memory comes, or at parts of them where those are few."""
    low, high = min(sizes), max(sizes)
    doublings = math.log2(high / low)
    every = max(1, math.ceil(doublings / 6))
    steps = (1, 1.25, 1.5, 1.75) if doublings < 1.5 else (1, 1.5) if doublings < 3 else (1,)
    axes.set_xscale("log")
    _ticks(axes.xaxis, [step * 2.0**power for power in range(10, 61, every) for step in steps], _round_size)
    _with_room(axes, low, high)


def _with_room(axes: Axes, low: float, high: float) -> None:
    """Room for labels beside the outermost marks."""
    room = (high / low) ** 0.07
    axes.set_xlim(low / room, high * room)


def _round_size(size: float) -> str:
    number, unit = bytes_text(int(size)).split()
    return f"{float(number.replace(',', '')):g} {unit}"


def _ticks(axis: Axis, places: Sequence[float], text: Callable[[float], str]) -> None:
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def _step(family: Family) -> str:
    of = family.memory_of
    what = "inference" if of["mode"] == "infer" else "a step of training"
    return f"{what} at batch {of['batch_size']} in {of['dtype']}"
