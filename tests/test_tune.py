"""Our controllers in a `Tuner` of Ray Tune's own: they find what a search of ours finds, and go on where Tune does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle, tune

from nas.controller import Controller
from nas.controllers.bayesian import Bayesian
from nas.controllers.evolution import Evolution
from nas.controllers.optuna import Optuna
from nas.controllers.random import Random
from nas.controllers.rl import RL
from nas.evaluators.synthetic import Synthetic
from nas.jobs import best_of
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from nas.tune import ControllerSearch, trainable
from phinas.engines import inline
from search_spaces.efficientnet import EfficientNet
from tests.conftest import MakeSearch

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("two_cpus")]


def control(controller: Callable[..., Controller]) -> ControllerSearch:
    problem = SearchProblem(EfficientNet(), on_macs(mnas_soft, 400e6))
    return ControllerSearch(problem, controller)


def tuner(search: ControllerSearch, function: Any, folder: Path, trials: int, at_a_time: int = 1) -> tune.Tuner:
    """As a person writes it who uses Tune."""
    return tune.Tuner(
        function,
        tune_config=tune.TuneConfig(
            search_alg=search,
            metric="accuracy",
            mode="max",
            num_samples=trials,
            max_concurrent_trials=at_a_time,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="mine", storage_path=str(folder), verbose=0),
    )


@pytest.mark.slow
def test_one_trial_at_a_time_finds_what_a_search_of_ours_finds(make_search: MakeSearch, tmp_path: Path) -> None:
    ours = make_search(budget=12, controller=Evolution)
    inline.run(ours, Synthetic(epochs=3))
    search = control(Evolution)
    results = tuner(search, trainable(Synthetic(epochs=3)), tmp_path, 12).fit()
    assert len(results) == 12 and results.num_errors == 0
    assert search.entries == ours.journal.entries
    assert search.best == best_of(ours.journal.entries)


def fails_for_some(config: dict[str, Any]) -> None:
    if config["seed"] % 3 == 0:
        raise RuntimeError("diverged")
    tune.report({"accuracy": 0.25, "final": False})
    if config["seed"] % 3 == 1:
        tune.report({"accuracy": 0.5})


@pytest.mark.slow
def test_tune_tells_of_failures_and_of_early_ends(tmp_path: Path) -> None:
    search = control(Random)
    results = tuner(search, fails_for_some, tmp_path, 8, at_a_time=2).fit()
    entries = search.entries
    assert sorted(entry.number for entry in entries) == list(range(8)) and len({entry.key for entry in entries}) == 8
    assert results.num_errors == sum(entry.error is not None for entry in entries) > 0
    assert {entry.accuracy for entry in entries if entry.complete} == {0.5}
    assert {entry.accuracy for entry in entries if entry.stopped} == {0.25}


def begin(search: ControllerSearch, trial: str) -> dict[str, Any]:
    config = search.suggest(trial)
    assert isinstance(config, dict)
    search.on_trial_result(trial, {"accuracy": 0.25, "training_iteration": 1})
    return config


def end(search: ControllerSearch, trial: str, config: dict[str, Any]) -> None:
    search.on_trial_complete(trial, {"accuracy": config["seed"] / 2**32, "training_iteration": 2})


@pytest.mark.parametrize("controller", [Random, Evolution, Bayesian, RL, Optuna])
def test_a_search_that_was_saved_and_restored_goes_on_as_if_nothing_had_happened(
    controller: Callable[..., Controller], tmp_path: Path
) -> None:
    search, state = control(controller), str(tmp_path / "state.json")
    copy = cloudpickle.loads(cloudpickle.dumps(search))  # as Tune keeps what begins
    for number in range(12):
        end(search, str(number), begin(search, str(number)))
    interrupted = begin(search, "interrupted")
    search.save(state)
    copy.restore(state)
    for each in (search, copy):
        assert begin(each, "other") != interrupted
        each.on_trial_complete("other", error=True)
        end(each, "interrupted", interrupted)
    assert search.entries == copy.entries and len(search.entries) == 14
    assert begin(search, "next") == begin(copy, "next")


def test_what_is_no_accuracy_is_refused() -> None:
    search = control(Random)
    begin(search, "percent")
    with pytest.raises(ValueError, match="accuracy=53.1: it must be a fraction"):
        search.on_trial_complete("percent", {"accuracy": 53.1, "training_iteration": 2})
    with pytest.raises(ValueError, match="mode=min"):
        search.set_search_properties("loss", "min", {})
