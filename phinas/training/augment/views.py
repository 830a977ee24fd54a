"""Random views of images: shifted and mirrored, in one gather per batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


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
