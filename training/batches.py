"""Batches of images in memory, each a pure function of (seed, step): what a resumed run needs no state for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.augment import Samples, Views, random_views, seen
from training.crops import Boxes, central_boxes, cut, random_boxes
from training.dataset import Dataset, Images
from training.full_recipe import FullRecipe
from training.share import ALONE, Share

_PART = 1024  # images that are cropped at once


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


@dataclass(frozen=True, eq=False)
class _Draws:
    """All that is random about the images of an epoch, in the order in which they come."""

    order: Tensor
    views: Views | Boxes
    policy: Any


class MemoryBatches:
    """Batches of `samples`, as the recipe shows them.

    samples      the training images on the device, as `as_trained` gives them.
    side         the network's resolution, pixels.
    calibration  as `Batches` has it.
    share        whose batches they are.

    The order and the draws of an epoch come from (seed, epoch), so that any step can be had at any time, and neither
    the steps before it nor anybody else's random numbers matter. Raises InputError where a batch does not divide.
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
        self.size = min(recipe.batch_size, len(samples))
        share.check_divides(self.size)
        self.steps = len(samples) // self.size
        self.calibration = calibration
        self._samples, self._recipe, self._seed, self._side = samples, recipe, seed, side
        self._mine = share.part(self.size)
        self._drawn: tuple[int, _Draws] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, place = step // self.steps + 1, step % self.steps
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._draws(epoch)
        draws, before = self._drawn[1], place * self.size
        part = slice(before + self._mine.start, before + self._mine.stop)
        recipe, samples, index = self._recipe, self._samples, draws.order[part]
        side, views = recipe.side(epoch, self._side), draws.views[part]
        pixels = samples.pixels[index]
        pixels = cut(pixels, views, side) if isinstance(views, Boxes) else seen(pixels, views, self._shift)
        if recipe.policy is not None:
            pixels = recipe.policy.apply(pixels, draws.policy[part])
        images = samples.normalised(pixels)
        if side != images.shape[3]:
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images, samples.labels[index]

    @property
    def _shift(self) -> int:
        return round(self._recipe.translate * max(self._samples.pixels.shape[1:3]))

    def _draws(self, epoch: int) -> _Draws:
        where, count = self._samples.labels.device, self.steps * self.size
        order, moved, treated = (_generator(self._seed, use, epoch) for use in range(3))
        samples, policy = self._samples, self._recipe.policy
        views: Views | Boxes
        if self._recipe.crop:
            sizes = torch.tensor(samples.pixels.shape[1:3]).expand(count, 2)
            views = random_boxes(sizes, samples.flip, moved)
        else:
            views = random_views(count, self._shift, samples.flip, moved, where)
        return _Draws(
            torch.randperm(len(samples), generator=order).to(where),
            views,
            None if policy is None else policy.draw(count, treated),
        )


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
    for target, part in zip(torch.split(placed, _PART), torch.split(torch.from_numpy(pixels), _PART), strict=True):
        boxes = central_boxes(torch.tensor([height, width]).expand(len(part), 2), share)
        target.copy_(cut(part.to(where), boxes, side))
    return placed


def seed_of_step(seed: int, step: int) -> int:
    """For what is random in the network at `step`, of 64 bits; no other step's, and none of the data's."""
    return _seed(seed, 3, step)


def _generator(seed: int, use: int, epoch: int) -> torch.Generator:
    """On the CPU, one of its own for each use of random numbers in each epoch."""
    return torch.Generator().manual_seed(_seed(seed, use, epoch))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
