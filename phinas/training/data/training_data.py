"""What a training asks of its data, wherever the images are: batches to learn from, and splits to score on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phinas.training.data.samples import Samples
from phinas.training.full.recipe import FullRecipe
from phinas.training.workers.shard import ALONE, Shard


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


class EvaluationData(Protocol):
    """Labelled images as they are scored: a worker's share of them, in parts that fit into memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [n, channels, side, side], normalised, and labels int64 [n], on the device."""


class TrainingData(Protocol):
    """What a training learns from, is chosen by (`held_out`), and is reported by (`test`). Pickles.

    classes     their names, in the order of the labels.
    channels    1 grey, 3 RGB.
    flip        training may mirror the images.
    mean, std   float32 [channels] on the 0-255 scale, by which images are centred and scaled.
    size        (height, width) of the images; None where they differ.
    test_count  images of the test split; None where there is none.
    hash        sixteen hex digits of what is trained and scored on.

    Images come at `side` pixels, on the device `where`, to worker `shard`. Raises InputError for images that cannot be
    read, or do not fit into memory; `batches` also where a batch does not divide into the shards.
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
        self, recipe: FullRecipe, seed: int, side: int, where: torch.device, shard: Shard = ALONE
    ) -> Batches: ...

    def held_out(self, recipe: FullRecipe, side: int, where: torch.device, shard: Shard = ALONE) -> EvaluationData: ...

    def test(self, recipe: FullRecipe, side: int, where: torch.device, shard: Shard = ALONE) -> EvaluationData:
        """To be called where `test_count` is not None; the images are prepared when it is called."""

    def whole(self) -> TrainingData:
        """The same, where what is held out is learnt from too: for a last training, with nothing left to choose."""
