"""Regularised (ageing) evolution.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", arXiv 1802.01548,
algorithm 1: the best of a random sample of the population has a child, and the oldest member dies, however good.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

import numpy as np

from nas.controller import Problem, Result, novel, outwards
from phinas.files.checks import check_whole
from search_spaces import space
from search_spaces.space import Picks

ATTEMPTS = 1000  # proposals looked at before novel() walks the space


class Evolution:
    """A population of the latest `population` results; each parent is the best of `sample` drawn from it."""

    def __init__(self, problem: Problem, seed: int, population: int = 30, sample: int = 30, start: int = 10) -> None:
        """Counts from 1. The paper: 100, 25 and 100, for 20,000 evaluations; docs/adr/0008-evolution-settings.md."""
        check_whole("controller.population", population)
        check_whole("controller.sample", sample)
        check_whole("controller.start", start)
        self.problem = problem
        self.seed = seed
        self.sample = sample
        self.start = min(start, population)
        self.population: deque[tuple[float, Picks]] = deque(maxlen=population)  # the oldest falls out on the left
        self.told: set[str | None] = set()

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        """Random networks until `start` are members, or will be; then a mutated copy of a tournament's winner."""
        rng = np.random.default_rng((self.seed, number))
        decisions = self.problem.decisions
        proposals: Iterable[Picks]
        if not self.population or len(self.population) + len(in_flight) < self.start:
            proposals = (space.sample(decisions, rng) for _ in range(ATTEMPTS))
        else:
            proposals = outwards(decisions, self._parent(rng), rng, ATTEMPTS)
        return novel(self.problem, proposals, self.told, in_flight)

    def _parent(self, rng: np.random.Generator) -> Picks:
        """The best of `sample` members, drawn with replacement."""
        drawn = [self.population[i] for i in rng.integers(len(self.population), size=self.sample)]
        return max(drawn, key=lambda member: member[0])[1]

    def tell(self, result: Result) -> None:
        """The result joins the population, in the order told. One that failed does not, and is not proposed again."""
        self.told.add(self.problem.key(result.picks))
        if result.reward is not None:
            self.population.append((result.reward, result.picks))
