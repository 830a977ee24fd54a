"""Policies: every operation against Pillow, the draws against the tables, and what applying promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from phinas.files.errors import InputError
from phinas.training.augment.policies import (
    FILL,
    V0,
    Draws,
    Operation,
    Policy,
    Step,
    argument,
    auto_augment,
    cutout,
    rand_augment,
)

SHAPES = [(3, 32, 32, 3), (2, 21, 40, 3), (3, 40, 17, 1)]
WARPS = (Operation.ROTATE, Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y)


def pictures(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Smooth slopes and noise, of which the last image uses a part of the levels and the first has rare extremes."""
    random = np.random.default_rng(seed)
    _, height, width, channels = shape
    slope = np.linspace(60, 180, height)[:, None, None] + np.linspace(-40, 40, width)[:, None]
    pixels = slope + random.normal(0, 15, shape) + np.arange(channels) * 7
    pixels[0, 0, 0], pixels[0, -1, -1] = 0, 255
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


def by_policy(pixels: Tensor, operation: Operation, value: float) -> Tensor:
    count = len(pixels)
    draws = Draws(torch.full((count, 1), int(operation)), torch.full((count, 1), value), torch.full((count, 1, 2), 0.5))
    return Policy.apply(pixels, draws)


def by_pillow(pixels: Tensor, function: Callable[[Image.Image], Image.Image]) -> Tensor:
    done = [np.asarray(function(Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)))
            for image in pixels.numpy()]  # fmt: skip
    return torch.from_numpy(np.stack(done)).view_as(pixels)


# ---------------------------------------------------------------------------------------------------- against Pillow


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("operation", "value", "function"),
    [
        (Operation.AUTOCONTRAST, 0, ImageOps.autocontrast),
        (Operation.EQUALIZE, 0, ImageOps.equalize),
        (Operation.INVERT, 0, ImageOps.invert),
        *[(Operation.POSTERIZE, bits, lambda image, b=bits: ImageOps.posterize(image, b)) for bits in (1, 2, 7, 8)],
        *[(Operation.SOLARIZE, at, lambda image, t=at: ImageOps.solarize(image, t)) for at in (0, 1, 128, 256)],
        *[
            (Operation.SOLARIZE_ADD, add, lambda image, a=add: image.point(lambda v: min(255, v + a) if v < 128 else v))
            for add in (0, 33, 255)
        ],
    ],
)
def test_tables_are_pillows(
    shape: tuple[int, ...], operation: Operation, value: float, function: Callable[[Image.Image], Image.Image]
) -> None:
    pixels = pictures(shape)
    assert torch.equal(by_policy(pixels, operation, value), by_pillow(pixels, function))


@pytest.mark.parametrize("operation", [Operation.AUTOCONTRAST, Operation.EQUALIZE])
@pytest.mark.parametrize("side", [1, 4, 16])
def test_tables_of_histograms_with_few_values(operation: Operation, side: int) -> None:
    """One value, two values, fewer pixels than levels: where Pillow's divisions have their exceptions."""
    function = {Operation.AUTOCONTRAST: ImageOps.autocontrast, Operation.EQUALIZE: ImageOps.equalize}[operation]
    random = np.random.default_rng(side)
    pixels = torch.from_numpy(random.integers(0, 256, (4, side, side, 3), dtype=np.uint8))
    pixels[0], pixels[1], pixels[2] = 77, pixels[1] // 128 * 90, pixels[2] // 16
    assert torch.equal(by_policy(pixels, operation, 0), by_pillow(pixels, function))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [0.0, 0.1, 0.82, 1.0, 1.36, 1.9])
