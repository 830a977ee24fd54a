"""How images are held out of training to score on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phinas.files.errors import InputError
from phinas.training.data.dataset import Images

# What a word in the name of a file or folder says of its images. Of two such words the later one here counts, so that
# "train-test-split" never puts test images into a search.
SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

_IMAGENET, _MINIVAL = 1_281_167, 25_022  # training images, and what the paper held out of them


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


def check_same_size(train: Images, val: Images, where: str) -> None:
    sizes = [f"{images.pixels.shape[2]} x {images.pixels.shape[1]}" for images in (train, val)]
    if sizes[0] != sizes[1]:
        raise InputError(f"{where}: training images are {sizes[0]}, validation {sizes[1]}; set resolution")
