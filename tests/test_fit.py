"""Training to the end: recipes in closed form, batches as functions of the step, and a run broken off and taken up."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conf.command import configuration, construct
from convnets.arch import Arch, Stage, Stem
from convnets.blocks import Block
from convnets.build import build
from convnets.errors import InputError
from convnets.reference import reference
from training.average import ramped_decay
from training.batches import MemoryBatches, as_scored
from training.dataset import Dataset, Images
from training.fit import Epoch, Score, Training, evaluate, fit
from training.full_recipe import FullRecipe, full_optimizer, plain_sgd
from training.loop import Diverged
from training.rmsprop import TensorFlowRMSProp
from training.source import MemorySource

CPU = torch.device("cpu")
TINY = Arch(
    stem=Stem(channels=8, stride=1),
    stages=(Stage("mbconv", 3, 2, channels=8, repeats=2, expand=2, se_ratio=0.25),),
    head_channels=16,
    resolution=8,
    classes=3,
    in_channels=1,
)


def some_data(count: int = 60, side: int = 8) -> Dataset:
    """Three classes that differ in how bright they are."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pixels = random.integers(0, 100, (count, side, side, 1), dtype=np.uint8)
    pixels += (60 * labels).astype(np.uint8)[:, None, None, None]
    half = count // 2
    parts = (Images(pixels[:half], labels[:half]), Images(pixels[half:], labels[half:]))
    return Dataset(*parts, classes=("a", "b", "c"), flip=True)


def started(recipe: FullRecipe, seed: int = 0, arch: Arch = TINY) -> tuple[Training, MemoryBatches, Any]:
    source = MemorySource(some_data(), None)
    batches = source.batches(recipe, seed, 8, CPU)
    return Training(build(arch, seed), recipe, batches.steps, CPU), batches, source.held_out(recipe, 8, CPU)


def recipe_named(name: str, *overrides: str) -> FullRecipe:
    config, _ = configuration("training.train", "train", ["model=efficientnet_b0", f"recipe={name}", *overrides])
    recipe: FullRecipe = construct(config, "recipe")
    return recipe


RECIPE = plain_sgd(3, 8, 3.0, recalibrate=30, translate=0.125, average=0.99, weight_decay=1e-4)


# ------------------------------------------------------------------------------------------------ the paper's constants


def test_efficientnets_constants() -> None:
    recipe = recipe_named("efficientnet")
    optimizer = full_optimizer(build(TINY), recipe)
    assert isinstance(optimizer, TensorFlowRMSProp)
    assert {name: optimizer.defaults[name] for name in ("decay", "momentum", "eps")} == {
        "decay": 0.9, "momentum": 0.9, "eps": 1e-3,
    }  # fmt: skip
    assert (recipe.epochs, recipe.average, recipe.label_smoothing) == (350, 0.9999, 0.1)
    assert (recipe.crop, recipe.evaluation_crop) == (True, 0.875)
    assert recipe.dropout is recipe.drop_connect is None  # the network's own
    assert ramped_decay(0, recipe.average or 0) == 0.1


@pytest.mark.parametrize("batch", [256, 2048, 4096])
def test_efficientnets_rate_at_each_step(batch: int) -> None:
    recipe = recipe_named("efficientnet")
    steps = 1_281_167 // batch
    rate = recipe.schedule(peak=recipe.peak(batch), steps_per_epoch=steps, steps=350 * steps)
    peak = 0.016 * batch / 256
    assert recipe.peak(4096) == 0.256  # the paper's
    assert rate(0) == 0
    assert rate(steps) == pytest.approx(peak / 5)
    assert rate(5 * steps) == pytest.approx(peak * 0.97**2)  # 5 of 2.4 epochs: two stairs down at the hand-over
    for stair in (3, 10, 100, 145):
        first = int(np.ceil(stair * 2.4 * steps))
        assert rate(first - 1) == pytest.approx(peak * 0.97 ** (stair - 1))
        assert rate(first) == pytest.approx(peak * 0.97**stair)
    assert rate(350 * steps - 1) == pytest.approx(peak * 0.97**145)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b7"])
def test_drop_connect_rises_linearly_over_the_blocks_there_are(name: str) -> None:
    arch = reference(name)
    with torch.device("meta"):
        net = build(arch)
    blocks = [layer for layer in net.modules() if isinstance(layer, Block)]
    assert len(blocks) == {"efficientnet_b0": 16, "efficientnet_b7": 55}[name]
    for index, block in enumerate(blocks):
        assert block.drop_connect == pytest.approx(0.2 * index / len(blocks) if block.shortcut else 0.0)
    assert net.dropout.p == {"efficientnet_b0": 0.2, "efficientnet_b7": 0.5}[name]
    assert {layer.momentum for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.01}  # 1 - 0.99


