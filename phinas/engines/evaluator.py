"""What an evaluator is: a generator of measurements of one network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from phinas.networks.network import Network


@dataclass(frozen=True)
class Measurement:
    """What an evaluator found out about a network, at the end or on the way.

    accuracy  a fraction in [0, 1].
    final     False for an intermediate value (one epoch of several), behind which an engine may stop.
    """

    accuracy: float
    final: bool = True


class EvaluationFailed(Exception):
    """The candidate itself failed (diverged, out of memory): recorded with its reason, and the search goes on."""


OUT_OF_MEMORY = "out of memory"  # how the reason begins
WORKER_DIED = "its worker died"  # likewise, where workers died and an engine gave up


class OutOfMemory(EvaluationFailed):
    """The candidate did not fit into the memory that was left. On a shared GPU it is tried again with more of it."""


class Evaluator(Protocol):
    """Measures networks. Must pickle: engines ship it to their workers, once.

    May also have `check(network)`, which raises InputError for a network that it can say nothing about: a search calls
    it with the first proposal, before anything is written. And `expected(network)`, the accuracy without noise, if it
    adds some: an experiment compares networks by that. And `forecast(network, threads)`, the seconds that one
    evaluation takes on this machine with so many threads, for whoever plans many.
    """

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield measurements, the last with `final=True`; the same network and seed give the same ones.

        Raises EvaluationFailed for what is the candidate's own fault; anything else is a bug and stops the search.
        """
        ...


def measure(evaluator: Evaluator, network: Network, seed: int) -> Iterator[tuple[int, Measurement]]:
    """(step, measurement) pairs, steps counted from 1, up to the final measurement.

    Raises ValueError for an evaluator that breaks its contract: an accuracy outside [0, 1], or no final measurement.
    """
    for step, measurement in enumerate(evaluator(network, seed), start=1):
        accuracy = float(measurement.accuracy)  # a plug-in's may be numpy's or torch's, which JSON does not know
        if not (math.isfinite(accuracy) and 0 <= accuracy <= 1):
            raise ValueError(f"{evaluator!r} yielded accuracy {accuracy}; it is a fraction in [0, 1]")
        yield step, Measurement(accuracy, measurement.final)
        if measurement.final:
            return
    raise ValueError(f"{evaluator!r} ended without a measurement that has final=True")
