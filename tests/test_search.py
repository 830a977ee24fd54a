"""The search's laws: a budget of distinct networks, the same journal from the same seed, and nothing lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.controller import Controller
from nas.controllers.bayesian import Bayesian
from nas.controllers.evolution import Evolution
from nas.controllers.optuna import Optuna
from nas.controllers.rl import RL
from nas.evaluators.synthetic import Synthetic
from nas.halving import Halving
from nas.jobs import best_of
from nas.journal import Entry, read_journal
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from phinas.engines import inline
from phinas.engines.evaluator import EvaluationFailed, Measurement, measure
from phinas.files.errors import InputError
from phinas.networks.network import Network
from search_spaces.efficientnet import EfficientNet
from search_spaces.space import Decision
from tests.conftest import MakeSearch


def test_inline_search_evaluates_a_budget_of_distinct_networks(make_search: MakeSearch) -> None:
    search = make_search(budget=30)
    inline.run(search, Synthetic())
    entries = search.journal.entries
    assert [entry.number for entry in entries] == list(range(30))
    assert len({entry.key for entry in entries}) == 30
    assert search.done


@pytest.mark.parametrize("halving", [False, True])
def test_the_same_seed_gives_the_same_journal_however_often_it_is_interrupted(
    make_search: MakeSearch, tmp_path: Path, halving: bool
) -> None:
    evaluator = Synthetic(epochs=9)

    def new(name: str) -> None:
        inline.run(make_search(budget=40, halving=Halving(epochs=9) if halving else None, name=name), evaluator)

    new("whole.jsonl")
    new("again.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "again.jsonl").read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    for kept in range(0, len(lines) + 1, 5):
        (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:kept]))
        new("cut.jsonl")
        assert (tmp_path / "cut.jsonl").read_bytes() == whole


class _Slow:
    measures = True

    def costs(self, network: Network) -> dict[str, float]:
        return {"latency": 1.0}


def test_costs_take_long_to_learn_where_they_are_measured_or_the_network_has_to_be_built() -> None:
    class Cells:
        decisions = (Decision("kernel", (3, 5)),)

        def decode(self, choices: Mapping[str, Any]) -> Network:
            return Cell()  # type: ignore[return-value]

    class Cell:
        pass

    reward = on_macs(mnas_soft, 4e8)
    assert not SearchProblem(EfficientNet(), reward).measured
    assert SearchProblem(EfficientNet(), reward, device=_Slow()).measured
    assert SearchProblem(Cells(), reward).measured


CONTROLLERS: dict[str, tuple[Callable[..., Controller], tuple[str, ...]]] = {
    "bayesian": (Bayesian, ()),
    "bayesian, front": (Bayesian, ("macs", "params")),
    "evolution": (Evolution, ()),
    "rl": (RL, ()),
    "optuna": (Optuna, ()),
    "optuna, front": (partial(Optuna, sampler="NSGAIISampler"), ("macs",)),
}


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_controller_goes_on_the_same_wherever_its_journal_was_cut(
    make_search: MakeSearch, tmp_path: Path, name: str
) -> None:
    controller, front = CONTROLLERS[name]

    def new(file: str) -> bytes:
        inline.run(
            make_search(16, halving=None if front else Halving(3), name=file, controller=controller, front=front),
            Synthetic(epochs=3),
        )
        return (tmp_path / file).read_bytes()

    whole = new("whole.jsonl")
    lines = whole.splitlines(keepends=True)
    for kept in range(len(lines)):
        (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:kept]))
        assert new("cut.jsonl") == whole, f"cut after line {kept}"


def test_a_larger_budget_extends_and_another_seed_differs(make_search: MakeSearch, tmp_path: Path) -> None:
    inline.run(make_search(budget=5), Synthetic())
    inline.run(make_search(budget=12), Synthetic())
    inline.run(make_search(budget=12, name="whole.jsonl"), Synthetic())
    inline.run(make_search(budget=12, seed=1, name="other.jsonl"), Synthetic())
    extended, whole = (tmp_path / "journal.jsonl").read_bytes(), (tmp_path / "whole.jsonl").read_bytes()
    assert extended == whole
    assert (tmp_path / "other.jsonl").read_bytes() != whole


def test_halving_stops_the_worse_and_never_lets_them_be_best(make_search: MakeSearch) -> None:
    search = make_search(budget=60, halving=Halving(epochs=9))
    inline.run(search, Synthetic(epochs=9))
    entries = search.journal.entries
    stopped = [entry for entry in entries if entry.stopped]
    assert len(stopped) > 30
    assert all(len(entry.curve) in (1, 3) for entry in stopped)
    assert all(len(entry.curve) == 9 for entry in entries if not entry.stopped)
    best = best_of(entries)
    assert best is not None and not best.stopped


class _FailsSometimes:
    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        yield Measurement(0.2, final=False)
        if seed % 3 == 0:
            raise EvaluationFailed("diverged: loss is nan at step 7")
        yield Measurement(0.5)


def test_a_failed_candidate_is_data(make_search: MakeSearch) -> None:
    search = make_search(budget=30)
    inline.run(search, _FailsSometimes())
    failed = [entry for entry in search.journal.entries if entry.error]
    assert 3 < len(failed) < 20
    assert all(entry.reward is None and entry.accuracy is None and "step 7" in str(entry.error) for entry in failed)


def _out_of_memory(network: Network, seed: int) -> Iterator[Measurement]:
    raise EvaluationFailed("out of memory" if seed % 2 else "the loss is nan")
    yield Measurement(0.0)


def test_failures_in_a_row_end_the_search_with_their_reasons_and_resuming_tries_again(make_search: MakeSearch) -> None:
    search = make_search(budget=20, give_up_after=5)
    inline.run(search, _out_of_memory)
    assert len(search.journal.entries) == 5 and not search.done
    said = re.fullmatch(r"the last 5 evaluations all failed: (\d) x [a-z ]+; (\d) x [a-z ]+", str(search.given_up))
    assert said and int(said[1]) + int(said[2]) == 5 and int(said[1]) >= int(said[2])
    again = make_search(budget=20, give_up_after=5)
    assert again.given_up is None
    inline.run(again, Synthetic())
    assert again.done and len(again.journal.entries) == 20 and again.given_up is None


def test_failures_that_are_not_in_a_row_do_not_end_it_and_none_do_where_that_is_wanted(make_search: MakeSearch) -> None:
    sometimes = make_search(budget=30, give_up_after=8)
    inline.run(sometimes, _FailsSometimes())
    assert sometimes.done and sum(entry.error is not None for entry in sometimes.journal.entries) >= 8
    always = make_search(budget=30, give_up_after=None, name="always.jsonl")
    inline.run(always, _out_of_memory)
    assert always.done and always.given_up is None


def test_what_is_in_flight_is_waited_for_before_a_search_gives_up(make_search: MakeSearch) -> None:
    """Ten of many that began together may fail at once, while all others are still on their way."""
    search = make_search(budget=30, give_up_after=3)
    begun = [search.propose() for _ in range(5)]
    *fails, succeeds, last = [candidate.number for candidate in begun if candidate is not None]
    for number in fails:
        search.finish(number, error="out of memory")
    assert search.propose() is None and search.given_up is None
    search.record(succeeds, 1, 0.5)
    search.finish(succeeds)
    assert search.propose() is not None
    search.finish(last, error="out of memory")
    assert search.given_up is None and search.propose() is not None


def test_a_bug_in_an_evaluator_stops_the_search(make_search: MakeSearch) -> None:
    def broken(network: Network, seed: int) -> Iterator[Measurement]:
        raise KeyError("a bug")
        yield Measurement(0.0)

    with pytest.raises(KeyError, match="a bug"):
        inline.run(make_search(), broken)


@pytest.mark.parametrize("accuracy", [-0.1, 77.1, float("nan")])
def test_an_accuracy_that_is_no_fraction_is_refused(accuracy: float) -> None:
    def percent(network: Network, seed: int) -> Iterator[Measurement]:
        yield Measurement(accuracy)

    with pytest.raises(ValueError, match="fraction in"):
        list(measure(percent, None, 0))  # type: ignore[arg-type]


def test_an_evaluation_that_began_again_on_another_worker_is_in_each_rung_once(make_search: MakeSearch) -> None:
    halving = Halving(epochs=9)
    search = make_search(budget=1, halving=halving)
    candidate = search.propose()
    assert candidate is not None
    for step, accuracy in [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.35),
        (1, 0.15),
        (2, 0.25),
        (3, 0.32),
        (4, 0.4),
        (5, 0.5),
    ]:
        assert search.record(candidate.number, step, accuracy)
    assert {epoch: len(values) for epoch, values in halving.rungs.items()} == {1: 1, 3: 1}
    entry = search.finish(candidate.number, retries=1)
    assert entry.curve == (0.15, 0.25, 0.32, 0.4, 0.5) and entry.retries == 1
    assert read_journal(search.journal.path)[1] == [entry]


class _NumpyNumbers:
    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        yield Measurement(np.float32(0.5))  # type: ignore[arg-type]


def test_numbers_of_numpy_are_journalled(make_search: MakeSearch) -> None:
    search = make_search(budget=2)
    search.problem.reward_of = lambda accuracy, costs: np.float32(accuracy)  # type: ignore[assignment,return-value]
    inline.run(search, _NumpyNumbers())
    assert [entry.reward for entry in search.journal.entries] == [0.5, 0.5]


def test_a_reward_that_is_no_number_stops_the_search(make_search: MakeSearch) -> None:
    search = make_search(budget=2)
    search.problem.reward_of = lambda accuracy, costs: float("nan")
    with pytest.raises(ValueError, match="is nan"):
        inline.run(search, Synthetic())
    assert search.journal.entries == []


def test_a_changed_space_is_noticed(make_search: MakeSearch) -> None:
    search = make_search(budget=3)
    inline.run(search, Synthetic())
    search.problem.recall(search.journal.entries)
    with pytest.raises(InputError, match="evaluation 0 .* another network"):
        SearchProblem(EfficientNet(resolution=192), search.problem.reward_of).recall(search.journal.entries)


def test_best_is_the_highest_reward_and_the_earliest_of_equals() -> None:
    def entry(number: int, reward: float | None, stopped: bool = False) -> Entry:
        return Entry(number, (0,), str(number), {"macs": 1}, (0.5,), reward, stopped)

    assert best_of([]) is None
    assert best_of([entry(0, None), entry(1, 0.9, stopped=True)]) is None
    entries = [entry(3, 0.5), entry(1, 0.5), entry(2, 0.4), entry(4, 0.9, stopped=True)]
    assert best_of(entries) == entry(1, 0.5)
