"""The picture of benchmarks.search_quality: the best network so far against evaluations, searcher by searcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.searchers import ENTRANTS
from phinas.pages.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, RED, styled

SKY, BROWN, GREY = "#56b4e9", "#8c6d31", "#9aa3ad"  # sky blue is the last of Okabe and Ito's
LOOKS: dict[str, tuple[str, Any]] = {  # colour and dashes; ours are solid and thick
    "bayesian": (RED, "-"),
    "evolution": (BLUE, "-"),
    "rl": (GREEN, "-"),
    "random": (GREY, "-"),
    "optuna_gp": (ORANGE, (0, (5, 1.2))),
    "optuna_tpe": (PURPLE, (0, (5, 1.2))),
    "optuna_nsga2": (SKY, (0, (5, 1.2))),
    "pyglove": (BROWN, (0, (1.2, 1.2))),
    "syne_tune": (INK, (0, (1.2, 1.2))),
    "smac": (ORANGE, (0, (1.2, 1.2))),
}
FIRST = 10  # evaluations at which curves begin
SHOWN_FROM = 20  # evaluations at which the lowest median is still in the picture: the end is what matters


def figure(records: Sequence[Mapping[str, Any]], titles: Mapping[str, str], known: Mapping[str, float]) -> Figure:
    """One panel for each problem of `titles`: medians over seeds, with the quartiles of ours and of the best other."""
    with styled((12.6, 5.6)) as drawn:
        drawn.set_facecolor(PAPER)
        panels = drawn.subplots(1, len(titles), squeeze=False)[0]
        for axes, problem in zip(panels, titles, strict=True):
            _draw(axes, [record for record in records if record["problem"] == problem], known[problem])
            axes.set_title(titles[problem], pad=10)
        handles: dict[str, Any] = {}
        for axes in panels:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6)
    return drawn


def _draw(axes: Axes, records: Sequence[Mapping[str, Any]], known: float) -> None:
    last = max(record["budget"] for record in records)
    lowest = 1.0
    names = [name for name in LOOKS if any(record["searcher"] == name for record in records)]
    for name in names:
        runs = [record for record in records if record["searcher"] == name]
        at = np.unique(np.geomspace(FIRST, min(record["budget"] for record in runs), 200).round().astype(int))
        curves = np.array([_curve(record["best"], at) for record in runs]) / known
        low, middle, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
        colour, dashes = LOOKS[name]
        ours = ENTRANTS[name].ours and name != "random"
        order = 4 if ours else 3
        axes.plot(
            at, middle, color=colour, ls=dashes, lw=2.4 if ours else 1.4, label=ENTRANTS[name].title, zorder=order
        )
        if ours or name == "optuna_gp":
            axes.fill_between(at, low, high, color=colour, alpha=0.16 if ours else 0.10, lw=0, zorder=2)
        lowest = min(lowest, float(middle[np.searchsorted(at, SHOWN_FROM)]))
    axes.axhline(1.0, color=MUTED, lw=1.0, zorder=1)
    axes.annotate(
        f"best known, {known:.4f}", (FIRST, 1.0), xytext=(2, 3), textcoords="offset points", color=MUTED, fontsize=8.5
    )
    axes.set_xscale("log")
    axes.set(xlabel="Evaluations", ylabel="Best reward so far, share of the best known")
    axes.set_xlim(FIRST, last)
    axes.set_ylim(lowest - 0.002, 1.0 + 0.06 * (1.002 - lowest))
    axes.xaxis.set_major_locator(FixedLocator([mark for mark in (10, 20, 50, 100, 200, 500, 1000) if mark <= last]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.1f}%"))


def _curve(steps: Sequence[Sequence[float]], at: np.ndarray) -> np.ndarray:
    """The value of a record's `best` after each number of evaluations in `at`."""
    evaluations, values = np.array(steps).T
    return values[np.searchsorted(evaluations, at, side="right") - 1]
