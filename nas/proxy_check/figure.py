"""How a proxy ranks networks: its accuracies against a longer schedule's, and Kendall's tau beside other ways."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from nas.proxy_check.agreement import Estimate
from nas.proxy_check.outcome import Checked, Outcome
from phinas.pages.axes import cost_tick
from phinas.pages.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, styled

_COLORS = LinearSegmentedColormap.from_list("macs", colormaps["viridis"](np.linspace(0.12, 0.95, 64)))
_EPOCHS = 8  # of the proxy that are shown


def scatter_figure(found: Outcome) -> Figure:
    with styled((6.3, 4.9)) as figure:
        draw_scatter(figure.add_subplot(), found)
    return figure


def standings_figure(found: Outcome) -> Figure:
    rows = standings(found)
    with styled((6.3, max(2.2, 1.2 + 0.36 * len(rows)))) as figure:
        draw_standings(figure.add_subplot(), rows)
    return figure


def check_figure(found: Outcome) -> Figure:
    """Both as one picture."""
    with styled((12.2, 5.2)) as figure:
        figure.set_facecolor(PAPER)
        parts = figure.add_gridspec(1, 2)
        axes = figure.add_subfigure(parts[0, 0]).add_subplot()
        draw_scatter(axes, found)
        title = "" if found.tau is None else f", tau {found.tau}"
        axes.set_title(f"{len(found.ranked)} networks{title}", pad=12)
        axes = figure.add_subfigure(parts[0, 1]).add_subplot()
        draw_standings(axes, standings(found))
        axes.set_title("What ranks them as the longer schedule does", pad=12)
    return figure


def draw_scatter(axes: Axes, found: Outcome) -> None:
    """Each network; bars span its seeds, where there are several, and the colour is its MACs."""
    axes.set_xlabel("Accuracy by the proxy")
    axes.set_ylabel("Accuracy by the longer schedule")
    ranked = found.ranked
    if not ranked:
        axes.annotate("no network has results of both schedules yet", (0.5, 0.5), xycoords="axes fraction", ha="center",
                      color=MUTED, fontsize=11)  # fmt: skip
        return
    x, y = _means(ranked, 0), _means(ranked, 1)
    axes.errorbar(x, y, xerr=_reach(ranked, 0, x), yerr=_reach(ranked, 1, y), fmt="none", ecolor=MUTED, elinewidth=0.9,
                  capsize=0, zorder=2)  # fmt: skip
    macs = [network.drawn.costs["macs"] for network in ranked]
    shades = LogNorm(min(macs), max(macs)) if max(macs) > min(macs) else None
    points = axes.scatter(x, y, s=46, c=macs, cmap=_COLORS, norm=shades, edgecolors=PAPER, linewidths=0.7, zorder=3)
    if shades:
        scale = axes.figure.colorbar(points, ax=axes, pad=0.02, aspect=32)
        scale.set_label("MACs of one image, logarithmic")
        scale.outline.set_visible(False)
        middle = float(np.sqrt(min(macs) * max(macs)))
        scale.set_ticks([min(macs), middle, max(macs)])
        scale.ax.yaxis.set_minor_locator(NullLocator())
        scale.ax.yaxis.set_minor_formatter(NullFormatter())
        scale.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: cost_tick("macs", value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def standings(found: Outcome) -> list[tuple[str, Estimate, str]]:
    """(what, how well it ranks, its colour), the proxy's epochs first."""
    rows = []
    last = len(found.by_epoch) - 1
    shown = {round(place) for place in np.linspace(0, last, min(_EPOCHS, last + 1))} if found.by_epoch else set()
    for place, (epoch, tau) in enumerate(found.by_epoch):
        if place in shown and place < last:
            rows.append((f"after epoch {epoch}", tau, MUTED))
    if found.tau is not None:
        rows.append(("the proxy", found.tau, BLUE))
    if found.macs is not None:
        rows.append(("MACs alone", found.macs, ORANGE))
    for schedule, name in enumerate(("the proxy,\nseed to seed", "the longer schedule,\nseed to seed")):
        own = found.itself[schedule]
        if own is not None:
            rows.append((name, own, GREEN))
    return rows


def draw_standings(axes: Axes, rows: Sequence[tuple[str, Estimate, str]]) -> None:
    """Kendall's tau of each, with its 95 % interval."""
    places = list(range(len(rows)))[::-1]
    for place, (_, tau, color) in zip(places, rows, strict=True):
        if tau.low is not None and tau.high is not None:
            axes.plot([tau.low, tau.high], [place, place], color=color, linewidth=2.2, solid_capstyle="round", zorder=2)
        axes.scatter([tau.value], [place], s=48, color=color, edgecolors=PAPER, linewidths=0.7, zorder=3)
        axes.annotate(f"{tau.value:.2f}", (tau.value, place), xytext=(0, 6), textcoords="offset points", ha="center",
                      fontsize=8.5, color=INK)  # fmt: skip
    low = min((tau.value if tau.low is None else tau.low for _, tau, _ in rows), default=0.0)
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    axes.set_xlim(min(-0.08, low - 0.05), 1.05)
    axes.set_ylim(-0.7, max(len(rows) - 0.2, 0.5))
    axes.set_yticks(places, [name for name, _, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Kendall's tau with 95 % interval; 0 is chance")


def _means(ranked: Sequence[Checked], schedule: int) -> list[float]:
    return [float(np.mean(network.accuracies(schedule))) for network in ranked]


def _reach(ranked: Sequence[Checked], schedule: int, means: Sequence[float]) -> list[list[float]]:
    """From the mean down to the least and up to the greatest of the seeds."""
    spans = [network.accuracies(schedule) for network in ranked]
    below = [mean - min(span) for mean, span in zip(means, spans, strict=True)]
    above = [max(span) - mean for mean, span in zip(means, spans, strict=True)]
    return [below, above]
