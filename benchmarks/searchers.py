"""Who takes part in benchmarks.search_quality: our controllers, and what people would use instead.

The others are given each decision as a plain categorical choice and used as their documentation shows, with their
default settings. Their libraries are the extra `bench`; each is imported when it is made.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import random
import tempfile
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from nas.controller import Problem, Result
from search_spaces.space import Picks

CONTROLLERS = Path(__file__).parents[1] / "conf" / "controller"


class Searcher(Protocol):
    """Two verbs, as of `nas.controller.Controller`; the others promise less, and carry generators."""

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None: ...

    def tell(self, result: Result) -> None: ...


class OptunaStudy:
    """A study that is asked and told."""

    def __init__(self, sampler: str, problem: Problem, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.study = optuna.create_study(direction="maximize", sampler=getattr(optuna.samplers, sampler)(seed=seed))
        self.choices = [(decision.name, list(range(len(decision.choices)))) for decision in problem.decisions]
        self.trials: dict[int, Any] = {}

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        self.trials[number] = trial = self.study.ask()
        return tuple(trial.suggest_categorical(name, choices) for name, choices in self.choices)

    def tell(self, result: Result) -> None:
        self.study.tell(self.trials.pop(result.number), result.reward)


class PyGlove:
    """Its regularised evolution: a population of 100, tournaments of 10."""

    def __init__(self, problem: Problem, seed: int) -> None:
        import pyglove

        choices = {
            f"d{i}": pyglove.oneof(list(range(len(decision.choices)))) for i, decision in enumerate(problem.decisions)
        }
        mutator = pyglove.evolution.mutators.Uniform(seed=seed)  # the default, but repeatable
        self.algorithm = pyglove.evolution.regularized_evolution(mutator, seed=seed)
        self.algorithm.setup(pyglove.dna_spec(pyglove.Dict(**choices)))
        self.proposals: dict[int, Any] = {}

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        self.proposals[number] = dna = self.algorithm.propose()
        return tuple(dna.to_numbers())

    def tell(self, result: Result) -> None:
        self.algorithm.feedback(self.proposals.pop(result.number), result.reward)


class SyneTune:
    """Its regularised evolution: a population of 100, tournaments of 10."""

    def __init__(self, problem: Problem, seed: int) -> None:
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.searchers.regularized_evolution import RegularizedEvolution

        np.random.seed(seed)  # its first population comes from the global generator
        space = {f"d{i}": choice(list(range(len(decision.choices)))) for i, decision in enumerate(problem.decisions)}
        self.evolution = RegularizedEvolution(space, random_seed=seed)
        self.configurations: dict[int, dict[str, Any]] = {}

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        self.configurations[number] = configuration = self.evolution.suggest()
        return tuple(int(value) for value in configuration.values())

    def tell(self, result: Result) -> None:
        self.evolution.on_trial_complete(result.number, self.configurations.pop(result.number), -(result.reward or 0.0))


class Smac:
    """Its facade for hyperparameters: a random forest, after a Sobol design of a quarter of the budget."""

    def __init__(self, problem: Problem, seed: int, noisy: bool, budget: int) -> None:
        from ConfigSpace import Categorical, ConfigurationSpace
        from smac import HyperparameterOptimizationFacade, Scenario
        from smac.runhistory.dataclasses import TrialValue

        logging.getLogger("smac").setLevel(logging.ERROR)
        self.names = [f"d{i}" for i in range(len(problem.decisions))]
        space = ConfigurationSpace(seed=seed)
        space.add(
            [
                Categorical(name, list(range(len(decision.choices))))
                for name, decision in zip(self.names, problem.decisions, strict=True)
            ]
        )
        self.folder = tempfile.TemporaryDirectory()
        # Where results are noisy, it evaluates good networks again with other seeds.
        scenario = Scenario(
            space, deterministic=not noisy, n_trials=budget, seed=seed, output_directory=Path(self.folder.name)
        )
        self.facade = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=False
        )
        self.value = TrialValue
        self.trials: dict[int, Any] = {}

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        self.trials[number] = trial = self.facade.ask()
        return tuple(int(trial.config[name]) for name in self.names)

    def tell(self, result: Result) -> None:
        self.facade.tell(self.trials.pop(result.number), self.value(cost=1.0 - (result.reward or 0.0)), save=False)


@dataclass(frozen=True)
class Entrant:
    """One that takes part.

    make     from (problem, seed, noisy, budget). It may import, and raises ImportError where something is missing.
    state    what its results depend on: a library's version, or a hash of our code.
    caps     evaluations at most, by problem and whether noisy.
    slow     so slow that it runs with fewer seeds.
    """

    title: str
    make: Callable[[Problem, int, bool, int], Searcher]
    state: Callable[[], str]
    ours: bool = False
    caps: dict[tuple[str, bool], int] = field(default_factory=dict)
    slow: bool = False


def _ours(name: str, caps: dict[tuple[str, bool], int] | None = None) -> Entrant:
    """A controller with the settings of its YAML, which are its defaults."""

    def settings() -> Any:
        file = CONTROLLERS / f"{name}.yaml"
        if not file.exists():
            raise ImportError(f"there is no controller={name}")
        return OmegaConf.load(file)

    def state() -> str:
        config = settings()
        sources = _sources(get_class(config["_target_"]).__module__)
        return hashlib.sha256("".join([*sources, OmegaConf.to_yaml(config)]).encode()).hexdigest()[:12]

    def make(problem: Problem, seed: int, noisy: bool, budget: int) -> Searcher:
        searcher: Searcher = instantiate(settings(), problem=problem, seed=seed)
        return searcher

    return Entrant(f"phinas {name}", make, state, ours=True, caps=caps or {})


def _sources(module: str) -> list[str]:
    """The code of a module and of all that its proposals depend on, without comments and docstrings."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            tree = ast.parse(inspect.getsource(import_module(name)))
            nodes = list(ast.walk(tree))
            for node in nodes:
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                    node.body[0] = ast.Pass()
            found[name] = ast.unparse(tree)
            imported = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
            waiting += [one for one in imported if one.startswith(("nas.co", "search_spaces"))]
    return [found[name] for name in sorted(found)]


