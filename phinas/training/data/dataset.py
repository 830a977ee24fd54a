"""Labelled images in memory: one split of them, and what a search may see."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Moments = tuple[NDArray[np.float32], NDArray[np.float32]]  # mean and standard deviation, of each channel


@dataclass(frozen=True, eq=False)
class Images:
    """One labelled split.

    pixels  uint8 [n, height, width, channels].
    labels  int64 [n], each an index into the classes.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be uint8 [n, h, w, c], got {self.pixels.dtype} {list(self.pixels.shape)}")
        if self.labels.shape != self.pixels.shape[:1] or self.labels.dtype != np.int64:
            raise ValueError(f"{len(self.pixels)} images, but labels are {self.labels.dtype} {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: NDArray[np.int64]) -> Images:
        return Images(self.pixels[index], self.labels[index])


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a search may see: images to learn from, and `val` held out of training to score on. No test images.

    flip       a mirrored image is still one of its class (a cat is, a digit is not), so training may mirror it.
    val_given  `val` is a split of the source's own, rather than a share of the training images.
    moments    mean and standard deviation to centre and scale by, as `mean` and `std` have them; None: the images' own.
    Pickles with its arrays, so that a worker gets it whole.
    """

    train: Images
    val: Images
    classes: tuple[str, ...]
    flip: bool = False
    val_given: bool = False
    moments: Moments | None = None

    def __post_init__(self) -> None:
        if self.train.pixels.shape[1:] != self.val.pixels.shape[1:]:
            raise ValueError(f"train images are {self.train.pixels.shape[1:]}, val {self.val.pixels.shape[1:]}")

    @property
    def channels(self) -> int:
        return int(self.train.pixels.shape[3])

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """Per channel over the training images, on the 0-255 scale: float32 [channels]."""
        return (self.moments or self._per_pixel_moments)[0]

    @cached_property
    def std(self) -> NDArray[np.float32]:
        """Per channel over the training images, on the 0-255 scale; 1 for a constant channel: float32 [channels]."""
        return (self.moments or self._per_pixel_moments)[1]

    @cached_property
    def _per_pixel_moments(self) -> Moments:
        return moments(histogram(self.train.pixels))


def histogram(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many of the pixels [..., channels] have each level: int64 [channels, 256]."""
    return np.stack([np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(pixels.shape[-1])])


def moments(counts: NDArray[Any]) -> Moments:
    """Of levels as frequent as `counts` [channels, 256] says: exact, and without a float copy of the images."""
    values = np.arange(256.0)
    mean, std = np.empty(len(counts), np.float32), np.empty(len(counts), np.float32)
    for channel, its in enumerate(counts):
        mean[channel] = centre = (its @ values) / its.sum()
        std[channel] = np.sqrt(its @ (values - centre) ** 2 / its.sum()) or 1.0
    return mean, std


def data_hash(data: Dataset) -> str:
    """Sixteen hex digits of the images and labels that are trained and scored on, and of moments that were given."""
    digest = hashlib.sha256()
    for part in (data.train, data.val):
        digest.update(part.pixels.tobytes())
        digest.update(part.labels.tobytes())
    for moment in data.moments or ():
        digest.update(moment.tobytes())
    return digest.hexdigest()[:16]
