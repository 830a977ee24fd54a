"""Samples on the training device, and random views of them: shifted and mirrored, in one gather per batch."""

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
        return Samples(_placed(images.pixels, resolution, device), labels, mean, std, data.flip)

    return put(data.train), put(data.val)


def _placed(pixels: NDArray[np.uint8], resolution: int | None, device: torch.device) -> Tensor:
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


@dataclass(frozen=True, eq=False)
class Views:
    """Where each image of an epoch is cut out of its padded self: int64 [n] rows and columns, bool [n] mirrored."""

    top: Tensor
    left: Tensor
    mirrored: Tensor

    def __getitem__(self, part: slice) -> Views:
        return Views(self.top[part], self.left[part], self.mirrored[part])


def random_views(count: int, shift: int, flip: bool, generator: torch.Generator, device: torch.device) -> Views:
    """Per image, a shift of up to `shift` pixels each way and a coin for the mirror, drawn on the CPU."""
    offsets = torch.randint(0, 2 * shift + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    return Views(offsets[0].to(device), offsets[1].to(device), mirrored.to(device))


def seen(pixels: Tensor, views: Views, shift: int) -> Tensor:
    """The images [n, height, width, c] as their views show them; `shift` is theirs, and what comes in is black (0)."""
    images, height, width = pixels.shape[:3]
    padded = functional.pad(pixels, (0, 0, shift, shift, shift, shift))
    rows = torch.arange(height, device=pixels.device) + views.top[:, None]
    columns = torch.arange(width, device=pixels.device).expand(images, -1)
    columns = torch.where(views.mirrored[:, None], columns.flip(1), columns) + views.left[:, None]
    return padded[torch.arange(images, device=pixels.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
