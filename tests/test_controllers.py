"""Controllers: every law of nas.testing for every shipped one, what each paper promises, and pinned trajectories."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from nas.controller import Problem, Result, novel, outwards
from nas.controllers.bayesian import Bayesian
from nas.controllers.evolution import Evolution
from nas.controllers.random import Random
from nas.controllers.rl import RL, Policy
from nas.testing import ControllerBroken, Make, Separable, awkward, check_controller, trajectory
from phinas.files.errors import InputError
from search_spaces.space import Picks

CONF = Path(__file__).parents[1] / "conf" / "controller"

MAKES: dict[str, Make] = {
    "random": Random,
    "bayesian": Bayesian,
    "bayesian, at once": partial(Bayesian, start=2, candidates=10),
    "evolution": Evolution,
    "evolution, tiny population": partial(Evolution, population=2, sample=1),
    "rl": RL,
    "rl, greedy": partial(RL, batch=3, epochs=2, learning_rate=0.1, entropy=0.0, hidden=8, embedding=4),
}


@pytest.mark.parametrize("name", MAKES)
def test_every_law_holds(name: str) -> None:
    check_controller(MAKES[name])


# --- the laws find offenders ------------------------------------------------------------------------------------------


class Careless(Random):
    """Forgets failures."""

    def tell(self, result: Result) -> None:
        if result.reward is not None:
            super().tell(result)


class Carried(Random):
    """Carries a generator from ask to ask."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        self.rng = np.random.default_rng(seed)

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        self.seed = int(self.rng.integers(1 << 30))
        return super().ask(number, in_flight)


class Heedless(Random):
    """Does not look at what is in flight."""

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        return super().ask(number, ())


class Global(Random):
    """Draws from numpy's global generator."""

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        np.random.random()
        return super().ask(number, in_flight)


class Unlucky(Random):
    """Gives up after ten draws."""

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        for attempt in range(10):
            picks = tuple(
                int(np.random.default_rng((self.seed, number, attempt, place)).integers(len(decision.choices)))
                for place, decision in enumerate(self.problem.decisions)
            )
            if self.problem.key(picks) not in {None, *self.told, *map(self.problem.key, in_flight)}:
                return picks
        return None


