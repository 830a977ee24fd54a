"""Boxes: within the image, spread as promised, drawn again alike; and cut out as Pillow would."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from phinas.files.errors import InputError
from phinas.training.augment.crops import (
    Boxes,
    _by_products,
    _one_by_one,
    central_boxes,
    constant,
    cut,
    padded,
    random_boxes,
)

CUTTERS = (_one_by_one, _by_products)  # the processor's and the other devices'; both run on any


def alike(count: int, height: int, width: int) -> Tensor:
    return torch.tensor([height, width]).expand(count, 2)


def pictures(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Slopes, noise and hard edges, at which bicubic overshoots."""
    random = np.random.default_rng(seed)
    slope = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 55, width)[:, None]
    pixels = (slope + random.normal(0, 20, (count, height, width, channels))).clip(0, 255)
    pixels[:, height // 3 : height // 2, width // 4 : width // 2] = 255
    pixels[:, : height // 4, width // 2 :] = 0
    return torch.from_numpy(pixels.astype(np.uint8))


def by_pillow(pixels: Tensor, boxes: Boxes, side: int) -> Tensor:
    done = np.empty((len(pixels), side, side, pixels.shape[3]), np.uint8)
    for i, image in enumerate(pixels.numpy()):
        top, left, height, width = (int(v[i]) for v in (boxes.top, boxes.left, boxes.height, boxes.width))
        picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        picture = picture.crop((left, top, left + width, top + height))
        for size in ((side, height), (side, side)):  # in two, as from version 13 on some heights are resized first
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        done[i] = np.asarray(picture).reshape(side, side, -1)[:, :: -1 if boxes.mirrored[i] else 1]
    return torch.from_numpy(done)


# --------------------------------------------------------------------------------------------------------- random boxes


@pytest.mark.parametrize(("height", "width"), [(32, 32), (224, 224), (375, 500), (9, 40), (2, 2), (1, 1)])
def test_boxes_are_within_their_images(height: int, width: int) -> None:
    boxes = random_boxes(alike(3000, height, width), True, torch.Generator().manual_seed(0))
    assert len(boxes) == 3000
    for start, length, size in ((boxes.top, boxes.height, height), (boxes.left, boxes.width, width)):
        assert start.dtype == length.dtype == torch.int64
        assert start.min() >= 0 and length.min() >= 1 and (start + length).max() <= size
        if size >= 32:  # first and last pixels are seen
            assert start.min() == 0 and (start + length).max() == size


def test_area_and_aspect_are_spread_as_promised() -> None:
    """In a square, a box of share a fits if |log aspect| <= -log a: areas close to all of it are drawn again."""
    count, side = 60_000, 4000
    boxes = random_boxes(alike(count, side, side), False, torch.Generator().manual_seed(1))
    area = (boxes.height * boxes.width).double() / side**2
    aspect = boxes.width.double() / boxes.height
    limit = math.log(4 / 3)
    assert 0.0795 < area.min() < 0.0805 and 0.98 < area.max() <= 1
    assert 0.749 < aspect.min() < 0.752 and 1.329 < aspect.max() < 1.335

    grid = np.linspace(0.08, 1, 200_001)
    density = np.minimum(1, -np.log(grid) / limit)
    cumulated = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    cumulated /= cumulated[-1]
    for share in (0.1, 0.25, 0.5, 0.75, 0.85, 0.95):
        expected = float(np.interp(share, grid, cumulated))
        assert abs((area < share).double().mean().item() - expected) < 5 * math.sqrt(expected * (1 - expected) / count)

    small = aspect[area < 0.75].log()  # none of them is drawn again
    for share in (0.1, 0.3, 0.5, 0.9):
        below = (small < limit * (2 * share - 1)).double().mean().item()
        assert abs(below - share) < 5 * math.sqrt(share * (1 - share) / len(small))


def test_places_are_even_among_those_there_are() -> None:
    boxes = random_boxes(alike(60_000, 32, 32), False, torch.Generator().manual_seed(2))
    for start, length in ((boxes.top, boxes.height), (boxes.left, boxes.width)):
        starts = start[length == 20]
        counts = torch.bincount(starts, minlength=13)
        assert len(counts) == 13
        assert (counts - len(starts) / 13).abs().max() < 5 * math.sqrt(len(starts) / 13)


def test_an_image_into_which_no_box_fits_is_cut_in_its_middle() -> None:
    sizes = torch.tensor([[20, 2000], [32, 32], [2000, 20]])
    boxes = random_boxes(sizes, False, torch.Generator().manual_seed(3))
    middle = central_boxes(sizes, 0.875)
    for name in ("top", "left", "height", "width"):
        assert getattr(boxes, name)[[0, 2]].tolist() == getattr(middle, name)[[0, 2]].tolist()
    assert middle.height[0] == middle.width[0] == 17


def test_boxes_are_a_function_of_the_generator_alone() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(torch.randint(1000, ()).item())
        boxes = random_boxes(alike(100, 32, 48), True, torch.Generator().manual_seed(seed))
        return torch.stack([boxes.top, boxes.left, boxes.height, boxes.width, boxes.mirrored])

    assert torch.equal(draw(4), draw(4))
    assert not torch.equal(draw(4), draw(5))


def test_half_are_mirrored_where_that_is_allowed() -> None:
    sizes = alike(10_000, 32, 32)
    mirrored = random_boxes(sizes, True, torch.Generator().manual_seed(6)).mirrored
    assert abs(mirrored.float().mean().item() - 0.5) < 5 * math.sqrt(0.25 / 10_000)
    assert not random_boxes(sizes, False, torch.Generator().manual_seed(6)).mirrored.any()


# ------------------------------------------------------------------------------------------------------- central boxes


def test_shares_of_the_shorter_side() -> None:
    assert [constant(side) for side in (32, 224, 600)] == [0.875] * 3
    assert padded(224) == 0.875 and padded(600) == pytest.approx(0.949, abs=5e-4)
    assert [round(padded(side), 3) for side in (240, 260, 300, 380, 456, 528)] == [
        0.882, 0.890, 0.904, 0.922, 0.934, 0.943,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("height", "width", "share", "expected"),
    [
        (256, 256, 0.875, (16, 16, 224)),
        (375, 500, 0.875, (24, 86, 328)),  # of 328.125; an odd rest goes to the top and left
        (320, 400, padded(288), (16, 56, 288)),
        (32, 32, 0.875, (2, 2, 28)),
        (32, 32, 1.0, (0, 0, 32)),
        (1, 9, 0.875, (0, 4, 1)),
    ],
)
def test_central_boxes(height: int, width: int, share: float, expected: tuple[int, int, int]) -> None:
    boxes = central_boxes(alike(2, height, width), share)
    assert (int(boxes.top[1]), int(boxes.left[1]), int(boxes.height[1])) == expected
    assert torch.equal(boxes.height, boxes.width) and not boxes.mirrored.any()


def test_images_of_several_sizes() -> None:
    boxes = central_boxes(torch.tensor([[256, 300], [100, 80]]), 0.875)
    assert boxes.height.tolist() == [224, 70] and boxes.left.tolist() == [38, 5]


# ------------------------------------------------------------------------------------------------------------- cutting


@pytest.mark.parametrize("cutter", CUTTERS)
@pytest.mark.parametrize(
    ("height", "width", "channels", "side"),
    [(32, 32, 3, 32), (32, 32, 1, 24), (28, 40, 3, 64), (90, 70, 3, 20), (64, 64, 1, 9), (5, 7, 3, 1)],
)
def test_cuts_are_pillows(
    cutter: Callable[[Tensor, Boxes, int], Tensor], height: int, width: int, channels: int, side: int
) -> None:
    """Within a level; PyTorch's kernel for bytes rounds its weights to 16 bits and is at times two away."""
    pixels = pictures(40, height, width, channels)
    boxes = random_boxes(alike(40, height, width), True, torch.Generator().manual_seed(7))
    ours, theirs = cutter(pixels, boxes, side), by_pillow(pixels, boxes, side)
    assert ours.shape == theirs.shape and ours.dtype == torch.uint8
    away = (ours.int() - theirs.int()).abs()
    assert away.max() <= (2 if cutter is _one_by_one else 1)
    assert (away == 0).float().mean() > 0.95 and (away > 1).float().mean() < 1e-3


@pytest.mark.parametrize("cutter", CUTTERS)
def test_a_box_of_the_wanted_side_is_copied(cutter: Callable[[Tensor, Boxes, int], Tensor]) -> None:
    pixels = pictures(3, 40, 30)
    kept = pixels.clone()
    boxes = central_boxes(alike(3, 40, 30), 0.8)
    assert torch.equal(cutter(pixels, boxes, 24), pixels[:, 8:32, 3:27])
    mirrored = Boxes(boxes.top, boxes.left, boxes.height, boxes.width, torch.tensor([True, False, True]))
    seen = cutter(pixels, mirrored, 24)
    assert torch.equal(seen[[0, 2]], pixels[[0, 2], 8:32, 3:27].flip(2))
    assert torch.equal(seen[1], pixels[1, 8:32, 3:27])
    assert torch.equal(pixels, kept)


@pytest.mark.parametrize("cutter", CUTTERS)
def test_what_is_outside_a_box_does_not_shine_in(cutter: Callable[[Tensor, Boxes, int], Tensor]) -> None:
    pixels = pictures(20, 32, 32)
    boxes = random_boxes(alike(20, 32, 32), True, torch.Generator().manual_seed(8))
    covered = 255 - pixels
    for image, other, top, left, height, width in zip(
        pixels, covered, boxes.top, boxes.left, boxes.height, boxes.width, strict=True
    ):
        other[top : top + height, left : left + width] = image[top : top + height, left : left + width]
    assert torch.equal(cutter(pixels, boxes, 32), cutter(covered, boxes, 32))


def test_parts_of_a_batch_are_cut_as_in_it() -> None:
    pixels, sizes = pictures(12, 32, 32), alike(12, 32, 32)
    boxes = random_boxes(sizes, True, torch.Generator().manual_seed(9))
    parts = [cut(pixels[part], boxes[part], 28) for part in (slice(0, 1), slice(1, 7), slice(7, 12))]
    assert torch.equal(cut(pixels, boxes, 28), torch.cat(parts))


def test_the_host_never_waits_for_the_device() -> None:
    """Images of no values: whatever asked for one, as a mask or a number on the host does, would raise."""
    boxes = random_boxes(alike(5, 32, 40), True, torch.Generator().manual_seed(10))
    done = cut(torch.empty(5, 32, 40, 3, dtype=torch.uint8, device="meta"), boxes, 24)
    assert done.device.type == "meta" and done.shape == (5, 24, 24, 3)


def test_bad_settings_are_named() -> None:
    boxes = central_boxes(alike(3, 32, 32), 1.0)
    with pytest.raises(InputError, match="side=0"):
        cut(pictures(3, 32, 32), boxes, 0)
    with pytest.raises(ValueError, match="boxes of 3 images for 4"):
        cut(pictures(4, 32, 32), boxes, 32)
