"""What a search is for, read from settings, and the costs that a device adds to a problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nas import problem as problem_module
from nas.costs import within
from nas.journal import Entry
from nas.objective import Objective, read_objective
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_targets
from phinas.files.errors import DoesNotFit, InputError
from phinas.networks.network import Network, cost_of
from search_spaces.efficientnet import EfficientNet
from search_spaces.space import sample

SPACE = EfficientNet()
REWARD = on_targets(mnas_soft, {"macs": 400e6})


class Stopwatch:
    """A device whose every reading is another, so that a second one is noticed; it cannot run what is too large."""

    def __init__(self, largest: float = float("inf")) -> None:
        self.largest = largest
        self.readings = 0

    def costs(self, network: Network) -> Mapping[str, float]:
        if cost_of(network).macs > self.largest:
            raise DoesNotFit("too large")
        self.readings += 1
        return {"latency": cost_of(network).macs / 1e10 + 1e-6 * self.readings}


def some_picks(count: int = 20) -> list[tuple[int, ...]]:
    return [sample(SPACE.decisions, np.random.default_rng(seed)) for seed in range(count)]


def test_what_is_read_and_said() -> None:
    objective = read_objective(
        {"macs": 400e6, "params": None, "latency": 0.01}, {"throughput": 1500}, ["macs", "params"], refuse_above=2
    )
    assert objective == Objective(
        {"macs": 400e6, "latency": 0.01}, {"throughput": 1500.0, "macs": 800e6}, ("macs", "params")
    )
    assert objective.drawn == ("macs", "params", "latency", "throughput")
    assert str(objective) == (
        "target 400M MACs (0.80 GFLOPs), target 10.0 ms, at least 1,500 images/s, at most 800M MACs (1.60 GFLOPs), "
        "front of accuracy against MACs and parameters"
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (({"macs": None}, {}, []), "target_flops=null"),
        (({"latency": 0}, {}, []), "targets.latency=0: it must be a number above 0"),
        (({}, {"macs": "few"}, []), "limits.macs=few"),
        (({}, {}, "macs"), "front=macs: it must be a list"),
        (({}, {}, ["macs", "macs"]), "twice"),
        (({}, {}, [3]), "front=[3]"),
        ((None, {}, []), "targets=None"),
        (({"params": 5e6}, {}, [], 2), "refuse_above=2"),
    ],
)
def test_wrong_settings_are_named(settings: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_objective(*settings)
    assert says in str(caught.value)


def test_a_limit_alone_and_a_front_alone_are_objectives() -> None:
    assert read_objective({}, {"macs": 3e8}, []).limits == {"macs": 3e8}
    assert read_objective({"macs": None}, {}, ["macs"]).front == ("macs",)


def test_costs_that_nobody_gives_and_devices_that_nobody_needs_are_refused() -> None:
    counted = ("macs", "params", "activations")
    for objective, culprit in [
        (Objective({"latency": 0.01}, {}), "targets.latency"),
        (Objective({}, {"latency": 0.01}), "limits.latency"),
        (Objective({}, {}, ("latency",)), "front=latency"),
    ]:
        with pytest.raises(InputError, match=f"{culprit}: no network has that cost with device=none.*device=here"):
            objective.check(counted, "none")
        objective.check((*counted, "latency", "throughput"), "here")
    with pytest.raises(InputError, match="device=here gives latency, but no target, limit or front uses it"):
        Objective({"macs": 1.0}, {}).check((*counted, "latency"), "here")


def test_a_limit_is_a_ceiling_and_of_a_throughput_a_floor() -> None:
    assert within({"macs": 4.0, "throughput": 10.0}, {"macs": 4.0, "throughput": 10.0})
    assert not within({"macs": 4.1}, {"macs": 4.0})
    assert not within({"throughput": 9.9}, {"throughput": 10.0})
    assert within({"throughput": 11.0}, {"throughput": 10.0})


def test_networks_beyond_a_limit_have_no_key() -> None:
    free = SearchProblem(SPACE, REWARD)
    limited = SearchProblem(SPACE, REWARD, limits={"latency": 0.04, "params": 6e6}, device=Stopwatch())
    kept = 0
    for picks in some_picks(60):
        allowed = limited.cost(picks)["latency"] <= 0.04 and limited.cost(picks)["params"] <= 6e6
        assert limited.key(picks) == (free.key(picks) if allowed else None)
        kept += allowed
    assert 5 < kept < 55


def test_a_network_is_measured_once_and_one_that_a_counted_limit_refuses_never() -> None:
    device = Stopwatch()
    problem = SearchProblem(SPACE, REWARD, limits={"macs": 3e8}, device=device)
    for picks in some_picks() * 2:
        problem.key(picks)
    small = {problem.network(picks).key() for picks in some_picks() if cost_of(problem.network(picks)).macs <= 3e8}
    assert device.readings == len(small)


def test_a_network_that_the_device_cannot_run_is_infeasible() -> None:
    problem = SearchProblem(SPACE, REWARD, device=Stopwatch(largest=4e8))
    for picks in some_picks():
        assert (problem.key(picks) is None) == (cost_of(problem.network(picks)).macs > 4e8)
    assert problem.cost_names() == ("macs", "params", "activations", "latency")


def test_what_the_journal_holds_is_not_measured_again() -> None:
    first = SearchProblem(SPACE, REWARD, device=Stopwatch())
    entries = [
        Entry(number, picks, first.key(picks) or "", first.cost(picks), (0.5,), 0.5)
        for number, picks in enumerate(some_picks())
    ]
    device = Stopwatch()
    resumed = SearchProblem(SPACE, REWARD, device=device)
    resumed.recall(entries)
    for entry in reversed(entries):
        assert resumed.cost(entry.picks) == entry.costs
    assert device.readings == 0


def test_a_device_that_nothing_fits_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_module, "PATIENCE", -1.0)
    problem = SearchProblem(SPACE, REWARD, limits={"latency": 1e-9}, device=Stopwatch())
    with pytest.raises(InputError, match="none of the first 1 networks .* within limits.latency=1e-09"):
        problem.key(some_picks()[0])


@pytest.mark.parametrize(
    "costs", [{"latency": 0.0}, {"latency": float("nan")}, {"latency": -1.0}, {"macs": 3.0}], ids=str
)
def test_what_is_no_cost_is_refused(costs: Mapping[str, float]) -> None:
    class Broken:
        def costs(self, network: Network) -> Mapping[str, float]:
            return costs

    with pytest.raises(InputError, match="the device gives"):
        SearchProblem(SPACE, REWARD, device=Broken()).cost_names()
