"""Accuracy against MACs of networks that were scaled in different ways: the paper's Figures 8, 3 and 4."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from phinas.pages.labels import label_points
from phinas.pages.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, RED, styled
from scaling_search.compare.networks import BASELINE, BASES, COMPOUND, METHODS, SINGLE, line_of
from scaling_search.compare.outcome import Outcome

_COLORS = {"depth": BLUE, "width": ORANGE, "resolution": GREEN, COMPOUND: RED}
_BASE_COLORS = dict(zip(map(line_of, BASES), (ORANGE, GREEN, BLUE, RED), strict=True))
_MARKERS = {"depth": "s", "width": "D", "resolution": "^", COMPOUND: "o"}
_BASE_MARKERS = dict(zip(map(line_of, BASES), ("D", "^", "s", "o"), strict=True))
_APART = 0.014  # of the axis; marks of one level stand this far apart, or they would hide each other


def methods_figure(found: Sequence[Outcome]) -> Figure:
    """Figure 8: depth, width, resolution and compound scaling from the same baseline."""
    with styled((9.8, 5.0)) as figure:
        draw_methods(figure.add_subplot(), found)
    return figure


def single_figure(found: Sequence[Outcome]) -> Figure:
    """Figure 3: each dimension alone, side by side over the same accuracies, so that saturation shows."""
    with styled((11.2, 3.5)) as figure:
        draw_single(figure.subplots(1, 3, sharey=True), found)
    return figure


def bases_figure(found: Sequence[Outcome]) -> Figure:
    """Figure 4: bases of different depth and resolution, each widened."""
    with styled((9.8, 4.7)) as figure:
        draw_bases(figure.add_subplot(), found)
    return figure


def overview_figure(found: Sequence[Outcome]) -> Figure:
    """All of them as one picture; Figure 4 only where there is something for it."""
    bases = any(outcome.point.line in _BASE_COLORS and outcome.point.line != "width" for outcome in found)
    with styled((13.6, 9.2) if bases else (11.2, 8.6)) as figure:
        figure.set_facecolor(PAPER)
        rows = figure.add_gridspec(2, 1, height_ratios=(1.3, 1))
        upper, lower = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
        halves = upper.add_gridspec(1, 2 if bases else 1)
        axes = upper.add_subfigure(halves[0]).add_subplot()  # each with a legend of its own
        draw_methods(axes, found)
        axes.set_title("Each dimension alone, and all together", pad=12)
        if bases:
            axes = upper.add_subfigure(halves[1]).add_subplot()
            draw_bases(axes, found)
            axes.set_title("Width from bases of other depth and resolution", pad=12)
        draw_single(lower.subplots(1, 3, sharey=True), found)
    return figure


def draw_methods(axes: Axes, found: Sequence[Outcome]) -> None:
    curves = {method: _curve(found, method) for method in METHODS}
    _frame(axes, found, [outcome for curve in curves.values() for outcome in curve])
    _draw_curves(axes, curves, _COLORS, _MARKERS)
    _label_curves(axes, curves, _COLORS)
    _legend(axes, curves, _COLORS, _MARKERS, {method: method for method in METHODS})


def draw_single(panels: Sequence[Axes], found: Sequence[Outcome]) -> None:
    curves = {method: _curve(found, method) for method in SINGLE}
    shown = [outcome for curve in curves.values() for outcome in curve]
    for axes, (method, curve) in zip(panels, curves.items(), strict=True):
        _frame(axes, found, shown, few=True)
        known = [outcome for outcome in curve if outcome.mean is not None]
        if all(outcome.reach is not None for outcome in known):
            axes.fill_between(
                [outcome.point.macs for outcome in known],
                [(outcome.mean or 0.0) - (outcome.reach or 0.0) for outcome in known],
                [(outcome.mean or 0.0) + (outcome.reach or 0.0) for outcome in known],
                color=to_rgba(_COLORS[method], 0.16), linewidth=0, zorder=1.5,
            )  # fmt: skip
        _draw_curves(axes, {method: curve}, _COLORS, _MARKERS, intervals=False)
        axes.set_title(method.capitalize())
        if axes is not panels[0]:
            axes.set_ylabel("")
            axes.tick_params(axis="y", length=0)
        for place, outcome in enumerate(known):
            start, last = outcome.point.line == BASELINE, place == len(known) - 1
            falls = place > 0 and (outcome.mean or 0.0) < (known[place - 1].mean or 0.0)
            left = not start and (last or not falls)  # where the line leaves room
            below = start or (last and falls)
            axes.annotate(
                outcome.label, (outcome.point.macs, outcome.mean or 0.0), textcoords="offset points",
                xytext=(-7 if left else 9, -3 if below else 5), ha="right" if left else "left",
                va="top" if below else "bottom", color=INK if start else _COLORS[method], fontsize=8.5, zorder=7,
                path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
            )  # fmt: skip


def draw_bases(axes: Axes, found: Sequence[Outcome]) -> None:
    curves = {line: _curve(found, line, start=line == "width") for line in _BASE_COLORS}
    _frame(axes, found, [outcome for curve in curves.values() for outcome in curve])
    _draw_curves(axes, curves, _BASE_COLORS, _BASE_MARKERS)
    _label_curves(axes, curves, _BASE_COLORS)
    titles = {line_of(base): f"from d={base[0]:.1f}, r={base[1]:.1f}" for base in BASES}
    _legend(axes, curves, _BASE_COLORS, _BASE_MARKERS, titles)


def _curve(outcomes: Sequence[Outcome], line: str, start: bool = True) -> list[Outcome]:
    """The baseline, which all lines start from, and the line's own, by MACs."""
    own = [outcome for outcome in outcomes if outcome.point.line == line or (start and outcome.point.line == BASELINE)]
    return sorted((outcome for outcome in own if outcome.mean is not None), key=lambda outcome: outcome.point.macs)


