"""Learning rates as pure functions of the step, so that a resumed run has no schedule to restore."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from phinas.files.checks import check_number, check_whole

Schedule = Callable[[int], float]  # from the step, counted from 0, to the learning rate it is taken at


def scaled(lr: float, batch_size: int, reference: int = 256) -> float:
    """`lr` of `reference` images, for `batch_size` images a step of all workers together (arXiv 1706.02677)."""
    return lr * batch_size / reference


@dataclass(frozen=True)
class Staircase:
    """EfficientNet's: a linear warm-up from 0, then stairs, each lower by the same factor.

        peak * step / w  while step < w = floor(warmup * steps_per_epoch),
        peak * factor ^ floor(step / (every * steps_per_epoch))  from then on.

    Stairs are counted from step 0, so that the peak is never reached: with the paper's numbers the rate rises towards
    it for 5 epochs and goes on at 0.97^2 = 0.941 of it. The first step, at rate 0, changes no weights.

    peak             learning rate; `scaled(0.016, batch_size)` in tensorflow/tpu, 0.256 at the paper's batch of 4096.
    steps_per_epoch  need not be whole: where batches run across the end of an epoch, it is images / batch_size.
    warmup, every    epochs.

    Raises InputError naming the field that is out of range. Source: build_learning_rate in
    models/official/efficientnet/utils.py of tensorflow/tpu.
    """

    peak: float
    steps_per_epoch: float
    warmup: float = 5.0
    factor: float = 0.97
    every: float = 2.4

    def __post_init__(self) -> None:
        for name in ("peak", "steps_per_epoch", "every"):
            check_number(name, getattr(self, name), above=0)
        check_number("warmup", self.warmup, least=0)
        check_number("factor", self.factor, above=0, below=1)

    def __call__(self, step: int) -> float:
        warmup = _floor(self.warmup * self.steps_per_epoch)
        if step < warmup:
            return self.peak * step / warmup
        return float(self.peak * self.factor ** _floor(step / (self.every * self.steps_per_epoch)))


@dataclass(frozen=True)
class Cosine:
    """A linear warm-up over the first share of the steps, then half a cosine down to 0 (arXiv 1608.03983).

        peak * (step + 1) / w  while step < w = round(warmup * steps),
        peak * (1 + cos(pi * t)) / 2  from then on; t rises from 0 at step w towards 1 at step `steps`, never taken.

    peak    learning rate.
    steps   of the whole run.
    warmup  share of them, in [0, 1).

    Raises InputError naming the field that is out of range.
    """

    peak: float
    steps: int
    warmup: float

    def __post_init__(self) -> None:
        check_number("peak", self.peak, above=0)
        check_whole("steps", self.steps)
        check_number("warmup", self.warmup, least=0, below=1)

    def __call__(self, step: int) -> float:
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.peak * (step + 1) / warmup
        return self.peak * (1 + math.cos(math.pi * (step - warmup) / (self.steps - warmup))) / 2


def _floor(value: float) -> int:
    """Of a value with a rounding error: 33 / 1.1 is 29.999999999999996."""
    return math.floor(round(value, 9))
