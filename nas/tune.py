"""Our controllers for people who run Ray Tune themselves: a search algorithm that Tune's own `Tuner` takes.

    problem = SearchProblem(MnasNet(), on_macs(mnas_soft, 400e6))
    search_alg = ControllerSearch(problem, Evolution, seed=0)
    tune.Tuner(train, tune_config=tune.TuneConfig(search_alg=search_alg, num_samples=100)).fit()
    search_alg.best

Tune decides how many trials there are, how many run at a time, where, and which of them are stopped early; we propose
networks and learn from what came of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ray import tune
from ray.tune.search import Searcher

from nas.controller import Controller
from nas.jobs import SearchJobs, best_of
from nas.journal import Entry
from nas.problem import SearchProblem
from phinas.engines.evaluator import Evaluator, measure
from search_spaces.space import choices_of


class ControllerSearch(Searcher):
    """Proposes what a controller asks for. The `config` of a trial holds

    network  an `Arch`, or what the space decodes to; `phinas.networks.network.build_network` makes a torch module of it
    seed     of the evaluation, drawn from the search's own and the number of the trial
    choices  by the name of each decision

    A trial reports its accuracy, a fraction in [0, 1], once or after every epoch; the last counts. One that reports
    `final=False` and nothing more was stopped early. One that fails is told to the controller as such.

    One trial at a time and the same seed make the same proposals as `python -m nas.search`.
    """

    def __init__(
        self, problem: SearchProblem, controller: Callable[..., Controller], seed: int = 0, metric: str = "accuracy"
    ) -> None:
        """
        controller  a class of ours or yours, or a function that makes one of `(problem=problem, seed=seed)`.
        metric      under which trials report their accuracy; that of `TuneConfig` goes before.
        """
        super().__init__(metric=metric, mode="max")
        self._made_of = (problem, controller, seed)
        self._accuracy = metric
        self._begin([])

    def _begin(self, told: list[Entry]) -> None:
        """With a new controller: it is what it was told."""
        problem, controller, seed = self._made_of
        made = controller(problem=problem, seed=seed)
        self._search = SearchJobs(problem, made, _Told(told), sys.maxsize, seed)
        self._numbers: dict[str, int] = {}  # of the evaluations in flight, by trial id

    def __getstate__(self) -> dict[str, Any]:  # Tune keeps a copy of what is to begin
        return {**vars(self), "_search": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin([])

    @property
    def entries(self) -> list[Entry]:
        """What was evaluated, in the order in which it finished, with costs and rewards."""
        return list(self._search.journal.entries)

    @property
    def best(self) -> Entry | None:
        """Of the highest reward among those that were evaluated to the end; None if none was."""
        return best_of(self._search.journal.entries)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """What `TuneConfig` says. Raises ValueError for `mode="min"`: it is the accuracy that is reported."""
        if mode not in (None, "max"):
            raise ValueError(f"mode={mode}: an accuracy is reported, so it must be max")
        self._accuracy = metric or self._accuracy
        return not config  # the space says what may be chosen; Tune refuses a `param_space` beside it

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        candidate = self._search.propose()
        if candidate is None:  # with trials in flight, the controller may know of something new once it is told of them
            return None if self._search.in_flight else cast("dict[str, Any]", Searcher.FINISHED)  # a string, says Ray
        self._numbers[trial_id] = candidate.number
        choices = choices_of(self._search.problem.decisions, candidate.picks)
        return {"network": candidate.network, "seed": candidate.seed, "choices": dict(choices)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        accuracy = float(result[self._accuracy])
        if not 0 <= accuracy <= 1:
            raise ValueError(f"{self._accuracy}={accuracy}: it must be a fraction in [0, 1]")
        self._search.record(self._numbers[trial_id], int(result["training_iteration"]), accuracy)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        failed = error or not result or self._accuracy not in result
        if not failed:
            self.on_trial_result(trial_id, cast("dict[str, Any]", result))
        stopped = not failed and not (result or {}).get("final", True)
        self._search.finish(self._numbers.pop(trial_id), stopped, f"trial {trial_id} failed" if failed else None)

    def save(self, checkpoint_path: str) -> None:
        """What was told, and what is in flight, as JSON: a controller is what it was told."""
        in_flight = {
            trial: [number, self._search.in_flight[number].picks, self._search.in_flight.curve(number)]
            for trial, number in self._numbers.items()
        }
        state = {"entries": [vars(entry) for entry in self.entries], "in_flight": in_flight}
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote; `Tuner.restore` does so."""
        state = json.loads(Path(checkpoint_path).read_text())
        self._begin([_entry(**entry) for entry in state["entries"]])
        for trial_id, (number, picks, curve) in state["in_flight"].items():
            self._numbers[trial_id] = number
            self._search.take_up(number, tuple(picks))
            for step, accuracy in enumerate(curve, start=1):
                self._search.record(number, step, accuracy)


def _entry(picks: list[int], curve: list[float], **others: Any) -> Entry:
    """As it was before it was JSON."""
    return Entry(picks=tuple(picks), curve=tuple(curve), **others)


class _Told:
    """A journal that is kept in memory: Tune keeps the files of its experiments."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)


def trainable(evaluator: Evaluator) -> Callable[[dict[str, Any]], None]:
    """A function for `tune.Tuner` that evaluates as one of our evaluators does."""

    def evaluate(config: dict[str, Any], evaluator: Evaluator) -> None:
        for _, measurement in measure(evaluator, config["network"], config["seed"]):
            tune.report({"accuracy": measurement.accuracy, "final": measurement.final})

    bound: Callable[[dict[str, Any]], None] = tune.with_parameters(evaluate, evaluator=evaluator)
    return bound
