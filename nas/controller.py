"""What a controller is: two verbs, ask and tell, over decisions, known costs and rewards; never over a network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from search_spaces.space import Decision, Picks, mutate

WALK_LIMIT = 10_000  # keys looked at before a space counts as exhausted: seconds at most, and exact below this size


class Problem(Protocol):
    """What a controller may know of the search."""

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the costs that the search trades against accuracy; `()` when the reward alone counts.

        Only a controller with the class attribute `multi_objective = True` meets a problem with a front. It then goes
        by `Result.accuracy` and `cost`; all costs are better when lower, unless their name begins with "throughput".
        """
        ...

    @property
    def measured(self) -> bool:
        """Whether learning what an unknown network costs takes long, as a measurement does: look at few then."""
        ...

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The named choices that make up a proposal."""
        ...

    def key(self, picks: Picks) -> str | None:
        """Identity of the network that `picks` describe: equal keys, equal networks. None: infeasible or refused."""
        ...

    def cost(self, picks: Picks) -> Mapping[str, float]:
        """What is known before any evaluation: "macs" (multiply-adds), "params", "activations" (counts), and more."""
        ...

    def reward(self, picks: Picks, accuracy: float) -> float:
        """The reward if the evaluation of `picks` came to `accuracy`, a fraction; higher is better."""
        ...


@dataclass(frozen=True)
class Result:
    """One finished evaluation, as a controller is told of it."""

    number: int  # evaluation number, from 0, as it was given to ask
    picks: Picks
    accuracy: float | None  # fraction in [0, 1]; None: the evaluation failed
    reward: float | None  # higher is better; None: the evaluation failed
    stopped: bool = False  # early, by successive halving: accuracy and reward are those of fewer epochs
    curve: tuple[float, ...] = ()  # accuracy after each epoch, the last of them as above; () where there are no epochs


class Controller(Protocol):
    """Proposes networks and learns from results. Built as `Controller(problem=problem, seed=seed, **settings)`.

    All of a controller's state is a function of its settings, its seed and the sequence of results it was told, so a
    search is resumed by telling a fresh controller the same results again. `nas.testing.check_controller` checks
    every promise made here.
    """

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        """Propose picks for evaluation `number`, while `in_flight` are being evaluated.

        Learns nothing and changes nothing: a pure function of what was told, of (seed, number) and of `in_flight`.
        The proposal is feasible, and its key differs from those of all told results and of all `in_flight`.
        None: no such picks were found; the space counts as exhausted, unless something in flight changes that.
        """
        ...

    def tell(self, result: Result) -> None:
        """Learn from one result. Results come in any order, failed ones included, and each of them once."""
        ...


def novel(
    problem: Problem, proposals: Iterable[Picks], told: Set[str | None], in_flight: Collection[Picks]
) -> Picks | None:
    """The first proposal that is feasible and whose key is neither in `told` nor in flight; None if there is none.

    `proposals` is a finite stream in order of preference. When it runs dry, the picks that follow its last member in
    counting order are tried, so that a small space is searched to its last network and None is exact; in a space of
    more than WALK_LIMIT picks, None means that none was near.
    """
    busy = {problem.key(picks) for picks in in_flight}
    last: Picks = (0,) * len(problem.decisions)

    def candidates() -> Iterator[Picks]:
        nonlocal last
        for last in proposals:
            yield last
        yield from islice(_following(problem.decisions, last), WALK_LIMIT)

    for picks in candidates():
        key = problem.key(picks)
        if key is not None and key not in told and key not in busy:
            return picks
    return None


def outwards(
    decisions: tuple[Decision, ...], picks: Picks, rng: np.random.Generator, mutants: int, family: int = 10
) -> Iterator[Picks]:
    """`mutants` proposals ever further from `picks`: a family of its mutants, then mutants of the youngest, and so on.

    Nothing at all where no decision has a second choice.
    """
    if all(len(decision.choices) == 1 for decision in decisions):
        return
    for count in range(1, mutants + 1):
        mutant = mutate(decisions, picks, rng)
        yield mutant
        if count % family == 0:
            picks = mutant


def _following(decisions: tuple[Decision, ...], picks: Picks) -> Iterator[Picks]:
    """All picks of the space in counting order, from the one after `picks` round to `picks` itself."""
    digits = list(picks)
    while True:
        for place, decision in enumerate(decisions):
            digits[place] = (digits[place] + 1) % len(decision.choices)
            if digits[place]:  # no carry into the next place
                break
        yield tuple(digits)
        if tuple(digits) == picks:
            return
