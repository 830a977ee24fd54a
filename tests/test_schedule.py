"""Learning rates in closed form, and which parameters decay."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from phinas.files.errors import InputError
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0
from phinas.training.optim import decayed, learning_rate
from phinas.training.schedule import Cosine, Staircase, scaled
from phinas.training.short.recipe import Recipe

IMAGENET, BATCH = 1_281_167, 2048  # tensorflow/tpu's defaults, with 350 epochs
STEPS = 218_949


def test_the_rate_grows_with_the_batch() -> None:
    assert scaled(0.016, 256) == 0.016
    assert scaled(0.016, 2048) == pytest.approx(0.128)
    assert scaled(0.016, 4096) == pytest.approx(0.256)  # the paper's
    assert scaled(0.1, 64, reference=128) == 0.05


# ---------------------------------------------------------------------------------------------------------- staircase


def test_the_warm_up_rises_from_zero_and_hands_over_below_the_peak() -> None:
    rate = Staircase(peak=0.256, steps_per_epoch=100)
    assert rate(0) == 0.0
    assert [rate(step) for step in (1, 250, 499)] == pytest.approx([0.256 / 500, 0.128, 0.256 * 499 / 500])
    assert rate(500) == pytest.approx(0.256 * 0.97**2) and rate(500) / 0.256 == pytest.approx(0.9409)
    assert max(map(rate, range(35_000))) == rate(499)


def test_every_stair_of_350_epochs() -> None:
    """With 100 steps per epoch a stair is 240 steps: 3 to 145 begin behind the warm-up."""
    rate = Staircase(peak=1.0, steps_per_epoch=100)
    for stair in range(3, 146):
        assert rate(240 * stair - 1) == pytest.approx(0.97 ** (stair - 1), rel=1e-12)
        assert rate(240 * stair) == pytest.approx(0.97**stair, rel=1e-12)
    assert rate(34_999) == rate(240 * 145) == pytest.approx(0.97**145)  # the last step is on the last stair


@pytest.mark.parametrize(("images", "batch", "epochs"), [(IMAGENET, BATCH, 350), (50_000, 384, 90), (1_797, 64, 30)])
def test_epochs_of_a_fraction_of_a_step(images: int, batch: int, epochs: int) -> None:
    """A stair begins with the first step at or behind 2.4 epochs, in exact arithmetic."""
    rate = Staircase(peak=1.0, steps_per_epoch=images / batch)
    per_stair = Fraction(12, 5) * Fraction(images, batch)
    warmup = math.floor(5 * Fraction(images, batch))
    assert rate(warmup - 1) == (warmup - 1) / warmup and rate(warmup) == pytest.approx(0.97**2)
    for stair in range(3, math.floor(Fraction(epochs * 5, 12)) + 1):
        first = math.ceil(stair * per_stair)
        assert [rate(first - 1), rate(first)] == pytest.approx([0.97 ** (stair - 1), 0.97**stair], rel=1e-12)


def test_imagenet_at_tensorflows_defaults() -> None:
    rate = Staircase(scaled(0.016, BATCH), IMAGENET / BATCH)
    assert math.floor(350 * IMAGENET / BATCH) == STEPS
    assert rate(3126) == pytest.approx(0.128 * 3126 / 3127)  # 5 epochs are 3127.8 steps
    assert rate(3127) == pytest.approx(0.128 * 0.97**2)
    assert rate(STEPS - 1) == pytest.approx(0.128 * 0.97**145) == pytest.approx(0.001546, rel=1e-3)


def test_a_stair_begins_on_its_step_whatever_the_rounding() -> None:
    rate = Staircase(peak=1.0, steps_per_epoch=1, warmup=0, factor=0.5, every=1.1)
    assert 33 / 1.1 < 30
    assert rate(33) == 0.5**30 and rate(32) == 0.5**29
    assert Staircase(1.0, 90, warmup=0.7, every=100)(62) == 62 / 63  # 0.7 * 90 is 62.99999999999999


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert Staircase(peak=0.1, steps_per_epoch=10, warmup=0)(0) == 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [("peak", 0.0), ("steps_per_epoch", 0), ("warmup", -1.0), ("factor", 1.0), ("factor", 0.0), ("every", 0.0)],
)
def test_a_staircase_names_its_culprit(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field}={value}: it must be a number"):
        Staircase(**{"peak": 0.1, "steps_per_epoch": 10, field: value})


# ------------------------------------------------------------------------------------------------------------- cosine


def test_the_cosine_is_what_recipes_without_a_schedule_have_always_had() -> None:
    """To the bit: results of the proxy are compared across versions."""
    for steps in (1, 2, 7, 150):
        for warmup in (0.0, 0.2, 0.9):
            rate, w = Cosine(0.3, steps, warmup), round(warmup * steps)
            for step in range(steps):
                written_out = (
                    0.3 * (step + 1) / w if step < w else 0.3 * (1 + math.cos(math.pi * (step - w) / (steps - w))) / 2
                )
                assert rate(step) == written_out == learning_rate(step, steps, Recipe(lr=0.3, warmup=warmup))


@pytest.mark.parametrize(("field", "value"), [("peak", -1.0), ("steps", 0), ("steps", 1.5), ("warmup", 1.0)])
def test_a_cosine_names_its_culprit(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field}={value}: it must be"):
        Cosine(**{"peak": 0.1, "steps": 10, "warmup": 0.1, field: value})  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- which parameters decay


def test_efficientnet_decays_all_but_batch_norm() -> None:
    with torch.device("meta"):
        module = build(EFFICIENTNET_B0)
    names = {parameter: name for name, parameter in module.named_parameters()}
    with_decay, without = ([names[parameter] for parameter in group] for group in decayed(module, biases=True))
    assert all(".norm." in name for name in without) and not any(".norm." in name for name in with_decay)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    assert len(without) == 2 * norms == 98
    # 49 convolutions, 16 squeeze-excitations of two layers each, and the classifier, with their 33 biases.
    assert len(with_decay) == 49 + 2 * (2 * 16 + 1)
    assert sum(name.endswith(".bias") for name in with_decay) == 33

    weights_only = [names[parameter] for parameter in decayed(module, biases=False)[0]]
    assert weights_only == [name for name in with_decay if name.endswith(".weight")]


@pytest.mark.parametrize("biases", [True, False])
def test_each_trained_parameter_is_in_one_group(biases: bool) -> None:
    module = build(replace(EFFICIENTNET_B0, stages=EFFICIENTNET_B0.stages[:2], head_channels=16, classes=3))
    module.stem.requires_grad_(False)
    first, second = decayed(module, biases)
    expected = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert sorted(map(id, first + second)) == sorted(map(id, expected))


def test_norms_never_decay_whatever_their_kind() -> None:
    norms = [nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 4, 4]), nn.InstanceNorm2d(4, affine=True)]
    for norm in norms:
        for biases in (True, False):
            assert decayed(norm, biases) == ([], list(norm.parameters()))