@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_blends_are_pillows_within_a_level(shape: tuple[int, ...], factor: float, name: str) -> None:
    pixels = pictures(shape)
    ours = by_policy(pixels, Operation[name.upper()], factor)
    theirs = by_pillow(pixels, lambda image: getattr(ImageEnhance, name)(image).enhance(factor))
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours == theirs).float().mean() > 0.99
    if factor == 1.0:
        assert torch.equal(ours, pixels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", WARPS)
@pytest.mark.parametrize("value", [-0.37, -0.031, 0.0, 0.24, 0.913, 1.5])
def test_warps_are_pillows(shape: tuple[int, ...], operation: Operation, value: float) -> None:
    """All but a few pixels: Pillow rounds its matrix to 16 bits, so that what lies between two pixels may differ."""
    pixels = pictures(shape)
    height, width = shape[1:3]
    shift = {Operation.TRANSLATE_X: (value * width, 0.0), Operation.TRANSLATE_Y: (0.0, value * height)}
    shear = {Operation.SHEAR_X: (value, 0.0), Operation.SHEAR_Y: (0.0, value)}

    def pillow(image: Image.Image) -> Image.Image:
        fill = (FILL,) * shape[3] if shape[3] > 1 else FILL
        if operation == Operation.ROTATE:
            return image.rotate(math.degrees(value), Image.Resampling.NEAREST, fillcolor=fill)
        (x, y), (b, d) = shift.get(operation, (0.0, 0.0)), shear.get(operation, (0.0, 0.0))
        matrix = (1, b, x - b / 2, d, 1, y - d / 2)  # Pillow's origin is the first pixel's corner, not its centre
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill)

    ours, theirs = by_policy(pixels, operation, value), by_pillow(pixels, pillow)
    assert (ours == theirs).all(3).float().mean() > 0.995
    if value == 0:
        assert torch.equal(ours, pixels)


def test_a_warp_empties_to_grey() -> None:
    pixels = pictures((2, 8, 8, 3))
    for value in (1.0, -1.0):
        assert (by_policy(pixels, Operation.TRANSLATE_Y, value) == FILL).all()
    moved = by_policy(pixels, Operation.TRANSLATE_X, 0.25)
    assert torch.equal(moved[:, :, :6], pixels[:, :, 2:]) and (moved[:, :, 6:] == FILL).all()


@pytest.mark.parametrize(("height", "width", "share", "side"), [(32, 32, 0.5, 16), (20, 50, 0.4, 8), (9, 9, 1.0, 8)])
def test_cutout_covers_a_square_about_its_centre(height: int, width: int, share: float, side: int) -> None:
    assert FILL == 128
    black = torch.zeros(1, height, width, 1, dtype=torch.uint8)
    for y, x in product((0.0, 0.5, 0.999), repeat=2):
        draws = Draws(torch.full((1, 1), 16), torch.full((1, 1), share), torch.tensor([[[y, x]]]))
        covered = Policy.apply(black, draws)[0, :, :, 0] == FILL
        top, left = int(y * height) - side // 2, int(x * width) - side // 2
        expected = torch.zeros(height, width, dtype=torch.bool)
        expected[max(top, 0) : top + side, max(left, 0) : left + side] = True
        assert torch.equal(covered, expected)


# -------------------------------------------------------------------------------------------------- levels and tables


def test_what_the_ends_of_the_levels_mean() -> None:
    def both(operation: Operation) -> tuple[float, float]:
        return argument(operation, 0, 250 / 224), argument(operation, 10, 250 / 224)

    assert both(Operation.ROTATE) == (0, pytest.approx(math.radians(30)))
    assert both(Operation.SHEAR_X) == both(Operation.SHEAR_Y) == (0, 0.3)
    assert both(Operation.TRANSLATE_X) == both(Operation.TRANSLATE_Y) == (0, 250 / 224)
    assert both(Operation.POSTERIZE) == (1, 4)
    assert both(Operation.SOLARIZE) == (0, 256)
    assert both(Operation.SOLARIZE_ADD) == (0, 110)
    for operation in (Operation.COLOR, Operation.CONTRAST, Operation.BRIGHTNESS, Operation.SHARPNESS):
        assert both(operation) == pytest.approx((0.1, 1.9))
    assert both(Operation.CUTOUT) == (0, pytest.approx(80 / 224))
    for operation in (Operation.AUTOCONTRAST, Operation.EQUALIZE, Operation.INVERT):
        assert both(operation) == (0, 0)


