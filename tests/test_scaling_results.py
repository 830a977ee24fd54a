"""What is said of a scaling search: the ranking in words, and what a reader of it must know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nas.halving import Halving
from phinas.engines import inline
from phinas.engines.evaluator import EvaluationFailed, Measurement
from phinas.networks.compound import Coefficients
from phinas.networks.network import Network
from phinas.networks.reference import EFFICIENTNET_B0
from scaling_search.candidates import lattice
from scaling_search.plan import Row, Surface, plan
from scaling_search.results import Outcome, outcome
from scaling_search.study import Evaluation, Study, Task

ROWS = plan(Surface(EFFICIENTNET_B0, 1.0), lattice(), 12)
CHOSEN = [row for row in ROWS if row.chosen and row.same_as is None]


def macs_of(row: Row) -> int:
    assert row.candidate is not None
    return row.candidate.macs


def task_of(row: Row) -> Task:
    assert row.candidate is not None
    return Task(vars(row.coefficients), row.candidate.network)


def evaluated(accuracies: dict[Coefficients, list[float]]) -> Outcome:
    """The outcome where these constants were evaluated to these accuracies, one a seed."""
    evaluations = [
        Evaluation(task_of(row).network.key(), {}, replicate, (accuracy,), stopped=False, error=None, seconds=1.0)
        for row in CHOSEN
        for replicate, accuracy in enumerate(accuracies.get(row.coefficients, []))
    ]
    return outcome(ROWS, evaluations)


class Noisy:
    """Accuracy by the key of the network, and noise as large as the networks' differences by the seed."""

    epochs = 4

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        own = np.random.default_rng(int(network.key(), 16)).normal()
        noise = np.random.default_rng((int(network.key(), 16), seed)).normal()
        for epoch in range(1, self.epochs + 1):
            yield Measurement(float(0.6 + 0.01 * (own + noise) + 0.01 * epoch), final=epoch == self.epochs)


class Failing(Noisy):
    """As Noisy, but the first network does not fit into memory."""

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        if network.key() == task_of(CHOSEN[0]).network.key():
            raise EvaluationFailed("out of memory at batch 32")
        yield from super().__call__(network, seed)


def run(folder: Path, evaluator: Noisy, halving: Halving | None = None) -> Outcome:
    ranges = {"alpha": (1.0, 2.0), "beta": (1.0, 1.45), "gamma": (1.0, 1.45)}
    study = Study(folder / "study.db", {}, ranges, [task_of(row) for row in CHOSEN], 3, seed=0, halving=halving)
    inline.run(study, evaluator)
    result = outcome(ROWS, study.evaluations)
    assert study.left == 0
    study.close()
    return result


@pytest.mark.slow
def test_what_halving_lets_through_is_trained_with_all_seeds(tmp_path: Path) -> None:
    result = run(tmp_path, Noisy(), Halving(epochs=4, grace=1, eta=3))
    counts = [len(one.accuracies) for one in result.ranked]
    assert set(counts) == {0, 3} and 2 <= counts.count(3) <= 8
    assert result.best is not None and result.ranking.within is not None


def test_failures_are_counted_with_their_reasons(tmp_path: Path) -> None:
    result = run(tmp_path, Failing())
    assert result.counts == "33 evaluations to the end, 0 stopped early, 3 failed (out of memory at batch 32)"
    assert result.notes[0] == result.counts and result.ranking.mean[0] is None


def test_constants_that_share_the_best_network_are_named() -> None:
    shared = next(row.same_as for row in ROWS if row.same_as is not None and row.chosen)
    accuracies = {row.coefficients: [0.7, 0.71] for row in CHOSEN}
    result = evaluated({**accuracies, shared: [0.8, 0.81]})
    assert result.best is not None and result.best.row.coefficients == shared
    others = result.sharing(result.best)
    assert others and all(label != result.best.label for label in others)
    assert any(f"the network of {shared} is also that of {others[0]}" in note for note in result.notes)


@pytest.mark.parametrize("follows", [True, False])
def test_accuracy_that_follows_what_is_left_of_unequal_macs_is_warned_of(follows: bool) -> None:
    cheapest_first = sorted(CHOSEN, key=macs_of)
    order = cheapest_first if follows else cheapest_first[::-1]
    result = evaluated({row.coefficients: [0.6 + 0.01 * place] * 2 for place, row in enumerate(order)})
    assert any("accuracy follows MACs" in note for note in result.notes) is follows


@pytest.mark.slow
def test_the_noise_and_the_spread_are_said(tmp_path: Path) -> None:
    result = run(tmp_path, Noisy())
    assert any(note.startswith("seeds of one network differ by 0.0") for note in result.notes)