class Dwindling(Random):
    """Proposes nothing where it was told of evaluations that it did not ask for itself."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        self.asked = 0

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        self.asked += 1
        return super().ask(number, in_flight) if len(self.told) <= self.asked else None


@pytest.mark.parametrize(
    ("offender", "law"),
    [
        (Careless, "small spaces are exhausted"),
        (Carried, "ask learns nothing"),
        (Carried, "replay restores it"),
        (Dwindling, "replay restores it: restarted after 7 results: 7 evaluations, not 45"),
        (Heedless, "small spaces are exhausted"),
        (Global, "global generators are left alone"),
        (Unlucky, "small spaces are exhausted"),
    ],
)
def test_an_offender_is_found(offender: Any, law: str) -> None:
    with pytest.raises(ControllerBroken, match=law):
        check_controller(offender)


def test_novel_searches_a_small_space_to_its_last_network() -> None:
    problem = Separable((2, 3, 2))
    told = {problem.key((a, b, c)) for a in range(2) for b in range(3) for c in range(2)} - {problem.key((1, 0, 1))}
    for start in ((0, 0, 0), (1, 2, 1), (1, 0, 1)):
        assert novel(problem, [start], told, []) == (1, 0, 1)
        assert novel(problem, [start], told, [(1, 0, 1)]) is None
    assert novel(problem, [], told, []) == (1, 0, 1)


def test_outwards_wanders_off_one_decision_at_a_time() -> None:
    decisions = Separable((3,) * 8).decisions
    start: Picks = (0,) * 8
    mutants = list(outwards(decisions, start, np.random.default_rng(0), 30, family=10))
    for family, parent in enumerate((start, mutants[9], mutants[19])):
        assert all(_differences(parent, mutant) == 1 for mutant in mutants[10 * family : 10 * family + 10])
    assert list(outwards(Separable((1, 1)).decisions, (0, 0), np.random.default_rng(0), 30)) == []


def _differences(one: Picks, other: Picks) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


# --- random and evolution ---------------------------------------------------------------------------------------------


def test_random_is_uniform() -> None:
    problem = Separable((4, 2))
    firsts = [Random(problem, seed=0).ask(number, []) for number in range(4000)]
    counts = [firsts.count((a, b)) for a in range(4) for b in range(2)]
    assert min(counts) > 375 and max(counts) < 625  # 500 expected; 6 standard deviations are 125


def _tell(controller: Any, rewards: Sequence[float | None], problem: Separable) -> list[Picks]:
    """Tell made-up rewards of as many different networks; returns their picks."""
    picks = [
        tuple(int(digit) for digit in np.unravel_index(i * 37, [len(d.choices) for d in problem.decisions]))
        for i in range(len(rewards))
    ]
    for number, (one, reward) in enumerate(zip(picks, rewards, strict=True)):
        controller.tell(Result(number, one, reward, reward))
    return picks


def test_evolution_starts_at_random_and_counts_what_is_in_flight() -> None:
    problem = Separable()
    evolution = Evolution(problem, seed=0, population=8, sample=50, start=5)
    told = _tell(evolution, [0.1, 0.9, 0.2], problem)
    assert evolution.ask(3, []) == Random(problem, seed=0).ask(3, [])
    in_flight: list[Picks] = [(2,) * 10, (1,) * 10]
    child = evolution.ask(5, in_flight)  # 3 told and 2 on their way are a start
    assert child is not None and _differences(child, told[1]) == 1


def test_evolution_takes_the_best_of_its_sample_and_changes_one_decision() -> None:
    problem = Separable()
    evolution = Evolution(problem, seed=0, population=8, sample=200)  # so large a sample misses no member
    picks = _tell(evolution, [0.3, 0.1, 0.8, 0.2, 0.5, 0.6, 0.7, 0.4], problem)
    for number in range(8, 40):
        child = evolution.ask(number, [])
        assert child is not None and _differences(child, picks[2]) == 1
    single = Evolution(problem, seed=0, population=8, sample=1)  # the best of one is anybody
    _tell(single, [0.3, 0.1, 0.8, 0.2, 0.5, 0.6, 0.7, 0.4], problem)
    parents = set()
    for number in range(8, 80):
        child = single.ask(number, [])
        assert child is not None
        parents |= {parent for parent in picks if _differences(child, parent) == 1}
    assert parents == set(picks)


def test_evolution_lets_the_oldest_die_however_good() -> None:
    problem = Separable()
    evolution = Evolution(problem, seed=0, population=3, sample=100)
    picks = _tell(evolution, [0.9, 0.1, 0.3, None, 0.2], problem)
    assert [member for _, member in evolution.population] == [picks[1], picks[2], picks[4]]  # failures are no members
    child = evolution.ask(5, [])
    assert child is not None and _differences(child, picks[2]) == 1


def _search(controller: Any, problem: Separable, evaluations: int) -> list[float]:
    rewards = []
    for number in range(evaluations):
        picks = controller.ask(number, [])
        rewards.append(problem.worth(picks))
        controller.tell(Result(number, picks, rewards[-1], rewards[-1]))
    return rewards


def test_evolution_beats_random() -> None:
    for seed in range(5):
        problem = Separable((3,) * 20, seed=seed)
        best = {make: max(_search(make(problem, seed=seed), problem, 100)) for make in (Random, Evolution)}
        assert best[Evolution] > best[Random] + 0.05


# --- reinforcement learning -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rl_learns_a_separable_problem(seed: int) -> None:
    problem = Separable((4,) * 10, seed=seed)
    rewards = _search(RL(problem, seed=seed), problem, 600)
    assert mean(rewards[-100:]) > 0.75  # random earns 0.5; only new networks count, so 1 is out of reach
    assert max(rewards) > 0.95


@pytest.mark.slow
def test_rl_learns_that_decisions_depend_on_each_other() -> None:
    """Two decisions are worth something when they agree, whichever way: nothing that factors can see that."""
    problem = Separable((2,) * 12)
    controller = RL(problem, seed=0)
    agreed = []
    for number in range(400):
        picks = controller.ask(number, [])
        assert picks is not None
        agreed.append(float(picks[2] == picks[9]))
        controller.tell(Result(number, picks, agreed[-1], agreed[-1]))
    assert mean(agreed[-100:]) > 0.8


def test_policy_is_a_distribution_over_picks_and_samples_from_it() -> None:
    policy = Policy([2, 1, 3], hidden=8, embedding=4, seed=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(20)  # far from uniform
        every = torch.tensor([[a, 0, c] for a in range(2) for c in range(3)])
        log_p = policy(every)
        assert torch.equal(log_p.isinf(), policy.absent.expand(6, 3, 3))
        p = log_p.gather(2, every[:, :, None])[:, :, 0].sum(dim=1).exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-5)
    draws = policy.sample(20_000, torch.Generator().manual_seed(0))
    for picks, expected in zip(every.tolist(), p.tolist(), strict=True):
        assert draws.count(tuple(picks)) / 20_000 == pytest.approx(expected, abs=0.02)  # 6 standard deviations


def test_rl_weights_are_a_function_of_the_results_to_the_bit() -> None:
    problem = awkward()
    live = RL(problem, seed=0)
    results = trajectory(live, problem, 40, workers=3)
    torch.set_num_threads(2)  # and of nothing else
    try:
        fresh = RL(problem, seed=0)
        for result in results:
            fresh.tell(result)
    finally:
        torch.set_num_threads(1)
    assert live.baseline == fresh.baseline
    for ours, theirs in zip(live.policy.parameters(), fresh.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_rl_keeps_the_best_results_and_makes_them_likely() -> None:
    problem = Separable()
    controller = RL(problem, seed=0, batch=6, epochs=40, queue=2, policy_gradient=0.0, entropy=0.0)
    picks = _tell(controller, [0.3, 0.9, None, 0.5, 0.9, 0.1], problem)
    assert controller.queue == [(0.9, picks[4]), (0.9, picks[1])]
    with torch.no_grad():
        log_p = controller.policy(torch.tensor(picks)).gather(2, torch.tensor(picks)[:, :, None]).sum(dim=(1, 2))
    assert min(log_p[1], log_p[4]) > max(log_p[[0, 2, 3, 5]])


def test_rl_without_its_queue_is_ppo_alone() -> None:
    """With neither the queue nor PPO's objective nor the entropy, nothing is left that could be learned."""
    problem = Separable()
    idle = RL(problem, seed=0, queue=0, policy_gradient=0.0, entropy=0.0)
    _tell(idle, [0.1, 0.2, 0.3, 0.4, 0.5], problem)
    learner = RL(problem, seed=0, queue=0, policy_gradient=1.0, entropy=0.0)
    _tell(learner, [0.1, 0.2, 0.3, 0.4, 0.5], problem)
    fresh = RL(problem, seed=0)
    same = [
        torch.equal(one, other) for one, other in zip(idle.policy.parameters(), fresh.policy.parameters(), strict=True)
    ]
    assert all(same) and not learner.queue
    assert not torch.equal(learner.policy.decode, fresh.policy.decode)


