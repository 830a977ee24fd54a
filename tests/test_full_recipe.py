"""Recipes: every constant of EfficientNet's as a number, through its YAML; and one line for each that cannot be."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from phinas.command.configuration import configuration
from phinas.command.parts import construct
from phinas.files.errors import InputError
from phinas.generate.rules import PRESETS
from phinas.networks.arch import Arch
from phinas.networks.blocks import Block
from phinas.networks.build import ConvNet, build
from phinas.networks.reference import EFFICIENTNET_B0, reference
from phinas.training.augment.policies import auto_augment, rand_augment
from phinas.training.full.recipe import FullRecipe, full_optimizer, plain_sgd
from phinas.training.full.rmsprop import TensorFlowRMSProp


def recipe_named(name: str, *overrides: str) -> FullRecipe:
    config, _ = configuration("phinas.train", "train", ["model=efficientnet_b0", f"recipe={name}", *overrides])
    recipe: FullRecipe = construct(config, "recipe")
    return recipe


def on_meta(arch: Arch) -> ConvNet:
    with torch.device("meta"):
        return build(arch)


def drop_connects(arch: Arch) -> list[float]:
    return [layer.drop_connect for layer in on_meta(arch).modules() if isinstance(layer, Block)]


# ------------------------------------------------------------------------------------------------ the paper's constants


def test_efficientnets_constants() -> None:
    recipe = recipe_named("efficientnet")
    optimizer = full_optimizer(on_meta(EFFICIENTNET_B0), recipe)
    assert isinstance(optimizer, TensorFlowRMSProp)
    assert {name: optimizer.defaults[name] for name in ("decay", "momentum", "eps")} == {
        "decay": 0.9, "momentum": 0.9, "eps": 0.001,
    }  # fmt: skip
    assert (recipe.epochs, recipe.label_smoothing, recipe.weight_decay, recipe.average) == (350, 0.1, 1e-5, 0.9999)
    assert recipe.dropout is recipe.drop_connect is None  # the network's own
    assert recipe.crop and recipe.enlarge and recipe.policy == auto_augment()
    assert not recipe.translate and not recipe.recalibrate and recipe.early_epochs == 0
    assert recipe.patience is not None  # stopped early, on the images held out


def test_rand_augment_in_autoaugments_place() -> None:
    of_user = "recipe.policy._target_=phinas.training.augment.policies.rand_augment", "+recipe.policy.magnitude=15"
    assert recipe_named("efficientnet", *of_user).policy == rand_augment(2, 15)
    whole = "recipe.policy={_target_:phinas.training.augment.policies.rand_augment,layers:1}"  # where there was none
    assert recipe_named("finetune", whole).policy == rand_augment(1, 9)


def test_efficientnets_rate_at_every_stair() -> None:
    """1000 steps an epoch: 5000 of warm-up, and a stair every 2400, counted from step 0."""
    recipe = recipe_named("efficientnet")
    rate = recipe.schedule(peak=recipe.peak(256), steps_per_epoch=1000, steps=350_000)
    expected = {
        0: 0.0, 1: 0.0000032, 2500: 0.008, 4999: 0.0159968,
        5000: 0.0150544, 7199: 0.0150544,  # 0.016 * 0.97^2: two stairs are behind where the warm-up ends
        7200: 0.014602768, 9599: 0.014602768, 9600: 0.01416468496,
        348_000: 0.0001932063745770197, 349_999: 0.0001932063745770197,  # 0.016 * 0.97^145
    }  # fmt: skip
    assert {step: rate(step) for step in expected} == pytest.approx(expected, rel=1e-12)
    for stair in range(3, 146):
        below, above = 0.016 * 0.97**stair, 0.016 * 0.97 ** (stair - 1)
        assert [rate(2400 * stair - 1), rate(2400 * stair)] == pytest.approx([above, below], rel=1e-12)


def test_the_rate_is_in_proportion_to_the_batch() -> None:
    recipe = recipe_named("efficientnet")
    peaks = {size: recipe.peak(size) for size in (64, 256, 2048, 4096)}
    assert peaks == pytest.approx({64: 0.004, 256: 0.016, 2048: 0.128, 4096: 0.256})  # tensorflow/tpu's, the paper's


@pytest.mark.parametrize(
    ("name", "rate"),
    [("b0", 0.2), ("b1", 0.2), ("b2", 0.3), ("b3", 0.3), ("b4", 0.4), ("b5", 0.4), ("b6", 0.5), ("b7", 0.5)],
)
def test_dropout_by_model(name: str, rate: float) -> None:
    """Of the published networks and, which is the same, of B0's family by the published rule."""
    assert on_meta(reference(f"efficientnet_{name}")).dropout.p == rate
    assert PRESETS["published"].grow(EFFICIENTNET_B0, int(name[1])).dropout == rate


