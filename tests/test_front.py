"""The Pareto front over any costs, and its hypervolume: laws, and worked numbers."""

from __future__ import annotations

import numpy as np
import pytest

from nas.costs import to_minimise
from nas.front import hypervolume, pareto_front, reference, spread
from nas.journal import Entry


def entry(number: int, accuracy: float, stopped: bool = False, **costs: float) -> Entry:
    return Entry(number, (0,), str(number), costs, (accuracy,), accuracy, stopped)


def made_up(count: int, seed: int = 0) -> list[Entry]:
    """Coarse, so that ties occur; some stopped, some failed."""
    rng = np.random.default_rng(seed)
    entries = []
    for number in range(count):
        costs = {name: float(rng.integers(1, 9)) for name in ("macs", "throughput", "latency")}
        made = entry(number, round(float(rng.random()), 1), bool(rng.random() < 0.2), **costs)
        failed = Entry(number, (0,), str(number), costs, error="diverged")
        entries.append(failed if rng.random() < 0.1 else made)
    return entries


COSTS = [("macs",), ("throughput",), ("macs", "throughput"), ("latency", "throughput", "macs")]


@pytest.mark.parametrize("costs", COSTS, ids="-".join)
@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_what_nothing_dominates(costs: tuple[str, ...], seed: int) -> None:
    entries = made_up(150, seed)
    complete = [one for one in entries if one.complete]
    front = pareto_front(entries, costs)

    def values(one: Entry) -> np.ndarray:
        return np.array([*(to_minimise(name, one.costs[name]) for name in costs), -(one.accuracy or 0.0)])

    def dominated(one: Entry) -> bool:
        return any((values(other) <= values(one)).all() and (values(other) < values(one)).any() for other in complete)

    assert [one.number for one in complete if not dominated(one)] == sorted(one.number for one in front)
    first = [values(one)[0] for one in front]
    assert first == sorted(first)


def test_more_throughput_is_better() -> None:
    slow, fast = entry(0, 0.5, throughput=100.0), entry(1, 0.5, throughput=200.0)
    assert pareto_front([slow, fast], ["throughput"]) == [fast]


def test_worked_volumes() -> None:
    # One network of accuracy 0.8 at half the reference: half of the width times 0.8.
    assert hypervolume([entry(0, 0.8, macs=2.0)], {"macs": 4.0}) == pytest.approx(0.4)
    # Beside it one of 0.4 at a quarter: a strip of 0.25 x 0.4 more.
    both = [entry(0, 0.8, macs=2.0), entry(1, 0.4, macs=1.0)]
    assert hypervolume(both, {"macs": 4.0}) == pytest.approx(0.5)
    # Twice the reference's throughput is half its seconds.
    assert hypervolume([entry(0, 0.8, throughput=20.0)], {"throughput": 10.0}) == pytest.approx(0.4)
    # Two costs: 0.5 * 0.5 * 0.8, and a network at the reference adds nothing.
    cube = [entry(0, 0.8, macs=2.0, params=5.0), entry(1, 0.9, macs=4.0, params=1.0)]
    assert hypervolume(cube, {"macs": 4.0, "params": 10.0}) == pytest.approx(0.2)
    assert hypervolume([], {"macs": 4.0}) == 0.0


@pytest.mark.parametrize("costs", COSTS, ids="-".join)
def test_the_volume_is_the_share_of_random_points_that_are_dominated(costs: tuple[str, ...]) -> None:
    entries = made_up(60)
    corner = reference(entries, costs, {})
    front = np.array(
        [
            [*(to_minimise(n, one.costs[n]) / to_minimise(n, corner[n]) for n in costs), 1 - (one.accuracy or 0.0)]
            for one in pareto_front(entries, costs)
        ]
    )
    points = np.random.default_rng(0).random((20_000, len(costs) + 1))
    share = (front[None] <= points[:, None]).all(2).any(1).mean()
    assert hypervolume(entries, corner) == pytest.approx(share, abs=0.015)  # 4 standard deviations


def test_the_reference_is_the_limit_or_the_worst_that_ran_to_the_end() -> None:
    entries = [
        entry(0, 0.5, macs=3.0, throughput=10.0),
        entry(1, 0.6, macs=5.0, throughput=40.0),
        entry(2, 0.9, stopped=True, macs=9.0, throughput=1.0),
    ]
    assert reference(entries, ("macs", "throughput"), {}) == {"macs": 5.0, "throughput": 10.0}
    assert reference(entries, ("macs", "throughput"), {"macs": 7.0, "latency": 1.0}) == {
        "macs": 7.0,
        "throughput": 10.0,
    }


def test_what_is_shown_of_a_long_front_has_its_ends() -> None:
    entries = [entry(number, 0.5, macs=1.0) for number in range(30)]
    assert [one.number for one in spread(entries, 4)] == [0, 10, 19, 29]
    assert spread(entries[:4], 4) == entries[:4]
