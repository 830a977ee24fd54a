"""Laws that every controller keeps, to be run on people's own controllers, and a made-up problem to run them on."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nas.controller import Controller, Problem, Result
from search_spaces.space import Decision, Picks, check_picks, size

Make = Callable[..., Controller]  # called as make(problem=..., seed=...): a controller class, or a partial of one

EVALUATIONS = 45
CUTS = (7, 23, 40)


class Separable:
    """A problem whose reward is a sum over its decisions, in [0, 1]: the easiest there is to learn from."""

    def __init__(
        self,
        counts: Sequence[int] = (3,) * 10,
        seed: int = 0,
        infeasible: Callable[[Picks], bool] = lambda picks: False,
        canonical: Callable[[Picks], Picks] = lambda picks: picks,
        front: Sequence[str] = (),
    ) -> None:
        """`counts` are the numbers of choices; picks with the same `canonical` picks count as one network."""
        self.front = tuple(front)
        self.measured = False
        self.decisions = tuple(Decision(f"decision_{i}", tuple(range(count))) for i, count in enumerate(counts))
        self._infeasible = infeasible
        self._canonical = canonical
        worth = [np.random.default_rng((seed, i)).permutation(count) for i, count in enumerate(counts)]
        best = max(1, sum(count - 1 for count in counts))
        self._worths = [[float(value) / best for value in values] for values in worth]

    def key(self, picks: Picks) -> str | None:
        """The canonical picks as text; None where infeasible."""
        return None if self._infeasible(picks) else "-".join(str(pick) for pick in self._canonical(picks))

    def cost(self, picks: Picks) -> Mapping[str, float]:
        """Made up: a million MACs for every step up in any decision."""
        return {"macs": 1e6 * (1 + sum(picks)), "params": 1e3 * (1 + sum(picks)), "activations": 1e3}

    def reward(self, picks: Picks, accuracy: float) -> float:
        """The accuracy: costs play no part."""
        return accuracy

    def worth(self, picks: Picks) -> float:
        """1 for the best picks, 0 for the worst."""
        return sum(worths[pick] for worths, pick in zip(self._worths, self._canonical(picks), strict=True))


def awkward() -> Separable:
    """Some hundred networks with what spaces in the wild have: single choices, dead decisions, infeasible picks."""
    return Separable(
        counts=(3, 1, 2, 4, 3, 2, 4),
        infeasible=lambda picks: sum(picks) % 7 == 0,
        canonical=lambda picks: (*picks[:-1], picks[-1] if picks[0] else 0),  # the last decision is dead where first=0
    )


def trajectory(
    controller: Controller, problem: Problem, evaluations: int, told: Sequence[Result] = (), workers: int = 1
) -> list[Result]:
    """Search with made-up outcomes after telling `told`; returns all results, in the order told.

    Every ninth evaluation fails, number 1 the first. With several workers, results come in an arbitrary, repeatable
    order. Ends early where nothing new is proposed.
    """
    results = list(told)
    for result in told:
        controller.tell(result)
    in_flight: dict[int, Picks] = {}
    number, exhausted = len(told), False
    while len(results) < evaluations:
        while len(in_flight) < workers and not exhausted and number < evaluations:
            picks = controller.ask(number, list(in_flight.values()))
            exhausted = picks is None
            if picks is not None:
                in_flight[number] = picks
                number += 1
        if not in_flight:
            break
        finished = sorted(in_flight)[number * 7919 % len(in_flight)]
        accuracy = None if finished % 9 == 1 else float(np.random.default_rng((1, finished)).random())
        results.append(Result(finished, in_flight.pop(finished), accuracy, accuracy))
        controller.tell(results[-1])
    return results


class ControllerBroken(AssertionError):
    """A controller broke one or more laws; the message lists them."""


def check_controller(make: Make, problem: Problem | None = None) -> None:
    """Hold the controllers that `make` builds to every law; for a test of one line in your own suite.

    `problem` should have 100 networks or more; by default it is `awkward()`.
    Raises ControllerBroken listing the laws that were broken, and by what.
    """
    broken = []
    for law in LAWS:
        try:
            law(make, awkward() if problem is None else problem)
        except _Broken as finding:
            broken.append(f"{law.__name__.strip('_').replace('_', ' ')}: {finding}")
    if broken:
        raise ControllerBroken(f"{len(broken)} of {len(LAWS)} laws are broken\n" + "\n".join(broken))


class _Broken(Exception):
    """A law does not hold; the message says where."""


def _proposals_are_feasible_picks(make: Make, problem: Problem) -> None:
    for result in trajectory(make(problem=problem, seed=0), problem, EVALUATIONS, workers=3):
        if not isinstance(result.picks, tuple):
            raise _Broken(f"ask({result.number}) gave a {type(result.picks).__name__}; picks are a tuple")
        try:
            check_picks(problem.decisions, result.picks)
        except ValueError as error:
            raise _Broken(f"ask({result.number}): {error}") from None
        if problem.key(result.picks) is None:
            raise _Broken(f"ask({result.number}) proposed {result.picks}, which is infeasible")


def _proposals_are_new(make: Make, problem: Problem) -> None:
    """Results come out of order, and some are failures; neither may come back."""
    results = trajectory(make(problem=problem, seed=1), problem, EVALUATIONS, workers=4)
    if len(results) < EVALUATIONS:
        raise _Broken(f"nothing new after {len(results)} evaluations; has the problem 100 networks?")
    numbers: dict[str | None, int] = {}
    for result in sorted(results, key=lambda result: result.number):
        first = numbers.setdefault(problem.key(result.picks), result.number)
        if first != result.number:
            raise _Broken(f"ask({result.number}) proposed the network of ask({first}) again")


def _ask_learns_nothing(make: Make, problem: Problem) -> None:
    results = trajectory(make(problem=problem, seed=2), problem, 30)
    controller = make(problem=problem, seed=2)
    for told, result in enumerate(results):
        in_flight = [later.picks for later in results[told : told + 2]]
        first = controller.ask(told, in_flight)
        controller.ask(told + 1, [])
        if controller.ask(told, in_flight) != first:
            raise _Broken(f"after {told} results, ask({told}) gave two answers to one question")
        controller.tell(result)


def _replay_restores_it(make: Make, problem: Problem) -> None:
    """A controller that was told the same results asks the same, though it never asked for them itself."""
    for workers in (1, 3):
        whole = trajectory(make(problem=problem, seed=3), problem, EVALUATIONS, workers=workers)
        if workers == 1:
            for cut in CUTS:
                restarted = trajectory(make(problem=problem, seed=3), problem, EVALUATIONS, told=whole[:cut])
                _same(whole, restarted, f"restarted after {cut} results")
        live, fresh = make(problem=problem, seed=3), make(problem=problem, seed=3)
        for result in whole:
            live.ask(result.number, [])
            live.tell(result)
            fresh.tell(result)
        for number in range(EVALUATIONS, EVALUATIONS + 5):
            if live.ask(number, []) != fresh.ask(number, []):
                raise _Broken(f"told {EVALUATIONS} results, with and without asking: ask({number}) differs")


def _seeds_decide(make: Make, problem: Problem) -> None:
    first, again, other = (trajectory(make(problem=problem, seed=seed), problem, 20) for seed in (4, 4, 5))
    _same(first, again, "run again with the same seed")
    if [result.picks for result in first] == [result.picks for result in other]:
        raise _Broken("20 proposals are the same under two seeds")


def _global_generators_are_left_alone(make: Make, problem: Problem) -> None:
    """Neither read nor advanced: a search must not depend on what else the process does."""
    before = _global_state()
    trajectory(make(problem=problem, seed=6), problem, 25)
    for name, state in _global_state().items():
        if name in before and before[name] != state:
            raise _Broken(f"the global generator of {name} has moved")


def _small_spaces_are_exhausted(make: Make, problem: Problem) -> None:
    """Every network is found, however few there are, and then None; with evaluations in flight, too."""
    spaces = {
        "3 networks": (Separable((3,)), 3),
        "1 network": (Separable((1, 1)), 1),
        "no feasible network": (Separable((2, 2), infeasible=lambda picks: True), 0),
        "1 feasible network of 256": (Separable((4,) * 4, infeasible=lambda picks: sum(picks) < 12), 1),
        "3 networks behind 81 picks": (Separable((3,) * 4, canonical=lambda picks: (picks[0], 0, 0, 0)), 3),
    }
    for name, (tiny, networks) in spaces.items():
        for workers in (1, 2):
            controller = make(problem=tiny, seed=7)
            count = len(trajectory(controller, tiny, size(tiny.decisions) + 1, workers=workers))
            if count != networks:
                raise _Broken(f"a space of {name}: {count} evaluations with {workers} at a time")
            if controller.ask(networks, []) is not None:
                raise _Broken(f"a space of {name}: something was proposed after everything was told")


def _same(expected: Sequence[Result], actual: Sequence[Result], what: str) -> None:
    if len(actual) != len(expected):
        raise _Broken(f"{what}: {len(actual)} evaluations, not {len(expected)}")
    for wanted, given in zip(expected, actual, strict=True):
        if wanted != given:
            raise _Broken(f"{what}: ask({wanted.number}) gave {given.picks}, not {wanted.picks}")


def _global_state() -> dict[str, Any]:
    state: dict[str, Any] = {"random": random.getstate(), "numpy.random": str(np.random.get_state())}
    if torch := sys.modules.get("torch"):
        state["torch"] = torch.get_rng_state().tolist()
    return state


LAWS: tuple[Callable[[Make, Problem], None], ...] = (
    _proposals_are_feasible_picks,
    _proposals_are_new,
    _ask_learns_nothing,
    _replay_restores_it,
    _seeds_decide,
    _global_generators_are_left_alone,
    _small_spaces_are_exhausted,
)
