"""Batches of images in memory, each a pure function of (seed, step): what a resumed run needs no state for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phinas.training.augment.crops import Boxes, central_boxes, cut, random_boxes
from phinas.training.augment.views import Views, random_views, seen
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.samples import Samples
from phinas.training.full.recipe import FullRecipe
from phinas.training.workers.share import ALONE, Share

_PART = 2**24  # values that are resized at once: 64 MB of float32, and as much again a few times


class Batches(Protocol):
    """What a training run draws its batches from.

    steps        batches of one epoch, all full.
    size         images of each, those of all workers together.
    calibration  images as they are scored, from which batch-norm statistics are taken; None where they are not.
    """

    @property
    def steps(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def calibration(self) -> Samples | None: ...

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 [n, channels, height, width] and labels int64 [n] for `step` of the run, counted from 0.

        They are this worker's share of the batch: the same images, seen the same way, as if there were no others.
        """


class Plan:
    """Which images each batch has, and what is random about them but where they are cut: functions of (seed, step).

    count  training images.
    flip   they may be mirrored.
    side   the network's resolution, pixels.
    share  whose part of each batch is asked for.

    The order and the draws of an epoch come from (seed, epoch), so that any step can be had at any time, and neither
    the steps before it nor anybody else's random numbers matter. Raises InputError where a batch does not divide.
    """

    def __init__(self, count: int, flip: bool, recipe: FullRecipe, seed: int, side: int, share: Share) -> None:
        self.size = min(recipe.batch_size, count)
        share.check_divides(self.size)
        self.steps = count // self.size
        self.seed, self.side, self.recipe = seed, side, recipe
        self._count, self._flip, self._mine = count, flip, share.part(self.size)
        self._policy: tuple[int, Any] = 0, None

    def epoch(self, step: int) -> int:
        """Counted from 1."""
        return step // self.steps + 1

    def part(self, step: int) -> slice:
        """The worker's images of `step` among those of its epoch."""
        before = step % self.steps * self.size
        return slice(before + self._mine.start, before + self._mine.stop)

    def order(self, epoch: int) -> Tensor:
        """The images of the epoch as they come: int64 [count]."""
        return torch.randperm(self._count, generator=_generator(self.seed, 0, epoch))

    def boxes(self, epoch: int, size: Sequence[int]) -> Boxes:
        """Random crops of images of one size (height, width), in the order in which they come."""
        count = self.steps * self.size
        return random_boxes(torch.tensor(size).expand(count, 2), self._flip, _generator(self.seed, 1, epoch))

    def views(self, epoch: int, shift: int, where: torch.device) -> Views:
        """Where they are shifted to, in the order in which they come."""
        return random_views(self.steps * self.size, shift, self._flip, _generator(self.seed, 1, epoch), where)

    def shown(self, samples: Samples, step: int) -> tuple[Tensor, Tensor]:
        """A batch of `step`, cut out and moved, as the network sees it: float32 images and int64 labels."""
        epoch, pixels = self.epoch(step), samples.pixels
        side = self.recipe.side(epoch, self.side)
        if (policy := self.recipe.policy) is not None:
            if self._policy[0] != epoch:
                self._policy = epoch, policy.draw(self.steps * self.size, _generator(self.seed, 2, epoch))
            pixels = policy.apply(pixels, self._policy[1][self.part(step)])
        images = samples.normalised(pixels)
        if side != images.shape[3]:
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images, samples.labels


class MemoryBatches:
    """Batches of `samples`, as the recipe shows them.

    samples      the training images on the device, as `as_trained` gives them.
    side         the network's resolution, pixels.
    calibration  as `Batches` has it.
    share        whose batches they are.

    Raises InputError as `Plan` does.
    """

    def __init__(
        self,
        samples: Samples,
        recipe: FullRecipe,
        seed: int,
        side: int,
        calibration: Samples | None = None,
        share: Share = ALONE,
    ) -> None:
        self.calibration = calibration
        self._samples = samples
        self._plan = Plan(len(samples), samples.flip, recipe, seed, side, share)
        self._epoch: tuple[int, Tensor, Views | Boxes] | None = None

    @property
    def steps(self) -> int:
        return self._plan.steps

    @property
    def size(self) -> int:
        return self._plan.size

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        plan, samples = self._plan, self._samples
        epoch, part = plan.epoch(step), plan.part(step)
        where, size = samples.labels.device, samples.pixels.shape[1:3]
        shift = round(plan.recipe.translate * max(size))
        if self._epoch is None or self._epoch[0] != epoch:
            views = plan.boxes(epoch, size) if plan.recipe.crop else plan.views(epoch, shift, where)
            self._epoch = epoch, plan.order(epoch).to(where), views
        _, order, views = self._epoch
        pixels, views = samples.pixels[order[part]], views[part]
        if isinstance(views, Boxes):
            pixels = cut(pixels, views, plan.recipe.side(epoch, plan.side))
        else:
            pixels = seen(pixels, views, shift)
        return plan.shown(replace(samples, pixels=pixels, labels=samples.labels[order[part]]), step)


def as_trained(data: Dataset, recipe: FullRecipe, side: int, where: torch.device) -> Samples:
    """The training images on the device: as they are where they are cropped at random, else at `side` pixels."""
    pixels = data.train.pixels
    placed = torch.from_numpy(pixels).to(where) if recipe.crop else _placed(pixels, 1, side, where)
    return _samples(data, data.train, placed, where)


def as_scored(images: Images, data: Dataset, recipe: FullRecipe, side: int, where: torch.device) -> Samples:
    """`images` on the device as the recipe scores them at `side` pixels: their centre, resized once."""
    return _samples(data, images, _placed(images.pixels, recipe.evaluated_share(side), side, where), where)


def _samples(data: Dataset, images: Images, pixels: Tensor, where: torch.device) -> Samples:
    mean, std = (torch.from_numpy(moment).to(where) for moment in (data.mean, data.std))
    return Samples(pixels, torch.from_numpy(images.labels).to(where), mean, std, data.flip)


def _placed(pixels: NDArray[np.uint8], share: float, side: int, where: torch.device) -> Tensor:
    """The square in the middle of each image with `share` of its shorter side, at side x side pixels."""
    images, height, width, channels = pixels.shape
    if share == 1 and height == width == side:
        return torch.from_numpy(pixels).to(where)
    placed = torch.empty((images, side, side, channels), dtype=torch.uint8, device=where)
    # In parts, so that the original size is not all on the device.
    count = max(1, _PART // (height * width * channels))
    for target, part in zip(torch.split(placed, count), torch.split(torch.from_numpy(pixels), count), strict=True):
        boxes = central_boxes(torch.tensor([height, width]).expand(len(part), 2), share)
        target.copy_(cut(part.to(where), boxes, side))
    return placed


def seed_of_step(seed: int, step: int) -> int:
    """For what is random in the network at `step`, of 64 bits; no other step's, and none of the data's."""
    return _seed(seed, 3, step)


def seed_of_crop(seed: int, epoch: int, image: int) -> int:
    """For where one image is cut in an epoch, where each is drawn by itself."""
    return _seed(seed, 4, epoch, image)


def _generator(seed: int, use: int, epoch: int) -> torch.Generator:
    """On the CPU, one of its own for each use of random numbers in each epoch."""
    return torch.Generator().manual_seed(_seed(seed, use, epoch))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
