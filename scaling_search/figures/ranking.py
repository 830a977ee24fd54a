"""The best candidates, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from phinas.networks.compound import PAPER as PUBLISHED
from phinas.pages.axes import legend_below
from phinas.pages.style import BLUE, INK, MUTED, PAPER, styled
from scaling_search.figures.shown import Shown, ranked

_LEAST = 3  # rows that there is room for
_MOST = 15  # candidates; the rest is counted


def ranking_figure(candidates: Sequence[Shown], most: int = _MOST) -> Figure:
    """The `most` most probably best: each seed, their mean, the interval of the true accuracy, the probability.

    Those that may be the best are coloured. The paper's constants are the last row where they are not among these.
    """
    order = ranked(candidates)
    rows = order[:most]
    rows += [candidate for candidate in order[most:] if candidate.coefficients == PUBLISHED]
    with styled((6.4, 1.7 + 0.29 * max(len(rows), _LEAST))) as figure:
        _draw_ranking(figure.add_subplot(), candidates, order, rows)
    return figure


def _draw_ranking(axes: Axes, candidates: Sequence[Shown], order: Sequence[Shown], rows: Sequence[Shown]) -> None:
    axes.set_xlabel(f"Accuracy{_told(order, rows)}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    axes.set_ylim(max(len(rows), _LEAST) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(range(len(rows)), [_name(candidate, order.index(candidate), len(rows)) for candidate in rows])
    if not rows:
        failed = any(candidate.failed for candidate in candidates)
        text = "every evaluation failed" if failed else "no candidate is evaluated yet"
        axes.set_xticks([])
        axes.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=MUTED, fontsize=11,
                      path_effects=[withStroke(linewidth=5, foreground=PAPER)])  # fmt: skip
        return
    told = any(candidate.probability_best is not None for candidate in rows)
    together = sum(candidate.contender for candidate in rows)
    if told and len(order) > 1 and together:  # the first rows, by how they are ranked
        axes.axhspan(-0.5, together - 0.5, color=to_rgba(BLUE, 0.12), linewidth=0, zorder=0.5,
                     label="the best is one of these (95%)")  # fmt: skip
    labels = dict(mean="mean over seeds", seeds="one seed", interval="true accuracy, 95%")
    for row, candidate in enumerate(rows):
        color = BLUE if told and candidate.contender and len(order) > 1 else MUTED
        if candidate.low is not None and candidate.high is not None:
            axes.plot(
                [candidate.low, candidate.high], [row - 0.13] * 2, color=to_rgba(color, 0.4), lw=5,
                solid_capstyle="butt", zorder=2, label=labels.pop("interval", None),
            )  # fmt: skip
        if candidate.expected is not None:
            axes.plot([candidate.expected] * 2, [row - 0.23, row - 0.03], color=color, lw=1.3, zorder=3)
        axes.plot(
            candidate.mean or 0.0, row - 0.13, marker="o", ms=6.5, color=color, markeredgecolor=PAPER, linestyle="none",
            zorder=4, label=labels.pop("mean", None),
        )  # fmt: skip
        axes.scatter(
            candidate.accuracies, [row + 0.22] * len(candidate.accuracies), s=11, color=to_rgba(color, 0.75),
            linewidths=0, zorder=3, label=labels.pop("seeds", None),
        )  # fmt: skip
        if candidate.probability_best is not None:
            _beside(axes, row, _probability(candidate.probability_best), INK if candidate.contender else MUTED)
    if told:
        _beside(axes, -0.6, "best with\nprobability", MUTED)
    if order.index(rows[-1]) >= len(rows):  # the paper's, which is not among the best
        axes.axhline(len(rows) - 1.5, color=MUTED, lw=0.8, ls=(0, (2, 3)))
    axes.margins(x=0.04)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    legend_below(axes)


def _name(candidate: Shown, place: int, rows: int) -> str:
    """Its title, with its place where that is not the row's own."""
    return f"{place + 1}. {candidate.title}" if place >= rows else candidate.title


def _beside(axes: Axes, row: float, text: str, color: str) -> None:
    axes.annotate(text, (1.02, row), xycoords=axes.get_yaxis_transform(), va="center" if row >= 0 else "bottom",
                  fontsize=8.5, color=color, annotation_clip=False)  # fmt: skip


def _told(order: Sequence[Shown], rows: Sequence[Shown]) -> str:
    """How many are not shown, and how many of those may be the best."""
    hidden = len(order) - len(rows)
    more = sum(candidate.contender for candidate in order) - sum(candidate.contender for candidate in rows)
    rest = f"; {more} more may be the best" if more else ""
    return f", {len(rows)} of {len(order)} candidates{rest}" if hidden else ""


def _probability(probability: float) -> str:
    """Never 1 and never 0, which no data can tell."""
    return "<0.01" if probability < 0.01 else ">0.99" if probability > 0.99 else f"{probability:.2f}"
