"""Accuracy against MACs of networks that were scaled in different ways: the paper's Figures 8, 3 and 4."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from nas.figures.labels import label_ends, label_points
from nas.figures.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, RED, styled
from scaling_search.comparison import BASELINE, BASES, COMPOUND, METHODS, SINGLE, line_of
from scaling_search.contrast import Outcome

_COLORS = {"depth": BLUE, "width": ORANGE, "resolution": GREEN, COMPOUND: RED}
_BASE_COLORS = dict(zip(map(line_of, BASES), (ORANGE, GREEN, BLUE, RED), strict=True))
_MARKERS = {"depth": "s", "width": "D", "resolution": "^", COMPOUND: "o"}
_BASE_MARKERS = dict(zip(map(line_of, BASES), ("D", "^", "s", "o"), strict=True))
_APART = 0.014  # of the axis; marks of one level stand this far apart, or they would hide each other


def methods_figure(found: Sequence[Outcome]) -> Figure:
    """Figure 8: depth, width, resolution and compound scaling from the same baseline."""
    with styled((8.8, 4.8)) as figure:
        draw_methods(figure.add_subplot(), found)
    return figure


def single_figure(found: Sequence[Outcome]) -> Figure:
    """Figure 3: each dimension alone, side by side over the same accuracies, so that saturation shows."""
    with styled((11.2, 3.5)) as figure:
        draw_single(figure.subplots(1, 3, sharey=True), found)
    return figure


def bases_figure(found: Sequence[Outcome]) -> Figure:
    """Figure 4: bases of different depth and resolution, each widened."""
    with styled((8.8, 4.4)) as figure:
        draw_bases(figure.add_subplot(), found)
    return figure


def overview_figure(found: Sequence[Outcome]) -> Figure:
    """All of them as one picture; Figure 4 only where there is something for it."""
    bases = any(one.point.line in _BASE_COLORS and one.point.line != "width" for one in found)
    with styled((13.6, 9.0) if bases else (11.2, 8.6)) as figure:
        figure.set_facecolor(PAPER)
        rows = figure.add_gridspec(2, 1, height_ratios=(1.25, 1))
        top = figure.add_subfigure(rows[0]).subplots(1, 2 if bases else 1, squeeze=False)[0]
        draw_methods(top[0], found)
        top[0].set_title("Scaled alone, and together", pad=12)
        if bases:
            draw_bases(top[1], found)
            top[1].set_title("Width from other depths and resolutions", pad=12)
        draw_single(figure.add_subfigure(rows[1]).subplots(1, 3, sharey=True), found)
    return figure


def draw_methods(axes: Axes, found: Sequence[Outcome]) -> None:
    curves = {method: _curve(found, method) for method in METHODS}
    _frame(axes, found, [one for curve in curves.values() for one in curve])
    _draw_curves(axes, curves, _COLORS, _MARKERS)
    _label_curves(axes, curves, _COLORS, {method: method for method in METHODS})


def draw_single(panels: Sequence[Axes], found: Sequence[Outcome]) -> None:
    curves = {method: _curve(found, method) for method in SINGLE}
    shown = [one for curve in curves.values() for one in curve]
    for axes, (method, curve) in zip(panels, curves.items(), strict=True):
        _frame(axes, found, shown, few=True)
        known = [one for one in curve if one.mean is not None]
        if all(one.reach is not None for one in known):
            axes.fill_between(
                [one.point.macs for one in known],
                [(one.mean or 0.0) - (one.reach or 0.0) for one in known],
                [(one.mean or 0.0) + (one.reach or 0.0) for one in known],
                color=to_rgba(_COLORS[method], 0.16), linewidth=0, zorder=1.5,
            )  # fmt: skip
        _draw_curves(axes, {method: curve}, _COLORS, _MARKERS, intervals=False)
        axes.set_title(method.capitalize())
        if axes is not panels[0]:
            axes.set_ylabel("")
            axes.tick_params(axis="y", length=0)
        notes = [(one.point.macs, one.mean or 0.0, _single_label(one, method), INK) for one in known]
        label_points(axes, notes, [(one.point.macs, accuracy) for one in known for accuracy in one.accuracies])


def draw_bases(axes: Axes, found: Sequence[Outcome]) -> None:
    curves = {line: _curve(found, line, start=line == "width") for line in _BASE_COLORS}
    _frame(axes, found, [one for curve in curves.values() for one in curve])
    _draw_curves(axes, curves, _BASE_COLORS, _BASE_MARKERS)
    titles = {line_of(base): f"d={base[0]:g}, r={base[1]:g}" for base in BASES}
    _label_curves(axes, curves, _BASE_COLORS, titles)


def _curve(found: Sequence[Outcome], line: str, start: bool = True) -> list[Outcome]:
    """The baseline, which all lines start from, and the line's own, by MACs."""
    own = [one for one in found if one.point.line == line or (start and one.point.line == BASELINE)]
    return sorted((one for one in own if one.mean is not None), key=lambda one: one.point.macs)


