"""Samples: images with their labels on the training device, all at one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phinas.training.data.dataset import Dataset, Images

_PART = 2**24  # values that are resized at once: 64 MB of float32, and as much again a few times


@dataclass(frozen=True, eq=False)
class Samples:
    """Images on the device. Iterated over, they are `EvaluationData`: normalised, with labels, part by part.

    pixels     uint8 [n, height, width, channels]: a quarter of the memory of floats, and channels_last when permuted.
    labels     int64 [n].
    mean, std  float32 [channels] on the 0-255 scale, by which `normalised` centres and scales.
    flip       training may mirror the images.
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    flip: bool

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> Samples:
        return Samples(self.pixels[index], self.labels[index], self.mean, self.std, self.flip)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = part_size(*self.pixels.shape[1:3])
        for pixels, labels in zip(torch.split(self.pixels, size), torch.split(self.labels, size), strict=True):
            yield self.normalised(pixels), labels

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [n, h, w, c] -> float32 [n, c, h, w] in channels_last memory."""
        return pixels.to(torch.float32).sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)


def part_size(height: int, width: int) -> int:
    """Images per forward pass without gradients: 256 of 32 x 32 pixels, so that larger ones fit into memory too."""
    return max(16, 2**18 // (height * width))


def labelled(
    pixels: Tensor, labels: NDArray[np.int64], mean: NDArray[np.float32], std: NDArray[np.float32], flip: bool
) -> Samples:
    """The pixels, which are on a device, with all that goes with them there too."""
    of_labels, of_mean, of_std = (torch.from_numpy(array).to(pixels.device) for array in (labels, mean, std))
    return Samples(pixels, of_labels, of_mean, of_std, flip)


def samples(data: Dataset, resolution: int | None, device: torch.device) -> tuple[Samples, Samples]:
    """(train, val) of `data` on the device, stretched to resolution x resolution pixels unless it is None."""

    def put(images: Images) -> Samples:
        if resolution is None or images.pixels.shape[1:3] == (resolution, resolution):
            pixels = torch.from_numpy(images.pixels).to(device)
        else:
            pixels = resized(images.pixels, resolution, device, _stretched)
        return labelled(pixels, images.labels, data.mean, data.std, data.flip)

    return put(data.train), put(data.val)


def resized(
    pixels: NDArray[np.uint8], side: int, device: torch.device, resize: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """uint8 [n, side, side, channels] on the device: what `resize` makes of the pixels [n, height, width, channels].

    Part by part, so that neither a float copy of everything is needed nor the original size on the device.
    """
    images, height, width, channels = pixels.shape
    placed = torch.empty((images, side, side, channels), dtype=torch.uint8, device=device)
    count = max(1, _PART // (height * width * channels))
    for target, part in zip(torch.split(placed, count), torch.split(torch.from_numpy(pixels), count), strict=True):
        target.copy_(resize(part.to(device), side))
    return placed


def _stretched(pixels: Tensor, side: int) -> Tensor:
    images = functional.interpolate(pixels.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear", antialias=True)
    return images.round_().permute(0, 2, 3, 1)
