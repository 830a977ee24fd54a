"""Bayesian optimisation of accuracy under costs that are known exactly.

Jones, Schonlau and Welch, "Efficient Global Optimization of Expensive Black-Box Functions", J. Global Optim. 13, 1998
(expected improvement); White, Neiswanger and Savani, "BANANAS", arXiv 1910.11858 (for architectures: candidates are
mutants of the best so far); Ginsbourger, Le Riche and Carraro, "Kriging is well-suited to parallelize optimization",
2010 (what is in flight is believed to come out as predicted); Breiman, "Bagging Predictors", Machine Learning 24, 1996
(of hyperparameters, in place of an integral over them).

Only the accuracy is modelled; the reward follows from it, for the costs of every candidate are known. For a front, the
expected improvement is taken over many limits of cost at once, against the best network within each: as costs are no
random variables, that is the expected hypervolume improvement (Emmerich, 2005) by Monte Carlo, for any number of costs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from nas.controller import Problem, Result, novel, outwards
from nas.controllers.gaussian_process import Array, GaussianProcess, Inputs
from nas.costs import to_minimise
from phinas.files.checks import check_whole
from search_spaces.space import Decision, Picks, crossover, mutate, sample

ATTEMPTS = 1000  # proposals looked at before novel() walks the space
PARENTS = 8  # of the best networks have mutants and crossovers among the candidates,
LARGEST_STEP = 3  # the mutants in up to so many decisions
CLIMB = 12  # single exchanges from the best candidate, at most
REFIT = 1.1  # hyperparameters are fitted anew when there are so many times the results they were last fitted to,
FITTED_TO = 300  # and to at most so many of them.
CONSIDERED = 1000  # results at most that the model is told of at a time: its time grows with their cube
MODELS = 3  # are fitted, each to a random share BAG of those, and their expected improvements averaged: one alone is
BAG = 0.8  # too sure of itself where results are noisy
LIMITS_OF_COST = 64  # over which a front's improvement is averaged; drawn anew for each proposal,
BEYOND = 0.25  # as a share of the range of costs told, beyond either end
MEASURED = 12  # candidates, and no climb, where their costs take long to learn
LEAST_ERROR = 1e-4  # no network is believed to be better, so that logarithms exist


class Bayesian:
    """The network whose reward is expected to improve most on the best, by a Gaussian process of the log error.

    Its model is a function of the results told, in their order; nothing else is kept.
    """

    multi_objective = True

    def __init__(self, problem: Problem, seed: int, start: int = 5, candidates: int = 240) -> None:
        """The settings are explained in conf/controller/bayesian.yaml."""
        check_whole("controller.start", start, least=2)
        check_whole("controller.candidates", candidates)
        self.problem = problem
        self.seed = seed
        self.start = start
        self.candidates = candidates
        self.told: set[str | None] = set()
        self.results: list[Result] = []
        self._known = 0  # results with an accuracy
        self._hyperparameters = lru_cache(maxsize=4)(self._fit)
        self._threads = ThreadpoolController()

    def tell(self, result: Result) -> None:
        """Remember it; nothing is computed before it is needed."""
        self.told.add(self.problem.key(result.picks))
        self.results.append(result)
        self._known += result.accuracy is not None

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        """Random networks first; then the candidate of the largest expected improvement."""
        rng = np.random.default_rng((self.seed, number))
        decisions = self.problem.decisions
        guess = self._known < self.start
        if guess or all(len(decision.choices) == 1 for decision in decisions):
            drawn = (sample(decisions, rng) for _ in range(ATTEMPTS))
            return novel(self.problem, drawn, self.told, in_flight)
        # One thread: sums on several depend on their number, and a search must go on the same with more or fewer.
        with self._threads.limit(limits=1):
            ranked = _Acquisition(self, list(in_flight), rng).ranked()
        last = ranked[-1] if ranked else self.results[-1].picks
        return novel(self.problem, [*ranked, *outwards(decisions, last, rng, ATTEMPTS)], self.told, in_flight)

    def considered(self) -> list[Result]:
        """The results that a proposal is made from, in their order: all of them, or else CONSIDERED.

        Half are the best, which say where to look; the others are drawn from the rest, so that the model knows what
        lies elsewhere. Each result has its lot for good: the choice changes little from one result to the next.
        """
        count = len(self.results)
        if count <= CONSIDERED:
            return self.results
        lots = np.argsort(np.random.default_rng(self.seed).random(count))
        best = self._ranking(lots[: CONSIDERED // 2])[: CONSIDERED // 2]
        others = lots[~np.isin(lots, best)][: CONSIDERED - len(best)]
        return [self.results[place] for place in np.sort([*best, *others])]

    def _ranking(self, rivals: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
        """Places of the results, the best first: by reward; for a front, by how many at the places `rivals` beat it."""
        front = self.problem.front
        rows = []  # lower is better
        for result in self.results:
            if result.accuracy is None or result.reward is None or result.stopped:
                rows.append([np.inf] * (1 + len(front)))
            elif front:
                cost = self.problem.cost(result.picks)
                rows.append([-result.accuracy, *(to_minimise(name, cost[name]) for name in front)])
            else:
                rows.append([-result.reward])
        points = np.array(rows)
        beaten = [(points[rivals][:, None] < points).all(2).sum(0)] if front else []
        return np.lexsort([points[:, 0], *beaten])

    def log_errors(self, results: Sequence[Result]) -> Array:
        """Of n results: [n].

        Errors of networks shrink by factors, not by differences; and where many are hopeless, the logarithm keeps
        them from swaying the model where it matters.

        One that failed counts as if its reward were the worst told. One that was stopped early counts as its error at
        that epoch foretells, by a line through those of the evaluations that went on to the end.
        """
        ended = [_log_error(r.curve) for r in results if r.accuracy is not None and not r.stopped and r.curve]
        known = [result for result in results if result.accuracy is not None and result.reward is not None]
        worst = min((result.reward or 0.0 for result in known), default=0.0)
        lowest = min((result.accuracy or 0.0 for result in known), default=0.0)
        errors = []
        for result in results:
            if result.accuracy is None:
                floor = lowest if self.problem.front else self._accuracy_worth(result.picks, worst)
                errors.append(float(_log_error([floor])[0]))
                continue
            errors.append(float(_log_error([result.accuracy])[0]))
            step = len(result.curve) - 1
            if result.stopped and (later := [(curve[step], curve[-1]) for curve in ended if len(curve) > step + 1]):
                at, end = np.transpose(later)
                slope = np.cov(at, end)[0, 1] / max(at.var(ddof=1), 1e-9) if len(later) > 4 else 1.0
                # Never flatter than 1: those that were stopped are worse than all that the line was drawn through.
                errors[-1] = float(end.mean() + max(slope, 1.0) * (errors[-1] - at.mean()))
        return np.array(errors)

    def _accuracy_worth(self, picks: Picks, reward: float) -> float:
        """The accuracy at which the network earns `reward`, by bisection; 0 or 1 where it always earns more or less."""
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if self.problem.reward(picks, middle) < reward else (low, middle)
        return high if low else 0.0

    def log_costs(self, picks: Sequence[Picks]) -> Array:
        """[n, costs], in the order of the costs' names."""
        costs = (self.problem.cost(each) for each in picks)
        return np.log([[max(cost[name], 1e-12) for name in sorted(cost)] for cost in costs])

    def hyperparameters(self) -> list[Array]:
        """Of each model, fitted to the results of the last of the counts start, 1.1 start, ... that was reached."""
        count = self.start
        while (following := max(count + 1, int(REFIT * count))) <= len(self.results):
            count = following
        return self._hyperparameters(max(count, self._first_known()))

    def _first_known(self) -> int:
        """How many results it took to have `start` accuracies; failures may come first."""
        known = (place for place, result in enumerate(self.results, 1) if result.accuracy is not None)
        return next(islice(known, self.start - 1, None))

    def _fit(self, count: int) -> list[Array]:
        log_errors = self.log_errors(self.results[:count])
        rng = np.random.default_rng((self.seed, count))
        fitted = []
        for _ in range(MODELS):
            bag = rng.permutation(count)[: max(2, round(BAG * min(count, FITTED_TO)))]
            picks = [self.results[place].picks for place in bag]
            log_costs = self.log_costs(picks)
            process = GaussianProcess(self.problem.decisions, log_costs.shape[1])
            given = process.inputs(picks, _standard(log_costs, log_costs))
            fitted.append(process.fit(given, _standard(log_errors[bag], log_errors[bag])))
        return fitted


