"""Candidates of the scaling search: the lattice, what rounding makes of it, and networks of equal cost.

PHINAS_NETWORKS=100 holds the law of equal cost for 100 networks of each space (minutes); 6 by default.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pytest

from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.compound import PAPER, Coefficients, compound
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0, RESNET_50, reference
from phinas.networks.scale import ROUNDINGS
from scaling_search.candidates import Candidate, at_equal_cost, lattice, nominal, spread_out
from scaling_search.plan import Row, Surface, explored, plan
from scaling_search.variant import Variant
from search_spaces.efficientnet import EfficientNet
from search_spaces.mnasnet import MnasNet
from search_spaces.space import Space, decode, sample
from tests.conftest import every_network

NETWORKS = int(os.environ.get("PHINAS_NETWORKS", "6"))
SMALL = Variant(resolution=24, stem_stride=1, width=0.5)
LATTICE = lattice()
DIRECTIONS = (
    PAPER,
    Coefficients(2, 1, 1),
    Coefficients.of_shares(0, 1),
    Coefficients.of_shares(0, 0),
    *spread_out(LATTICE, 4)[:2],
)


def test_the_lattice_has_the_counts_of_the_facts_and_the_papers_constants() -> None:
    assert len(LATTICE) == 109 and PAPER in LATTICE
    assert len(lattice(tolerance=0.08)) == 84 and PAPER in lattice(tolerance=0.08)
    assert PAPER not in lattice(tolerance=0.05)  # it misses 2 by 0.08
    assert PAPER not in lattice(step=0.1)  # its gamma lies between
    for point in LATTICE:
        assert abs(point.product - 2) <= 0.1 + 1e-9
        assert all(abs(value / 0.05 - round(value / 0.05)) < 1e-9 for value in vars(point).values())
    assert len(set(LATTICE)) == len(LATTICE)


def test_bounds_are_kept_and_may_be_a_single_value() -> None:
    found = lattice(alpha=(1.2, 1.2), beta=(1.0, 1.2), gamma=(1.1, 1.3))
    assert PAPER in found and {point.alpha for point in found} == {1.2}
    assert all(1.0 <= point.beta <= 1.2 and 1.1 <= point.gamma <= 1.3 for point in found)
    assert set(found) <= set(LATTICE)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tolerance": 0, "alpha": (1, 1.95)}, "lattice.tolerance=0: none of the 2000 constants"),
        ({"tolerance": -0.1}, "lattice.tolerance=-0.1: it must be a number 0 or more"),
        ({"step": 0}, "lattice.step=0: it must be a number 0.001 or more"),
        ({"step": "fine"}, "lattice.step=fine"),
        ({"step": 1e-6}, "lattice.step=1e-06"),
        ({"step": 0.002}, "lattice.step=0.002: 25,589,076 points lie within the bounds, more than 100,000"),
        ({"alpha": (1, 1e308)}, "lattice.alpha=1e+308: it must be a number 1 or more and below 1000"),
        ({"gamma": (0.9, 1.2)}, "lattice.gamma=0.9: it must be a number 1 or more"),
        ({"alpha": (1.5, 1.2)}, "lattice.alpha=[1.5,1.2]: the highest is below the lowest"),
        ({"beta": 1.2}, "lattice.beta=1.2: it must be [lowest,highest]"),
        ({"beta": "12"}, "lattice.beta=12: it must be [lowest,highest]"),
        ({"beta": (1, 2, 3)}, "lattice.beta=(1, 2, 3): it must be [lowest,highest]"),
        ({"beta": (1.01, 1.02)}, "none of the 0 constants"),
    ],
)
def test_wrong_settings_of_the_lattice_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        lattice(**settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rounding", "least", "most", "middle", "near"), [
        ("official", 1.93, 3.33, 2.55, 12), ("nearest", 1.76, 2.53, 2.11, 67)
    ]
)  # fmt: skip
def test_equal_products_are_not_equal_costs(rounding: str, least: float, most: float, middle: float, near: int) -> None:
    base = cost(EFFICIENTNET_B0).macs
    ratios = [nominal(EFFICIENTNET_B0, point, 1, rounding).macs / base for point in LATTICE]
    assert (round(min(ratios), 2), round(max(ratios), 2), round(median(ratios), 2)) == (least, most, middle)
    assert sum(1.8 <= ratio <= 2.2 for ratio in ratios) == near


def check_equal_cost(baseline: Arch, phi: float, rounding: str, tolerance: float) -> int:
    """Hold the law for each of `DIRECTIONS`; returns how many have a network."""
    macs = 2**phi * cost(baseline).macs
    found = 0
    for direction in DIRECTIONS:
        candidate = at_equal_cost(baseline, direction, phi, macs, tolerance, rounding)
        if candidate is None:
            continue
        found += 1
        assert abs(candidate.macs / macs - 1) <= tolerance
        assert candidate.macs == cost(candidate.network).macs
        assert 0.9 - 1e-9 <= candidate.trim <= 1.1 + 1e-9
        assert 0 < candidate.phi <= 2 * phi and candidate.asked_phi == phi
        body = compound(baseline, direction, candidate.phi, rounding)
        assert candidate.network == replace(body, resolution=candidate.network.resolution)
        _check_untrimmed(candidate, baseline, macs, tolerance, rounding)
    return found


def _check_untrimmed(candidate: Candidate, baseline: Arch, macs: float, tolerance: float, rounding: str) -> None:
    """Where the formula's own network costs what it should, pixels are whole and nothing else is changed."""
    direct = nominal(baseline, candidate.coefficients, candidate.asked_phi, rounding)
    if abs(direct.macs / macs - 1) <= tolerance:
        exact = baseline.resolution * candidate.coefficients.gamma**candidate.phi
        assert abs(candidate.network.resolution - exact) <= 0.5


