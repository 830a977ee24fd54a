"""Figures of the scaling search: every candidate is in them, and each stands in a page by itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from phinas.networks.compound import PAPER, Coefficients
from phinas.pages.style import svg
from scaling_search.candidates import lattice
from scaling_search.figures.costs import cost_figure
from scaling_search.figures.ranking import ranking_figure
from scaling_search.figures.shown import Shown, ranked
from scaling_search.figures.surface import apart, place, surface_figure
from scaling_search.ranking import rank

LATTICE = lattice()


def made_up(points: list[Coefficients], seed: int = 0, seeds: int = 3) -> list[Shown]:
    """Candidates in every state: about a tenth each dropped, failed, not evaluated, and of another's network."""
    rng = np.random.default_rng(seed)
    candidates = []
    for number, point in enumerate(points):
        kind = number % 10
        formula = point.product * float(rng.uniform(0.95, 1.6))
        adjusted = number % 2 == 0 and kind != 4
        shown = Shown(
            f"{point.alpha:g} {point.beta:g} {point.gamma:g}", point, point.product, formula,
            None if kind == 4 else 2.0 if adjusted else formula, adjusted, failed=kind == 5,
        )  # fmt: skip
        if kind not in (4, 5, 6):
            shown = replace(shown, accuracies=tuple(0.8 + 0.01 * float(one) for one in rng.normal(size=seeds)))
            shown = replace(shown, shares_network=kind == 7)
        candidates.append(shown)
    known = rank([one.accuracies if one.state == "evaluated" else () for one in candidates])
    return [
        replace(
            one, expected=known.expected[number], low=known.low[number], high=known.high[number],
            probability_best=known.probability_best[number], contender=number in known.contenders,
        )
        for number, one in enumerate(candidates)
    ]  # fmt: skip


def figures_of(candidates: list[Shown]) -> list[Figure]:
    return [surface_figure(candidates), cost_figure(candidates, 2.0, 0.05), ranking_figure(candidates)]