class _Acquisition:
    """The expected improvement of candidates, for one ask."""

    def __init__(self, controller: Bayesian, in_flight: list[Picks], rng: np.random.Generator) -> None:
        self.controller = controller
        self.problem = controller.problem
        self.rng = rng
        self.busy = controller.told | {self.problem.key(picks) for picks in in_flight}
        results = controller.considered()
        told = [result.picks for result in results]
        log_errors = controller.log_errors(results)
        deviation = log_errors.std()
        self.scale = log_errors.mean(), deviation if deviation > 1e-6 else 1.0
        self.log_costs = controller.log_costs(told)
        self.process = GaussianProcess(self.problem.decisions, self.log_costs.shape[1])
        observed = _standard(log_errors, log_errors)
        given = self._inputs(told)
        self.models = [
            (hyper, self.process.condition(hyper, given, observed)) for hyper in controller.hyperparameters()
        ]
        if in_flight:  # believed: the mean stays as it is, the uncertainty around them shrinks
            more = self._inputs(told + in_flight)
            believed = self._means(in_flight)
            self.models = [
                (hyper, self.process.condition(hyper, more, np.concatenate([observed, mean])))
                for (hyper, _), mean in zip(self.models, believed, strict=True)
            ]
        smoothed = np.mean([known.smoothed[: len(told)] for _, known in self.models], axis=0)
        # What was stopped early cannot be the best, however well it is thought of.
        ended = [place for place, result in enumerate(results) if not result.stopped]
        ended = ended or list(range(len(told)))
        self._rank([told[place] for place in ended], self._accuracy(smoothed[ended]))
        self.gain: dict[Picks, float] = {}

    def _inputs(self, picks: Sequence[Picks]) -> Inputs:
        return self.process.inputs(picks, _standard(self.controller.log_costs(picks), self.log_costs))

    def _means(self, picks: Sequence[Picks]) -> list[Array]:
        """What each model believes."""
        at = self._inputs(picks)
        return [self.process.mean(hyper, posterior, at) for hyper, posterior in self.models]

    def _rank(self, told: list[Picks], accuracies: Array) -> None:
        """What a candidate has to beat, and the parents: by what is believed of those told, not by noisy results."""
        if not self.problem.front:
            rewards = np.array([self.problem.reward(p, a) for p, a in zip(told, accuracies.tolist(), strict=True)])
            self.best = rewards.max()
            self.parents = [told[place] for place in np.argsort(-rewards, kind="stable")[:PARENTS]]
            return
        costs = self._front_costs(told)
        low, high = costs.min(0), costs.max(0)
        wider = 1 + 2 * BEYOND  # than what was told, so that there is something to gain at both ends of the front
        drawn = wider * self.rng.random((LIMITS_OF_COST, costs.shape[1])) - BEYOND
        self.limits = low + (high - low) * drawn
        within = (costs <= self.limits[:, None]).all(2)  # [limits, told]
        reached = np.where(within, accuracies, -np.inf)
        self.rivals = np.where(within.any(1), reached.max(1), accuracies.min())  # the best within each limit
        winners = dict.fromkeys(reached[within.any(1)].argmax(1).tolist())
        self.parents = [told[place] for place in winners] or told[:PARENTS]

    def _accuracy(self, believed: Array) -> Array:
        return np.asarray(np.clip(1 - np.exp(self.scale[0] + self.scale[1] * believed), 0.0, 1.0))

    def _front_costs(self, picks: Sequence[Picks]) -> Array:
        """[n, costs of the front], logarithms, better when lower."""
        costs = (self.problem.cost(each) for each in picks)
        return np.log([[max(to_minimise(name, cost[name]), 1e-12) for name in self.problem.front] for cost in costs])

    def ranked(self) -> list[Picks]:
        """Mutants and crossovers of the best networks and random ones, then a climb from the best of those."""
        decisions, rng, parents = self.problem.decisions, self.rng, self.parents
        looks, climb = (self.controller.candidates, CLIMB) if not self.problem.measured else (MEASURED, 0)
        third = max(1, looks // 3)
        pool = [sample(decisions, rng) for _ in range(third)]
        for place in range(third):
            mutant = parents[place % len(parents)]
            for _ in range(rng.integers(1, LARGEST_STEP + 1)):
                mutant = mutate(decisions, mutant, rng)
            pool.append(mutant)
        for first, second in rng.integers(len(parents), size=(third, 2)):
            pool.append(crossover(parents[first], parents[second], rng))
        self._weigh(pool)
        climbed: Picks | None = None
        for _ in range(climb):
            top = max(self.gain, key=self.gain.__getitem__, default=None)
            if top is None or top == climbed:
                break
            self._weigh(_neighbours(decisions, top))
            climbed = top
        return sorted(self.gain, key=self.gain.__getitem__, reverse=True)

    def _weigh(self, pool: Sequence[Picks]) -> None:
        """Note the gain of those in the pool that are new networks."""
        new = [each for each in dict.fromkeys(pool) if each not in self.gain]
        new = [each for each in new if (key := self.problem.key(each)) is not None and key not in self.busy]
        if not new:
            return
        at = self._inputs(new)
        predicted = (self.process.predict(hyper, posterior, at) for hyper, posterior in self.models)
        gains = [self._log_gain(new, mean, deviation) for mean, deviation in predicted]
        gain = np.logaddexp.reduce(gains, axis=0)
        self.gain.update(zip(new, gain.tolist(), strict=True))

    def _log_gain(self, new: Sequence[Picks], mean: Array, deviation: Array) -> Array:
        """Logarithms of the expected improvement by one model; for a front, of its sum over the limits of cost."""
        accuracies = self._accuracy(mean)
        # The log error's deviation as one of accuracy, in the direction that matters: upwards.
        deviations = self._accuracy(mean - deviation) - accuracies
        if self.problem.front:
            within = (self._front_costs(new)[:, None] <= self.limits).all(2)  # [new, limits]
            gains = _log_improvement(accuracies[:, None], deviations[:, None], self.rivals)
            return np.asarray(np.logaddexp.reduce(np.where(within, gains, -1e300), axis=1))
        rewards, above = (
            np.array([self.problem.reward(p, a) for p, a in zip(new, at.tolist(), strict=True)])
            for at in (accuracies, accuracies + deviations)
        )
        return _log_improvement(rewards, above - rewards, self.best)


def _log_error(accuracies: Sequence[float]) -> Array:
    return np.asarray(np.log(np.maximum(1 - np.asarray(accuracies), LEAST_ERROR)))


def _neighbours(decisions: Sequence[Decision], picks: Picks) -> list[Picks]:
    """All that differ in one decision."""
    return [
        (*picks[:place], choice, *picks[place + 1 :])
        for place, decision in enumerate(decisions)
        for choice in range(len(decision.choices))
        if choice != picks[place]
    ]


def _log_improvement(mean: Array, deviation: Array, best: float | Array) -> Array:
    """log E[max(x - best, 0)] of x ~ N(mean, deviation^2); logarithms, as far candidates have to be ranked too."""
    deviation = np.maximum(deviation, 1e-12)
    z = (mean - best) / deviation
    near = np.maximum(z, -5.0)
    density = np.exp(-0.5 * near**2) / np.sqrt(2 * np.pi)
    # Beyond -5 deviations the difference of two tiny numbers is taken from its expansion, density / z^2.
    far = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(np.maximum(-z, 5.0))
    return np.asarray(np.log(deviation) + np.where(z > -5, np.log(near * ndtr(near) + density), far))


def _standard(values: Array, like: Array) -> Array:
    """Values on the scale on which `like` has mean 0 and standard deviation 1; one that never varied keeps its unit."""
    deviation = like.std(0)
    return np.asarray((values - like.mean(0)) / np.where(deviation > 1e-6, deviation, 1.0))