def _frame(axes: Axes, found: Sequence[Outcome], shown: Sequence[Outcome], few: bool = False) -> None:
    """Logarithmic MACs with a tick at each level, and the accuracies that there are."""
    whole = next(one.point.macs for one in found if one.point.line == BASELINE)
    levels = sorted({one.point.level for one in found})
    ratios = [one.point.macs / whole for one in found] + [1.0]
    room = (max(ratios) / min(ratios)) ** 0.07 * 1.03
    axes.set_xscale("log")
    axes.set_xlim(whole * min(ratios) / room, whole * max(ratios) * room)
    axes.xaxis.set_major_locator(FixedLocator([level * whole for level in levels]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda macs, _: f"{macs / whole:.3g}×\n{_macs_short(macs)}"))
    axes.set_xlabel("MACs" if few else "MACs of one image, and multiples of the baseline's")
    axes.yaxis.set_major_locator(MaxNLocator(5 if few else 7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    axes.set_ylabel("Accuracy")
    ends = [accuracy for one in shown for accuracy in one.accuracies]
    ends += [(one.mean or 0.0) + sign * (one.reach or 0.0) for one in shown for sign in (1, -1)]
    if not ends:
        axes.set_ylim(0, 1)
        axes.annotate("no network is evaluated yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color=MUTED,
                      fontsize=11, path_effects=[withStroke(linewidth=5, foreground=PAPER)])  # fmt: skip
        return
    margin = 0.09 * (max(ends) - min(ends)) or 0.005
    axes.set_ylim(min(ends) - margin, max(ends) + margin)


def _draw_curves(
    axes: Axes,
    curves: Mapping[str, Sequence[Outcome]],
    colors: Mapping[str, str],
    markers: Mapping[str, str],
    intervals: bool = True,
) -> None:
    """Means joined by lines, the interval of each as a bar, and a dot for each seed; the baseline once."""
    baselines = {one.point.line: one for curve in curves.values() for one in curve if one.point.line == BASELINE}
    for name, curve in curves.items():
        xs = [_place(axes, one, name, list(curves)) for one in curve]
        axes.plot(xs, [one.mean or 0.0 for one in curve], color=colors[name], lw=2.0, zorder=3, solid_capstyle="round")
        for x, one in zip(xs, curve, strict=True):
            if one.point.line != BASELINE:
                _draw_mark(axes, x, one, colors[name], markers[name], intervals)
    for one in baselines.values():
        _draw_mark(axes, one.point.macs, one, INK, "o", intervals)


def _draw_mark(axes: Axes, x: float, one: Outcome, color: str, marker: str, interval: bool) -> None:
    mean = one.mean or 0.0
    if interval and one.reach is not None:
        axes.plot([x, x], [mean - one.reach, mean + one.reach], color=to_rgba(color, 0.38), lw=5, zorder=2,
                  solid_capstyle="butt")  # fmt: skip
    if len(one.accuracies) > 1:
        axes.scatter([x] * len(one.accuracies), one.accuracies, s=9, color=color, edgecolors=PAPER, linewidths=0.4,
                     zorder=4)  # fmt: skip
    axes.plot(x, mean, marker=marker, ms=7.5, color=color, markeredgecolor=PAPER, markeredgewidth=1.1, zorder=5)


def _place(axes: Axes, one: Outcome, name: str, names: Sequence[str]) -> float:
    """Where a mark stands: at its MACs, a little aside where others of the level stand there too."""
    if one.point.line == BASELINE:
        return float(one.point.macs)
    low, high = axes.get_xlim()
    aside = (names.index(name) - (len(names) - 1) / 2) * _APART
    return float(one.point.macs * math.exp(aside * math.log(high / low)))


def _label_curves(
    axes: Axes, curves: Mapping[str, Sequence[Outcome]], colors: Mapping[str, str], titles: Mapping[str, str]
) -> None:
    names = list(curves)
    shown = {name: [one for one in curve if one.point.line != BASELINE] for name, curve in curves.items()}
    ends = [(curve[-1].mean or 0.0, titles[name], colors[name]) for name, curve in shown.items() if curve]
    label_ends(axes, ends)
    notes = [
        (_place(axes, one, name, names), one.mean or 0.0, one.label, colors[name])
        for name, curve in shown.items()
        for one in curve
    ]
    baselines = {one.point.line: one for curve in curves.values() for one in curve if one.point.line == BASELINE}
    notes += [(one.point.macs, one.mean or 0.0, "baseline", INK) for one in baselines.values()]
    crowd = [
        (_place(axes, one, name, names), accuracy)
        for name, curve in curves.items()
        for one in curve
        for accuracy in one.accuracies
    ]
    label_points(axes, notes, crowd)


def _single_label(one: Outcome, method: str) -> str:
    return f"{method[0]}=1.0" if one.point.line == BASELINE else one.label


def _macs_short(macs: float) -> str:
    return f"{macs / 1e9:.3g}G" if macs >= 1e9 else f"{macs / 1e6:.3g}M" if macs >= 1e6 else f"{macs / 1e3:.3g}k"
