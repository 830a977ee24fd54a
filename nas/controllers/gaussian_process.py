"""A Gaussian process over picks: how the error of a network depends on its choices and on its known costs.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006: chapter 2 (regression) and 5.4
(hyperparameters by the marginal likelihood, here with priors on them). The covariance of two networks is

    linear(choices, log costs)      a trend: what is larger is better
    + additive(choices, log costs)  one effect per decision, of its own size, and a parabola in each log cost
    + Matern(choices, log costs)    interactions: networks that are alike in everything have alike errors

so that few results settle the trend, and many the rest. Costs are inputs because they are known exactly and tell much:
of 100 random networks of Accel-NASBench, predictions from choices alone rank others with a Kendall tau of 0.79, with
costs and choices of 0.84; of 20, with 0.37 and 0.71 (docs/adr/0009-bayesian-controller.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from search_spaces.space import Decision, Picks

Array = npt.NDArray[np.float64]

EFFECT_LENGTH = 0.7  # how far an effect of ordered choices carries; 1 is from the first choice to the last
JITTER = 1e-8
LIMIT = np.log(1e3)  # hyperparameters stay within this factor of their prior

# Priors: every hyperparameter is log-normal. Medians for standardised errors, and standard deviations of the logarithm.
_SHARED = {
    "effect of a decision": (0.1, 1.0),  # standard deviations of the error
    "effect of a cost": (0.1, 1.0),
    "trend in a decision": (0.6, 1.0),
    "trend in a cost": (0.6, 1.0),
    "length over decisions": (2.0, 1.0),
    "length over costs": (1.0, 1.0),
    "interactions": (1.0, 1.0),
    "noise": (0.05, 1.0),
}
_OWN_EFFECT = 0.7  # how much the effect of one decision may differ from the others', in logarithms


@dataclass(frozen=True)
class Inputs:
    """n networks, as the covariance sees them."""

    effects: Array  # [n, e]: the basis of the additive part
    place: Array  # [n, p]: ordered choices as numbers, others one-hot, and the log costs


@dataclass(frozen=True)
class Posterior:
    """What is known after conditioning on results."""

    given: Inputs
    factor: Array  # lower Cholesky factor of the covariance of what was observed, [n, n]
    weights: Array  # its inverse times the observations, [n]
    smoothed: Array  # what is believed of the given networks themselves, without their noise, [n]


class GaussianProcess:
    """The process over one space. It holds no data: fit, condition and predict are functions of theirs."""

    def __init__(self, decisions: Sequence[Decision], costs: int) -> None:
        """`costs` is how many known costs each network has."""
        counts = [len(decision.choices) for decision in decisions]
        bases = [_basis(decision) for decision in decisions]
        self._starts = np.cumsum([0, *counts[:-1]])
        self._effects = _block_diagonal([effects for effects, _ in bases])
        self._places = _block_diagonal([places for _, places in bases])
        self._decisions, self._costs = len(decisions), costs
        self._rows = int(sum(counts))
        self._discrete = self._places.shape[1]  # columns of Inputs.place that are choices, before those of the costs
        of_a_cost = len(decisions) + np.arange(costs)
        self._owner = np.concatenate([np.repeat(np.arange(len(decisions)), counts), of_a_cost, of_a_cost])
        owners = len(decisions) + costs
        self.prior = np.log([median for median, _ in _SHARED.values()] + [1.0] * owners)
        self._spread = np.array([spread for _, spread in _SHARED.values()] + [_OWN_EFFECT] * owners)

    def inputs(self, picks: Sequence[Picks], log_costs: Array) -> Inputs:
        """Networks by their picks, and by log costs or whatever else is known of them [n, costs], standardised."""
        chosen = np.asarray(picks) + self._starts
        one_hot = np.zeros((len(chosen), self._rows))
        np.put_along_axis(one_hot, chosen, 1.0, axis=1)
        return Inputs(
            effects=np.hstack([one_hot @ self._effects, log_costs, log_costs**2 - 1]),
            place=np.hstack([one_hot @ self._places, log_costs / 2]),
        )

    def fit(self, given: Inputs, observed: Array, steps: int = 60) -> Array:
        """The most probable hyperparameters (logarithms) for observations [n], standardised."""
        bounds = list(zip(self.prior - LIMIT, self.prior + LIMIT, strict=True))
        optimum = minimize(
            self._loss, self.prior, (given, observed), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": steps},
        )  # fmt: skip
        return np.asarray(optimum.x)

    def condition(self, hyper: Array, given: Inputs, observed: Array) -> Posterior:
        """The posterior after observations [n], standardised (algorithm 2.1)."""
        covariance = self._covariance(hyper, given, given)
        noise = np.exp(2 * hyper[7]) + JITTER
        covariance[np.diag_indices_from(covariance)] += noise
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        weights = cho_solve((factor, True), observed, check_finite=False)
        return Posterior(given, factor, weights, smoothed=observed - noise * weights)

    def mean(self, hyper: Array, posterior: Posterior, at: Inputs) -> Array:
        """Mean of the error at other networks, [m]."""
        return np.asarray(self._covariance(hyper, at, posterior.given) @ posterior.weights)

    def predict(self, hyper: Array, posterior: Posterior, at: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation of the error at other networks, without noise: [m], [m]."""
        across = self._covariance(hyper, at, posterior.given)
        explained = solve_triangular(posterior.factor, across.T, lower=True, check_finite=False)
        effect, trend, _, interactions, _ = self._split(hyper)
        before = at.effects**2 @ effect + at.place**2 @ trend + interactions
        variance = np.maximum(before - np.einsum("nm,nm->m", explained, explained), 1e-12)
        return across @ posterior.weights, np.sqrt(variance)

    def _split(self, hyper: Array) -> tuple[Array, Array, Array, float, float]:
        """Variances of effects [e] and trends [p], inverse lengths [p], variances of interactions and of noise."""
        effect_d, effect_c, trend_d, trend_c, length_d, length_c, interactions, noise = hyper[:8]
        effects = np.repeat([effect_d, effect_c], [self._decisions, self._costs]) + hyper[8:]
        return (
            np.exp(2 * effects)[self._owner],
            np.exp(2 * self._per_place(trend_d, trend_c)),
            np.exp(-self._per_place(length_d, length_c)),
            float(np.exp(2 * interactions)),
            float(np.exp(2 * noise)),
        )

    def _per_place(self, discrete: float, cost: float) -> Array:
        return np.repeat([discrete, cost], [self._discrete, self._costs])

    def _covariance(self, hyper: Array, first: Inputs, second: Inputs) -> Array:
        effect, trend, inverse_length, interactions, _ = self._split(hyper)
        distance = _squared_distance(first.place * inverse_length, second.place * inverse_length)
        covariance = _matern(distance)
        covariance *= interactions
        weighted = np.hstack([first.effects * effect, first.place * trend])
        covariance += weighted @ np.hstack([second.effects, second.place]).T
        return covariance

    def _loss(self, hyper: Array, given: Inputs, observed: Array) -> tuple[float, Array]:
        """Negated log posterior of the hyperparameters, and its gradient (equations 2.30 and 5.9)."""
        effect, trend, inverse_length, interactions, noise = self._split(hyper)
        scaled, d = given.place * inverse_length, self._discrete
        over_choices = _squared_distance(scaled[:, :d], scaled[:, :d])
        over_costs = _squared_distance(scaled[:, d:], scaled[:, d:])
        distance = over_choices + over_costs
        matern, slope = _matern(distance), _matern_slope(distance)
        covariance = (given.effects * effect) @ given.effects.T + (given.place * trend) @ given.place.T
        covariance += interactions * matern
        covariance[np.diag_indices_from(covariance)] += noise + JITTER
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except np.linalg.LinAlgError:  # so far from the prior that the line search has to come back
            return 1e10, np.zeros_like(hyper)
        inverse, _ = dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        weights = inverse @ observed
        away = (hyper - self.prior) / self._spread
        loss = 0.5 * observed @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away

        def by_variance(basis: Array, variance: Array) -> Array:
            """dL / d log(standard deviation) of each column of a basis."""
            return np.asarray(variance * (np.einsum("nb,nb->b", inverse @ basis, basis) - (basis.T @ weights) ** 2))

        by_effect = np.bincount(self._owner, by_variance(given.effects, effect), minlength=len(hyper) - 8)
        by_trend = by_variance(given.place, trend)
        by_covariance = 0.5 * (inverse - np.outer(weights, weights))
        by_distance = interactions * by_covariance * slope
        gradient = np.array([
            by_effect[: self._decisions].sum(), by_effect[self._decisions :].sum(),
            by_trend[:d].sum(), by_trend[d:].sum(),
            -2 * np.vdot(by_distance, over_choices), -2 * np.vdot(by_distance, over_costs),
            2 * interactions * np.vdot(by_covariance, matern), 2 * noise * np.trace(by_covariance),
            *by_effect,
        ])  # fmt: skip
        return float(loss), gradient + away / self._spread