@pytest.mark.parametrize("variant", [Variant(), SMALL], ids=["as it is", "small"])
@pytest.mark.parametrize("name", every_network())
def test_candidates_of_a_shipped_baseline_cost_the_same(name: str, variant: Variant) -> None:
    baseline = variant.of(reference(name))
    for phi in (0.5, 1, 2):
        found = [check_equal_cost(baseline, phi, rounding, 0.05) for rounding in ROUNDINGS]
        assert min(found) >= 3, f"{found} of {len(DIRECTIONS)} directions have a network at phi={phi}"


@pytest.mark.parametrize("space", [MnasNet(), EfficientNet()], ids=["mnasnet", "efficientnet"])
def test_candidates_of_random_networks_cost_the_same(space: Space) -> None:
    draws = np.random.default_rng(0)
    found = 0
    for number in range(NETWORKS):
        network = decode(space, sample(space.decisions, draws))
        assert isinstance(network, Arch)
        variant = SMALL if number % 2 else Variant()
        phi, tolerance = float(draws.choice([0.5, 1, 2])), float(draws.choice([0.01, 0.05, 0.1]))
        found += sum(check_equal_cost(variant.of(network), phi, rounding, tolerance) for rounding in ROUNDINGS)
    assert found >= 3 * NETWORKS


def test_most_trim_bounds_the_change_of_the_input() -> None:
    macs = 2.0 * cost(EFFICIENTNET_B0).macs
    for most in (0.0, 0.01, 0.05, 0.3):
        found = [at_equal_cost(EFFICIENTNET_B0, point, 1, macs, 0.01, most_trim=most) for point in LATTICE[::9]]
        assert all(one is None or abs(one.trim - 1) <= most + 1e-9 for one in found)
    deeper = Coefficients(2, 1, 1)
    assert at_equal_cost(EFFICIENTNET_B0, deeper, 1, macs, 0.001, most_trim=0.0) is None  # whole layers jump past it
    assert at_equal_cost(EFFICIENTNET_B0, deeper, 1, 1e15) is None  # farther than twice as far as was asked