def _frame(axes: Axes, outcomes: Sequence[Outcome], shown: Sequence[Outcome], few: bool = False) -> None:
    """Logarithmic MACs with a tick at each level, and the accuracies that there are."""
    whole = next(outcome.point.macs for outcome in outcomes if outcome.point.line == BASELINE)
    levels = sorted({outcome.point.level for outcome in outcomes})
    ratios = [outcome.point.macs / whole for outcome in outcomes] + [1.0]
    room = (max(ratios) / min(ratios)) ** 0.07 * 1.03
    axes.set_xscale("log")
    axes.set_xlim(whole * min(ratios) / room, whole * max(ratios) * room)
    axes.xaxis.set_major_locator(FixedLocator([level * whole for level in levels]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda macs, _: f"{macs / whole:.3g}×\n{_macs_short(macs)}"))
    axes.set_xlabel("MACs" if few else "MACs of one image, and multiples of the baseline's")
    axes.yaxis.set_major_locator(MaxNLocator(5 if few else 7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%" if value <= 1 + 1e-9 else ""))
    axes.set_ylabel("Accuracy")
    ends = [accuracy for outcome in shown for accuracy in outcome.accuracies]
    steady = [outcome for outcome in shown if outcome.noise is None or not outcome.noise.own]  # other bars may run out
    ends += [(outcome.mean or 0.0) + sign * (outcome.reach or 0.0) for outcome in steady for sign in (1, -1)]
    if not ends:
        axes.set_ylim(0, 1)
        axes.annotate("no network is evaluated yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color=MUTED,
                      fontsize=11, path_effects=[withStroke(linewidth=5, foreground=PAPER)])  # fmt: skip
        return
    margin = 0.09 * (max(ends) - min(ends)) or 0.005
    axes.set_ylim(max(min(ends) - margin, 0.0), min(max(ends) + margin, 1 + margin / 2))


def _draw_curves(
    axes: Axes,
    curves: Mapping[str, Sequence[Outcome]],
    colors: Mapping[str, str],
    markers: Mapping[str, str],
    intervals: bool = True,
) -> None:
    """Means joined by lines, the interval of each as a bar, and a dot for each seed; the baseline once."""
    starts = {start.point.line: start for curve in curves.values() for start in curve if start.point.line == BASELINE}
    for name, curve in curves.items():
        xs = [_place(axes, outcome, name, list(curves)) for outcome in curve]
        axes.plot(xs, [mark.mean or 0.0 for mark in curve], color=colors[name], lw=2, zorder=3, solid_capstyle="round")
        for x, outcome in zip(xs, curve, strict=True):
            if outcome.point.line != BASELINE:
                _draw_mark(axes, x, outcome, colors[name], markers[name], intervals)
    for start in starts.values():
        _draw_mark(axes, start.point.macs, start, INK, "o", intervals)


def _draw_mark(axes: Axes, x: float, outcome: Outcome, color: str, marker: str, interval: bool) -> None:
    mean = outcome.mean or 0.0
    if interval and outcome.reach is not None:
        axes.plot([x, x], [mean - outcome.reach, mean + outcome.reach], color=to_rgba(color, 0.38), lw=5, zorder=2,
                  solid_capstyle="butt")  # fmt: skip
    if len(outcome.accuracies) > 1:
        axes.scatter([x] * len(outcome.accuracies), outcome.accuracies, s=9, color=color, edgecolors=PAPER,
                     linewidths=0.4, zorder=4)  # fmt: skip
    axes.plot(x, mean, marker=marker, ms=7.5, color=color, markeredgecolor=PAPER, markeredgewidth=1.1, zorder=5)


def _place(axes: Axes, outcome: Outcome, name: str, names: Sequence[str]) -> float:
    """Where a mark stands: at its MACs, a little aside where others of the level stand there too."""
    if outcome.point.line == BASELINE:
        return float(outcome.point.macs)
    low, high = axes.get_xlim()
    aside = (names.index(name) - (len(names) - 1) / 2) * _APART
    return float(outcome.point.macs * math.exp(aside * math.log(high / low)))


def _label_curves(axes: Axes, curves: Mapping[str, Sequence[Outcome]], colors: Mapping[str, str]) -> None:
    """The multipliers beside each mark, where they hide neither a line nor a seed, if there is room."""
    crowd, notes = [], {}
    for name, curve in curves.items():
        places = [(_place(axes, outcome, name, list(curves)), outcome.mean or 0.0) for outcome in curve]
        for outcome, (x, y) in zip(curve, places, strict=True):
            color = INK if outcome.point.line == BASELINE else colors[name]
            notes[x, y] = (x, y, outcome.label, color)  # the baseline once
            crowd += [(x, accuracy) for accuracy in outcome.accuracies]
        for (x, y), (x_end, y_end) in itertools.pairwise(places):
            crowd += zip(np.geomspace(x, x_end, 40), np.linspace(y, y_end, 40), strict=True)
    label_points(axes, list(notes.values()), crowd)


def _legend(
    axes: Axes,
    curves: Mapping[str, Sequence[Outcome]],
    colors: Mapping[str, str],
    markers: Mapping[str, str],
    titles: Mapping[str, str],
) -> None:
    handles = [
        Line2D(
            [], [], color=colors[name], marker=markers[name], markeredgecolor=PAPER, ms=7.5, lw=2.0, label=titles[name]
        )
        for name, curve in curves.items()
        if curve
    ]
    shown = [outcome for curve in curves.values() for outcome in curve]
    if any(len(outcome.accuracies) > 1 for outcome in shown):
        handles.append(Line2D([], [], color=MUTED, marker="o", ms=3, lw=0, label="one seed"))
    if any(outcome.reach is not None for outcome in shown):
        handles.append(Line2D([], [], color=to_rgba(MUTED, 0.5), lw=5, label="mean, 95%", solid_capstyle="butt"))
    if handles:
        wide = axes.figure.bbox.width / axes.figure.figure.dpi > 1.4 * len(handles)
        columns = len(handles) if wide else math.ceil(len(handles) / 2)
        axes.figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6)


def _macs_short(macs: float) -> str:
    return f"{macs / 1e9:.3g}G" if macs >= 1e9 else f"{macs / 1e6:.3g}M" if macs >= 1e6 else f"{macs / 1e3:.3g}k"
