"""Accuracy against a cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nas.costs import higher_is_better
from nas.figures.scatter import dots, frame, say_nothing_yet
from nas.front import pareto_front
from nas.journal import Entry
from nas.objective import Objective
from nas.reward import RewardOf
from phinas.pages.axes import cost_axis, cost_tick, legend_below
from phinas.pages.cost_text import cost_unit
from phinas.pages.style import GREEN, INK, PAPER, PURPLE, RASTERISED_ABOVE, RED, styled


def pareto_figure(
    entries: Sequence[Entry], cost: str, objective: Objective, reward: RewardOf, best: Entry | None
) -> Figure:
    """Accuracy against `cost`, with its target and limit, curves of equal reward, the Pareto front and the best.

    reward is sampled, so that it may be any function of (accuracy as a fraction, costs); of the costs only `cost`
    varies along a curve, the others stay those of `best`. Where the search is for a front of several costs, its members
    are marked; the line is the front of this cost alone.
    """
    with styled((6.4, 4.1)) as figure:
        draw_pareto(figure.add_subplot(), entries, cost, objective, reward, best)
    return figure


def draw_pareto(
    axes: Axes, entries: Sequence[Entry], cost: str, objective: Objective, reward: RewardOf, best: Entry | None
) -> None:
    def points(chosen: Sequence[Entry]) -> tuple[list[float], list[float]]:
        return [float(entry.costs[cost]) for entry in chosen], [entry.accuracy or 0.0 for entry in chosen]

    many = len(entries) > RASTERISED_ABOVE
    axes.set(ylabel="Accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    complete, stopped = [entry for entry in entries if entry.complete], [entry for entry in entries if entry.stopped]
    dots(axes, *points(complete), "complete", many)
    dots(axes, *points(stopped), "stopped early", many, hollow=True)
    lines = {"target": objective.targets.get(cost), "limit": objective.limits.get(cost)}
    marks = {text: value for text, value in lines.items() if value is not None}
    cost_axis(axes, cost, [*points(complete)[0], *points(stopped)[0], *marks.values()] or [1.0])
    frame(axes, points(complete)[1], points(stopped)[1], fractions=True)
    for text, value in marks.items():
        axes.axvline(value, color=INK, linewidth=1.1, linestyle=(0, (5, 3)) if text == "target" else "-", zorder=2.3)
        told = f" {text} {cost_tick(cost, value)} {cost_unit(cost)[1]}".rstrip()
        place = (value, 1.0)
        axes.annotate(told, place, xycoords=("data", "axes fraction"), va="bottom", ha="center", fontsize=8.5)
    front = pareto_front(entries, [cost])
    if front:
        x, y = points(front)
        end = axes.get_xlim()[0 if higher_is_better(cost) else 1]
        axes.plot(
            [*x, end], [*y, y[-1]], drawstyle="steps-post", color=GREEN, linewidth=1.8, label="Pareto front", zorder=2.2
        )
    if len(objective.front) > 1 and cost in objective.front:
        members, label = (
            pareto_front(entries, objective.front),
            "front of both" if len(objective.front) == 2 else "front of all",
        )
        axes.plot(
            *points(members), marker="o", markersize=6.5, color=GREEN, markerfacecolor="none", markeredgewidth=1.3,
            linestyle="none", label=label, zorder=2.4,
        )  # fmt: skip
    if best is not None and best.reward is not None:
        if cost in objective.targets:
            draw_equal_rewards(axes, reward, cost, objective.targets[cost], best, above_the_dots=many)
        axes.plot(
            best.costs[cost], best.accuracy or 0.0, marker="*", markersize=15, color=RED, markeredgecolor=PAPER,
            markeredgewidth=0.9, linestyle="none", label="best reward" if objective.targets else "most accurate",
            zorder=5, clip_on=False,
        )  # fmt: skip
    if not complete:
        say_nothing_yet(axes, entries)
    if complete or stopped:
        legend_below(axes)


def draw_equal_rewards(
    axes: Axes, reward: RewardOf, cost: str, target: float, best: Entry, above_the_dots: bool
) -> None:
    """Curves along which the reward is that of the best, and some round number below it."""
    best_reward, zorder = float(best.reward or 0.0), 2.15 if above_the_dots else 1.8
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    costs = np.geomspace(left, right, 61) if axes.get_xscale() == "log" else np.linspace(left, right, 61)
    costs = np.union1d(costs[costs > 0], [target])  # where rewards have their kinks
    accuracies = np.linspace(bottom, top, 31)  # few: a reward that Hydra made takes a millisecond a call
    # The frame is wider than what can occur, which is all that a reward needs to be defined for.
    fractions = np.clip(accuracies, 1e-6, 1.0)
    rewards = np.array([[reward(float(a), {**best.costs, cost: float(c)}) for c in costs] for a in fractions])
    rewards[~np.isfinite(rewards)] = np.nan
    if np.isnan(rewards).all():
        return
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(float(np.nanmin(rewards)), best_reward)
    step = float(ticks[1] - ticks[0])
    levels = [float(tick) for tick in ticks if np.nanmin(rewards) < tick < best_reward - step / 3]
    digits = max(0, -int(np.floor(np.log10(step))))
    for chosen, color, width, text in (
        (levels, PURPLE, 0.8, f"%.{digits}f"),
        ([best_reward], PURPLE, 1.5, ""),  # no label: it would lie below the star; the page says its value
    ):
        if not chosen or not np.nanmin(rewards) < chosen[-1] < np.nanmax(rewards):
            continue
        curves = axes.contour(costs, fractions, rewards, levels=chosen, colors=color, linewidths=width, zorder=zorder)
        if not text:
            continue
        labels = axes.clabel(curves, fmt=text, fontsize=7.5, inline=True, inline_spacing=3, zorder=zorder)
        for label in labels:
            label.set(color=INK, path_effects=[withStroke(linewidth=2.5, foreground=PAPER)])
    axes.plot([], [], color=PURPLE, linewidth=1.2, label="equal reward")
    axes.set(xlim=(left, right), ylim=(bottom, top))