def _optuna(sampler: str, title: str, caps: dict[tuple[str, bool], int] | None = None) -> Entrant:
    return Entrant(
        f"Optuna {title}",
        lambda problem, seed, noisy, budget: OptunaStudy(sampler, problem, seed),
        lambda: version("optuna"),
        caps=caps or {},
        slow=bool(caps),
    )


def _installed(module: str, package: str) -> Callable[[], str]:
    """The version of a library, as a function that raises ImportError where it is missing."""

    def state() -> str:
        import_module(module)
        return version(package)

    return state


ENTRANTS: dict[str, Entrant] = {
    "bayesian": _ours(
        "bayesian", {("imagenet", False): 500, ("imagenet", True): 300, ("macro", False): 200, ("macro", True): 200}
    ),
    "evolution": _ours("evolution"),
    "rl": _ours("rl"),
    "random": _ours("random"),
    "optuna_gp": _optuna(
        "GPSampler",
        "GP",
        {("imagenet", False): 300, ("imagenet", True): 200, ("macro", False): 100, ("macro", True): 100},
    ),
    "optuna_tpe": _optuna("TPESampler", "TPE"),
    "optuna_nsga2": _optuna("NSGAIISampler", "NSGA-II"),
    "pyglove": Entrant(
        "PyGlove evolution", lambda problem, seed, *_: PyGlove(problem, seed), _installed("pyglove", "pyglove")
    ),
    "syne_tune": Entrant(
        "Syne Tune evolution", lambda problem, seed, *_: SyneTune(problem, seed), _installed("syne_tune", "syne-tune")
    ),
    "smac": Entrant(
        "SMAC3",
        Smac,
        _installed("smac", "smac"),
        caps={("imagenet", False): 150, ("imagenet", True): 150, ("macro", False): 100, ("macro", True): 100},
        slow=True,
    ),
}


def seed_global_generators(seed: int) -> None:
    """For the libraries that draw from them."""
    random.seed(seed)
    np.random.seed(seed)