def test_which_parameters_of_b0_decay() -> None:
    with torch.device("meta"):
        net = build(reference("efficientnet_b0"))
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
    assert recipe_named("efficientnet").weight_decay == 1e-5


def test_evaluation_crops() -> None:
    assert RECIPE.evaluated_share(224) == 1
    assert recipe_named("efficientnet").evaluated_share(600) == 0.875
    fixed = replace(RECIPE, evaluation_crop="fixed")
    assert (fixed.evaluated_share(224), round(fixed.evaluated_share(600), 3)) == (0.875, 0.949)


@pytest.mark.parametrize("name", ["efficientnet", "fast", "finetune"])
def test_every_recipe_trains(name: str) -> None:
    recipe = replace(recipe_named(name), epochs=1, batch_size=8, recalibrate=min(8, recipe_named(name).recalibrate))
    assert all(np.isfinite(epoch.train_loss) for epoch in fit(*started(recipe), recipe, 0))


# ---------------------------------------------------------------------------------------------------- recipes that fail


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe.epochs=0", "recipe.epochs=0"),
        ("recipe.lr=-1", "recipe.lr=-1: it must be a number above 0"),
        ("recipe.accumulate=40", "recipe.accumulate=40: parts of a batch"),
        ("recipe.crop=true", "recipe.crop=true and recipe.translate=0.125"),
        ("recipe.crop=2", "recipe.crop=2: it must be true or false"),
        ("recipe.early_side=2", "recipe.early_side=2: it must be at most 1"),
        ("recipe.evaluation_crop=wide", "recipe.evaluation_crop=wide"),
        ("recipe.head_only=true", "recipe.recalibrate=2048: with head_only"),
        ("recipe.compile=yes_please", "recipe.compile=yes_please: it must be true or false"),
        ("recipe.average=1", "recipe.average=1: it must be a number 0 or more and below 1"),
        ("recipe.epoch=3", "recipe"),
        ("+recipe.epoch=3", "epoch"),
        ("+recipe.optimizer.beta=3", "recipe.optimizer"),
        ("+recipe.schedule.beta=3", "recipe.schedule"),
        ("recipe.schedule.warmup=2", "recipe.schedule: warmup=2"),
        ("recipe.optimizer=sgd", "recipe.optimizer=sgd"),
    ],
)
def test_a_bad_recipe_is_one_line(override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_named("fast", override)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    recipe = replace(RECIPE, policy=None)
    _, batches, _ = started(recipe)
    _, others, _ = started(recipe)
    wanted = [batches(step) for step in range(9)]
    for step in (8, 0, 5, 5, 2):
        images, labels = others(step)
        assert torch.equal(images, wanted[step][0]) and torch.equal(labels, wanted[step][1])
    assert not torch.equal(started(recipe, seed=1)[1](0)[0], wanted[0][0])
    assert not torch.equal(wanted[0][0], wanted[3][0])  # another epoch


def test_an_epoch_shows_each_image_once() -> None:
    recipe = replace(RECIPE, translate=0.0, batch_size=10)
    _, batches, _ = started(recipe)
    labels = torch.cat([batches(step)[1] for step in range(3)])
    assert labels.bincount().tolist() == [10, 10, 10]
    shown = {tuple(image.flip(-1).flatten().tolist()) for step in range(3) for image in batches(step)[0]}
    mirrored = {tuple(image.flatten().tolist()) for step in range(3, 6) for image in batches(step)[0]}
    both = {tuple(image.flatten().tolist()) for step in range(3) for image in batches(step)[0]} | shown
    assert mirrored <= both


def test_early_epochs_are_smaller() -> None:
    recipe = replace(RECIPE, early_side=0.75, early_epochs=0.34)
    _, batches, _ = started(recipe)
    assert [batches(epoch * batches.steps)[0].shape[2] for epoch in range(3)] == [6, 8, 8]


def test_scoring_looks_at_the_centre() -> None:
    data = some_data(side=16)
    recipe = replace(RECIPE, evaluation_crop=0.5)
    samples = as_scored(data.val, data, recipe, 8, CPU)
    assert np.array_equal(samples.pixels.numpy(), data.val.pixels[:, 4:12, 4:12])
    whole = as_scored(data.val, data, RECIPE, 4, CPU)
    assert whole.pixels.shape == (30, 4, 4, 1)


# ------------------------------------------------------------------------------------------------------------- the loop


def test_it_learns_and_reports() -> None:
    recipe = replace(RECIPE, epochs=6)
    epochs = list(fit(*started(recipe), recipe, 0))
    assert [(one.number, one.step) for one in epochs] == [(n, 3 * n) for n in range(1, 7)]
    assert epochs[-1].score.accuracy > 0.8 and epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].score.top5 == 1
    assert epochs[-1].lr < epochs[1].lr


