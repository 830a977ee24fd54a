"""The training loop, in the order it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from phinas.training.augment.views import random_views, seen
from phinas.training.convolutions import fast_convolutions
from phinas.training.data.samples import Samples
from phinas.training.optim import learning_rate
from phinas.training.optim import optimizer as make_optimizer
from phinas.training.short.recipe import Recipe

# Reading the loss makes the host wait for the device: seldom enough to cost nothing, often enough to stop early.
_STEPS_BETWEEN_CHECKS = 50


class Diverged(Exception):
    """The loss, or what a trained network answers, stopped being finite numbers."""


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


def device() -> torch.device:
    """The first CUDA device if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
        with _randomness(seed, number, where) as generator, fast_convolutions(module):
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
                if (step + 1) % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == steps:
                    _check_finite(losses[: step + 1], (number - 1) * steps, recipe.epochs * steps)

            accuracy = None
            if number % score_every == 0 or number == recipe.epochs:
                if recipe.recalibrate:
                    recalibrate(module, train_set, order[: recipe.recalibrate])
                accuracy = evaluate(module, val_set)
        yield Epoch(number, losses.mean().item(), accuracy, time.perf_counter() - started)


@torch.no_grad()
def recalibrate(module: nn.Module, train_set: Samples, index: Tensor, bfloat16: bool | None = None) -> None:
    """Set batch-norm statistics to the plain average over batches of the images `index` [n], with today's weights.

    Training in batches never reads these statistics, so going on afterwards is not disturbed; dropout is off meanwhile.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's sign for a cumulative average
        norm.train()
    parts = max(1, round(len(index) / _large_batch(train_set)))
    with fast_convolutions(module), autocast(index.device, bfloat16):
        for part in index.tensor_split(parts):  # equal parts, as each counts the same in the average
            module(train_set.normalised(train_set.pixels[part]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


@torch.no_grad()
def evaluate(module: nn.Module, val_set: Samples) -> float:
    """The fraction of `val_set` whose largest logit is its label's, in evaluation mode.

    Raises Diverged where logits are not finite: the last step can break the weights after its loss was still a number.
    """
    module.eval()
    size, where = _large_batch(val_set), val_set.labels.device
    right, finite = torch.zeros((), dtype=torch.int64, device=where), torch.ones((), dtype=torch.bool, device=where)
    with fast_convolutions(module), autocast(where):
        for pixels, labels in zip(torch.split(val_set.pixels, size), torch.split(val_set.labels, size), strict=True):
            logits = module(val_set.normalised(pixels))
            right += (logits.argmax(1) == labels).sum()
            finite &= logits.isfinite().all()
    if not finite:
        raise Diverged("the trained network's logits are not finite")
    return right.item() / len(val_set)


def autocast(where: torch.device, bfloat16: bool | None = None) -> torch.autocast:
    """bfloat16 where it is wanted, on CUDA devices where nobody said; float32 on others."""
    wanted = where.type == "cuda" if bfloat16 is None else bfloat16
    return torch.autocast(where.type, torch.bfloat16, enabled=wanted)


def _large_batch(samples: Samples) -> int:
    """Images per forward pass without gradients: 256 of 32 x 32 pixels, so that larger ones fit into memory too."""
    height, width = samples.pixels.shape[1:3]
    return max(16, 2**18 // (height * width))


@contextmanager
def _randomness(seed: int, epoch: int, where: torch.device) -> Iterator[torch.Generator]:
    """A CPU generator for the data and, for the block only, torch's global generators seeded (dropout draws there)."""
    for_data, for_module = (int(word) for word in np.random.SeedSequence((seed, epoch)).generate_state(2, np.uint64))
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(for_module)
        yield torch.Generator().manual_seed(for_data)


def _check_finite(losses: Tensor, before: int, total: int) -> None:
    """Diverged, naming the first step of `total` whose loss is not finite; `before` steps came in earlier epochs."""
    finite = torch.isfinite(losses)
    if not finite.all():
        step = int(finite.int().argmin())
        raise Diverged(f"loss is {losses[step].item():g} at step {before + step + 1} of {total}")
