"""The loop of a training to the end: steps, epochs, the average that is scored, and when to stop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from phinas.engines.out_of_memory import out_of_memory
from phinas.networks.build import ConvNet
from phinas.training.convolutions import fast_convolutions
from phinas.training.data.samples import Samples
from phinas.training.data.training_data import Batches, EvaluationData
from phinas.training.device import autocast
from phinas.training.full.average import WeightAverage
from phinas.training.full.recipe import FullRecipe, full_optimizer
from phinas.training.own_failures import STEPS_BETWEEN_CHECKS, check_finite
from phinas.training.randomness import DROPOUT, seeded, seeds
from phinas.training.scoring import Score, evaluate, recalibrate
from phinas.training.workers.batch_norm import norms_over
from phinas.training.workers.worker_group import ONE_WORKER, WorkerGroup


@dataclass(frozen=True)
class Epoch:
    """One finished pass over the training images.

    number      counted from 1.
    step        steps taken since the run began.
    lr          learning rate of the last of them.
    train_loss  mean over the pass, label smoothing included.
    score       on the images held out.
    seconds     wall time since the run began, its interruptions left out.
    """

    number: int
    step: int
    lr: float
    train_loss: float
    score: Score
    seconds: float


class TrainingState:
    """All that changes in a run: what a checkpoint holds.

    module      the network, on its device in channels_last memory.
    average     of its weights; None where the recipe wants none.
    step        steps taken.
    epochs      finished, scoring included.
    best        the highest accuracy held out, after epoch `best_epoch`; of equal ones the last.
    seconds     wall time spent.

    The learning rate, the batch and what is random in a step are functions of (seed, step), so that nothing of them
    need be kept.
    """

    def __init__(self, module: nn.Module, recipe: FullRecipe, steps_per_epoch: int, where: torch.device) -> None:
        if recipe.head_only:
            assert isinstance(module, ConvNet)
            module.requires_grad_(False).classifier.requires_grad_(True)
        self.module = module.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = full_optimizer(self.module, recipe)
        self.average = None if recipe.average is None else WeightAverage(self.module, recipe.average)
        self.losses = torch.zeros(steps_per_epoch, device=where)  # of this epoch's steps, where they were taken
        self.step = self.epochs = self.best_epoch = 0
        self.best = -1.0
        self.seconds = 0.0

    @property
    def where(self) -> torch.device:
        return self.losses.device

    def scored(self, calibration: Samples | None, bfloat16: bool | None = None) -> nn.Module:
        """The network that is scored and kept, a copy: the average, its statistics taken anew where the recipe says."""
        module = copy.deepcopy(self.module if self.average is None else self.average.module).eval()
        if calibration is not None:
            recalibrate(module, calibration, bfloat16)
        return module

    def state_dict(self) -> dict[str, Any]:
        """Tensors, which are not copied, and numbers; `model` is what `load_weights` of phinas.weights reads."""
        scored = self.module if self.average is None else self.average.module
        return {
            "model": scored.state_dict(),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": 0 if self.average is None else self.average.updates,
            "losses": self.losses,
            **{name: getattr(self, name) for name in ("step", "epochs", "best", "best_epoch", "seconds")},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict({"module": state["model"], "updates": state["updates"]})
        self.losses.copy_(state["losses"])
        for name in ("step", "epochs", "best", "best_epoch", "seconds"):
            setattr(self, name, state[name])

    def check_finite(self) -> None:
        """Diverged, naming the first step of this epoch whose loss is not finite."""
        taken = self.step % len(self.losses) or (len(self.losses) if self.step else 0)
        check_finite(self.losses[:taken], self.step - taken)


def train(
    training: TrainingState,
    batches: Batches,
    held_out: EvaluationData,
    recipe: FullRecipe,
    seed: int,
    after_step: Callable[[], None] = lambda: None,
    forward: Callable[[Tensor], Tensor] | None = None,
    workers: WorkerGroup = ONE_WORKER,
) -> Iterator[Epoch]:
    """Train from where `training` stands, in place, and yield after each epoch, when it has been scored.

    after_step  called between steps, when `training` is whole: to show progress, to save, or to stop by an exception.
    forward     what computes the logits in training, where it is more than the module: compiled, or `workers.parallel`.
    workers     those that train together, each with its share of `batches` and of `held_out`.

    Ends with the recipe's epochs, or `recipe.patience` epochs after the best. On a CPU the same arguments give the same
    result to the bit, wherever a run was broken off and taken up from its `state_dict`. Torch's global generators are
    left as they were. Raises Diverged; running out of memory is torch's exception, left to the caller.
    """
    schedule = recipe.schedule(
        peak=recipe.peak(batches.size), steps_per_epoch=batches.steps, steps=recipe.epochs * batches.steps
    )
    forward = training.module if forward is None else forward
    faster = nullcontext if recipe.compile else fast_convolutions
    clock = time.perf_counter() - training.seconds
    while training.epochs < recipe.epochs and not _out_of_patience(training, recipe):
        number = training.epochs + 1
        _set_mode(training.module, recipe)
        with faster(training.module), norms_over(workers.norms, training.module):
            while training.step < number * batches.steps:
                _take_step(training, batches, recipe, seed, schedule(training.step), forward, workers)
                if training.step % STEPS_BETWEEN_CHECKS == 0:
                    training.check_finite()
                training.seconds = time.perf_counter() - clock
                after_step()
        training.check_finite()
        score = evaluate(training.scored(batches.calibration, recipe.bfloat16), held_out, recipe.bfloat16, workers)
        if score.accuracy >= training.best:
            training.best, training.best_epoch = score.accuracy, number
        training.epochs = number
        training.seconds = time.perf_counter() - clock
        train_loss = training.losses.double().mean().item()
        yield Epoch(number, training.step, schedule(training.step - 1), train_loss, score, training.seconds)


def _take_step(
    training: TrainingState,
    batches: Batches,
    recipe: FullRecipe,
    seed: int,
    lr: float,
    forward: Callable[[Tensor], Tensor],
    workers: WorkerGroup,
) -> None:
    images, labels = batches(training.step)
    images = images.contiguous(memory_format=torch.channels_last)
    loss_of_step = training.losses[training.step % len(training.losses)].zero_()
    training.optimizer.zero_grad(set_to_none=True)
    parts = list(zip(images.tensor_split(recipe.accumulate), labels.tensor_split(recipe.accumulate), strict=True))
    # Each worker's dropout is another.
    with seeded((seeds(seed, DROPOUT, training.step)[0] + workers.shard.rank) % 2**64, training.where):
        for number, (part, its_labels) in enumerate(parts, start=1):
            with workers.without_sync(forward, number == len(parts)):
                with autocast(training.where, recipe.bfloat16):
                    loss = functional.cross_entropy(
                        forward(part), its_labels, label_smoothing=recipe.label_smoothing, reduction="sum"
                    ) / len(labels)
                loss.backward()  # type: ignore[no-untyped-call]
            loss_of_step += loss.detach()
    workers.average(loss_of_step, training.module)
    for settings in training.optimizer.param_groups:
        settings["lr"] = lr
    training.optimizer.step()
    if training.average is not None:
        training.average.update(training.module)
    training.step += 1


def _set_mode(module: nn.Module, recipe: FullRecipe) -> None:
    """Training form; where the classifier alone is trained, statistics below it stand still and nothing is dropped."""
    module.train(not recipe.head_only)
    if recipe.head_only and isinstance(module, ConvNet):
        module.dropout.train()


def _out_of_patience(training: TrainingState, recipe: FullRecipe) -> bool:
    return recipe.patience is not None and training.epochs - training.best_epoch >= recipe.patience


def fitting_parts(module: nn.Module, batches: Batches, recipe: FullRecipe) -> int | None:
    """The smallest `accumulate` above the recipe's by which a step of full size fits into memory; None: none does.

    To be called after the exception of the step that did not fit is gone, and its tensors with it. Tried on a copy.
    """
    parts = 2 * recipe.accumulate
    try:
        images, labels = batches(recipe.epochs * batches.steps - 1)  # the first epochs may be smaller
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    while parts <= len(labels) // 2:  # batch norm takes two images
        size = math.ceil(len(labels) / parts)
        fits = _fits(module, images[:size], labels[:size], recipe)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if fits:
            return parts
        parts *= 2
    return None


def _fits(module: nn.Module, images: Tensor, labels: Tensor, recipe: FullRecipe) -> bool:
    """Whether a copy of the module goes forward and backward over the images."""
    where = labels.device
    try:
        trial = copy.deepcopy(module)
        with autocast(where, recipe.bfloat16), seeded(0, where):
            loss = functional.cross_entropy(trial(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False
