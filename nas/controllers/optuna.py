"""Any sampler of Optuna, or one of the user's own in Optuna's terms, behind ask and tell.

Akiba, Sano, Yanase, Ohta and Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", arXiv
1907.10902. A sampler reads a study and carries a generator; a controller is asked and learns nothing. So the study
holds what was told and no more, and each ask hands a copy of it to a new sampler, seeded by the evaluation's number.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.controller import Problem, Result, novel, outwards
from nas.costs import higher_is_better
from phinas.files.checks import check_flag
from phinas.files.errors import InputError
from search_spaces.space import Picks

# Where the sampler's draw is no new network, mutants of it. Drawing again was no better for TPE (medians of 4 seeds
# after 300 evaluations on a predictor of Accel-NASBench: 0.6687 with two more draws, 0.6704 without), and is dear.
MUTANTS = 1000
STUDY = "told"

NEEDS = {"GPSampler": ("torch", "scipy"), "CmaEsSampler": ("cmaes",), "QMCSampler": ("scipy",)}
# These read parameters and values of trials alone. All others may leave notes for later on trials and on the study
# (NSGA-II a trial's generation, CMA-ES its matrix), and are made to leave them when a result is told.
LEAVE_NO_NOTES = (optuna.samplers.TPESampler, optuna.samplers.GPSampler, optuna.samplers.RandomSampler)


class _Unordered(CategoricalDistribution):
    """Indices of choices without an order. It finds itself equal at once, and is never copied.

    A new sampler compares the distributions of all trials, at every ask: 45 ms for 1,000 trials of 28 decisions where
    they have to be compared choice by choice, 4 ms where they are one object.
    """

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = CategoricalDistribution.__hash__

    def __deepcopy__(self, memo: object) -> _Unordered:
        return self


class Optuna:
    """What a sampler of Optuna proposes, never a network twice.

    A sampler's own memory between proposals is not kept, for it would not survive a restart: GPSampler fits its kernel
    from the start each time. What a sampler notes on a trial when it proposes it, it notes here when its result is
    told: in NSGA-II and NSGA-III, results join the generation that is being filled when they come in. The two are the
    same as long as nothing is in flight.
    """

    multi_objective = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        sampler: str = "TPESampler",
        settings: Mapping[str, Any] | None = None,
        ordered: bool = False,
    ) -> None:
        """`sampler` is a class of `optuna.samplers`, or the dotted path of a class that takes `seed`.

        `settings` are its keyword arguments. With `ordered`, the sampler is told that the choices of a decision have an
        order (their index is a whole number to it); otherwise that they have none.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        check_flag("controller.ordered", ordered)
        self.problem = problem
        self.seed = seed
        self.named = f"controller.sampler={sampler}"
        self.sampler = _find(sampler)
        self.settings = dict(settings or {})
        self.distributions: dict[str, BaseDistribution] = {
            decision.name: (IntDistribution(0, count - 1) if ordered else _Unordered(range(count)))
            for decision, count in ((decision, len(decision.choices)) for decision in problem.decisions)
        }
        better = [StudyDirection.MAXIMIZE, *map(_better, problem.front)]
        self.storage = InMemoryStorage()
        self.study = optuna.create_study(storage=self.storage, study_name=STUDY, directions=better)
        self.told: set[str | None] = set()
        try:
            with _quiet():
                self._draw(self._copy(), 0)
        except (TypeError, ValueError, ImportError) as error:  # settings that it does not take, a front that it cannot
            raise InputError(f"{self.named}: {error}") from None

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        """What the sampler draws; where that is no new network, a mutant of it."""
        with _quiet():
            return novel(self.problem, self._proposals(number, in_flight), self.told, in_flight)

    def _proposals(self, number: int, in_flight: Collection[Picks]) -> Iterator[Picks]:
        rng = np.random.default_rng((self.seed, number))
        storage = self._copy()
        for running in in_flight:
            storage.create_new_trial(storage.get_study_id_from_name(STUDY), self._trial(running, TrialState.RUNNING))
        drawn = self._draw(storage, int(rng.integers(2**31))).params
        picks = tuple(int(drawn[name]) for name in self.distributions)
        yield picks
        yield from outwards(self.problem.decisions, picks, rng, MUTANTS)

    def tell(self, result: Result) -> None:
        """The result is the study's next finished trial; one that failed, a failed one, which samplers pass over."""
        self.told.add(self.problem.key(result.picks))
        values = self._values(result)
        with _quiet():
            self.study.add_trial(
                self._trial(
                    result.picks,
                    TrialState.FAIL if values is None else TrialState.COMPLETE,
                    values=values,
                    system_attrs=self._notes(result.number),
                )
            )

    def _values(self, result: Result) -> list[float] | None:
        """The reward; where the search is for a front, the accuracy and the costs. None where the evaluation failed."""
        if result.accuracy is None or result.reward is None:
            return None
        if not self.problem.front:
            return [result.reward]
        costs = self.problem.cost(result.picks)
        return [result.accuracy, *(float(costs[name]) for name in self.problem.front)]

    def _notes(self, number: int) -> Mapping[str, Any]:
        """Let the sampler propose now, and keep what it notes on the study; returns what it notes on the trial."""
        if self.sampler in LEAVE_NO_NOTES:
            return {}
        storage = self._copy()
        proposed = self._draw(storage, int(np.random.default_rng((self.seed, number)).integers(2**31)))
        study_id = storage.get_study_id_from_name(STUDY)
        for name, note in storage.get_study_system_attrs(study_id).items():
            self.storage.set_study_system_attr(study_id, name, note)
        return proposed.system_attrs

    def _copy(self) -> InMemoryStorage:
        """A storage like ours. Storages replace a trial that changes and never write to it, so the two share theirs."""
        return deepcopy(self.storage, {id(trial): trial for trial in self.study.get_trials(deepcopy=False)})

    def _draw(self, storage: InMemoryStorage, seed: int) -> FrozenTrial:
        """A new running trial in `storage`, chosen by a new sampler."""
        sampler = self.sampler(seed=seed, **self.settings)
        study = optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler)
        number = study.ask(self.distributions).number
        return study.get_trials(deepcopy=False)[number]

    def _trial(self, picks: Picks, state: TrialState, **fields: Any) -> FrozenTrial:
        params = dict(zip(self.distributions, picks, strict=True))
        return create_trial(state=state, params=params, distributions=self.distributions, **fields)


