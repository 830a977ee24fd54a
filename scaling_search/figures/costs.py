"""What candidates cost by the formula, and what their networks really cost."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from phinas.pages.labels import label_ends
from phinas.pages.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, styled
from scaling_search.figures.shown import Shown


def cost_figure(candidates: Sequence[Shown], target: float, tolerance: float) -> Figure:
    """Realised against nominal cost of all candidates, with the cost at which they are compared.

    target     multiple of the baseline's MACs; `tolerance` is the share of it by which candidates may miss it.

    A candidate that was adjusted has two marks, joined by a line: the formula's network, and the one that is trained.
    """
    with styled((6.4, 4.4)) as figure:
        _draw_costs(figure.add_subplot(), candidates, target, tolerance)
    return figure


def _draw_costs(axes: Axes, candidates: Sequence[Shown], target: float, tolerance: float) -> None:
    unadjusted = [candidate for candidate in candidates if candidate.realised is not None and not candidate.adjusted]
    adjusted = [candidate for candidate in candidates if candidate.realised is not None and candidate.adjusted]
    dropped = [candidate for candidate in candidates if candidate.realised is None]
    crowd = min(1.0, len(candidates) / 100)
    size = 44 - 20 * crowd

    low, high = target * (1 - tolerance), target * (1 + tolerance)
    axes.axhspan(low, high, color=to_rgba(GREEN, 0.16), linewidth=0, zorder=0.5)
    axes.axhline(target, color=GREEN, lw=1.4, zorder=0.8)
    for candidate in adjusted:
        axes.plot([candidate.nominal] * 2, [candidate.formula, candidate.realised or 0.0], lw=0.8, zorder=1.5,
                  color=to_rgba(MUTED, 0.45))  # fmt: skip
    if adjusted:
        axes.scatter(
            [candidate.nominal for candidate in adjusted], [candidate.formula for candidate in adjusted],
            s=0.6 * size, facecolors=PAPER, edgecolors=MUTED, linewidths=0.9, zorder=2,
            label=f"the formula's network of those ({len(adjusted)})",
        )  # fmt: skip
    for chosen, color, marker, label in (
        (unadjusted, BLUE, "o", "of equal cost: the formula's network"),
        (adjusted, ORANGE, "D", "of equal cost: adjusted"),
        (dropped, INK, "x", "dropped: no network of this cost"),
    ):
        if chosen:
            axes.scatter(
                [candidate.nominal for candidate in chosen],
                [candidate.formula if candidate.realised is None else candidate.realised for candidate in chosen],
                s=0.8 * size if marker == "D" else size, marker=marker, color=to_rgba(color, 0.9), zorder=3,
                linewidths=1.2 if marker == "x" else 0.0, label=f"{label} ({len(chosen)})",
            )  # fmt: skip
    _frame(axes, candidates, low, high)
    left, right = axes.get_xlim()
    axes.plot([left, right], [left, right], color=INK, lw=1.1, ls=(0, (5, 3)), zorder=1, scalex=False, scaley=False)
    label_ends(axes, [(target, f"target {target:.3g}×\n± {100 * tolerance:g}%", GREEN), (right, "as nominal", INK)])
    if not candidates:
        axes.annotate("there are no candidates", (0.5, 0.5), xycoords="axes fraction", ha="center", color=MUTED,
                      fontsize=11, path_effects=[withStroke(linewidth=5, foreground=PAPER)])  # fmt: skip
    if candidates:
        axes.figure.legend(loc="outside lower center", ncols=2)


def _frame(axes: Axes, candidates: Sequence[Shown], low: float, high: float) -> None:
    nominal = [candidate.nominal for candidate in candidates] or [low, high]
    costs = [cost for candidate in candidates for cost in (candidate.formula, candidate.realised) if cost is not None]
    room = 0.06 * (max(nominal) - min(nominal)) or 0.03 * nominal[0]
    left, right = min(nominal) - room, max(nominal) + room
    bottom, top = min([*costs, low, left]), max([*costs, high, right])
    axes.set(xlim=(left, right), ylim=(bottom - 0.04 * (top - bottom), top + 0.04 * (top - bottom)))
    axes.set(
        xlabel="Nominal cost (α β² γ²)ᵠ, multiples of the baseline's",
        ylabel="Realised MACs, multiples of the baseline's",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(7))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}×"))
