"""Augmentation policies, AutoAugment's and RandAugment's: drawn for each image, applied to a batch on its device.

Operations are Pillow's (ImageOps, ImageEnhance), in which AutoAugment was searched; warps are tensorflow/tpu's: nearest
neighbour, grey (128) where nothing comes from. The operations, the policies and what a level means are facts taken from
models/official/efficientnet/autoaugment.py of tensorflow/tpu (policy_v0, level_to_arg, distort_image_with_randaugment),
after arXiv 1805.09501 and 1909.13719.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError

FILL = 128  # what warps leave empty and cutout covers
_SIDE = 224  # pixels of the images for which the source gives lengths in pixels; ours are shares of the side


class Operation(IntEnum):
    """What may be done to an image; in brackets, what its argument is."""

    NOTHING = 0
    AUTOCONTRAST = 1  # [-]
    EQUALIZE = 2  # [-]
    INVERT = 3  # [-]
    POSTERIZE = 4  # [bits that are kept]
    SOLARIZE = 5  # [level from which on values are inverted]
    SOLARIZE_ADD = 6  # [what is added to values below 128]
    ROTATE = 7  # [radians]
    SHEAR_X = 8  # [columns per row]
    SHEAR_Y = 9  # [rows per column]
    TRANSLATE_X = 10  # [share of the width]
    TRANSLATE_Y = 11  # [share of the height]
    COLOR = 12  # [factor: 0 is grey, 1 the image]
    CONTRAST = 13  # [factor: 0 is its mean grey, 1 the image]
    BRIGHTNESS = 14  # [factor: 0 is black, 1 the image]
    SHARPNESS = 15  # [factor: 0 is smoothed, 1 the image]
    CUTOUT = 16  # [share of the shorter side that the square's side has]


_HISTOGRAMS = (Operation.AUTOCONTRAST, Operation.EQUALIZE)
_TABLES = (*_HISTOGRAMS, Operation.INVERT, Operation.POSTERIZE, Operation.SOLARIZE, Operation.SOLARIZE_ADD)
_WARPS = (Operation.ROTATE, Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y)
_BLENDS = (Operation.COLOR, Operation.CONTRAST, Operation.BRIGHTNESS, Operation.SHARPNESS)

# AutoAugment's for ImageNet: (operation, probability, level).
V0 = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("autocontrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("autocontrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)


# ------------------------------------------------------------------------------------------------------------ policies


def auto_augment() -> Policy:
    """AutoAugment v0: one of 25 pairs of operations for each image."""
    return Policy((tuple(tuple(_step(*step, translate=250 / _SIDE) for step in pair) for pair in V0),))


def rand_augment(layers: int = 2, magnitude: float = 9) -> Policy:
    """RandAugment: `layers` times one of 16 operations, all at level `magnitude`, always applied.

    tensorflow/tpu advises 1 to 3 layers and magnitudes from 5 to 30. Above level 10 the formulas go on, so that from 10
    on solarize does nothing, and from 20 on posterize. Raises InputError.
    """
    check_whole("layers", layers)
    check_number("magnitude", magnitude, least=0)
    operations = [operation.name.lower() for operation in Operation if operation != Operation.NOTHING]
    return Policy((tuple((_step(name, 1.0, magnitude, translate=100 / _SIDE),) for name in operations),) * layers)


def cutout(share: float, probability: float = 1.0) -> Policy:
    """A grey square of `share` of the shorter side, its centre anywhere (arXiv 1708.04552). Raises InputError."""
    check_number("share", share, above=0)
    return Policy((((Step(Operation.CUTOUT, probability, share),),),))


def argument(operation: Operation, level: float, translate: float) -> float:
    """What `level` (0 to 10, and above) means; `translate` is the share of the side that an image moves at level 10.

    Posterize keeps at least one bit: v0 has a level of 0.8 bits, which TensorFlow's shift, clamped to 7, reads as 1.
    """
    share = level / 10
    match operation:
        case Operation.POSTERIZE:
            return min(max(int(share * 4), 1), 8)
        case Operation.SOLARIZE:
            return min(int(share * 256), 256)
        case Operation.SOLARIZE_ADD:
            return min(int(share * 110), 255)
        case Operation.ROTATE:
            return math.radians(share * 30)
        case Operation.SHEAR_X | Operation.SHEAR_Y:
            return share * 0.3
        case Operation.TRANSLATE_X | Operation.TRANSLATE_Y:
            return share * translate
        case Operation.COLOR | Operation.CONTRAST | Operation.BRIGHTNESS | Operation.SHARPNESS:
            return share * 1.8 + 0.1
        case Operation.CUTOUT:
            return share * 2 * 40 / _SIDE
        case _:
            return 0.0


def _step(name: str, probability: float, level: float, translate: float) -> Step:
    operation = Operation[name.upper()]
    return Step(operation, probability, argument(operation, level, translate))


@dataclass(frozen=True)
class Step:
    """One operation, the probability that it is applied, and its argument; a warp's gets a random sign.

    Raises InputError if the probability is none.
    """

    operation: Operation
    probability: float
    argument: float

    def __post_init__(self) -> None:
        if not 0 <= check_number("probability", self.probability) <= 1:
            raise InputError(f"probability={self.probability}: it must be a number from 0 to 1")


@dataclass(frozen=True, eq=False)
class Draws:
    """What happens to each of n images, slot after slot; on the CPU, whichever device the images are on.

    operation  int64 [n, slots], values of `Operation`.
    argument   float32 [n, slots], signed.
    centre     float32 [n, slots, 2], in [0, 1): of the height and the width, where a cutout is.
    """

    operation: Tensor
    argument: Tensor
    centre: Tensor

    def __len__(self) -> int:
        return len(self.operation)

    def __getitem__(self, part: slice | Tensor | tuple[slice, int]) -> Draws:
        return Draws(self.operation[part], self.argument[part], self.centre[part])


@dataclass(frozen=True)
class Policy:
    """Rounds: in each, every image gets one sequence of steps, all equally likely. `a + b` does a, then b.

    rounds  each a tuple of sequences, which are of one length.
    """

    rounds: tuple[tuple[tuple[Step, ...], ...], ...] = ()

    def __add__(self, other: Policy) -> Policy:
        return Policy(self.rounds + other.rounds)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """For `count` images, say an epoch's; a pure function of the (CPU) generator's state."""
        drawn = [torch.empty(count, 0, 3)]
        for sequences in self.rounds:
            table = torch.tensor([[(s.operation, s.probability, s.argument) for s in steps] for steps in sequences])
            drawn.append(table[torch.randint(len(sequences), (count,), generator=generator)])
        operation, probability, value = torch.cat(drawn, 1).unbind(2)
        random = torch.rand((*operation.shape, 4), generator=generator)
        applied = random[..., 0] < probability
        backwards = torch.isin(operation.long(), torch.tensor(_WARPS)) & (random[..., 1] < 0.5)
        return Draws(operation.long() * applied, torch.where(backwards, -value, value), random[..., 2:])

    @staticmethod
    def apply(pixels: Tensor, draws: Draws) -> Tensor:
        """A new uint8 [n, h, w, c] of the images `pixels` [n, h, w, c], as `draws` of n images has them.

        The host knows which images an operation is for and never waits for the device. One channel is grey: colour
        leaves it as it is. Raises ValueError if the numbers of images differ.
        """
        if len(draws) != len(pixels):
            raise ValueError(f"draws of {len(draws)} images for {len(pixels)}")
        pixels = pixels.clone(memory_format=torch.contiguous_format)
        for slot in range(draws.operation.shape[1]):
            here = draws[:, slot]
            for operations, kernel in _KERNELS:
                chosen = torch.isin(here.operation, torch.tensor(operations)).nonzero()[:, 0]
                if len(chosen):
                    index = _sent(chosen, pixels)
                    pixels.index_copy_(0, index, kernel(pixels.index_select(0, index), here[chosen]))
        return pixels


# ------------------------------------------------------------------- kernels: (uint8 [k, h, w, c], draws of k) -> uint8


def _looked_up(pixels: Tensor, draws: Draws) -> Tensor:
    """Each byte replaced by its entry in a table of its image and channel: one gather for all operations."""
    images, height, width, channels = pixels.shape
    level, given, operation = torch.arange(256), draws.argument[:, None].long(), draws.operation[:, None]
    step = 2 ** (8 - given).clamp(0, 7)
    table = torch.where(level < given, level, 255 - level)  # solarize, and with an argument of 0, invert
    table = torch.where(operation == Operation.POSTERIZE, level - level % step, table)
    added = torch.where(level < 128, (level + given).clamp(max=255), level)
    table = torch.where(operation == Operation.SOLARIZE_ADD, added, table)
    tables = _sent(table.to(torch.uint8), pixels)[:, None].repeat(1, channels, 1)
    entries = (torch.arange(images)[:, None, None] * channels + torch.arange(width * channels) % channels) * 256
    entries = pixels.view(images, height, -1).int().add_(_sent(entries.int(), pixels))  # [k, h, w * c]

    chosen = torch.isin(draws.operation, torch.tensor(_HISTOGRAMS)).nonzero()[:, 0]
    if len(chosen):
        index = _sent(chosen, pixels)
        bins = entries.index_select(0, index).view(-1)
        counts = torch.zeros(tables.numel(), dtype=torch.int32, device=pixels.device)
        counts.index_add_(0, bins, counts.new_ones(1).expand(len(bins)))
        counts = counts.view(images, channels, 256).index_select(0, index)
        equalize = _sent(draws.operation[chosen] == Operation.EQUALIZE, pixels)[:, None, None]
        tables.index_copy_(0, index, torch.where(equalize, _equalize(counts), _autocontrast(counts)))
    return tables.view(-1).index_select(0, entries.view(-1)).view_as(pixels)


def _equalize(counts: Tensor) -> Tensor:
    """Tables uint8 [k, c, 256] that make histograms int32 [k, c, 256] flat; the identity where there is one value."""
    last = 255 - (counts.flip(2) > 0).int().argmax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table, torch.arange(256, device=counts.device)).to(torch.uint8)


def _autocontrast(counts: Tensor) -> Tensor:
    """Tables uint8 [k, c, 256] that spread each channel from 0 to 255; the identity where there is one value."""
    there = (counts > 0).int()
    low = there.argmax(2, keepdim=True).double()  # in double, as Pillow: values are cut off to whole ones
    high = 255.0 - there.flip(2).argmax(2, keepdim=True)
    spread = (high - low).clamp_(min=1.0)
    scale, level = torch.full_like(spread, 255.0).div_(spread), torch.arange(256, device=counts.device)
    return torch.where(high > low, (level * scale - low * scale).clamp_(0, 255), level).to(torch.uint8)


def _warped(pixels: Tensor, draws: Draws) -> Tensor:
    """Output (x, y) is input (a x + b y + c, d x + e y + f), rounded to whole pixels, and grey outside."""
    images, height, width, channels = pixels.shape

    def given(operation: Operation) -> Tensor:  # 0, which does nothing, for the images of other operations
        return torch.where(draws.operation == operation, draws.argument, 0.0)

    cos, sin = given(Operation.ROTATE).cos(), given(Operation.ROTATE).sin()
    x, y = (width - 1) / 2, (height - 1) / 2  # rotations are about the centre, shears about the first pixel's
    matrix = torch.stack([
        cos, given(Operation.SHEAR_X) - sin, x - cos * x + sin * y + given(Operation.TRANSLATE_X) * width,
        given(Operation.SHEAR_Y) + sin, cos, y - sin * x - cos * y + given(Operation.TRANSLATE_Y) * height,
    ])  # fmt: skip
    a, b, c, d, e, f = _sent(matrix, pixels)[:, :, None, None]
    columns, rows = torch.arange(width, device=pixels.device), torch.arange(height, device=pixels.device)[:, None]
    column = ((a * columns) + (b * rows + c) + 0.5).floor_().long()
    row = ((d * columns) + (e * rows + f) + 0.5).floor_().long()
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    first = torch.arange(images, device=pixels.device)[:, None, None] * (height * width)
    source = row.clamp_(0, height - 1).mul_(width).add_(column.clamp_(0, width - 1)).add_(first)
    moved = pixels.view(-1, channels).index_select(0, source.view(-1)).view_as(pixels)
    return moved.masked_fill_(outside[..., None], FILL)


def _blended(pixels: Tensor, draws: Draws) -> Tensor:
    """Between (or, with factors above 1, beyond) a degenerate image and the image itself."""
    images = pixels.float()
    degenerate = torch.zeros_like(images)  # brightness's
    for operation, degenerated in _DEGENERATES:
        chosen = (draws.operation == operation).nonzero()[:, 0]
        if len(chosen):
            index = _sent(chosen, pixels)
            part = images.index_select(0, index)
            degenerate.index_copy_(0, index, degenerated(part).expand_as(part))
    factor = _sent(draws.argument, pixels)[:, None, None, None]
    return images.sub_(degenerate).mul_(factor).add_(degenerate).clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """float32 [k, h, w, 1]: Pillow's luma of three channels in its whole numbers, or the mean of any other number."""
    if images.shape[3] != 3:
        return images.mean(3, keepdim=True)
    red, green, blue = images.unbind(3)
    return (red * 19595 + green * 38470 + blue * 7471).add_(2**15).div_(2**16).floor_()[..., None]