@contextmanager
def _quiet() -> Iterator[None]:
    """Samplers that Optuna calls experimental are the user's choice, and need no mention at every evaluation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _better(cost: str) -> StudyDirection:
    return StudyDirection.MAXIMIZE if higher_is_better(cost) else StudyDirection.MINIMIZE


def _find(name: str) -> Callable[..., BaseSampler]:
    """The class of that name. InputError where there is none, or where it or a package that it needs is missing."""
    named = f"controller.sampler={name}"
    module_name, _, class_name = str(name).rpartition(".")
    if not module_name:
        known = [known for known in optuna.samplers.__all__ if known.endswith("Sampler")]
        known = [known for known in known if known not in ("BaseSampler", "BaseGASampler", "PartialFixedSampler")]
        if class_name not in known:
            near = [listed for listed in known if listed.lower().removesuffix("sampler") == class_name.lower()]
            near = near or difflib.get_close_matches(class_name, known, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise InputError(
                f"{named}: Optuna has no such sampler; {hint}allowed: {', '.join(known)}, or the dotted path of a class"
            )
    try:
        module = import_module(module_name or "optuna.samplers")
        sampler: Callable[..., BaseSampler] = getattr(module, class_name)
        seeded = "seed" in inspect.signature(sampler).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{named}: {error}") from None
    if not seeded:  # nothing it draws could be drawn again after a restart
        raise InputError(f"{named}: its constructor must take a seed")
    if missing := [package for package in NEEDS.get(sampler.__name__, ()) if find_spec(package) is None]:
        raise InputError(f"{named}: it needs a package that is missing: pip install {' '.join(missing)}")
    return sampler
