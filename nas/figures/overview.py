"""A whole search in one picture."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from nas.figures.network import NETWORK_HEIGHT, draw_network, network_width, parts_of
from nas.figures.pareto import draw_pareto
from nas.figures.rewards import draw_rewards
from nas.journal import Entry
from nas.objective import Objective
from nas.reward import RewardOf
from phinas.networks.arch import Arch
from phinas.pages.cost_text import cost_title
from phinas.pages.style import PAPER, styled


def overview_figure(
    entries: Sequence[Entry], objective: Objective, reward: RewardOf, best: Entry | None, arch: Arch | None
) -> Figure:
    """Rewards, accuracy against each cost of the objective, and the best network `arch`; None if that has no stages."""
    costs = objective.drawn
    columns = 3 if len(costs) == 2 else 2  # as square as it gets without a gap
    lines = -(-(1 + len(costs)) // columns)
    width, upper = 6.3 * columns, 4.7
    # A network of few stages is drawn as if it had more, or its boxes would dwarf the rest.
    lower = 0.35 + NETWORK_HEIGHT * width / max(network_width(parts_of(arch)), 10.9) if arch else 0.0
    with styled((width, upper * lines + lower)) as figure:
        figure.set_facecolor(PAPER)
        heights = [upper] * lines + ([lower] if arch else [])
        rows = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        axes = figure.add_subfigure(rows[0, 0]).add_subplot()
        draw_rewards(axes, entries)
        axes.set_title("Reward over the search", pad=14)
        for place, cost in enumerate(costs, start=1):
            axes = figure.add_subfigure(rows[place // columns, place % columns]).add_subplot()
            draw_pareto(axes, entries, cost, objective, reward, best)
            axes.set_title(f"Accuracy against {cost_title(cost)}", pad=14)
        if arch:
            axes = figure.add_subfigure(rows[lines, :]).add_subplot()
            draw_network(axes, arch)
            axes.set_title("The best network, stage by stage", pad=4)
    return figure