def test_rl_takes_failures_and_equal_rewards() -> None:
    problem = Separable()
    for rewards in ([None] * 20, [0.5] * 20, [-1.0, None] * 10):
        controller = RL(problem, seed=0)
        _tell(controller, rewards, problem)
        assert all(bool(torch.isfinite(parameter).all()) for parameter in controller.policy.parameters())
    assert controller.worst == -1.0 and controller.baseline == pytest.approx(-1.0)


@pytest.mark.slow
def test_rl_outlives_good_results_that_it_held_for_impossible() -> None:
    """Mutants are not drawn from the policy; in one update the likelihood of such a result can grow beyond floats."""
    problem = Separable((4,) * 40)
    controller = RL(problem, seed=0, learning_rate=0.2)
    for number in range(310):
        pick, reward = (0, 0.1) if number < 300 else (3, 0.9)
        controller.tell(Result(number, (pick,) * 40, reward, reward))
    assert controller.ask(310, []) is not None


def test_rl_takes_failures_for_bad_whatever_the_scale_of_rewards() -> None:
    """Failures that came before the first reward, too: they are no better than the worst, here far below 0."""
    problem = Separable()
    first = RL(problem, seed=0, batch=4)
    picks = _tell(first, [None, None, -7.0, -5.0], problem)
    assert first.baseline == pytest.approx(mean([-7.0, -7.0, -7.0, -5.0]), abs=0.1)
    with torch.no_grad():
        p = [first.policy(torch.tensor([one]))[0].gather(1, torch.tensor(one)[:, None]).sum() for one in picks]
    assert p[3] > max(p[:3])
    unlucky = RL(problem, seed=0, batch=4)
    _tell(unlucky, [None] * 8, problem)
    assert unlucky.baseline is None and not unlucky.pending  # nothing to compare with yet


# --- configuration and pinned trajectories ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "bayesian", "evolution", "rl"])
def test_every_file_shows_every_setting_at_its_default(name: str) -> None:
    config: Any = OmegaConf.load(CONF / f"{name}.yaml")
    parameters = inspect.signature(get_class(config["_target_"])).parameters
    defaults = {key: value.default for key, value in parameters.items() if key not in ("problem", "seed")}
    assert {key: value for key, value in config.items() if key != "_target_"} == defaults
    assert instantiate(config, problem=awkward(), seed=0).ask(0, []) is not None


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (Bayesian, {"start": 1}),
        (Bayesian, {"candidates": 0}),
        (Evolution, {"population": 0}),
        (Evolution, {"sample": 0}),
        (Evolution, {"start": 0}),
        (RL, {"batch": 0}),
        (RL, {"epochs": 0}),
        (RL, {"queue": -1}),
        (RL, {"policy_gradient": -1}),
    ],
)
def test_wrong_settings_are_named(make: Make, setting: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        make(problem=awkward(), seed=0, **setting)


# The first two of 32 proposals, and the last three. Not of bayesian: sums of another processor's BLAS may differ in the
# last digit, which is enough to tip a choice between two candidates that are as good.
PINNED = {
    "random": ["2012000", "1013103", "2002110", "2002211", "1001000"],
    "evolution": ["2012000", "1013103", "1012010", "2013110", "1011110"],
    "rl": ["0000201", "1000011", "2002011", "0003203", "1011011"],
}


# Repin where an algorithm or a default was changed on purpose, and say so in the changelog, because journals of older
# versions then resume differently; or where a new numpy or torch draws other numbers. Never to make a red test green.
@pytest.mark.parametrize("name", PINNED)
def test_trajectory_is_pinned(name: str) -> None:
    problem = awkward()
    picks = [result.picks for result in trajectory(MAKES[name](problem=problem, seed=0), problem, 32)]
    assert ["".join(str(pick) for pick in one) for one in (*picks[:2], *picks[-3:])] == PINNED[name]
