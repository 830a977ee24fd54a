"""Labelled images in memory, and how some are held out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phinas.files.errors import InputError

# What a word in the name of a file or folder says of its images. Of two such words the later one here counts, so that
# "train-test-split" never puts test images into a search.
SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

Moments = tuple[NDArray[np.float32], NDArray[np.float32]]  # mean and standard deviation, of each channel

_IMAGENET, _MINIVAL = 1_281_167, 25_022  # training images, and what the paper held out of them


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


def hold_out(images: Images, fraction: float, seed: int, classes: Sequence[str], where: str) -> tuple[Images, Images]:
    """(rest, held out), as `split` has them. Raises InputError as it does."""
    rest, held_out = split(images.labels, fraction, seed, classes, where)
    return images[rest], images[held_out]


def split(
    labels: NDArray[np.int64], fraction: float, seed: int, classes: Sequence[str], where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices, ascending, of (rest, held out): `fraction` of each class at random, one image or more, and one left.

    Of ImageNet's training images 0.02 are the 25,022 that EfficientNet's authors held out: as many, not the same.
    The same labels, fraction and seed give the same split. Raises InputError, naming `where` the images come from, if
    a class has fewer than two, or there is only one class.
    """
    check_several_classes(labels, where)
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    if len(labels) == _IMAGENET and fraction == 0.02:
        held_out[draw(labels, _MINIVAL, seed, where)] = True
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise InputError(f"{where}: class {classes[label]!r} has one image; two or more are needed to hold one out")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[random.choice(members, count, replace=False)] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def draw(labels: NDArray[np.int64], limit: int | None, seed: int, where: str) -> NDArray[np.int64]:
    """Indices, ascending, of `limit` images at random: of each class its share, and two or more if it has them.

    All of them where there is no limit or there are no more. Raises InputError if the limit is less than two per class.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    place, least = np.empty(len(labels)), 0
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + random.random()) / len(members)  # spread evenly over [0, 1)
        place[members[:2]] -= 1  # first come two of each class
        least += len(members[:2])
    if limit < least:
        raise InputError(
            f"data.limit={limit}: two images of each class in {where} are {least}; it must be that or more"
        )
    return np.sort(np.argsort(place, kind="stable")[:limit])


def check_several_classes(labels: NDArray[np.int64], where: str) -> None:
    """InputError, naming `where`, if all images are of one class: there would be nothing to learn."""
    if len(np.unique(labels)) < 2:
        raise InputError(f"{where}: all images are of one class; there must be two or more")


def check_labels(labels: Sequence[int] | NDArray[np.int64], classes: Sequence[str], where: str) -> None:
    """InputError, naming `where`, unless each label is an index into the classes."""
    smallest, largest = int(np.min(labels)), int(np.max(labels))
    if smallest < 0 or largest >= len(classes):
        wrong = smallest if smallest < 0 else largest
        raise InputError(f"{where}: label {wrong} is out of range; {len(classes)} classes are numbered from 0")
