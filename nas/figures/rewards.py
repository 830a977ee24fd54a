"""Reward over evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nas.figures.scatter import dots, frame, say_nothing_yet
from nas.journal import Entry
from phinas.pages.axes import legend_below
from phinas.pages.style import INK, PAPER, RASTERISED_ABOVE, RED, styled


def reward_figure(entries: Sequence[Entry]) -> Figure:
    """Reward of each evaluation, in the order they finished, and the best so far.

    Dots ran to the end, circles were stopped early (their reward is that of fewer epochs, and never counts as the
    best), crosses at the foot failed.
    """
    with styled((6.4, 4.1)) as figure:
        draw_rewards(figure.add_subplot(), entries)
    return figure


def draw_rewards(axes: Axes, entries: Sequence[Entry]) -> None:
    order = {id(entry): position for position, entry in enumerate(entries, start=1)}

    def points(chosen: list[Entry]) -> tuple[list[int], list[float]]:
        return [order[id(entry)] for entry in chosen], [float(entry.reward or 0.0) for entry in chosen]

    axes.set(xlabel="Evaluations, in the order they finished", ylabel="Reward", xlim=(0, max(len(entries), 1) + 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="x", visible=False)
    complete, failed = (
        [entry for entry in entries if entry.complete],
        [entry for entry in entries if entry.accuracy is None],
    )
    dots(axes, *points(complete), "complete", len(entries) > RASTERISED_ABOVE)
    dots(
        axes,
        *points([entry for entry in entries if entry.stopped]),
        "stopped early",
        len(entries) > RASTERISED_ABOVE,
        hollow=True,
    )
    if complete:
        records, x, y = complete[0], [order[id(complete[0])]], [float(complete[0].reward or 0.0)]
        for entry in complete:
            if (entry.reward or 0.0) > (records.reward or 0.0):
                records = entry
                x.append(order[id(entry)])
                y.append(float(entry.reward or 0.0))
        axes.plot([*x, len(entries)], [*y, y[-1]], drawstyle="steps-post", color=RED, lw=1.8, label="best so far")
        axes.plot(x[-1], y[-1], marker="*", ms=13, color=RED, markeredgecolor=PAPER, markeredgewidth=0.8, zorder=5)
    frame(axes, points(complete)[1], points([entry for entry in entries if entry.stopped])[1])
    if failed:
        positions = [order[id(entry)] for entry in failed]
        axes.scatter(
            positions, [0.025] * len(positions), marker="x", s=22, linewidths=1.1, color=INK, label="failed",
            transform=axes.get_xaxis_transform(), rasterized=len(entries) > RASTERISED_ABOVE,
        ).set_in_layout(False)  # fmt: skip
    if not complete:
        say_nothing_yet(axes, entries)
    if entries:
        legend_below(axes)
