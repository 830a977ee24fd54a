"""Training data that is all in memory: its splits on the device, and its batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phinas.engines.out_of_memory import out_of_memory
from phinas.files.errors import InputError
from phinas.training.augment.crops import Boxes, central_boxes, cut
from phinas.training.augment.views import Views, seen
from phinas.training.data.batch_plan import BatchPlan
from phinas.training.data.dataset import Dataset, Images, data_hash
from phinas.training.data.samples import Samples, labelled, resized
from phinas.training.full.recipe import FullRecipe
from phinas.training.workers.shard import ALONE, Shard


class InMemoryData:
    """`TrainingData` of images that are all in memory.

    tested  the test split, of images as large as `data`'s; None: there is none.
    """

    def __init__(self, data: Dataset, tested: Images | None) -> None:
        self.data, self.tested = data, tested
        self.classes, self.channels, self.flip = data.classes, data.channels, data.flip
        self.size: tuple[int, int] = data.train.pixels.shape[1], data.train.pixels.shape[2]
        self.train_count, self.held_out_count = len(data.train), len(data.val)
        self.test_count = None if tested is None else len(tested)

    @property
    def mean(self) -> NDArray[np.float32]:
        return self.data.mean

    @property
    def std(self) -> NDArray[np.float32]:
        return self.data.std

    @cached_property
    def hash(self) -> str:
        return data_hash(self.data)

    def batches(
        self, recipe: FullRecipe, seed: int, side: int, where: torch.device, shard: Shard = ALONE
    ) -> InMemoryBatches:
        data = self.data
        with self._fitting(side, where):
            train = as_trained(data, recipe, side, where)
            some = spread(len(data.train), recipe.recalibrate)
            calibration = as_scored(data.train[some], data, recipe, side, where) if len(some) else None
        return InMemoryBatches(train, recipe, seed, side, calibration, shard)

    def held_out(self, recipe: FullRecipe, side: int, where: torch.device, shard: Shard = ALONE) -> Samples:
        return self._scored(self.data.val, recipe, side, where, shard)

    def test(self, recipe: FullRecipe, side: int, where: torch.device, shard: Shard = ALONE) -> Samples:
        if self.tested is None:
            raise ValueError("there is no test split")
        return self._scored(self.tested, recipe, side, where, shard)

    def whole(self) -> InMemoryData:
        splits = (self.data.train, self.data.val)
        pixels, labels = (np.concatenate([getattr(split, part) for split in splits]) for part in ("pixels", "labels"))
        return InMemoryData(replace(self.data, train=Images(pixels, labels)), self.tested)

    def _scored(self, images: Images, recipe: FullRecipe, side: int, where: torch.device, shard: Shard) -> Samples:
        part = shard.part(len(images))
        with self._fitting(side, where):
            return as_scored(Images(images.pixels[part], images.labels[part]), self.data, recipe, side, where)

    @contextmanager
    def _fitting(self, side: int, where: torch.device) -> Iterator[None]:
        """Too little memory inside, as InputError."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            images = self.train_count + self.held_out_count
            raise InputError(
                f"the data's {images} images do not fit into the memory of {where} at {side} pixels"
            ) from None


class InMemoryBatches:
    """Batches of `samples`, as the recipe shows them.

    samples      the training images on the device, as `as_trained` gives them.
    side         the network's resolution, pixels.
    calibration  as `Batches` has it.
    shard        whose batches they are.

    Raises InputError as `BatchPlan` does.
    """

    def __init__(
        self,
        samples: Samples,
        recipe: FullRecipe,
        seed: int,
        side: int,
        calibration: Samples | None = None,
        shard: Shard = ALONE,
    ) -> None:
        self.calibration = calibration
        self._samples = samples
        self._plan = BatchPlan(len(samples), samples.flip, recipe, seed, side, shard)
        self.steps, self.size = self._plan.steps, self._plan.size
        self._epoch: tuple[int, Tensor, Views | Boxes] | None = None

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
    if recipe.crop:
        pixels = torch.from_numpy(data.train.pixels).to(where)
    else:
        pixels = _central_squares(data.train.pixels, 1, side, where)
    return labelled(pixels, data.train.labels, data.mean, data.std, data.flip)


def as_scored(images: Images, data: Dataset, recipe: FullRecipe, side: int, where: torch.device) -> Samples:
    """`images` on the device as the recipe scores them at `side` pixels: their centre, resized once."""
    pixels = _central_squares(images.pixels, recipe.evaluated_share(side), side, where)
    return labelled(pixels, images.labels, data.mean, data.std, data.flip)


def _central_squares(pixels: NDArray[np.uint8], share: float, side: int, where: torch.device) -> Tensor:
    """The square in the middle of each image with `share` of its shorter side, at side x side pixels."""
    if share == 1 and pixels.shape[1] == pixels.shape[2] == side:
        return torch.from_numpy(pixels).to(where)
    size = torch.tensor(pixels.shape[1:3])
    return resized(pixels, side, where, lambda part, at: cut(part, central_boxes(size.expand(len(part), 2), share), at))


def spread(images: int, count: int) -> NDArray[np.int64]:
    """Indices of `count` of the images, or all if there are fewer, evenly spread over them."""
    chosen: NDArray[np.int64] = torch.linspace(0, images - 1, min(count, images)).long().numpy()
    return chosen