def _mean_grey(images: Tensor) -> Tensor:
    """float32 [k, 1, 1, 1]: Pillow's; tensorflow/tpu has pixels / 256 in its place, which v0 never uses."""
    return _grey(images).mean((1, 2), keepdim=True).add_(0.5).floor_()


def _smooth(images: Tensor) -> Tensor:
    """float32 [k, h, w, c]: the mean over 3 x 3 pixels, of which the middle one counts 5 times; borders stay."""
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = images.clone()
    smooth[:, 1:-1, 1:-1] = box.add_(images[:, 1:-1, 1:-1], alpha=4).div_(13).add_(0.5).floor_()
    return smooth


def _cut_out(pixels: Tensor, draws: Draws) -> Tensor:
    """A grey square that may reach over the border."""
    height, width = pixels.shape[1:3]
    half = (draws.argument * min(height, width) / 2).round()[:, None]
    middle = (draws.centre * torch.tensor([height, width])).floor()[:, :, None]

    def covered(size: int, axis: int) -> Tensor:
        away = torch.arange(size) - middle[:, axis]
        return _sent((away >= -half) & (away < half), pixels)

    return pixels.masked_fill((covered(height, 0)[:, :, None] & covered(width, 1)[:, None])[..., None], FILL)


def _sent(tensor: Tensor, pixels: Tensor) -> Tensor:
    """To the device of `pixels`; the copy is staged by then, so that nobody needs to wait for it."""
    return tensor.to(pixels.device, non_blocking=True)


_DEGENERATES: tuple[tuple[Operation, Callable[[Tensor], Tensor]], ...] = (
    (Operation.COLOR, _grey),
    (Operation.CONTRAST, _mean_grey),
    (Operation.SHARPNESS, _smooth),
)
_KERNELS: tuple[tuple[tuple[Operation, ...], Callable[[Tensor, Draws], Tensor]], ...] = (
    (_TABLES, _looked_up),
    (_WARPS, _warped),
    (_BLENDS, _blended),
    ((Operation.CUTOUT,), _cut_out),
)