def copied(state: Any) -> Any:
    return copy.deepcopy(state)


@pytest.mark.parametrize("optimizer", [TensorFlowRMSProp, torch.optim.AdamW, RECIPE.optimizer])
def test_resumed_at_any_step_it_is_the_uninterrupted_run_to_the_bit(optimizer: Any) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, lr=0.05)
    training, batches, held_out = started(recipe)
    states: list[Any] = []

    def keep() -> None:
        states.append(copied(training.state_dict()))

    epochs = [without_seconds(one) for one in fit(training, batches, held_out, recipe, 0, keep)]
    for state in states:
        torch.rand(3)  # nobody else's random numbers matter
        resumed, batches, held_out = started(recipe, seed=0)
        resumed.load_state_dict(state)
        rest = [without_seconds(one) for one in fit(resumed, batches, held_out, recipe, 0)]
        assert rest == epochs[-len(rest) :] and resumed.step == training.step
        assert_same(resumed.state_dict(), training.state_dict())


def without_seconds(epoch: Epoch) -> Epoch:
    return replace(epoch, seconds=0.0)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds"}:
            assert_same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_add_up_to_the_whole(accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = replace(TINY, drop_connect=0.0, dropout=0.0)
    monkeypatch.setattr("training.fit._set_mode", lambda module, recipe: module.eval())  # norms of a part are its own
    results = []
    for parts in (1, accumulate):
        recipe = replace(RECIPE, epochs=1, accumulate=parts, average=None, recalibrate=0)
        training, batches, held_out = started(recipe, arch=arch)
        list(fit(training, batches, held_out, recipe, 0))
        results.append(training.module.state_dict())
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_patience_ends_a_run_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, epochs=9, patience=2)
    training, batches, held_out = started(recipe)
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.4, 0.9])
    monkeypatch.setattr("training.fit.evaluate", lambda *_: Score(next(scores), 1.0, 1.0))
    assert [epoch.number for epoch in fit(training, batches, held_out, recipe, 0)] == [1, 2, 3, 4, 5]
    assert (training.best, training.best_epoch) == (0.7, 3)
    assert list(fit(training, batches, held_out, recipe, 0)) == []  # nor does it go on when it is asked again


def test_the_head_alone() -> None:
    recipe = replace(RECIPE, head_only=True, recalibrate=0)
    training, batches, held_out = started(recipe)
    before = copied(training.module.state_dict())
    list(fit(training, batches, held_out, recipe, 0))
    changed = {name for name, tensor in training.module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_what_is_scored_is_a_copy() -> None:
    training, batches, _ = started(RECIPE)
    before = copied(training.state_dict())
    training.scored(batches.calibration)
    assert_same(training.state_dict(), before)


def test_divergence_names_the_step() -> None:
    recipe = replace(RECIPE, lr=1e30, epochs=2, average=None)
    training, batches, held_out = started(recipe)
    with pytest.raises(Diverged):
        list(fit(training, batches, held_out, recipe, 0))


def test_nobody_elses_random_numbers_are_taken() -> None:
    training, batches, held_out = started(RECIPE)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(fit(training, batches, held_out, RECIPE, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_score_by_hand() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[2.0, 0.0, 0.0]]).expand(len(images), 3)

    score = evaluate(Fixed(), MemorySource(some_data(), None).held_out(RECIPE, 8, CPU))
    assert (score.accuracy, score.top5) == (pytest.approx(1 / 3), 1.0)
    log_sum = np.log(np.exp(2) + 2)
    assert score.loss == pytest.approx(log_sum - 2 / 3)


def test_a_partial_is_checked_where_it_is_made() -> None:
    with pytest.raises(InputError, match="recipe.optimizer"):
        replace(RECIPE, optimizer=partial(torch.optim.SGD, momentum=-1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_and_compiled_on_a_gpu() -> None:
    where = torch.device("cuda")
    source, recipe = MemorySource(some_data(), None), replace(RECIPE, epochs=2)
    batches, held_out = source.batches(recipe, 0, 8, where), source.held_out(recipe, 8, where)
    training = Training(build(TINY, 0), recipe, batches.steps, where)
    assert [one.number for one in fit(training, batches, held_out, recipe, 0)] == [1, 2]