def test_drop_connect_of_each_block_of_b0() -> None:
    """0.2 * index / 16, and 0 where there is no shortcut."""
    assert drop_connects(reference("efficientnet_b0")) == pytest.approx([
        0, 0, 0.025, 0, 0.05, 0, 0.075, 0.0875, 0, 0.1125, 0.125, 0, 0.15, 0.1625, 0.175, 0,
    ])  # fmt: skip


def test_drop_connect_of_each_block_of_b7() -> None:
    """0.2 * index / 55: the divisor grows with the network, or the last rate would be 0.675."""
    rates = drop_connects(reference("efficientnet_b7"))
    first_of_stages = {0, 4, 11, 18, 28, 38, 51}  # of 4, 7, 7, 10, 10, 13 and 4 blocks; none has a shortcut
    assert len(rates) == 55
    assert {index for index, rate in enumerate(rates) if not rate} == first_of_stages
    assert [rates[1], rates[27], rates[54]] == pytest.approx([0.003636363636, 0.0981818181818, 0.196363636364])
    assert rates == pytest.approx([0 if i in first_of_stages else 0.2 * i / 55 for i in range(55)])


@pytest.mark.parametrize(
    ("rule", "phi", "blocks", "last"), [("published", 3, 26, 0.1923076923), ("paper", 7, 61, 0.1967213115)]
)
def test_drop_connect_of_a_family_is_by_its_own_blocks(rule: str, phi: float, blocks: int, last: float) -> None:
    rates = drop_connects(PRESETS[rule].grow(EFFICIENTNET_B0, phi))
    assert len(rates) == blocks and max(rates) == rates[-1] == pytest.approx(last)


def test_batch_norms_of_all_models() -> None:
    for name in ("b0", "b7"):
        norms = [one for one in on_meta(reference(f"efficientnet_{name}")).modules() if isinstance(one, nn.BatchNorm2d)]
        assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 0.001)}  # TensorFlow's momentum of 0.99


def test_which_parameters_of_b0_decay() -> None:
    net = on_meta(EFFICIENTNET_B0)
    names = {parameter: name for name, parameter in net.named_parameters()}
    for recipe, biases in ((recipe_named("efficientnet"), True), (recipe_named("fast"), False)):
        decays = {
            names[parameter]: group["weight_decay"]
            for group in full_optimizer(net, recipe).param_groups
            for parameter in group["params"]
        }
        assert set(decays) == set(names.values())
        for name, decay in decays.items():
            norm = ".norm." in name
            assert decay == (0.0 if norm or (name.endswith("bias") and not biases) else recipe.weight_decay)


def test_evaluation_crops() -> None:
    sides = (224, 380, 600)
    constant, fixed = recipe_named("efficientnet"), recipe_named("efficientnet", "recipe.evaluation_crop=fixed")
    assert [constant.evaluated_share(side) for side in sides] == [0.875] * 3
    assert [fixed.evaluated_share(side) for side in sides] == pytest.approx([0.875, 0.922330097, 0.949367089])
    assert plain_sgd(1, 2, 0.1).evaluated_share(224) == 1


def test_early_epochs_are_smaller() -> None:
    recipe = plain_sgd(8, 2, 0.1, early_side=0.75, early_epochs=0.5)
    assert [recipe.side(epoch, 32) for epoch in range(1, 9)] == [24] * 4 + [32] * 4


