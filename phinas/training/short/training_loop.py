"""The loop of a short training, in the order it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from phinas.training.augment.views import random_views, seen
from phinas.training.convolutions import fast_convolutions
from phinas.training.data.samples import Samples
from phinas.training.device import autocast
from phinas.training.optim import learning_rate
from phinas.training.optim import optimizer as make_optimizer
from phinas.training.own_failures import STEPS_BETWEEN_CHECKS, check_finite
from phinas.training.randomness import seeded, seeds
from phinas.training.scoring import evaluate, recalibrate
from phinas.training.short.recipe import Recipe


@dataclass(frozen=True)
class Epoch:
    """One finished pass over the training images.

    number      counted from 1.
    train_loss  mean over the steps, label smoothing included.
    accuracy    on the held-out images, a fraction in [0, 1]; None where this epoch was not scored.
    seconds     wall time of the pass and the scoring.
    """

    number: int
    train_loss: float
    accuracy: float | None
    seconds: float


def train(
    module: nn.Module,
    train_set: Samples,
    val_set: Samples,
    recipe: Recipe,
    seed: int,
    optimizer: torch.optim.Optimizer | None = None,
    first_epoch: int = 1,
    score_every: int = 1,
) -> Iterator[Epoch]:
    """Train `module` in place on the samples' device, and yield after each epoch.

    score_every  score every so many epochs, and always after the last.

    The module and the optimiser are all the state there is: the learning rate is a function of the step, and what is
    random comes from (seed, epoch). Save both after an epoch, load them, pass the optimiser and `first_epoch`, and the
    run goes on as if it had never stopped. On a CPU the same arguments give the same result to the bit. Torch's global
    generators are left as they were. Raises Diverged; running out of memory is torch's exception, left to the caller.
    """
    where = train_set.labels.device
    module.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(module, recipe) if optimizer is None else optimizer
    shift = round(recipe.translate * max(train_set.pixels.shape[1:3]))
    batch = min(recipe.batch_size, len(train_set))
    steps = len(train_set) // batch  # of one epoch; all batches are full, so norms see equal ones

    for number in range(first_epoch, recipe.epochs + 1):
        started = time.perf_counter()
        for_data, for_module = seeds(seed, number, count=2)
        generator = torch.Generator().manual_seed(for_data)
        with seeded(for_module, where), fast_convolutions(module):
            module.train()
            order = torch.randperm(len(train_set), generator=generator).to(where)
            views = random_views(steps * batch, shift, train_set.flip, generator, where)
            losses = torch.empty(steps, device=where)
            for step in range(steps):
                # The batch: shuffled, shifted, mirrored.
                part = slice(step * batch, (step + 1) * batch)
                index = order[part]
                images = train_set.normalised(seen(train_set.pixels[index], views[part], shift))

                # Forward and backward.
                with autocast(where):
                    logits = module(images)
                    loss = functional.cross_entropy(
                        logits, train_set.labels[index], label_smoothing=recipe.label_smoothing
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]

                # The step, at this step's learning rate.
                done = (number - 1) * steps + step
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(done, recipe.epochs * steps, recipe)
                optimizer.step()

                losses[step] = loss.detach()
                if (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step + 1 == steps:
                    check_finite(losses[: step + 1], (number - 1) * steps, f" of {recipe.epochs * steps}")

            accuracy = None
            if number % score_every == 0 or number == recipe.epochs:
                if recipe.recalibrate:
                    recalibrate(module, train_set[order[: recipe.recalibrate]])
                accuracy = evaluate(module, val_set).accuracy
        yield Epoch(number, losses.mean().item(), accuracy, time.perf_counter() - started)
