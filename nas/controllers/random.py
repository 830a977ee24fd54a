"""Random search without repeats: the baseline that every other controller has to beat.

Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", arXiv 1902.07638.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from nas.controller import Problem, Result, novel
from search_spaces.space import Picks, sample

ATTEMPTS = 1000  # keeps the draw uniform over what is new until less than about 1 % of a space is


class Random:
    """Uniform over the picks whose network is new."""

    multi_objective = True

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.seed = seed
        self.told: set[str | None] = set()

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        """Draw until the network is new."""
        rng = np.random.default_rng((self.seed, number))
        proposals = (sample(self.problem.decisions, rng) for _ in range(ATTEMPTS))
        return novel(self.problem, proposals, self.told, in_flight)

    def tell(self, result: Result) -> None:
        """Remember which network it was; nothing else is learnt."""
        self.told.add(self.problem.key(result.picks))