def marks_at(figure: Figure) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Places [N, 2] of all the marks of the first axes, in its data."""
    figure.draw_without_rendering()
    found = [
        np.asarray(one.get_offsets()) for one in figure.axes[0].collections if isinstance(one, PathCollection)
    ]  # fmt: skip
    return np.concatenate([one for one in found if len(one)])


FEW = {
    "none at all": [],
    "one": made_up([PAPER]),
    "one of one seed": made_up([PAPER], seeds=1),
    "three": made_up(LATTICE[:3]),
    "of one seed each": made_up(LATTICE[:20], seeds=1),
    "none evaluated": [replace(one, accuracies=(), failed=False) for one in made_up(LATTICE[:12])],
    "all failed": [replace(one, accuracies=(), failed=True) for one in made_up(LATTICE[:12])],
    "all dropped": [replace(one, accuracies=(), realised=None, adjusted=False) for one in made_up(LATTICE[:12])],
    "all equal": [replace(one, accuracies=(0.5, 0.5)) for one in made_up(LATTICE[:12])],
    "whole lattice": made_up(LATTICE),
}


@pytest.mark.parametrize("candidates", FEW.values(), ids=FEW)
def test_figures_are_well_formed_and_ask_for_no_other_file(candidates: list[Shown]) -> None:
    for figure in figures_of(candidates):
        drawn = svg(figure, "label")
        ET.fromstring(drawn.replace("xlink:href", "href"))
        assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", drawn) and "http" not in drawn
        assert not re.findall(r"<(?:script|foreignObject)\b|@import|url\((?!#|data:)", drawn)
        assert not re.findall(r"\b(?:nan|inf)\b", drawn)


@pytest.mark.parametrize("candidates", FEW.values(), ids=FEW)
def test_every_candidate_is_on_the_surface_near_its_shares(candidates: list[Shown]) -> None:
    marks = marks_at(surface_figure(candidates))
    for candidate in candidates:
        nearest = np.linalg.norm(marks - place(*candidate.coefficients.shares), axis=1).min()
        assert nearest < 0.05
    assert len(np.unique(marks.round(6), axis=0)) >= len(candidates)  # none upon another


@pytest.mark.parametrize("candidates", FEW.values(), ids=FEW)
def test_every_cost_is_drawn_where_it_is(candidates: list[Shown]) -> None:
    if not candidates:
        return
    marks = marks_at(cost_figure(candidates, 2.0, 0.05))
    places = [(one.nominal, cost) for one in candidates for cost in (one.formula, one.realised) if cost is not None]
    for spot in places:
        assert np.abs(marks - spot).max(axis=1).min() < 1e-9
    assert len(marks) == len(candidates) + sum(one.adjusted for one in candidates)


@pytest.mark.parametrize(("accuracy", "row"), [(0.9, 0), (0.7, 10)])
def test_the_ranking_shows_every_seed_and_the_papers_constants_wherever_they_come(accuracy: float, row: int) -> None:
    others = [one for one in made_up(LATTICE) if one.coefficients != PAPER]
    paper = replace(others[0], label="1.2 1.1 1.15", coefficients=PAPER, accuracies=(accuracy, accuracy + 0.001))
    paper = replace(paper, probability_best=float(accuracy > 0.8))
    order = ranked([paper, *others])
    rows = [*order[:10], paper] if row else order[:10]
    figure = ranking_figure([*others, paper], most=10)
    titles = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert titles[:10] == [one.title for one in order[:10]] and len(titles) == len(rows)
    assert titles[row] == (f"{len(order)}. 1.2 1.1 1.15 (paper)" if row else "1.2 1.1 1.15 (paper)")
    assert sorted(marks_at(figure)[:, 0]) == pytest.approx(sorted(one for shown in rows for one in shown.accuracies))
    assert ("<0.01" if row else ">0.99") in {text.get_text() for text in figure.axes[0].texts}


def test_probabilities_are_ordered_and_come_before_means() -> None:
    order = ranked(made_up(LATTICE))
    assert all(one.state == "evaluated" for one in order)
    chances = [one.probability_best or 0.0 for one in order]
    assert chances == sorted(chances, reverse=True)
    unknown = ranked(made_up(LATTICE, seeds=1))
    means = [one.mean or 0.0 for one in unknown]
    assert all(one.probability_best is None for one in unknown) and means == sorted(means, reverse=True)


def test_the_colours_are_of_the_accuracies_and_one_far_below_does_not_take_them() -> None:
    candidates = [one for one in made_up(LATTICE) if one.state == "evaluated"]
    low = replace(candidates[0], accuracies=(0.1, 0.1, 0.1))
    with_low = surface_figure([low, *candidates[1:]])
    bar = next(axes for axes in with_low.axes[0].child_axes)
    assert bar.get_ylim()[0] > 0.7


@pytest.mark.parametrize("seed", range(3))
def test_points_are_moved_apart_and_lonely_ones_stay(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crowd = [(0.5, 0.5)] * 4 + [(0.51, 0.5)]
    lonely = [(2.0 + number, float(rng.random())) for number in range(5)]
    places = apart([*crowd, *lonely], least=0.02)
    gaps = np.linalg.norm(places[:, None] - places, axis=2) + np.eye(len(places))
    assert gaps.min() > 0.0199
    assert np.abs(places[5:] - lonely).max() < 1e-5 and np.abs(places[:5] - (0.5, 0.5)).max() < 0.06


def test_shares_stand_where_the_corners_say() -> None:
    assert place(0, 1, 0) == (0, 0) and place(0, 0, 1) == (1, 0)
    assert place(1, 0, 0) == pytest.approx((0.5, 3**0.5 / 2))
    # By hand: each side has length 1, and equal shares are the middle.
    assert place(1 / 3, 1 / 3, 1 / 3) == pytest.approx((0.5, 3**0.5 / 6))
