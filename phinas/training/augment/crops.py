"""Crops: random boxes for training, central ones for evaluation, and cutting them out at one size, bicubic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from phinas.files.checks import check_whole

_AREA = (0.08, 1.0)  # of the image
_ASPECT = (3 / 4, 4 / 3)  # width / height
_TRIES = 10


@dataclass(frozen=True, eq=False)
class Boxes:
    """A rectangle of whole pixels in each of n images: int64 [n] each, and bool [n] whether it is seen mirrored.

    On the CPU, whichever device the images are on.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor

    def __len__(self) -> int:
        return len(self.top)

    def __getitem__(self, part: slice | Tensor) -> Boxes:
        return Boxes(self.top[part], self.left[part], self.height[part], self.width[part], self.mirrored[part])


def constant(side: int) -> float:
    """The share of an image's shorter side that is evaluated: tensorflow/tpu's today, whatever the `side`."""
    return 0.875


def padded(side: int) -> float:
    """The share that leaves 32 pixels of padding: 0.875 at 224 pixels, 0.949 at 600, as for the published weights."""
    return side / (side + 32)


def central_boxes(sizes: Tensor, share: float) -> Boxes:
    """The square in the middle of each image whose side is `share` of the shorter one, rounded down.

    sizes  int64 [n, 2], heights and widths.
    Source: _decode_and_center_crop in models/official/efficientnet/preprocessing.py of tensorflow/tpu.
    """
    side = (sizes.amin(1).double() * share + 1e-6).long().clamp(min=1)  # 0.9 * 320 may be a little below 288
    top, left = ((sizes - side[:, None] + 1) // 2).unbind(1)
    return Boxes(top, left, side, side, torch.zeros_like(side, dtype=torch.bool))


def random_boxes(sizes: Tensor, flip: bool, generator: torch.Generator) -> Boxes:
    """Inception crops (arXiv 1409.4842), and a coin for the mirror if `flip`; a pure function of the (CPU) generator.

    Of an image's area 8 to 100%, evenly, and width / height from 3/4 to 4/3, evenly in its logarithm; drawn again, at
    most ten times, while the box does not fit into the image, and then the central 0.875.

    sizes  int64 [n, 2], heights and widths.
    """
    middle = central_boxes(sizes, constant(0))
    places = torch.stack([middle.top, middle.left, middle.height, middle.width])
    missing = torch.arange(len(sizes))
    for _ in range(_TRIES):
        if not len(missing):
            break
        heights, widths = sizes[missing].unbind(1)
        random = torch.rand((4, len(missing)), generator=generator)
        area = (_AREA[0] + (_AREA[1] - _AREA[0]) * random[0]) * heights * widths
        aspect = torch.exp(math.log(_ASPECT[0]) + math.log(_ASPECT[1] / _ASPECT[0]) * random[1])
        height, width = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
        top, left = random[2] * (heights - height + 1), random[3] * (widths - width + 1)
        fits = (height >= 1) & (height <= heights) & (width >= 1) & (width <= widths)
        places[:, missing[fits]] = torch.stack([top, left, height, width])[:, fits].long()
        missing = missing[~fits]
    mirrored = torch.rand(len(sizes), generator=generator) < (0.5 if flip else 0.0)
    top, left, height, width = places.unbind(0)
    return Boxes(top, left, height, width, mirrored)


def cut(pixels: Tensor, boxes: Boxes, side: int) -> Tensor:
    """uint8 [n, side, side, c]: `boxes` of the images [n, h, w, c] on their device, resized bicubically with antialias.

    As Pillow's `crop` and then `resize`, columns first, to a level or two: what is outside a box does not shine in. On
    CPUs PyTorch has a kernel for bytes, image by image; on other devices, which that would leave waiting for launches,
    all images together are two matrix products, to be kept out of autocast: in half precision levels would be lost.
    Raises InputError if `side` is not a positive number, ValueError if the numbers of images differ.
    """
    check_whole("side", side)
    if len(boxes) != len(pixels):
        raise ValueError(f"boxes of {len(boxes)} images for {len(pixels)}")
    return (_one_by_one if pixels.device.type == "cpu" else _by_products)(pixels, boxes, side)


def _one_by_one(pixels: Tensor, boxes: Boxes, side: int) -> Tensor:
    done = pixels.new_empty(len(pixels), side, side, pixels.shape[3])
    places = torch.stack([boxes.top, boxes.left, boxes.height, boxes.width], 1).tolist()
    for target, image, (top, left, height, width) in zip(done, pixels, places, strict=True):
        box = image[top : top + height, left : left + width].permute(2, 0, 1)[None]
        resized = functional.interpolate(box, (side, side), mode="bicubic", antialias=True)
        target.copy_(resized[0].permute(1, 2, 0))
    return torch.where(boxes.mirrored[:, None, None, None], done.flip(2), done)


def _by_products(pixels: Tensor, boxes: Boxes, side: int) -> Tensor:
    """A resampling filter is linear and separable: one matrix per image and axis crops, mirrors and resizes."""
    images, height, width, channels = pixels.shape
    where = pixels.device
    top, left, tall, broad = (
        place.to(where, non_blocking=True)[:, None] for place in (boxes.top, boxes.left, boxes.height, boxes.width)
    )
    columns = _weights(left, broad, width, side)
    columns = torch.where(boxes.mirrored.to(where, non_blocking=True)[:, None, None], columns.flip(1), columns)
    across = pixels.transpose(1, 2).reshape(images, width, height * channels).float()
    across = columns.bmm(across).round_().clamp_(0, 255)  # to whole levels between the axes, as Pillow does
    down = across.view(images, side, height, channels).transpose(1, 2).reshape(images, height, side * channels)
    done = _weights(top, tall, height, side).bmm(down).round_().clamp_(0, 255)
    return done.view(images, side, side, channels).to(torch.uint8)


def _weights(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """float32 [n, side, size]: what each of `size` pixels counts in each of `side` along one axis.

    start, length  int64 [n, 1], of the boxes on this axis.

    Keys' cubic with a = -1/2, stretched where there are more pixels than are wanted, and cut off at the box.
    """
    pixel = torch.arange(size, device=start.device)
    scale = length / side
    centre = start + (torch.arange(side, device=start.device) + 0.5) * scale
    away = ((pixel + 0.5 - centre[:, :, None]) / scale.clamp(min=1)[:, :, None]).abs_()
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((2.5 - 0.5 * away) * away - 4) * away + 2
    weights = torch.where(away < 1, near, torch.where(away < 2, far, 0.0))
    weights = weights * ((pixel >= start) & (pixel < start + length))[:, None]
    return weights / weights.sum(2, keepdim=True)
