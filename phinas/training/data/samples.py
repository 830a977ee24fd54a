"""Samples: images with their labels on the training device, stretched to the side at which they are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phinas.training.data.dataset import Dataset, Images

_PART = 2**24  # values that are resized at once: 64 MB of float32, twice


@dataclass(frozen=True, eq=False)
class Samples:
    """One split on the device.

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

    def __getitem__(self, part: slice) -> Samples:
        return Samples(self.pixels[part], self.labels[part], self.mean, self.std, self.flip)

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [n, h, w, c] -> float32 [n, c, h, w] in channels_last memory."""
        return pixels.to(torch.float32).sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)


def samples(data: Dataset, resolution: int | None, device: torch.device) -> tuple[Samples, Samples]:
    """(train, val) of `data` on the device, stretched to resolution x resolution pixels unless it is None."""
    mean, std = (torch.from_numpy(moment).to(device) for moment in (data.mean, data.std))

    def put(images: Images) -> Samples:
        labels = torch.from_numpy(images.labels).to(device)
        return Samples(_stretched(images.pixels, resolution, device), labels, mean, std, data.flip)

    return put(data.train), put(data.val)


def _stretched(pixels: NDArray[np.uint8], resolution: int | None, device: torch.device) -> Tensor:
    """Part by part, so that neither a float copy of everything is needed nor the original size on the device."""
    images, height, width, channels = pixels.shape
    size = (height, width) if resolution is None else (resolution, resolution)
    placed = torch.empty((images, *size, channels), dtype=torch.uint8, device=device)
    count = max(1, _PART // (height * width * channels))
    for target, part in zip(torch.split(placed, count), torch.split(torch.from_numpy(pixels), count), strict=True):
        target.copy_(part if size == (height, width) else _resized(part.to(device), size))
    return placed


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    images = pixels.permute(0, 3, 1, 2).float()
    return functional.interpolate(images, size, mode="bilinear", antialias=True).round_().permute(0, 2, 3, 1)
