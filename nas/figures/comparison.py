"""Several searches in one picture, and what they found beside networks that people know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nas.figures.pareto import draw_equal_rewards
from nas.jobs import best_of
from nas.journal import Entry
from nas.objective import Objective
from nas.reward import RewardOf
from phinas.pages.axes import cost_axis, legend_below
from phinas.pages.cost_text import cost_title
from phinas.pages.labels import label_ends, label_points
from phinas.pages.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, RED, styled

_COLORS = {"bayesian": RED, "rl": GREEN, "evolution": BLUE, "optuna": ORANGE}  # others take what is left


@dataclass(frozen=True)
class Compared:
    """A network in a comparison.

    kind        found (by a search), reference (a published network as the evaluator judges it), trained (a recorded
                training), or published (a published network with its published accuracy).
    accuracy    a fraction; `source` says where it comes from, in a word.
    reward      None where it cannot be told.
    controller  whose search found it, for kind found.
    """

    title: str
    kind: str
    accuracy: float
    source: str
    costs: Mapping[str, float]
    reward: float | None
    key: str
    controller: str = ""


@dataclass(frozen=True)
class Trained:
    """Networks that were really trained: their costs and accuracies, and the one of the highest reward."""

    costs: Sequence[Mapping[str, float]]
    accuracies: Sequence[float]
    best: Compared


def comparison_figure(
    searches: Mapping[str, Sequence[Entry]],
    rows: Sequence[Compared],
    trained: Trained | None,
    objective: Objective,
    reward: RewardOf,
    accuracy: str,
) -> Figure:
    """The best reward so far of each search (controller -> its entries), and accuracy against the objective's first
    cost.

    A published accuracy is of another training, and does not set the scale: beyond it, its mark stands at the edge.
    """
    palette = [color for color in (ORANGE, PURPLE, INK, BLUE, GREEN, RED) if color not in map(_COLORS.get, searches)]
    colors = {name: _COLORS.get(name) or palette[place % len(palette)] for place, name in enumerate(searches)}
    cost = next((name for name in objective.drawn if name in rows[0].costs), "macs") if rows else "macs"
    with styled((13.2, 5.4)) as figure:
        figure.set_facecolor(PAPER)
        halves = figure.add_gridspec(1, 2, width_ratios=(1, 1.12))
        left, right = (
            figure.add_subfigure(halves[0, half]).add_subplot() for half in (0, 1)
        )  # each with a legend of its own
        _draw_rewards(left, searches, rows, colors)
        left.set_title("Reward of each evaluation, and the best so far", pad=14)
        _draw_accuracies(right, searches, rows, trained, colors, cost, objective, reward, accuracy)
        right.set_title(f"{accuracy[:1].upper()}{accuracy[1:]} against {cost_title(cost)}", pad=14)
    return figure


def _draw_rewards(
    axes: Axes, searches: Mapping[str, Sequence[Entry]], rows: Sequence[Compared], colors: Mapping[str, str]
) -> None:
    longest = max([len(entries) for entries in searches.values()] + [1])
    ends, starts = [], []
    for name, entries in searches.items():
        rewards = np.array([float(entry.reward or 0.0) if entry.complete else -np.inf for entry in entries])
        best = np.maximum.accumulate(rewards)
        known = np.isfinite(best)
        if not known.any():
            continue
        at = np.arange(1, len(best) + 1)[known]
        axes.scatter(at, rewards[known], s=7, color=colors[name], alpha=0.3, linewidths=0, zorder=2)
        axes.plot(at, best[known], drawstyle="steps-post", color=colors[name], lw=2.0, zorder=4)
        ends.append((float(best[-1]), f"{name} {best[-1]:.4f}", colors[name]))
        starts.append(float(np.quantile(rewards[np.isfinite(rewards)], 0.1)))
    for row in rows:
        if row.kind in ("reference", "trained") and row.reward is not None:
            color = INK if row.kind == "reference" else MUTED
            axes.axhline(row.reward, color=color, lw=1.1, ls=(0, (5, 3)), zorder=3)
            source = f"{row.source} " if row.kind == "reference" else ""
            ends.append((row.reward, f"{row.title}\n{source}{row.reward:.4f}", color))
    if ends:
        top, bottom = max(end[0] for end in ends), min([end[0] for end in ends] + starts)
        room = 0.06 * (top - bottom) or 0.01
        axes.set_ylim(bottom - room, top + room)
    axes.set(xlabel="Evaluations", ylabel="Reward", xlim=(0, longest))
    axes.grid(axis="x", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    label_ends(axes, ends)


def _draw_accuracies(
    axes: Axes,
    searches: Mapping[str, Sequence[Entry]],
    rows: Sequence[Compared],
    trained: Trained | None,
    colors: Mapping[str, str],
    cost: str,
    objective: Objective,
    reward: RewardOf,
    accuracy: str,
) -> None:
    complete = {name: [entry for entry in entries if entry.complete] for name, entries in searches.items()}
    judged = {row.title for row in rows if row.kind == "reference"}
    marked = [row for row in rows if cost in row.costs and not (row.kind == "published" and row.title in judged)]
    own = [row.accuracy for row in marked if row.kind != "published"]
    seen = [entry for entries in complete.values() for entry in entries]
    top = max([entry.accuracy or 0.0 for entry in seen] + own + [0.0])
    bottom = min([float(np.quantile([entry.accuracy or 0.0 for entry in seen], 0.1)) if seen else top, *own])
    room = (top - bottom) or 0.05
    axes.set_ylim(max(0.0, bottom - 0.05 * room), min(1.0, top + 0.15 * room))
    shown = [float(entry.costs[cost]) for entry in seen if (entry.accuracy or 0.0) >= bottom]
    shown = list(np.quantile(shown, [0.01, 0.99])) if shown else []  # a few far away would take the room from the rest
    shown += [float(row.costs[cost]) for row in marked]
    cost_axis(axes, cost, [0.92 * min(shown), *shown] if shown else [1.0])  # the best are at the left: room for labels
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axes.set_ylabel(f"{accuracy[:1].upper()}{accuracy[1:]}")
    if trained is not None:
        x = [known[cost] for known in trained.costs if cost in known]
        if x:
            axes.scatter(
                x, trained.accuracies, s=5, color=to_rgba(MUTED, 0.22), linewidths=0, zorder=1.5, rasterized=True,
                label=f"trained ({len(x):,})",
            )  # fmt: skip
    for name, entries in complete.items():
        x, y = [entry.costs[cost] for entry in entries], [entry.accuracy or 0.0 for entry in entries]
        axes.scatter(x, y, s=11, color=to_rgba(colors[name], 0.4), linewidths=0, zorder=2, label=f"seen by {name}")
    best_of_each = [entry for entry in map(best_of, map(list, searches.values())) if entry is not None]
    if best_of_each and cost in objective.targets:
        best = max(best_of_each, key=lambda entry: entry.reward or 0.0)
        draw_equal_rewards(axes, reward, cost, objective.targets[cost], best, above_the_dots=False)
    if complete:
        legend_below(axes)
    crowd = [(float(entry.costs[cost]), entry.accuracy or 0.0) for entry in seen]
    label_points(axes, [_mark(axes, cost, same, colors) for same in _by_network(marked)], crowd)


def _by_network(rows: Sequence[Compared]) -> list[list[Compared]]:
    """The rows, those that found one and the same network together."""
    groups: dict[tuple[str, str], list[Compared]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.key), []).append(row)
    return list(groups.values())


def _mark(axes: Axes, cost: str, rows: Sequence[Compared], colors: Mapping[str, str]) -> tuple[float, float, str, str]:
    """Mark the network of these rows; returns its label, as `label_points` takes it."""
    row, x, ceiling = rows[0], float(rows[0].costs[cost]), axes.get_ylim()[1]
    told = f"{100 * row.accuracy:.1f}% {row.source}"
    if row.kind == "found":
        color = colors[row.controller] if len(rows) == 1 else INK
        text = "found by " + "\nand by ".join(same.controller for same in rows) + f"\n{told}"
        look: dict[str, Any] = {"marker": "*", "ms": 17, "color": color, "markeredgecolor": PAPER}
    elif row.kind == "published":
        beyond = row.accuracy > ceiling
        color, text = INK, f"{row.title}: {told}{', above the frame' if beyond else ''}"
        look = {"marker": "^" if beyond else "D", "ms": 8, "color": INK, "markerfacecolor": PAPER}
    else:
        color, text = (
            INK,
            f"{row.title}\n{told if row.kind == 'reference' else told.split()[0]}",
        )
        look = {"marker": "D" if row.kind == "reference" else "s", "ms": 8, "color": INK, "markeredgecolor": PAPER}
    y = min(row.accuracy, ceiling)
    axes.plot(x, y, linestyle="none", markeredgewidth=1.1, clip_on=False, zorder=6, **look)
    return x, y, text, color