# ------------------------------------------------------------------------------------------------- recipes that fail


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["recipe.epochs=0"], "recipe.epochs=0: it must be a whole number, 1 or more"),
        (["recipe.epochs=2.5"], "recipe.epochs=2.5"),
        (["recipe.batch_size=1"], "recipe.batch_size=1: it must be a whole number, 2 or more"),
        (["recipe.lr=-1"], "recipe.lr=-1: it must be a number above 0"),
        (["recipe.lr=.inf"], "recipe.lr=.inf"),
        (["recipe.weight_decay=-1"], "recipe.weight_decay=-1: it must be a number 0 or more"),
        (["recipe.label_smoothing=null"], "recipe.label_smoothing=None: it must be a number"),
        (["recipe.average=1"], "recipe.average=1: it must be a number 0 or more and below 1"),
        (["recipe.dropout=1"], "recipe.dropout=1: it must be a number 0 or more and below 1"),
        (["recipe.accumulate=200"], "recipe.accumulate=200: parts of a batch"),
        (["recipe.patience=0"], "recipe.patience=0: it must be a whole number, 1 or more"),
        (["recipe.translate=0.1"], "recipe.crop=true and recipe.translate=0.1"),
        (["recipe.crop=2"], "recipe.crop=2: it must be true or false"),
        (["recipe.compile=yes_please"], "recipe.compile=yes_please: it must be true or false"),
        (["recipe.bfloat16=0"], "recipe.bfloat16=0: it must be true or false"),
        (["recipe.early_side=2"], "recipe.early_side=2: it must be at most 1"),
        (["recipe.evaluation_crop=wide"], "recipe.evaluation_crop=wide"),
        (["recipe.recalibrate=1"], "recipe.recalibrate=1: it must be 0, or 2 images or more"),
        (["recipe.recalibrate=8", "recipe.head_only=true"], "recipe.recalibrate=8: with head_only"),
        (["recipe.epoch=3"], "recipe.epoch"),
        (["+recipe.epoch=3"], "unexpected keyword argument 'epoch'"),
        (["recipe.optimizer=sgd"], "recipe.optimizer=sgd: it must be a YAML with _target_"),
        (["recipe.optimizer.momentum=1"], "recipe.optimizer: momentum=1: it must be a number"),
        (["+recipe.optimizer.beta=3"], "recipe.optimizer: TensorFlowRMSProp.__init__() got an unexpected"),
        (["+recipe.optimizer.lr=3"], "recipe.optimizer.lr=3: leave it out; recipe.lr gives it"),
        (["+recipe.optimizer.weight_decay=3"], "recipe.optimizer.weight_decay=3: leave it out; recipe.weight_decay"),
        (["+recipe.schedule.beta=3"], "recipe.schedule: staircase() got an unexpected keyword argument 'beta'"),
        (["recipe.schedule.warmup=-1"], "recipe.schedule: warmup=-1"),
        (["+recipe.schedule.steps=3"], "recipe.schedule.steps=3: leave it out; recipe.epochs gives it"),
        (["recipe.schedule=null"], "recipe.schedule=None: it must be a YAML with _target_"),
        (["recipe.policy=auto_augment"], "recipe.policy=auto_augment: it must have draw and apply"),
        (["+recipe.policy.share=1"], "unexpected keyword argument 'share'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_recipe_is_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_named("efficientnet", *overrides)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "recipe: recipe." not in str(caught.value)


def test_a_partial_is_checked_where_it_is_made() -> None:
    recipe = plain_sgd(1, 2, 0.1)
    with pytest.raises(InputError, match="recipe.optimizer: Invalid momentum value: -1"):
        replace(recipe, optimizer=partial(torch.optim.SGD, momentum=-1))
    with pytest.raises(InputError, match="recipe.optimizer.lr=0.3: leave it out"):
        replace(recipe, optimizer=partial(torch.optim.SGD, lr=0.3))
