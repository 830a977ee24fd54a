"""Where a training's images come from: batches to learn from, and splits to score on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phinas.engines.out_of_memory import out_of_memory
from phinas.files.errors import InputError
from phinas.training.data.batches import Batches, MemoryBatches, as_scored, as_trained
from phinas.training.data.dataset import Dataset, Images, data_hash
from phinas.training.data.samples import Samples
from phinas.training.full.recipe import FullRecipe
from phinas.training.workers.share import ALONE, Share


class Scored(Protocol):
    """Labelled images as they are scored: a worker's share of them, in parts that fit into memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [n, channels, side, side], normalised, and labels int64 [n], on the device."""


class Source(Protocol):
    """What a training learns from, is chosen by (`held_out`), and is reported by (`test`). Pickles.

    classes     their names, in the order of the labels.
    channels    1 grey, 3 RGB.
    flip        training may mirror the images.
    mean, std   float32 [channels] on the 0-255 scale, by which images are centred and scaled.
    size        (height, width) of the images; None where they differ.
    test_count  images of the test split; None where there is none.
    hash        sixteen hex digits of what is trained and scored on.

    Images come at `side` pixels, on the device `where`, to worker `share`. Raises InputError for images that cannot be
    read, or do not fit into memory; `batches` also where a batch does not divide into the shares.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def channels(self) -> int: ...
    @property
    def flip(self) -> bool: ...
    @property
    def mean(self) -> NDArray[np.float32]: ...
    @property
    def std(self) -> NDArray[np.float32]: ...
    @property
    def size(self) -> tuple[int, int] | None: ...
    @property
    def train_count(self) -> int: ...
    @property
    def held_out_count(self) -> int: ...
    @property
    def test_count(self) -> int | None: ...
    @property
    def hash(self) -> str: ...

    def batches(
        self, recipe: FullRecipe, seed: int, side: int, where: torch.device, share: Share = ALONE
    ) -> Batches: ...

    def held_out(self, recipe: FullRecipe, side: int, where: torch.device, share: Share = ALONE) -> Scored: ...

    def test(self, recipe: FullRecipe, side: int, where: torch.device, share: Share = ALONE) -> Scored:
        """To be called where `test_count` is not None; the images are prepared when it is called."""

    def whole(self) -> Source:
        """The same, where what is held out is learnt from too: for a last training, with nothing left to choose."""


@dataclass(frozen=True, eq=False)
class MemoryScored:
    """Samples on the device, scored as they are."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        samples, size = self.samples, part_size(*self.samples.pixels.shape[1:3])
        for pixels, labels in zip(torch.split(samples.pixels, size), torch.split(samples.labels, size), strict=True):
            yield samples.normalised(pixels), labels


@dataclass(frozen=True, eq=False)
class MemorySource:
    """A `Source` of images that are all in memory.

    tested  the test split, of images as large as `data`'s; None: there is none.
    """

    data: Dataset
    tested: Images | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def channels(self) -> int:
        return self.data.channels

    @property
    def flip(self) -> bool:
        return self.data.flip

    @property
    def mean(self) -> NDArray[np.float32]:
        return self.data.mean

    @property
    def std(self) -> NDArray[np.float32]:
        return self.data.std

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.data.train.pixels.shape[1:3]
        return height, width

    @property
    def train_count(self) -> int:
        return len(self.data.train)

    @property
    def held_out_count(self) -> int:
        return len(self.data.val)

    @property
    def test_count(self) -> int | None:
        return None if self.tested is None else len(self.tested)

    @cached_property
    def hash(self) -> str:
        return data_hash(self.data)

    def batches(
        self, recipe: FullRecipe, seed: int, side: int, where: torch.device, share: Share = ALONE
    ) -> MemoryBatches:
        data = self.data
        with self._fitting(side, where):
            train = as_trained(data, recipe, side, where)
            some = spread(len(data.train), recipe.recalibrate)
            calibration = as_scored(data.train[some], data, recipe, side, where) if len(some) else None
        return MemoryBatches(train, recipe, seed, side, calibration, share)

    def held_out(self, recipe: FullRecipe, side: int, where: torch.device, share: Share = ALONE) -> MemoryScored:
        return self._scored(self.data.val, recipe, side, where, share)

    def test(self, recipe: FullRecipe, side: int, where: torch.device, share: Share = ALONE) -> MemoryScored:
        if self.tested is None:
            raise ValueError("there is no test split")
        return self._scored(self.tested, recipe, side, where, share)

    def whole(self) -> MemorySource:
        splits = (self.data.train, self.data.val)
        pixels, labels = (np.concatenate([getattr(one, part) for one in splits]) for part in ("pixels", "labels"))
        return replace(self, data=replace(self.data, train=Images(pixels, labels)))

    def _scored(self, images: Images, recipe: FullRecipe, side: int, where: torch.device, share: Share) -> MemoryScored:
        part = share.part(len(images))
        with self._fitting(side, where):
            return MemoryScored(
                as_scored(Images(images.pixels[part], images.labels[part]), self.data, recipe, side, where)
            )

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


def part_size(height: int, width: int) -> int:
    """Images that are scored at once: 256 of 32 x 32 pixels, so that larger ones fit into memory too."""
    return max(16, 2**18 // (height * width))


def spread(images: int, count: int) -> NDArray[np.int64]:
    """Indices of `count` of the images, or all if there are fewer, evenly spread over them."""
    chosen: NDArray[np.int64] = torch.linspace(0, images - 1, min(count, images)).long().numpy()
    return chosen
