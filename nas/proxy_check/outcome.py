"""What a check found: how the proxy ranks the networks, beside their MACs and beside the longer schedule itself."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

import numpy as np

from nas.journal import Entry
from nas.proxy_check.agreement import (
    FEWEST,
    Array,
    Estimate,
    draws,
    estimate,
    in_order,
    partial_tau,
    shared_top,
    spearman,
    tau,
)
from nas.proxy_check.plan import Drawn, number_of

FEW = 10  # networks, below which an interval is rough itself
_LEAST = 3  # networks, below which nothing is ranked


@dataclass(frozen=True)
class Checked:
    """One network, with the curves and the seconds of its evaluations that did not fail, by schedule."""

    drawn: Drawn
    curves: tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]
    seconds: tuple[tuple[float, ...], tuple[float, ...]]
    errors: tuple[str, ...]

    def accuracies(self, schedule: int) -> tuple[float, ...]:
        """One for each seed, fractions."""
        return tuple(curve[-1] for curve in self.curves[schedule])

    def accuracy(self, schedule: int) -> float | None:
        return fmean(self.accuracies(schedule)) if self.curves[schedule] else None


@dataclass(frozen=True)
class Standing:
    """What else could rank the networks, by name, and how well it does."""

    name: str
    tau: Estimate


@dataclass(frozen=True)
class Outcome:
    """The result of a check; what needs more networks than have results is None.

    The proxy is one evaluation, as in a search: with several seeds its figures are means over them. It is set against
    the mean of the longer schedule's seeds.

    networks    all that were asked for, in their order.
    ranked      those of them with results of both schedules.
    seconds     of one evaluation, the median, by schedule.
    in_order    of pairs of networks, the share that the proxy puts in the longer schedule's order.
    top         how many networks the best are, a quarter; the longer schedule's that the proxy has too; by chance.
    regret      by how much the proxy's first is below the longer schedule's first, in the longer schedule's accuracy.
    macs        tau of MACs alone, negative where fewer rank first.
    beats_macs  tau above that of MACs, in the direction that is better for them.
    beyond      partial tau: the agreement that is left between networks of the same MACs.
    by_epoch    how the proxy ranks after each of the epochs at which it is scored.
    itself      tau between seeds of the same schedule, by schedule: how far single evaluations repeat their order.
    noise       standard deviation between seeds of a network, by schedule, fractions.
    """

    networks: tuple[Checked, ...]
    ranked: tuple[Checked, ...]
    seconds: tuple[float | None, float | None]
    tau: Estimate | None = None
    spearman: Estimate | None = None
    in_order: float | None = None
    top: tuple[int, float, float] | None = None
    regret: float | None = None
    macs: Estimate | None = None
    beats_macs: Estimate | None = None
    beyond: Estimate | None = None
    by_epoch: tuple[tuple[int, Estimate], ...] = ()
    itself: tuple[Estimate | None, Estimate | None] = (None, None)
    noise: tuple[float | None, float | None] = (None, None)

    @property
    def shorter(self) -> tuple[int, Estimate] | None:
        """The first epoch after which the proxy ranks no worse than at its end, if that is not its end."""
        end = self.by_epoch[-1][1].value if self.by_epoch else 0.0
        return next(((epoch, agreement) for epoch, agreement in self.by_epoch[:-1] if agreement.value >= end), None)


def outcome(
    chosen: Sequence[Drawn],
    entries: Sequence[Entry],
    seconds: Mapping[int, float],
    seeds: int,
    epochs: int,
    score_every: int = 1,
) -> Outcome:
    """What the entries of a journal, and the seconds that each took, say of the networks chosen.

    epochs       of the proxy.
    score_every  epochs from one accuracy of its curve to the next.
    """
    known = {entry.number: entry for entry in entries}
    networks = tuple(_checked(drawn, place, known, seconds, seeds) for place, drawn in enumerate(chosen))
    ranked = tuple(network for network in networks if all(network.curves))
    spent = (_typical(networks, 0), _typical(networks, 1))
    if len(ranked) < _LEAST:
        return Outcome(networks, ranked, seconds=spent)

    counts = draws(len(ranked))
    longer = np.array([network.accuracy(1) for network in ranked], dtype=float)
    runs = _runs(ranked, 0)
    steps = runs.shape[2]
    of_step = [np.mean([tau(run[:, step], longer, counts) for run in runs], axis=0) for step in range(steps)]
    proxy, proxies = of_step[-1], runs[:, :, -1]
    by_epoch = [(min((step + 1) * score_every, epochs), estimate(taus)) for step, taus in enumerate(of_step)]
    size = max(1, round(len(ranked) / 4))
    macs = np.array([network.drawn.costs["macs"] for network in ranked], dtype=float)
    of_macs = tau(macs, longer, counts)
    with_macs = np.mean([tau(run, macs, counts) for run in proxies], axis=0)
    return Outcome(
        networks,
        ranked,
        seconds=spent,
        tau=estimate(proxy),
        spearman=estimate(np.mean([spearman(run, longer, counts) for run in proxies], axis=0)),
        in_order=float(np.mean([in_order(run, longer, counts[:1]) for run in proxies])),
        top=(size, fmean(shared_top(run, longer, size) for run in proxies), size**2 / len(ranked)),
        regret=float(longer.max() - np.mean([longer[run == run.max()].mean() for run in proxies])),
        macs=estimate(of_macs),
        beats_macs=estimate(proxy - np.copysign(1.0, of_macs[0]) * of_macs),
        beyond=estimate(partial_tau(proxy, with_macs, of_macs)),
        by_epoch=tuple((epoch, agreement) for epoch, agreement in by_epoch if agreement is not None),
        itself=(_own(runs[:, :, -1], counts), _own(_runs(ranked, 1)[:, :, -1], counts)),
        noise=(_noise(ranked, 0), _noise(ranked, 1)),
    )


def verdict(found: Outcome, times: float) -> str:
    """What to make of it, in a few honest sentences; the longer schedule has `times` the epochs."""
    if found.tau is None or found.in_order is None:
        return f"Nothing can be said yet: {len(found.ranked)} networks have results of both schedules, or all tie."
    longer = f"a schedule of {times:g} times the epochs"
    text = (
        f"Over {len(found.ranked)} networks the proxy ranks with Kendall tau {found.tau} against {longer}: "
        f"it puts {100 * found.in_order:.0f} % of pairs in the same order."
    )
    if found.tau.low is None or found.tau.low <= 0:
        return f"{text} That it ranks better than chance is not shown."
    if found.macs is None or found.beats_macs is None or found.beats_macs.low is None:
        return text
    macs = f"{'fewer' if found.macs.value < 0 else 'more'} MACs first (tau {abs(found.macs.value):.2f})"
    if found.beats_macs.low > 0:
        return f"{text} It ranks better than {macs}."
    if found.beats_macs.high is not None and found.beats_macs.high < 0:
        return f"{text} It is no proxy: counting ranks better, {macs}."
    return f"{text} That it ranks better than counting, {macs}, is not shown."


def notes(found: Outcome) -> list[str]:
    """What a reader should know besides, one sentence each."""
    said = []
    if len(found.ranked) < FEWEST:
        said.append(f"Of fewer than {FEWEST} networks there is no interval that could be relied on: check more.")
    elif len(found.ranked) < FEW:
        said.append(f"With fewer than {FEW} networks the interval itself is rough: check more.")
    if found.tau is not None and found.tau.low == found.tau.high is not None:
        said.append("All of them came in the same order: what is rarer than one in their number, they cannot show.")
    if left_out := len(found.networks) - len(found.ranked):
        said.append(f"{left_out} of {len(found.networks)} networks have no result of one schedule, and are left out.")
    if found.shorter:
        epoch, agreement = found.shorter
        said.append(
            f"The proxy ranks no worse after epoch {epoch} of {found.by_epoch[-1][0]}, with tau {agreement}. "
            "One of so many epochs lowers its learning rate sooner, and is worth a check of its own."
        )
    own = found.itself[1]
    if own is not None and own.low is not None and own.low <= 0:
        said.append(
            f"The longer schedule does not repeat its own order from seed to seed, with tau {own}: "
            "it is a poor witness; make it longer, or give it more images."
        )
    elif own is not None:
        said.append(
            f"The longer schedule repeats its own order from seed to seed with tau {own}. The proxy is set against "
            "the mean of its seeds, whose order is surer than that."
        )
    elif found.tau is not None:
        said.append("With one seed the noise between seeds lowers tau by an unknown amount: seeds=2 tells how much.")
    return said


def _checked(drawn: Drawn, place: int, known: Mapping[int, Entry], seconds: Mapping[int, float], seeds: int) -> Checked:
    numbers = [[number_of(place, schedule, replicate) for replicate in range(seeds)] for schedule in (0, 1)]
    finished = [[known[number] for number in each if number in known] for each in numbers]
    curves = [tuple(entry.curve for entry in each if entry.error is None) for each in finished]
    times = [tuple(seconds[entry.number] for entry in each if entry.number in seconds) for each in finished]
    errors = tuple(entry.error for each in finished for entry in each if entry.error is not None)
    return Checked(drawn, (curves[0], curves[1]), (times[0], times[1]), errors)


def _runs(ranked: Sequence[Checked], schedule: int) -> Array:
    """Accuracies [seeds, networks, steps], of as many seeds as all networks have."""
    seeds = min(len(network.curves[schedule]) for network in ranked)
    steps = min(len(curve) for network in ranked for curve in network.curves[schedule])
    return np.array([[network.curves[schedule][run][-steps:] for network in ranked] for run in range(seeds)], float)


def _own(runs: Array, counts: Array) -> Estimate | None:
    """Tau between the seeds of one schedule [seeds, networks], the mean over pairs of them; None of one seed."""
    pairs = [tau(first, second, counts) for first, second in itertools.combinations(runs, 2)]
    return estimate(np.mean(pairs, axis=0)) if pairs else None


def _noise(ranked: Sequence[Checked], schedule: int) -> float | None:
    """Pooled over networks: all are taken to be equally noisy."""
    repeated = [network.accuracies(schedule) for network in ranked if len(network.curves[schedule]) > 1]
    degrees = sum(len(seeds) - 1 for seeds in repeated)
    return float((sum((len(seeds) - 1) * variance(seeds) for seeds in repeated) / degrees) ** 0.5) if degrees else None


def _typical(networks: Sequence[Checked], schedule: int) -> float | None:
    return median(times) if (times := [spent for network in networks for spent in network.seconds[schedule]]) else None