def test_a_network_of_the_right_cost_is_left_as_it_is() -> None:
    """ResNet-50 scaled in resolution alone costs twice as much at 317 px; the phi asked for wins ties."""
    wider = Coefficients.of_shares(0, 0)
    candidate = at_equal_cost(RESNET_50, wider, 1, float(nominal(RESNET_50, wider, 1).macs))
    assert candidate == nominal(RESNET_50, wider, 1) and not candidate.adjusted


def test_spread_out_is_even_nested_and_has_the_papers() -> None:
    for count in (1, 2, 12, 40):
        chosen = spread_out(LATTICE, count)
        assert len(chosen) == len(set(chosen)) == count and PAPER in chosen
        assert chosen == [point for point in LATTICE if point in chosen]  # in their order
        assert chosen == spread_out(LATTICE, count)
        assert set(chosen) < set(spread_out(LATTICE, count + 1))  # so that larger numbers of candidates extend a study
    assert spread_out(LATTICE, 109) == spread_out(LATTICE, 1000) == LATTICE
    others = [point for point in LATTICE if point != PAPER]
    assert spread_out(others, 5)[0] == others[0] and len(set(spread_out(others, 5))) == 5
    assert _gap(spread_out(LATTICE, 12)) > 3 * _gap(LATTICE[:12])


def _gap(points: Sequence[Coefficients]) -> float:
    """The distance between the two nearest, in shares."""
    shares = np.array([point.shares for point in points])
    distances = np.linalg.norm(shares[:, None] - shares[None], axis=2)
    return float(distances[np.triu_indices(len(points), 1)].min())


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return plan(Surface(SMALL.of(EFFICIENTNET_B0), 1), LATTICE[::2], 6)


def test_a_plan_has_each_constant_once_and_evaluates_distinct_networks(rows: list[Row]) -> None:
    assert [row.coefficients for row in rows] == LATTICE[::2]
    evaluated = [row for row in rows if row.chosen and row.same_as is None]
    keys = {row.candidate.network.key() for row in evaluated if row.candidate}
    assert len(evaluated) == len(keys) == 6
    by_constants = {row.coefficients: row for row in rows}
    shared = [row for row in rows if row.same_as is not None]
    assert shared  # of 24 pixels there are few sizes
    for row in shared:
        assert row.same_as is not None
        owner = by_constants[row.same_as]
        assert owner.candidate and row.candidate and owner.candidate.network == row.candidate.network
        assert owner.same_as is None and owner.chosen == row.chosen


def test_more_candidates_extend_a_plan(rows: list[Row]) -> None:
    surface = Surface(SMALL.of(EFFICIENTNET_B0), 1)
    more, whole = plan(surface, LATTICE[::2], 12), plan(surface, LATTICE[::2], None)
    for few, many in ((rows, more), (more, whole)):
        assert all(larger.chosen for smaller, larger in zip(few, many, strict=True) if smaller.chosen)
        assert [row.candidate for row in few] == [row.candidate for row in many]
    assert all(row.chosen == (row.candidate is not None) for row in whole)


def test_a_nominal_plan_is_the_papers_formula() -> None:
    surface = Surface(EFFICIENTNET_B0, 1, "nominal", rounding="official")
    for row in plan(surface, LATTICE[::5], None):
        assert row.candidate == nominal(EFFICIENTNET_B0, row.coefficients, 1) and not row.candidate.adjusted
        assert row.candidate.macs / cost(EFFICIENTNET_B0).macs == row.formula
        assert row.nominal == row.coefficients.product


def test_a_tolerance_that_leaves_no_candidate_is_refused() -> None:
    with pytest.raises(InputError, match=r"^tolerance=1e-09: none of 11 constants makes a network of 771\.6M MACs"):
        plan(Surface(EFFICIENTNET_B0, 1, tolerance=1e-9), LATTICE[::10], 12)


def test_points_of_a_sampler_are_rows_too() -> None:
    points = [Coefficients.of_shares(0.3, 0.3), Coefficients.of_shares(0.1, 0.6)]
    found = explored(Surface(EFFICIENTNET_B0, 1), points)
    assert [row.coefficients for row in found] == points and all(row.chosen for row in found)
