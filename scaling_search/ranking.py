"""Which of many candidates is the best, and how sure that is, from the accuracies of a few seeds each.

Partial pooling, after Gelman et al., "Bayesian Data Analysis", 3rd edition, chapter 5.4:

    accuracy of a seed      ~ normal(true accuracy of its candidate, sigma)    sigma: the noise, alike in all
    true accuracy           ~ normal(mu, tau)                                  tau: how far candidates differ

with flat priors on mu and log(sigma), and a half-Cauchy prior of scale sigma on tau (Gelman, "Prior distributions for
variance parameters", Bayesian Analysis 1(3), 2006): the book's flat one is no distribution for two candidates. In the
ratio tau / sigma all else is in closed form, and the book's grid is over that ratio alone; what is left are integrals,
done on fixed points. The true accuracy is the mean over all seeds on the same images; that these are but a sample of
all images is not in the intervals.

In 200 made-up studies of 12 candidates with 3 seeds that differ as much as seeds do (tau = sigma), the highest mean was
of the best candidate in 56 %, and 0.45 sigma above what that candidate is worth, for it was picked by it. Here, the
probability stated for the first was 0.52 on average, its expected accuracy 0.13 sigma too low, and the best was among
the contenders, 5.5 on average, in 97.5 %. Intervals held 92.5 % of the true accuracies there, and 95 % over studies
with tau / sigma as the prior has it (tests/test_ranking.py measures all of these).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtr, ndtri

from phinas.files.errors import InputError
from scaling_search.noise import pooled_deviation

Array = npt.NDArray[np.float64]

LEVEL = 0.95  # of intervals, and of the set that holds the best candidate
DRAWS = 1024
NODES = 40  # of the integral over the accuracy of the best candidate
REACH = 5.0  # where that integral ends, in standard deviations
GRID = 1000  # ratios tau / sigma
LISTED = 5  # candidates that a verdict names


@dataclass(frozen=True)
class Ranking:
    """What a study knows of its candidates; tuples have one entry for each, None where nothing is known.

    Accuracies are fractions, or whatever unit went in. A candidate without any accuracy has None everywhere, and is
    no contender. Where no candidate has two seeds the noise is unknown, and with it all but `mean`; any may be the best
    then, and all are contenders. Of one candidate alone, `between` is unknown.
    """

    mean: tuple[float | None, ...]
    sd: tuple[float | None, ...]  # between the candidate's own seeds
    expected: tuple[float | None, ...]  # the true accuracy as believed: the mean, drawn towards all others
    low: tuple[float | None, ...]  # between low and high the true accuracy lies with probability 0.95
    high: tuple[float | None, ...]
    probability_best: tuple[float | None, ...]
    within: float | None  # the standard deviation between seeds of one candidate, pooled
    between: float | None  # the standard deviation between true accuracies of candidates, posterior median
    contenders: tuple[int, ...]  # the fewest that hold the best with probability 0.95, the most probable first

    def verdict(self, labels: Sequence[str]) -> str:
        """What the data say, in one line; `labels` name the candidates."""
        count = sum(accuracy is not None for accuracy in self.mean)
        if not count:
            return "no candidate has an accuracy"
        first = labels[self.contenders[0]]
        if count == 1:
            return f"{first} is the only candidate with an accuracy"
        probability = self.probability_best[self.contenders[0]]
        if probability is None:
            return (
                f"the noise between seeds is unknown, so any of {count} candidates may be the best "
                f"({first} came out highest): ask for seeds=3"
            )
        if len(self.contenders) == 1 and self.within == 0:
            return f"{first} is the best of {count}: seeds make no difference"
        if len(self.contenders) == 1:
            stated = f"{probability:.2f}" if probability < 0.995 else "more than 0.99"
            return f"{first} is the best of {count} with probability {stated}"
        named = ", ".join(f"{labels[place]} ({self.probability_best[place]:.2f})" for place in self.contenders[:LISTED])
        others = len(self.contenders) - LISTED
        return (
            f"the data cannot tell {len(self.contenders)} of {count} candidates apart (probability to be the best): "
            f"{named}{f' and {others} more' if others > 0 else ''}; "
            f"{'seeds make no difference' if self.within == 0 else 'more seeds tell more'}"
        )


def rank(accuracies: Sequence[Sequence[float]]) -> Ranking:
    """How good each candidate is, and how probably the best, from its accuracies over seeds.

    Any number of seeds may be missing, also all of a candidate. The same accuracies give the same answer to the bit.
    Raises InputError for an accuracy that is no finite number.
    """
    for number, own in enumerate(accuracies):
        for accuracy in own:
            if not math.isfinite(accuracy):
                raise InputError(f"candidate {number} has the accuracy {accuracy}: accuracies are finite numbers")
    known = [number for number, own in enumerate(accuracies) if len(own)]
    means = np.array([mean(map(float, accuracies[number])) for number in known])
    within, degrees = pooled_deviation(accuracies)

    expected = low = high = probability = between = None
    if within is None:
        probability = np.ones(1) if len(known) == 1 else None
    elif within == 0:
        probability = (means == means.max()) / (means == means.max()).sum()
        expected = low = high = means
        between = float(means.std(ddof=1)) if len(known) > 1 else None
    else:
        middle = float(np.median(means))  # no digits are lost, whatever the units
        seeds = np.array([len(accuracies[number]) for number in known], dtype=float)
        posterior = _posterior((means - middle) / within, seeds, degrees)
        expected = middle + within * posterior.expected
        low, high = middle + within * np.quantile(posterior.drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        probability = _probability_best(posterior.centre, posterior.spread)
        between = within * posterior.between if len(known) > 1 else None

    def spread_out(values: Array | None) -> tuple[float | None, ...]:
        by_number = {} if values is None else dict(zip(known, values.tolist(), strict=True))
        return tuple(by_number.get(number) for number in range(len(accuracies)))

    return Ranking(
        mean=spread_out(means),
        sd=tuple(stdev(map(float, own)) if len(own) > 1 else None for own in accuracies),
        expected=spread_out(expected),
        low=spread_out(low),
        high=spread_out(high),
        probability_best=spread_out(probability),
        within=within,
        between=between,
        contenders=tuple(known[place] for place in _contenders(means, probability)),
    )


@dataclass(frozen=True)
class _Posterior:
    """D draws of sigma, tau and mu for K candidates, and the true accuracies given each: independent normals."""

    expected: Array  # [K]
    centre: Array  # [D, K]
    spread: Array  # [D, K]
    drawn: Array  # [D, K]: one true accuracy of each; only the distribution of each column means anything
    between: float  # the median of tau


def _posterior(means: Array, seeds: Array, degrees: int) -> _Posterior:
    """Of candidates with `means` [K] over `seeds` [K], in units of the standard deviation within, near 0.

    A Latin hypercube (McKay, Beckman and Conover, Technometrics 21(2), 1979), shared by all candidates: their order is
    of no consequence, and equal candidates come out equal.
    """
    hypercube = (np.random.default_rng(0).random((4, DRAWS)).argsort(axis=1) + 0.5) / DRAWS
    log_ratio = np.linspace(math.log(1e-3), math.log(1e3 * max(1.0, float(np.ptp(means)))), GRID)
    weight, middle, squares = _given_ratio(np.exp(log_ratio), means, seeds, degrees)
    freedom = degrees + len(means) - 1
    log_density = (  # of log_ratio; sigma and mu are integrated out
        log_ratio - np.log1p(np.exp(2 * log_ratio)) + 0.5 * np.log(weight).sum(1) - 0.5 * np.log(weight.sum(1))
        - 0.5 * freedom * np.log(squares)
    )  # fmt: skip
    density = np.exp(log_density - log_density.max())
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    ratio = np.exp(np.interp(hypercube[0], cumulative / cumulative[-1], log_ratio))

    weight, middle, squares = _given_ratio(ratio, means, seeds, degrees)
    sigma = np.sqrt(squares / chdtri(freedom, hypercube[1]))
    mu = middle + sigma * ndtri(hypercube[2]) / np.sqrt(weight.sum(1))
    drawn_in = 1 / (1 + seeds * ratio[:, None] ** 2)  # the share of mu in what is believed of a candidate
    centre = means + drawn_in * (mu[:, None] - means)
    spread = (sigma * ratio)[:, None] * np.sqrt(drawn_in)
    return _Posterior(
        expected=(means + drawn_in * (middle[:, None] - means)).mean(0),
        centre=centre,
        spread=spread,
        drawn=centre + spread * ndtri(hypercube[3])[:, None],
        between=float(np.median(sigma * ratio)),
    )


def _given_ratio(ratio: Array, means: Array, seeds: Array, degrees: int) -> tuple[Array, Array, Array]:
    """For each tau / sigma [R]: weights of the means [R, K], their weighted mean [R], and the sum of squares [R]."""
    weight = 1 / (1 / seeds + ratio[:, None] ** 2)
    middle = weight @ means / weight.sum(1)
    squares = degrees + (weight * (means - middle[:, None]) ** 2).sum(1)
    return weight, middle, squares


def _probability_best(centre: Array, spread: Array) -> Array:
    """The probability [K] that each of independent normals [D, K] is the greatest, over all draws.

    The integral, over the value of the greatest, of the density of one times the probability that all others are
    below. Counting the greatest in draws of all would leave equal candidates unequal by chance.
    """
    start = (centre - REACH * spread).max(1)
    step = ((centre + REACH * spread).max(1) - start) / (NODES - 1)
    total = np.zeros_like(centre)
    for node in range(NODES):
        z = ((start + node * step)[:, None] - centre) / spread
        below = ndtr(z)  # not under ndtr(-REACH), by where the integral starts
        total += np.exp(-0.5 * z**2) / (spread * below) * (step * below.prod(1))[:, None]
    share = np.asarray((total / total.sum(1, keepdims=True)).mean(0))
    return np.asarray(share / share.sum())


def _contenders(means: Array, probability: Array | None) -> list[int]:
    """Places of the fewest that hold the best with probability LEVEL; all where nothing is known, the highest first."""
    order = np.argsort(-(means if probability is None else probability), kind="stable")
    count = len(order)
    if probability is not None:
        count = 1 + int((np.cumsum(probability[order]) < LEVEL - 1e-9).sum())
    return [int(place) for place in order[:count]]
