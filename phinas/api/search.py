"""`phinas.search(...)`: the search of `python -m nas.search` from Python."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from phinas.api.picture import Picture, picture_of

if TYPE_CHECKING:  # a front door that opens at once
    import pandas as pd
    from torch import nn

    from nas.controller import Controller
    from nas.device import DeviceModel
    from nas.search import Searched
    from phinas.engines.evaluator import Evaluator
    from phinas.networks.network import Network
    from search_spaces.space import Space


Evaluates: TypeAlias = "Callable[[Any], float] | Callable[[Any, int], float]"  # a network, or it and a seed -> accuracy


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that was evaluated.

    network   an `Arch`, or what a space of your own decodes to.
    accuracy  a fraction, as evaluated.
    costs     by name: "macs" (multiply-adds), "params", "activations" (counts), and those of the device.
    choices   by decision.
    key       its identity in the journal.
    number    of the evaluation, from 0.
    """

    network: Network
    accuracy: float
    reward: float
    costs: Mapping[str, float]
    choices: Mapping[str, Any]
    key: str
    number: int

    def module(self, seed: int = 0) -> nn.Module:
        """The network as a torch module [batch, channels, height, width] -> [batch, classes], freshly initialised."""
        import torch

        from phinas.networks.network import build_network

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network(self.network)

    def __repr__(self) -> str:
        from phinas.pages.cost_text import cost_text

        costs = ", ".join(cost_text(name, cost) for name, cost in self.costs.items() if name != "activations")
        return f"<candidate {self.number}: accuracy {self.accuracy:.4f}, reward {self.reward:.4f}, {costs}>"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found, as far as it came; `folder` holds all of it as files."""

    folder: Path
    _searched: Searched

    @cached_property
    def best(self) -> Candidate | None:
        """Of the highest reward; None where nothing was evaluated to the end."""
        from nas.jobs import best_of

        best = best_of(self._searched.journal.entries)
        return None if best is None else self._candidate(best)

    @cached_property
    def front(self) -> tuple[Candidate, ...]:
        """The Pareto front of accuracy and the costs that were searched for, or MACs: the cheapest first."""
        from nas.front import pareto_front

        costs = self._searched.objective.front or ("macs",)
        return tuple(self._candidate(entry) for entry in pareto_front(self._searched.journal.entries, costs))

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per evaluation, as in `trials.csv`: its reward, accuracy, costs, and a column for each decision."""
        return self._searched.trials()

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """What `summary.json` holds."""
        return self._searched.summary()

    @cached_property
    def overview(self) -> Picture:
        """Rewards, accuracy against the costs, and the best network, in one picture."""
        from nas.figures.overview import overview_figure
        from nas.jobs import best_of
        from phinas.networks.arch import Arch

        run = self._searched
        best = best_of(run.journal.entries)
        network = None if best is None else run.problem.network(best.picks)
        arch = network if isinstance(network, Arch) else None
        return picture_of(overview_figure(run.journal.entries, run.objective, run.problem.reward_of, best, arch))

    def pareto(self, cost: str = "macs") -> Picture:
        """Accuracy against a cost, and the front."""
        from nas.figures.pareto import pareto_figure
        from nas.jobs import best_of
        from phinas.files.errors import InputError

        run = self._searched
        best = best_of(run.journal.entries)
        if best is not None and cost not in best.costs:
            raise InputError(f"cost={cost}: networks have no such cost; they have {', '.join(best.costs)}")
        return picture_of(pareto_figure(run.journal.entries, cost, run.objective, run.problem.reward_of, best))

    @cached_property
    def rewards(self) -> Picture:
        """Reward of each evaluation, and the best so far."""
        from nas.figures.rewards import reward_figure

        return picture_of(reward_figure(self._searched.journal.entries))

    def _candidate(self, entry: Any) -> Candidate:
        from search_spaces.space import choices_of

        problem = self._searched.problem
        return Candidate(
            problem.network(entry.picks),
            entry.accuracy,
            entry.reward,
            dict(entry.costs),
            choices_of(problem.decisions, entry.picks),
            entry.key,
            entry.number,
        )

    def __repr__(self) -> str:
        evaluations = len(self._searched.journal.entries)
        return f"<search {self.folder.name}: {evaluations} evaluations, best {self.best!r}>"

    def _repr_html_(self) -> str:
        from base64 import b64encode

        drawn = b64encode(self.overview._repr_png_()).decode()
        words = html.escape(repr(self))
        return f'<p>{words}</p><img width="900" alt="overview of the search" src="data:image/png;base64,{drawn}">'


