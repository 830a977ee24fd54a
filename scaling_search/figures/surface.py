"""The surface of equal cost, with the accuracy of every candidate on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from phinas.networks.compound import PAPER
from phinas.pages.style import GRID, INK, MUTED, RED, styled
from scaling_search.figures.shown import Shown, ranked

_HEIGHT = math.sqrt(3) / 2  # of a triangle whose sides are 1
_APART = 0.024  # of a side; markers that would hide each other are moved this far apart
_RING = 2.3  # area of a ring around a mark / area of the mark
_LEFT, _LETTER, _LABEL_SIZE = -0.1, 0.0133, 8.5  # labels beside the triangle: edge, width of a letter, and points
_SHARES = (0.2, 0.4, 0.6, 0.8)
# Viridis is even to the eye and to colour-blind eyes; its ends would be lost on a dark page and on a white one.
_COLORS = LinearSegmentedColormap.from_list("accuracy", colormaps["viridis"](np.linspace(0.12, 0.95, 64)))


def surface_figure(candidates: Sequence[Shown]) -> Figure:
    """The surface of constant alpha * beta^2 * gamma^2: a triangle over the shares of depth, width and resolution.

    Each candidate is a mark whose colour is its mean accuracy; marks of nearly the same shares stand side by side. The
    colours' scale leaves out what is far below the rest. The best and the paper's constants are labelled.
    """
    with styled((6.6, 5.6)) as figure:
        axes = figure.add_subplot()
        _draw_triangle(axes)
        _draw_candidates(axes, candidates)
    return figure


def _draw_triangle(axes: Axes) -> None:
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.12, _HEIGHT + 0.075), aspect="equal")
    axes.axis("off")
    for share in _SHARES:
        rest = 1 - share
        lines = {  # of equal share, with where its tick stands, and how that is turned
            "depth": ((share, rest, 0.0), (share, 0.0, rest), "right", 0),
            "width": ((0.0, share, rest), (rest, share, 0.0), "left", -60),
            "resolution": ((rest, 0.0, share), (0.0, rest, share), "left", 60),
        }
        for start, end, side, turn in lines.values():
            (x, y), (x_end, y_end) = place(*start), place(*end)
            axes.plot([x, x_end], [y, y_end], color=GRID, lw=0.8, zorder=1)
            away = 0.028 / math.hypot(x - x_end, y - y_end)
            axes.text(
                x + away * (x - x_end), y + away * (y - y_end), f"{share:.0%}", ha=side, va="center", fontsize=7.5,
                color=MUTED, rotation=turn, rotation_mode="anchor",
            )  # fmt: skip
    corners = [place(1, 0, 0), place(0, 1, 0), place(0, 0, 1)]
    axes.plot(*zip(*corners, corners[0], strict=True), color=MUTED, lw=1.1, zorder=1.5)
    for x, y, text, turn in (
        (0.157, 0.487, "share of depth →", 60),
        (0.5, -0.097, "← share of width", 0),
        (0.843, 0.487, "share of resolution →", -60),
    ):
        axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK, rotation=turn)
    for x, y, text, side in (
        (0.5, _HEIGHT + 0.035, "depth only", "center"),
        (-0.06, -0.108, "width only", "left"),
        (1.06, -0.108, "resolution only", "right"),
    ):
        axes.text(x, y, text, ha=side, va="bottom", fontsize=9.5, fontweight="bold", color=INK)


def _draw_candidates(axes: Axes, candidates: Sequence[Shown]) -> None:
    centres = apart([place(*candidate.coefficients.shares) for candidate in candidates])
    order = ranked(candidates)
    means = [candidate.mean or 0.0 for candidate in order]
    scale = _scale(means)
    size = 80 - 32 * float(np.clip((len(candidates) - 20) / 80, 0, 1))  # smaller from 20 marks to 100
    states = [candidate.state for candidate in candidates]
    handles: list[tuple[Any, str]] = []  # of the legend

    def draw(chosen: Sequence[bool], **look: Any) -> PathCollection:
        marks = centres[list(chosen)]
        return axes.scatter(marks[:, 0], marks[:, 1], **look)

    example = {
        state: axes.scatter([], [], s=area, color=_COLORS(0.6), edgecolors=MUTED, linewidths=0.6)
        for state, area in (("evaluated", size), ("shared", 0.4 * size))
    }
    for state, told, area in (("evaluated", "evaluated", size), ("shared", "the same network as another", 0.4 * size)):
        if state in states:
            colors = _COLORS(scale([candidate.mean or 0.0 for candidate in candidates if candidate.state == state]))
            draw([own == state for own in states], s=area, c=colors, edgecolors=MUTED, linewidths=0.6, zorder=4)
            handles.append((example[state], told))
    if len(order) > 1 and order[0].probability_best is not None:
        rivals = [shown.contender and shown.state == "evaluated" and shown is not order[0] for shown in candidates]
        rings = draw(rivals, s=_RING * size, facecolors="none", edgecolors=INK, linewidths=1.3, zorder=5)
        handles += [((example["evaluated"], rings), "may be the best (95%)")] if any(rivals) else []
    looks: dict[str, tuple[str, dict[str, Any]]] = {
        "waiting": ("not evaluated", {"s": 0.7 * size, "facecolors": "none", "edgecolors": MUTED}),
        "failed": ("failed", {"s": 0.6 * size, "marker": "x", "color": INK}),
        "dropped": ("no network of equal cost", {"s": 10, "color": MUTED}),
    }
    for kind, (told, look) in looks.items():
        if kind in states:
            handles.append((draw([state == kind for state in states], linewidths=1.2, zorder=3, **look), told))
    if handles:
        columns = len(handles) if len(handles) <= 4 else 3
        axes.figure.legend(*zip(*handles, strict=True), loc="outside lower center", ncols=columns)
    if scale.vmin is not None and len(set(means)) > 1:
        _draw_scale(axes, scale, min(means) < scale.vmin)
    _draw_labels(axes, candidates, centres, size)


def _draw_labels(axes: Axes, candidates: Sequence[Shown], centres: npt.NDArray[np.float64], size: float) -> None:
    """Name the best and the paper's constants, beside the triangle: within it the names would hide candidates."""
    best = next(iter(ranked(candidates)), None)
    labels: list[_Label] = []
    for candidate, (x, y) in zip(candidates, centres.tolist(), strict=True):
        accuracy = "" if candidate.mean is None else f": {100 * candidate.mean:.2f}%"
        if candidate is best:
            axes.scatter([x], [y], s=_RING * size, facecolors="none", edgecolors=RED, linewidths=1.6, zorder=5)
            labels.append(_Label(x, y, f"the best so far\n{candidate.title}{accuracy}", RED, _RING * size))
        elif candidate.coefficients == PAPER:
            axes.scatter([x], [y], s=size, facecolors="none", edgecolors=INK, linewidths=1.6, zorder=5)
            labels.append(_Label(x, y, f"the paper's\n{candidate.label}{accuracy}", INK, size))
    if all(candidate.coefficients != PAPER for candidate in candidates):
        x, y = place(*PAPER.shares)
        axes.scatter([x], [y], marker="+", s=size, color=INK, linewidths=1.2, zorder=5)
        labels.append(_Label(x, y, f"the paper's {PAPER}\nis no candidate", INK, size))
    for label, height in zip(labels, _heights(labels, centres), strict=True):
        axes.annotate(
            label.text, (label.x, label.y), xytext=(_LEFT, height), va="center", fontsize=_LABEL_SIZE,
            color=label.color, zorder=2.5,
            arrowprops={"arrowstyle": "-", "color": label.color, "lw": 0.8, "shrinkA": 2,
                        "shrinkB": 0.5 * math.sqrt(label.area), "relpos": (1.0, 0.5)},
        )  # fmt: skip


