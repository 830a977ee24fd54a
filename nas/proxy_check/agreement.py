"""How well one ranking agrees with another, and how sure that is: Kendall's tau-b and its bootstrap over networks.

The networks of a check are a sample of those that a search meets. What another sample would have given is told by
drawing from this one with replacement, so many times: the 2.5th and the 97.5th percentile are the ends of the interval
(Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13). Over made-up networks with a true tau from 0 to
0.8 it held the truth in 94 to 98 % of 1000 checks of 16 networks, in 95 to 97 % of 32, in 93 to 98 % of 8; but in 79 to
99 % of 5, and in 35 to 67 % of 3, of which one in six come in order by chance: hence none of so few. All statistics of
a check are taken from the same draws, so that differences between them have intervals too.

A draw is the number of times that each network was drawn, [n]; statistics are arithmetic on such counts, which is a
thousand times faster than ranking anew: the pairs of a network with itself are ties in both rankings, and count for
nothing in tau-b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
FEWEST = 7  # networks of which there is an interval
_LEAST_DRAWN = 0.5  # share of the draws that must have a value: a draw of one network over and over has none


@dataclass(frozen=True)
class Estimate:
    """A statistic, and the ends of its 95 % interval; None where the networks are too few or too alike for one."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.value:.2f}" + ("" if self.low is None else f" (95 % {self.low:.2f} to {self.high:.2f})")


def draws(networks: int) -> Array:
    """Counts [1 + DRAWS, networks]: first each network once, then what was drawn with replacement; always the same.

    Of fewer networks than `FEWEST` the first alone.
    """
    if networks < FEWEST:
        return np.ones((1, networks))
    drawn = np.random.default_rng(0).multinomial(networks, np.full(networks, 1 / networks), size=DRAWS)
    return np.concatenate([np.ones((1, networks)), drawn]).astype(float)


def estimate(values: Array) -> Estimate | None:
    """What `values` [1 + DRAWS] of a statistic say; NaN is a draw without one. None where the networks have none."""
    finite = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return None
    if len(finite) < _LEAST_DRAWN * len(values):
        return Estimate(float(values[0]), None, None)
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values[0]), float(low), float(high))


def tau(first: Sequence[float] | Array, second: Sequence[float] | Array, counts: Array) -> Array:
    """Kendall's tau-b of two rankings [n] in each draw [R, n]; NaN where one of them ranks nothing."""
    a, b = _order(first), _order(second)
    return _ratio(_pairs(a * b, counts), np.sqrt(_pairs(np.abs(a), counts) * _pairs(np.abs(b), counts)))


def in_order(first: Sequence[float] | Array, second: Sequence[float] | Array, counts: Array) -> Array:
    """Of the pairs that the second ranking tells apart, the share that the first puts in its order; ties are half."""
    a, b = _order(first), _order(second)
    return (1 + _ratio(_pairs(a * b, counts), _pairs(np.abs(b), counts))) / 2


def spearman(first: Sequence[float] | Array, second: Sequence[float] | Array, counts: Array) -> Array:
    """Spearman's correlation of ranks, equal values sharing theirs, in each draw."""
    a, b = _ranks(first, counts), _ranks(second, counts)
    a, b = a - _mean(a, counts), b - _mean(b, counts)
    return _ratio((counts * a * b).sum(1), np.sqrt((counts * a * a).sum(1) * (counts * b * b).sum(1)))


def partial_tau(with_other: Array, first_given: Array, second_given: Array) -> Array:
    """Kendall's partial tau: of two rankings whose taus with a third are `first_given` and `second_given`.

    What agreement is left between them once the third is known (Kendall, "Partial rank correlation", Biometrika 32,
    1942).
    """
    left = np.sqrt(np.clip((1 - first_given**2) * (1 - second_given**2), 0, None))
    return _ratio(with_other - first_given * second_given, left)


def shared_top(first: Sequence[float] | Array, second: Sequence[float] | Array, size: int) -> float:
    """How many of the best `size` of one ranking the best `size` of the other hold; the mean over orders of ties."""
    return float((_chance_of_top(first, size) * _chance_of_top(second, size)).sum())


def _chance_of_top(values: Sequence[float] | Array, size: int) -> Array:
    """The probability of each value to be among the best `size`, ties in any order."""
    given = np.asarray(values, dtype=float)
    above = (given > given[:, None]).sum(1)
    equal = (given == given[:, None]).sum(1)
    return np.asarray(np.clip((size - above) / equal, 0, 1))


def _order(values: Sequence[float] | Array) -> Array:
    """1, -1 or 0 for each pair [n, n]."""
    given = np.asarray(values, dtype=float)
    return np.asarray(np.sign(given[:, None] - given[None, :]))


def _pairs(matrix: Array, counts: Array) -> Array:
    """The sum of `matrix` [n, n] over all pairs of each draw."""
    return np.asarray(((counts @ matrix) * counts).sum(1))


def _ranks(values: Sequence[float] | Array, counts: Array) -> Array:
    """Ranks [R, n] within each draw: those below, and half of the equals."""
    order = _order(values)
    return np.asarray(counts @ (order < 0) + 0.5 * (counts @ (order == 0)))


def _mean(values: Array, counts: Array) -> Array:
    return np.asarray((counts * values).sum(1, keepdims=True) / counts.sum(1, keepdims=True))


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 1e-12)