def search(
    *,
    space: str | Space | type[Space] = "mnasnet",
    evaluate: str | Evaluates | Evaluator = "proxy",
    target_flops: float | None = 400e6,
    budget: int = 60,
    name: str | None = None,
    seed: int = 0,
    controller: str | Callable[..., Controller] = "bayesian",
    reward: str | Callable[[float, float, float], float] = "mnas_soft",
    data: str = "digits",
    device: str | DeviceModel = "none",
    engine: str = "ray",
    targets: Mapping[str, float | None] | None = None,
    limits: Mapping[str, float | None] | None = None,
    front: str | Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> SearchResult:
    """Search for a network under a compute budget; called again with the same `name`, go on where it was.

    Every setting is the one of `python -m nas.search`, with its default, its checks and its messages; what is written
    to `runs/NAME/` is the same too.

    space         `mnasnet`, `efficientnet`, `nasbench_macro`, the dotted path of a class, or a space of your own: an
                  object with `decisions` and `decode(choices)`, or its class.
    evaluate      what a network is worth: a function `network -> accuracy` or `(network, seed) -> accuracy`, an
                  evaluator (`phinas.engines.evaluator.Evaluator`), or the name of one of ours, such as `proxy`. A
                  function may be a closure or stand in a notebook's cell; on Ray it is sent to the workers by value.
    target_flops  T in the reward, multiply-adds of one image; None for no such target.
    budget        evaluations, each of another network. A larger one later goes on.
    name          the run's folder is `runs/NAME`; None: a timestamp.
    seed          of all that is random.
    controller    `bayesian`, `rl`, `evolution`, `random`, `optuna`, or a class or function that makes one:
                  `controller(problem=..., seed=...)`.
    reward        `mnas_soft`, `mnas_hard`, `absolute`, or a function of (accuracy, cost, target).
    data          images that the proxy trains on: `digits`, `imagefolder`, `parquet`; with options such as `data.path`.
    device        where further costs come from: `none`, `here`, `cpu`, `cuda`, `accel_nasbench`, or an object with
                  `costs(network)`.
    engine        `ray`, all cores or a cluster; `inline`, one evaluation after the other in this process.
    targets       of other costs than MACs, by name: `{"latency": 0.02}`.
    limits        networks that cost more are never proposed: `{"params": 5e6}`.
    front         costs to trade against accuracy in a search for a Pareto front: `("macs",)`.
    options       any other option by its name on the command line: `{"evaluator.recipe.epochs": 4}`.
    progress      whether to say what happens.

    Returns what was found; where the budget was finished before, too. Raises InputError for whatever you can mend, in
    one line that names it, and nothing is written over; RunFailed where evaluations fail one after the other, or Ray is
    lost. Then, and where you interrupt it, all that was finished is kept.
    """
    from phinas.command.hidden import check_not_hidden

    check_not_hidden()
    from nas.evaluators.function import as_evaluator
    from nas.search import configured
    from nas.search import search as run_search
    from phinas.api.call import listed, made, mapping, named_run, options_of, speaking
    from phinas.files.dotted_path import located
    from phinas.files.errors import InputError

    settings: dict[str, Any] = {"target_flops": target_flops, "budget": budget, "seed": seed, "front": listed(front)}
    settings |= {f"targets.{cost}": target for cost, target in mapping("targets", targets).items()}
    settings |= {f"limits.{cost}": limit for cost, limit in mapping("limits", limits).items()}
    if isinstance(evaluate, str) and "." in evaluate and not isinstance(there := located(evaluate, "evaluate"), type):
        evaluate = there  # a function by its dotted path
    if not isinstance(controller, str) and not callable(controller):
        raise InputError(f"controller={controller!r}: it must be a class, a function that makes one, or a name")
    groups = {"space": made("space", space), "controller": controller, "evaluator": evaluate, "data": data}
    groups |= {"reward": reward, "device": device, "engine": engine}
    objects = ("space", "controller", "evaluator", "reward", "device")
    asked = options_of("search", settings | {"name": named_run(name)}, groups, options, objects)
    given, names = configured(asked.typed)
    asked.describe(given, names)
    parts = dict(asked.parts)
    if "evaluator" in parts:
        parts["evaluator"] = as_evaluator(parts["evaluator"])
    with speaking(progress):
        searched = run_search(given, names, asked.typed, parts)
    return SearchResult(searched.folder.resolve(), searched)