def test_levels_of_v0_between() -> None:
    assert [argument(Operation.SOLARIZE, level, 0) for level in (2, 3, 4, 8)] == [51, 76, 102, 204]
    assert [argument(Operation.SOLARIZE_ADD, level, 0) for level in (3, 7)] == [33, 77]
    assert [argument(Operation.POSTERIZE, level, 0) for level in (2, 6)] == [1, 2]
    assert argument(Operation.TRANSLATE_Y, 9, 250 / 224) * 224 == pytest.approx(225)
    assert argument(Operation.POSTERIZE, 30, 0) == 8 and argument(Operation.SOLARIZE, 30, 0) == 256


def test_v0_in_sums() -> None:
    """25 pairs; what policy_v0 of tensorflow/tpu adds up to."""
    steps = [step for pair in V0 for step in pair]
    assert len(V0) == 25 and {len(pair) for pair in V0} == {2}
    names = [name for name, _, _ in steps]
    assert {name: names.count(name) for name in names} == {
        "equalize": 12, "color": 9, "rotate": 7, "solarize": 8, "shear_y": 4, "solarize_add": 2,
        "shear_x": 2, "invert": 1, "posterize": 2, "autocontrast": 2, "translate_y": 1,
    }  # fmt: skip
    assert sum(level for _, _, level in steps) == 240
    assert sum(probability for _, probability, _ in steps) == pytest.approx(29.8)


# -------------------------------------------------------------------------------------------------------------- draws


def test_pairs_come_as_often_as_the_table_says() -> None:
    """Every pair of operations, done or not, within 5 standard deviations."""
    count = 40_000
    expected: dict[tuple[int, int], float] = {}
    for pair in V0:
        (first, p, _), (second, q, _) = pair
        a, b = Operation[first.upper()], Operation[second.upper()]
        for key, probability in {
            (a, b): p * q,
            (a, 0): p * (1 - q),
            (0, b): (1 - p) * q,
            (0, 0): (1 - p) * (1 - q),
        }.items():
            expected[key] = expected.get(key, 0.0) + probability / 25
    drawn = auto_augment().draw(count, torch.Generator().manual_seed(1)).operation
    codes, counts = torch.unique(drawn[:, 0] * 100 + drawn[:, 1], return_counts=True)
    seen = {divmod(code, 100): number for code, number in zip(codes.tolist(), counts.tolist(), strict=True)}
    assert set(seen) == {key for key, probability in expected.items() if probability > 0}
    for key, number in seen.items():
        p = expected[key]
        assert abs(number - count * p) < 5 * math.sqrt(count * p * (1 - p)), key


