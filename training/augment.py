"""Samples on the training device, and random views of them: shifted and mirrored, in one gather per batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.dataset import Dataset, Images


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

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [n, h, w, c] -> float32 [n, c, h, w] in channels_last memory."""
        return pixels.to(torch.float32).sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)


def samples(data: Dataset, resolution: int | None, device: torch.device) -> tuple[Samples, Samples]:
    """(train, val) of `data` on the device, stretched to resolution x resolution pixels unless it is None."""
    mean, std = (torch.from_numpy(moment).to(device) for moment in (data.mean, data.std))

    def put(images: Images) -> Samples:
        pixels = torch.from_numpy(images.pixels).to(device)
        labels = torch.from_numpy(images.labels).to(device)
        return Samples(_resized(pixels, resolution), labels, mean, std, data.flip)

    return put(data.train), put(data.val)


def _resized(pixels: Tensor, resolution: int | None) -> Tensor:
    if resolution is None or pixels.shape[1:3] == (resolution, resolution):
        return pixels
    size = (resolution, resolution)
    resized = [  # in parts, so that no float copy of everything is needed
        functional.interpolate(part.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
        .round_()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        for part in torch.split(pixels, 1024)
    ]
    return torch.cat(resized).contiguous()


@dataclass(frozen=True, eq=False)
class Views:
    """Where each image of an epoch is cut out of its padded self: int64 [n] rows and columns, bool [n] mirrored."""

    top: Tensor
    left: Tensor
    mirrored: Tensor


def pad(pixels: Tensor, shift: int) -> Tensor:
    """[n, h, w, c] -> [n, h + 2 shift, w + 2 shift, c] with black (0) around."""
    return functional.pad(pixels, (0, 0, shift, shift, shift, shift))


def random_views(count: int, shift: int, flip: bool, generator: torch.Generator, device: torch.device) -> Views:
    """Per image, a shift of up to `shift` pixels each way and a coin for the mirror, drawn on the CPU."""
    offsets = torch.randint(0, 2 * shift + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    return Views(offsets[0].to(device), offsets[1].to(device), mirrored.to(device))


def take(padded: Tensor, index: Tensor, views: Views, size: tuple[int, int]) -> Tensor:
    """The images `index` [b] as their views show them: [b, height, width, c] for `size` = (height, width)."""
    rows = torch.arange(size[0], device=padded.device)
    columns = torch.arange(size[1], device=padded.device).expand(len(index), -1)
    columns = torch.where(views.mirrored[:, None], columns.flip(1), columns) + views.left[:, None]
    rows = rows + views.top[:, None]
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
