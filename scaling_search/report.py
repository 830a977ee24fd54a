"""The report of a scaling search, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phinas.networks.cost import cost
from phinas.pages.cost_text import macs_text
from phinas.pages.page import drawing, render
from phinas.pages.style import png
from scaling_search.figures.costs import cost_figure
from scaling_search.figures.ranking import ranking_figure
from scaling_search.figures.shown import Shown
from scaling_search.figures.surface import surface_figure
from scaling_search.plan import Surface
from scaling_search.results import Found, Outcome

PICTURE_WIDTH = 1200  # pixels
_LISTED = 20


def report(name: str, surface: Surface, result: Outcome, about: Mapping[str, Any], config_text: str, left: int) -> str:
    """The whole report as one page that asks for no other file; `left` evaluations are still to come."""
    shown = [shown_of(surface, result, entry) for entry in result.found]
    target = surface.macs / cost(surface.baseline).macs
    return render(
        Path(__file__).parent / "grid.html",
        name,
        [(number, failed.error) for number, failed in enumerate(_evaluations(result)) if failed.error is not None],
        config_text,
        about=about,
        left=left,
        baseline=macs_text(cost(surface.baseline).macs),
        target=macs_text(surface.macs),
        verdict=result.verdict,
        notes=result.notes,
        told_apart=len(result.ranking.contenders) == 1 and result.ranking.within is not None,
        best=result.best,
        mean=None if result.best is None else result.ranking.mean[result.best.place or 0],
        ranking=result.ranking,
        top=result.in_order[:_LISTED],
        hidden=max(0, len(result.in_order) - _LISTED),
        base_macs=cost(surface.baseline).macs,
        base_layers=surface.baseline.blocks,
        surface_figure=drawing(surface_figure(shown), "the surface of equal cost"),
        cost_figure=drawing(cost_figure(shown, target, surface.tolerance), "realised against nominal cost"),
        ranking_figure=drawing(ranking_figure(shown), "the best candidates with their intervals"),
    )


def surface_picture(path: Path, surface: Surface, result: Outcome) -> None:
    """`surface.png`: every set of constants where it lies, its accuracy as colour."""
    png(surface_figure([shown_of(surface, result, entry) for entry in result.found]), path, PICTURE_WIDTH)


def _evaluations(result: Outcome) -> list[Any]:
    return [evaluation for entry in result.ranked for evaluation in entry.evaluations]


def shown_of(surface: Surface, result: Outcome, one: Found) -> Shown:
    """A row as the figures show it."""
    row, ranking, base, place = one.row, result.ranking, cost(surface.baseline).macs, one.place
    return Shown(
        label=" ".join(f"{value:.4g}" for value in vars(row.coefficients).values()),
        coefficients=row.coefficients,
        nominal=row.nominal,
        formula=row.formula,
        realised=row.candidate.macs / base if row.candidate else None,
        adjusted=row.candidate.adjusted if row.candidate else False,
        accuracies=one.accuracies,
        failed=bool(one.evaluations) and not one.accuracies,
        low=None if place is None else ranking.low[place],
        high=None if place is None else ranking.high[place],
        probability_best=None if place is None else ranking.probability_best[place],
        contender=place in ranking.contenders,
        shares_network=row.same_as is not None,
    )
