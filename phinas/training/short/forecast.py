"""How long a training will take here: a few of its steps and a scoring, timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from phinas.training.data.samples import Samples
from phinas.training.optim import optimizer
from phinas.training.scoring import evaluate
from phinas.training.short.recipe import Recipe
from phinas.training.short.training_loop import train

# Seconds: a run that lasts as long is told from the clock's and the machine's jitter, and two cost less than 3 seconds.
_LONG_ENOUGH = 0.3

# Weights hardly move, so that no recipe diverges in its forecast; the rate changes nothing about the time.
_TINY_LR = 1e-6


def forecast_seconds(
    module: nn.Module, train_set: Samples, val_set: Samples, recipe: Recipe, score_every: int = 1
) -> float:
    """Seconds that `train` with the same arguments would take, on the samples' device as busy as it is now.

    `module` is trained in place for a moment and good for nothing afterwards. An image on which batch norms are
    recalibrated counts like one that is scored. Raises Diverged for a module whose logits are not finite from the
    start; running out of memory is torch's exception, left to the caller. Torch's global generators are left as they
    were.
    """
    batch = min(recipe.batch_size, len(train_set))
    steps = len(train_set) // batch
    used = optimizer(module, recipe)
    short = replace(recipe, epochs=2, lr=_TINY_LR)

    def take_steps(count: int) -> float:
        epochs = train(module, train_set[: count * batch], val_set, short, 0, used, score_every=2)
        return next(epochs).seconds  # the first of two epochs, which is not scored

    def score(count: int) -> float:
        images = val_set[: count * batch]
        started = time.perf_counter()
        evaluate(module, images)  # waits for the device
        # The last of all batches may be incomplete: this is what `count` whole ones would have taken.
        return (time.perf_counter() - started) * count * batch / len(images)

    per_step = _seconds_each(take_steps, steps)
    per_score = _seconds_each(score, math.ceil(len(val_set) / batch))
    scored = len(val_set) + min(recipe.recalibrate, len(train_set))
    return recipe.epochs * steps * per_step + math.ceil(recipe.epochs / score_every) * scored / batch * per_score


def _seconds_each(run: Callable[[int], float], most: int) -> float:
    """Seconds per batch, of as many batches as take long enough, or of `most`; `run(count)` gives those of `count`."""
    run(1)  # memory is taken and kernels are chosen
    count = 1
    while (seconds := run(count)) < _LONG_ENOUGH and count < most:
        count = min(2 * count, most)
    return seconds / count