@dataclass(frozen=True)
class _Label:
    """Text beside the triangle, with a line to the mark at (x, y), whose `area` is in square points."""

    x: float
    y: float
    text: str
    color: str
    area: float

    @property
    def end(self) -> float:
        """Where the text ends, about."""
        return _LEFT + _LETTER * max(map(len, self.text.splitlines()))


def _heights(labels: Sequence[_Label], marks: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Where labels stand so that their lines run under few marks, and across no other line or label."""

    def trouble(heights: tuple[float, ...]) -> float:
        lines = [
            np.linspace((label.end, height), (label.x, label.y), 200)[:-12]
            for label, height in zip(labels, heights, strict=True)
        ]
        penalty = sum(float((_distance(marks, line).min(1) < _APART / 2).sum()) for line in lines) - 0.1 * sum(heights)
        for first, second in itertools.permutations(range(len(labels)), 2):
            x, y = lines[first].T
            hidden = bool(((x < labels[second].end + 0.01) & (abs(y - heights[second]) < 0.045)).any())
            crossed = float(_distance(lines[first], lines[second]).min()) < 0.01
            penalty += 100 * (hidden or crossed or abs(heights[first] - heights[second]) < 0.11)
        return penalty

    steps = [_HEIGHT + 0.03 - 0.03 * step for step in range(9)]
    return min(itertools.permutations(steps, len(labels)), key=trouble)


def _distance(points: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[N, M] between N points and M others."""
    return np.asarray(np.linalg.norm(points[:, None] - others, axis=2), dtype=float)


def _draw_scale(axes: Axes, scale: Normalize, below: bool) -> None:
    bar = axes.inset_axes((0.895, 0.56, 0.026, 0.36))
    colors = axes.figure.colorbar(
        ScalarMappable(scale, _COLORS), cax=bar, extend="min" if below else "neither", drawedges=False
    )
    colors.outline.set_visible(False)
    bar.grid(False)
    bar.yaxis.set_major_locator(MaxNLocator(5))
    bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    bar.tick_params(labelsize=8.5, length=2.5)
    bar.set_title("mean\naccuracy", fontsize=8.5, fontweight="normal", loc="left", pad=6)


def _scale(means: Sequence[float]) -> Normalize:
    """Colours over the accuracies, without the few that are far below the rest."""
    if not means:
        return Normalize(0, 1)
    top, floor, middle = max(means), min(means), float(np.quantile(means, 0.25))
    floor = max(floor, top - 3.5 * (top - middle)) if top > middle else floor
    return Normalize(floor, top) if top > floor else Normalize(top - 0.005, top + 0.005)


def place(depth: float, width: float, resolution: float) -> tuple[float, float]:
    """Where shares stand in the triangle whose corners are (0, 0) for width, (1, 0) for resolution, and depth above."""
    return resolution + depth / 2, _HEIGHT * depth


def apart(points: Sequence[tuple[float, float]], least: float = _APART) -> npt.NDArray[np.float64]:
    """The points [N, 2], those nearer than `least` to each other moved apart, and all others where they are."""
    places = np.array(points, dtype=float).reshape(-1, 2)
    if len(places) < 2:
        return places
    # Equal points need directions to part in; these are those of a sunflower's seeds, alike in every run.
    turns = np.arange(len(places)) * math.pi * (3 - math.sqrt(5))
    places = places + 1e-6 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for _ in range(300):
        away = places[:, None] - places[None]
        distance = _distance(places, places) + 2 * least * np.eye(len(places))
        push = np.clip(least - distance, 0.0, None)
        if push.max() < 1e-3 * least:
            break
        places = places + 0.5 * (away / distance[..., None] * push[..., None]).sum(1)
    return places