def _basis(decision: Decision) -> tuple[Array, Array]:
    """Of one decision: the basis of its effects [choices, choices], and its places [choices, 1 or choices]."""
    count = len(decision.choices)
    if not all(isinstance(choice, Real) and not isinstance(choice, bool) for choice in decision.choices):
        return np.eye(count), np.eye(count) * 0.5**0.5  # without order: any two are at distance 1
    place = np.arange(count) / max(count - 1, 1)
    alike = np.exp(-0.5 * ((place[:, None] - place) / EFFECT_LENGTH) ** 2)
    return cholesky(alike + JITTER * np.eye(count), lower=True), place[:, None] - 0.5


def _block_diagonal(blocks: Sequence[Array]) -> Array:
    rows, columns = (np.cumsum([0, *(block.shape[axis] for block in blocks)]) for axis in (0, 1))
    whole = np.zeros((rows[-1], columns[-1]))
    for block, row, column in zip(blocks, rows, columns, strict=False):
        whole[row : row + block.shape[0], column : column + block.shape[1]] = block
    return whole


def _squared_distance(first: Array, second: Array) -> Array:
    """[n, m] between the rows of [n, p] and [m, p]."""
    distance = first @ (-2 * second.T)
    distance += (first**2).sum(1)[:, None]
    distance += (second**2).sum(1)
    return np.maximum(distance, 0, out=distance)


def _matern(squared: Array) -> Array:
    """Matern 5/2 of squared distances (equation 4.17)."""
    root = np.sqrt(5 * squared)
    polynomial = root * root  # in place from here on: of 1,000 networks, these are matrices of 8 MB
    polynomial /= 3
    polynomial += root
    polynomial += 1
    np.negative(root, out=root)
    polynomial *= np.exp(root, out=root)
    return polynomial


def _matern_slope(squared: Array) -> Array:
    """The derivative of `_matern` by the squared distances."""
    root = np.sqrt(5 * squared)
    return np.asarray(-5 / 6 * (1 + root) * np.exp(-root))