def test_rand_augment_draws_16_operations_alike_in_each_layer() -> None:
    count = 32_000
    draws = rand_augment(layers=3, magnitude=10).draw(count, torch.Generator().manual_seed(2))
    assert draws.operation.shape == (count, 3)
    for layer in range(3):
        counts = torch.bincount(draws.operation[:, layer], minlength=17)
        assert counts[0] == 0 and len(counts) == 17
        assert (counts[1:] - count / 16).abs().max() < 5 * math.sqrt(count / 16)
    together = torch.bincount(draws.operation[:, 0] * 17 + draws.operation[:, 1])  # layers are independent
    assert (together[together > 0] - count / 256).abs().max() < 5 * math.sqrt(count / 256)
    moved = draws.operation == Operation.TRANSLATE_X
    assert draws.argument[moved].abs().unique().tolist() == pytest.approx([100 / 224])


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_step_is_applied_with_its_probability(probability: float) -> None:
    draws = cutout(0.5, probability).draw(10_000, torch.Generator().manual_seed(3))
    share = (draws.operation == Operation.CUTOUT).float().mean().item()
    assert abs(share - probability) <= 5 * math.sqrt(probability * (1 - probability) / 10_000)
    assert 0 <= draws.centre.min() and draws.centre.max() < 1
    assert draws.centre.mean((0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=5 * math.sqrt(1 / 12 / 10_000))


def test_warps_go_either_way_and_nothing_else_does() -> None:
    draws = rand_augment(1, 5).draw(20_000, torch.Generator().manual_seed(4))
    for operation in Operation:
        values = draws.argument[draws.operation == operation]
        if operation in WARPS:
            assert abs((values > 0).float().mean().item() - 0.5) < 5 * math.sqrt(0.25 / len(values))
        else:
            assert (values >= 0).all()


def test_draws_are_a_function_of_the_generator_alone() -> None:
    policy, state = rand_augment() + cutout(0.5, 0.5), torch.Generator().manual_seed(5).get_state()

    def draw() -> Draws:
        generator = torch.Generator()
        generator.set_state(state)
        return policy.draw(50, generator)

    torch.manual_seed(0)
    before, first = torch.get_rng_state(), draw()
    torch.manual_seed(9)
    second = draw()
    assert torch.equal(first.operation, second.operation) and torch.equal(first.argument, second.argument)
    assert torch.equal(first.centre, second.centre)
    torch.manual_seed(0)
    draw()
    assert torch.equal(torch.get_rng_state(), before)  # torch's global one is left alone
    other = policy.draw(50, torch.Generator().manual_seed(6))
    assert not torch.equal(first.operation, other.operation)


# ----------------------------------------------------------------------------------------------------------- applying


@pytest.mark.parametrize("shape", [(40, 32, 32, 3), (40, 12, 30, 3), (40, 9, 9, 1), (40, 1, 2, 3)])
@pytest.mark.parametrize("policy", [auto_augment(), rand_augment(3, 12) + cutout(0.5)])
def test_applying_leaves_its_input_and_each_image_to_itself(shape: tuple[int, ...], policy: Policy) -> None:
    pixels = pictures(shape)
    kept = pixels.clone()
    draws = policy.draw(len(pixels), torch.Generator().manual_seed(7))
    whole = policy.apply(pixels, draws)
    assert torch.equal(pixels, kept)
    assert whole.shape == pixels.shape and whole.dtype == torch.uint8
    assert torch.equal(whole, policy.apply(pixels, draws))
    parts = [policy.apply(pixels[part], draws[part]) for part in (slice(0, 1), slice(1, 17), slice(17, 40))]
    assert torch.equal(whole, torch.cat(parts))


def test_slots_follow_each_other() -> None:
    pixels = pictures((30, 16, 16, 3))
    policy = rand_augment(2, 9)
    draws = policy.draw(30, torch.Generator().manual_seed(8))
    one_by_one = pixels
    for slot in range(2):
        part = (slice(None), slice(slot, slot + 1))
        one_by_one = policy.apply(one_by_one, Draws(draws.operation[part], draws.argument[part], draws.centre[part]))
    assert torch.equal(policy.apply(pixels, draws), one_by_one)


def test_views_of_other_memory_are_read_right() -> None:
    """What a permute or a slice leaves behind."""
    pixels = pictures((6, 20, 24, 3))
    draws = rand_augment(3, 9).draw(6, torch.Generator().manual_seed(10))
    strided = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    assert torch.equal(Policy.apply(strided, draws), Policy.apply(pixels, draws))


def test_the_host_never_waits_for_the_device() -> None:
    """Images of no values: whatever asked for one, as a mask or a number on the host does, would raise."""
    draws = (auto_augment() + rand_augment(2, 9)).draw(200, torch.Generator().manual_seed(11))
    assert len(draws.operation.unique()) == 17
    done = Policy.apply(torch.empty(200, 8, 9, 3, dtype=torch.uint8, device="meta"), draws)
    assert done.device.type == "meta" and done.shape == (200, 8, 9, 3)


def test_a_policy_of_nothing_copies() -> None:
    pixels = pictures((4, 8, 8, 3))
    same = Policy.apply(pixels, Policy().draw(4, torch.Generator()))
    assert torch.equal(same, pixels) and same.data_ptr() != pixels.data_ptr()


def test_bad_settings_are_named() -> None:
    for make, message in (
        (lambda: rand_augment(0), "layers=0"),
        (lambda: rand_augment(2, -1), "magnitude=-1"),
        (lambda: cutout(0.0), "share=0.0"),
        (lambda: cutout(0.5, 1.5), "probability=1.5: it must be a number from 0 to 1"),
        (lambda: Step(Operation.INVERT, math.nan, 0), "probability=nan"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    with pytest.raises(ValueError, match="draws of 3 images for 4"):
        Policy.apply(pictures((4, 8, 8, 3)), auto_augment().draw(3, torch.Generator()))
