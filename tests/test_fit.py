"""Training to the end: batches as functions of the step, and a run broken off and taken up."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.build import build
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.in_memory import InMemoryBatches, InMemoryData, as_scored
from phinas.training.full.recipe import FullRecipe, plain_sgd
from phinas.training.full.rmsprop import TensorFlowRMSProp
from phinas.training.full.training_loop import Epoch, TrainingState, fitting_parts, train
from phinas.training.own_failures import Diverged
from phinas.training.scoring import Score, evaluate
from tests.test_full_recipe import recipe_named

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


def started(recipe: FullRecipe, seed: int = 0, arch: Arch = TINY) -> tuple[TrainingState, InMemoryBatches, Any]:
    source = InMemoryData(some_data(), None)
    batches = source.batches(recipe, seed, 8, CPU)
    return TrainingState(build(arch, seed), recipe, batches.steps, CPU), batches, source.held_out(recipe, 8, CPU)


RECIPE = plain_sgd(3, 8, 3.0, recalibrate=30, translate=0.125, average=0.99, weight_decay=1e-4)


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


@pytest.mark.parametrize("name", ["efficientnet", "fast", "finetune"])
def test_every_recipe_trains(name: str) -> None:
    recipe = replace(recipe_named(name), epochs=1, batch_size=8, recalibrate=min(8, recipe_named(name).recalibrate))
    assert all(np.isfinite(epoch.train_loss) for epoch in train(*started(recipe), recipe, 0))


def test_the_loss_is_smoothed_and_the_average_follows_each_step() -> None:
    """Logits of 2, 0, 0 whatever the image, all of class 0: smoothed by 0.1, log(e^2 + 2) - (0.9 * 2 + 0.1 * 2 / 3)."""

    class OfOneClass:
        size, steps, calibration = 8, 3, None

        def __call__(self, step: int) -> tuple[Tensor, Tensor]:
            return torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)

    recipe = replace(recipe_named("efficientnet"), epochs=1, lr=1e-12, batch_size=8)
    _, _, held_out = started(recipe)
    module = build(TINY, 0)
    with torch.no_grad():
        module.classifier.weight.zero_()
        module.classifier.bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
    training = TrainingState(module, recipe, 3, CPU)
    (epoch,) = train(training, OfOneClass(), held_out, recipe, 0)
    assert epoch.train_loss == pytest.approx(0.372878100, rel=1e-6)
    assert training.average is not None and training.average.updates == 3


def test_it_learns_and_reports() -> None:
    recipe = replace(RECIPE, epochs=6)
    epochs = list(train(*started(recipe), recipe, 0))
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

    epochs = [without_seconds(one) for one in train(training, batches, held_out, recipe, 0, keep)]
    for state in states:
        torch.rand(3)  # nobody else's random numbers matter
        resumed, batches, held_out = started(recipe, seed=0)
        resumed.load_state_dict(state)
        rest = [without_seconds(one) for one in train(resumed, batches, held_out, recipe, 0)]
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
    monkeypatch.setattr(
        "phinas.training.full.training_loop._set_mode", lambda module, recipe: module.eval()
    )  # norms of a part are its own
    results = []
    for parts in (1, accumulate):
        recipe = replace(RECIPE, epochs=1, accumulate=parts, average=None, recalibrate=0)
        training, batches, held_out = started(recipe, arch=arch)
        list(train(training, batches, held_out, recipe, 0))
        results.append(training.module.state_dict())
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_patience_ends_a_run_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, epochs=9, patience=2)
    training, batches, held_out = started(recipe)
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.4, 0.9])
    monkeypatch.setattr("phinas.training.full.training_loop.evaluate", lambda *_: Score(next(scores), 1.0, 1.0))
    assert [epoch.number for epoch in train(training, batches, held_out, recipe, 0)] == [1, 2, 3, 4, 5]
    assert (training.best, training.best_epoch) == (0.7, 3)
    assert list(train(training, batches, held_out, recipe, 0)) == []  # nor does it go on when it is asked again


def test_the_head_alone() -> None:
    recipe = replace(RECIPE, head_only=True, recalibrate=0)
    training, batches, held_out = started(recipe)
    before = copied(training.module.state_dict())
    list(train(training, batches, held_out, recipe, 0))
    changed = {name for name, tensor in training.module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_training_statistics_and_scoring_have_the_precision_of_the_recipe() -> None:
    seen: set[torch.dtype] = set()
    recipe = replace(RECIPE, epochs=1, bfloat16=True)
    wide_kernels = replace(TINY, stages=(replace(TINY.stages[0], kernel=5),))  # whose gradients are our own formula's
    training, batches, held_out = started(recipe, arch=wide_kernels)
    norms = [layer for layer in training.module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    norms[-1].register_forward_hook(lambda layer, inputs, output: seen.add(inputs[0].dtype))
    list(train(training, batches, held_out, recipe, 0))
    assert seen == {torch.bfloat16}


@pytest.mark.parametrize(("room", "parts"), [(6, 4), (3, 8), (1, None)])
def test_the_parts_that_fit_are_found_at_full_size(
    room: int, parts: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, batch_size=24, early_side=0.5, early_epochs=0.5)
    training, batches, _ = started(recipe)

    def limited(self: torch.nn.Module, images: Tensor) -> Tensor:
        assert images.shape[2:] == (8, 8)
        if len(images) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    forward = type(training.module).forward
    monkeypatch.setattr(type(training.module), "forward", limited)
    assert fitting_parts(training.module, batches, recipe) == parts


def test_where_a_batch_does_not_fit_no_parts_do(monkeypatch: pytest.MonkeyPatch) -> None:
    training, batches, _ = started(RECIPE)

    def full(self: Any, step: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(batches), "__call__", full)
    assert fitting_parts(training.module, batches, RECIPE) is None


def test_what_is_scored_is_a_copy() -> None:
    training, batches, _ = started(RECIPE)
    before = copied(training.state_dict())
    training.scored(batches.calibration)
    assert_same(training.state_dict(), before)


def test_divergence_names_the_step() -> None:
    recipe = replace(RECIPE, lr=1e30, epochs=2, average=None)
    training, batches, held_out = started(recipe)
    with pytest.raises(Diverged):
        list(train(training, batches, held_out, recipe, 0))


def test_nobody_elses_random_numbers_are_taken() -> None:
    training, batches, held_out = started(RECIPE)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(train(training, batches, held_out, RECIPE, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_score_by_hand() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[2.0, 0.0, 0.0]]).expand(len(images), 3)

    score = evaluate(Fixed(), InMemoryData(some_data(), None).held_out(RECIPE, 8, CPU))
    assert score.accuracy == pytest.approx(1 / 3) and score.top5 == 1
    log_sum = np.log(np.exp(2) + 2)
    assert score.loss == pytest.approx(log_sum - 2 / 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_and_compiled_on_a_gpu() -> None:
    where = torch.device("cuda")
    source, recipe = InMemoryData(some_data(), None), replace(RECIPE, epochs=2)
    batches, held_out = source.batches(recipe, 0, 8, where), source.held_out(recipe, 8, where)
    training = TrainingState(build(TINY, 0), recipe, batches.steps, where)
    assert [one.number for one in train(training, batches, held_out, recipe, 0)] == [1, 2]
