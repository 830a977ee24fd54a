"""The loop's laws: the schedule's closed form, one result per seed, resumption, statistics, and divergence."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.build import build
from phinas.training.augment.views import random_views, seen
from phinas.training.convolutions import fast_convolutions
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.samples import Samples, samples
from phinas.training.optim import learning_rate, optimizer
from phinas.training.own_failures import Diverged
from phinas.training.scoring import evaluate, recalibrate
from phinas.training.short.recipe import Recipe
from phinas.training.short.training_loop import Epoch, train

CPU = torch.device("cpu")
SHORT = Recipe(epochs=2, batch_size=16, lr=0.05, recalibrate=32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two beside another busy process are slower than one, and the order of sums is fixed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def dataset(train: int = 64, val: int = 32, size: int = 8, channels: int = 1) -> Dataset:
    """Two classes that a small network tells apart: dark and bright images, with noise."""
    random = np.random.default_rng(0)

    def images(count: int) -> Images:
        labels = np.arange(count) % 2
        noise = random.integers(0, 100, (count, size, size, channels))
        return Images((noise + 100 * labels[:, None, None, None]).astype(np.uint8), labels)

    return Dataset(images(train), images(val), ("dark", "bright"))


def network(seed: int = 0, dropout: float = 0.2, channels: int = 1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, momentum=0.01), nn.SiLU(),
            nn.Conv2d(8, 8, 5, 2, padding=2, groups=8, bias=False), nn.BatchNorm2d(8, momentum=0.01),
            nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, 2),
        )  # fmt: skip


def run(recipe: Recipe = SHORT, seed: int = 0, module: nn.Module | None = None) -> tuple[nn.Module, list[Epoch]]:
    module = network() if module is None else module
    return module, list(train(module, *samples(dataset(), None, CPU), recipe, seed))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


# ------------------------------------------------------------------------------------------------- schedule, optimiser


def test_learning_rate_in_closed_form() -> None:
    recipe = Recipe(lr=0.4, warmup=0.2)
    rates = [learning_rate(step, 20, recipe) for step in range(20)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])  # linear over a fifth of the steps
    assert rates[4] == 0.4 and rates[12] == pytest.approx(0.2)  # the top and the middle of the cosine
    assert rates[19] == pytest.approx(0.2 * (1 + math.cos(math.pi * 15 / 16)))
    assert rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] > 0
    assert [learning_rate(step, 2, Recipe(lr=1.0, warmup=0.0)) for step in range(2)] == pytest.approx([1.0, 0.5])
    assert learning_rate(0, 1, Recipe(lr=1.0, warmup=0.9)) == 1.0  # one step is all warm-up


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_biases_and_norms_do_not_decay(name: str) -> None:
    module = network()
    with_decay, without = optimizer(module, Recipe(optimizer=name, weight_decay=0.1)).param_groups
    assert with_decay["weight_decay"] == 0.1 and without["weight_decay"] == 0.0
    assert {parameter.ndim for parameter in with_decay["params"]} == {2, 4}
    assert {parameter.ndim for parameter in without["params"]} == {1}
    assert len(with_decay["params"]) + len(without["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("epochs", 1.5), ("batch_size", 1), ("optimizer", "adam"), ("lr", 0.0), ("lr", math.nan),
     ("momentum", 1.0), ("weight_decay", -1.0), ("warmup", 1.0), ("label_smoothing", -0.1), ("translate", 2),
     ("recalibrate", -1), ("recalibrate", True), ("recalibrate", 1)],
)  # fmt: skip
def test_a_recipe_names_its_culprit(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{field}={value}: it must"):
        Recipe(**{field: value})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------- loop


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_it_learns(name: str) -> None:
    _, epochs = run(Recipe(epochs=4, batch_size=8, optimizer=name, lr=0.01, recalibrate=32))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].accuracy == 1.0


def test_the_same_seed_gives_the_same_bits() -> None:
    global_state = torch.get_rng_state()
    first, first_epochs = run(seed=3)
    assert torch.equal(torch.get_rng_state(), global_state)
    torch.rand(7)  # what others draw does not matter
    again, again_epochs = run(seed=3)
    other, _ = run(seed=4)
    assert same(first, again) and not same(first, other)
    assert [epoch.train_loss for epoch in first_epochs] == [epoch.train_loss for epoch in again_epochs]


def test_a_run_interrupted_after_an_epoch_goes_on_to_the_same_bits() -> None:
    sets = samples(dataset(), None, CPU)
    whole, _ = run(Recipe(epochs=3, batch_size=16, lr=0.05))
    recipe = Recipe(epochs=3, batch_size=16, lr=0.05)

    module = network()
    used = optimizer(module, recipe)
    next(train(module, *sets, recipe, 0, used))
    saved = copy.deepcopy((module.state_dict(), used.state_dict()))

    resumed = network(seed=9)
    resumed_optimizer = optimizer(resumed, recipe)
    resumed.load_state_dict(saved[0])
    resumed_optimizer.load_state_dict(saved[1])
    epochs = list(train(resumed, *sets, recipe, 0, resumed_optimizer, first_epoch=2))
    assert [epoch.number for epoch in epochs] == [2, 3]
    assert same(whole, resumed)


def test_scoring_does_not_disturb_training() -> None:
    sets = samples(dataset(), None, CPU)
    recipe = Recipe(epochs=4, batch_size=16, lr=0.05, recalibrate=32)
    always, seldom = network(), network()
    scores = [epoch.accuracy for epoch in train(seldom, *sets, recipe, 0, score_every=3)]
    assert [score is None for score in scores] == [True, True, False, False]  # the last is always scored
    list(train(always, *sets, recipe, 0))
    assert same(always, seldom)


def test_batches_and_weights_are_channels_last() -> None:
    seen: list[Tensor] = []
    module = network(channels=3)
    module[0].register_forward_hook(lambda layer, inputs, output: seen.extend([*inputs, layer.weight, output]))
    next(train(module, *samples(dataset(channels=3), None, CPU), SHORT, 0))
    assert all(tensor.shape[1] > 1 and tensor.shape[2] > 1 for tensor in seen)  # otherwise every layout is both
    assert seen and all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)


def test_divergence_names_the_step() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.steps = network(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.steps += self.training
            return self.inner(x) * (math.nan if self.steps == 6 else 1.0)  # type: ignore[no-any-return]

    with pytest.raises(Diverged, match="^loss is nan at step 6 of 8$"):
        run(module=Breaks())


@pytest.mark.parametrize("recalibrated", [0, 32])
def test_weights_that_break_in_the_last_step_are_not_scored(recalibrated: int) -> None:
    """Its loss was computed before the step, and is finite."""
    with pytest.raises(Diverged, match="logits are not finite"):
        run(Recipe(epochs=1, batch_size=64, lr=1e38, warmup=0.0, weight_decay=1e30, recalibrate=recalibrated))


# --------------------------------------------------------------------------------------------------------- batch norms


def test_recalibration_sets_the_statistics_of_the_data() -> None:
    train_set, val_set = samples(dataset(), None, CPU)
    module = nn.Sequential(nn.BatchNorm2d(1, momentum=0.01), nn.Dropout(0.5), nn.BatchNorm2d(1, momentum=0.01))
    norm, behind = module[0], module[2]
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(behind, nn.BatchNorm2d)
    for _ in range(2):  # the second time starts from nothing, too
        recalibrate(module, train_set[:64])
        images = train_set.normalised(train_set.pixels)
        assert norm.running_mean is not None and norm.running_var is not None and behind.running_var is not None
        torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)), atol=1e-6, rtol=0)
        torch.testing.assert_close(norm.running_var, images.var((0, 2, 3)), atol=1e-5, rtol=0)
        assert behind.running_var.item() == pytest.approx(1.0, abs=1e-3)  # dropout was off
    assert norm.momentum == 0.01 and not norm.training


def test_recalibration_is_what_makes_short_training_score() -> None:
    """With running averages at momentum 0.01, eight steps leave the statistics near their initial 0 and 1."""
    recipe = Recipe(epochs=2, batch_size=16, lr=0.05, recalibrate=0)
    module, _ = run(recipe)
    recalibrated, _ = run(SHORT)
    first, second = (net.get_submodule("4") for net in (module, recalibrated))
    assert not torch.allclose(first.running_var, second.running_var, rtol=0.1)  # type: ignore[arg-type]
    train_set, val_set = samples(dataset(), None, CPU)
    recalibrate(module, train_set[:64])
    assert evaluate(module, val_set).accuracy == 1.0


def test_evaluation_takes_every_image_once_and_keeps_the_weights() -> None:
    data = dataset(val=33)
    train_set, val_set = samples(data, None, CPU)

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.one_hot((x.mean((1, 2, 3)) > 0).long(), 2).float()

    assert evaluate(Bright(), val_set).accuracy == 1.0
    wrong = Samples(
        val_set.pixels, torch.cat([1 - val_set.labels[:11], val_set.labels[11:]]), val_set.mean, val_set.std, False
    )
    assert evaluate(Bright(), wrong).accuracy == pytest.approx(22 / 33)


# -------------------------------------------------------------------------------------------------------- augmentation


def test_views_are_shifts_and_mirrors_of_the_image() -> None:
    pixels = torch.randint(1, 256, (5, 6, 7, 2), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    views = random_views(200, 2, True, generator, CPU)
    assert {*views.top.tolist()} == {*views.left.tolist()} == {0, 1, 2, 3, 4}
    assert 60 < int(views.mirrored.sum()) < 140
    index = torch.randint(0, 5, (200,), generator=generator)
    taken = torch.cat([seen(pixels[index[part]], views[part], 2) for part in (slice(0, 50), slice(50, 200))])
    for i in range(200):
        expected = functional.pad(pixels[index[i]], (0, 0, 2, 2, 2, 2))
        expected = expected[views.top[i] : views.top[i] + 6, views.left[i] : views.left[i] + 7]
        assert torch.equal(taken[i], expected.flip(1) if views.mirrored[i] else expected)


def test_without_flip_and_shift_an_image_is_itself() -> None:
    pixels = torch.randint(0, 256, (5, 6, 6, 1), dtype=torch.uint8)
    views = random_views(5, 0, False, torch.Generator().manual_seed(0), CPU)
    assert torch.equal(seen(pixels, views, 0), pixels)


def test_samples_are_placed_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for resolution in (None, 12):
        whole, _ = samples(dataset(channels=3), resolution, CPU)
        monkeypatch.setattr("phinas.training.data.samples._PART", 10 * 3 * 64)
        parts, _ = samples(dataset(channels=3), resolution, CPU)
        assert torch.equal(whole.pixels, parts.pixels) and parts.pixels.is_contiguous()
        monkeypatch.undo()


def test_training_recalibrating_and_scoring_share_their_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA devices all three are bfloat16; here the CPU is made to do the same."""
    for module_of_it in ("short.training_loop", "scoring"):
        monkeypatch.setattr(
            f"phinas.training.{module_of_it}.autocast", lambda where, _=None: torch.autocast(where.type, torch.bfloat16)
        )
    module, seen_types = network(), set[torch.dtype]()
    module[-1].register_forward_hook(lambda layer, inputs, output: seen_types.add(output.dtype))
    run(Recipe(epochs=1, batch_size=16, lr=0.05, recalibrate=32), module=module)
    assert seen_types == {torch.bfloat16}


def test_recalibration_takes_few_images_as_well_as_many() -> None:
    train_set, val_set = samples(dataset(), None, CPU)
    for count in (2, 3, 17, 64):
        module = network()
        recalibrate(module, train_set[:count])
        assert 0 <= evaluate(module, val_set).accuracy <= 1


def test_samples_are_stretched_and_normalised() -> None:
    train_set, _ = samples(dataset(), 16, CPU)
    assert train_set.pixels.shape == (64, 16, 16, 1) and train_set.pixels.dtype == torch.uint8
    images = train_set.normalised(samples(dataset(), None, CPU)[0].pixels)
    assert images.mean().item() == pytest.approx(0, abs=1e-5) and images.std().item() == pytest.approx(1, abs=1e-3)


# -------------------------------------------------------------------------------------------------- fast convolutions


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (4, 4), (5, 1), (8, 8)])
def test_fast_depthwise_agrees_with_torch(size: tuple[int, int], kernel: int, stride: int) -> None:
    layer = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False).double()
    _agrees(layer, torch.randn(3, 6, *size, dtype=torch.float64))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (4, 3)])
def test_fast_dense_agrees_with_torch(size: tuple[int, int], kernel: int, stride: int) -> None:
    layer = nn.Conv2d(6, 10, kernel, stride, kernel // 2, bias=False).double()
    _agrees(layer, torch.randn(3, 6, *size, dtype=torch.float64))


@pytest.mark.parametrize("size", [16, 32, 48])
def test_a_step_of_training_is_the_same_with_fast_convolutions(size: int) -> None:
    """A network with every kind of layer, from maps wider than its kernels down to one pixel."""
    stages = (
        Stage("mbconv", 5, 2, 16, 2, expand=3.0, se_ratio=0.25),
        Stage("bottleneck", 5, 2, 16, 2, expand=0.5, skip="projection"),
        Stage("conv", 7, 2, 16, 1, skip="pool"),
        Stage("separable", 7, 2, 16, 2),
    )
    module = build(Arch(Stem(8), stages, head_channels=24, classes=5, drop_connect=0.0, dropout=0.0)).double()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(4, 3, size, size, dtype=torch.float64)
    gradients = []
    for fast in (nullcontext(), fast_convolutions(module)):
        with fast:
            module.zero_grad()
            functional.cross_entropy(module(images), torch.arange(4)).backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad for parameter in module.parameters()])
    for plain, fast_one in zip(*gradients, strict=True):
        torch.testing.assert_close(fast_one, plain)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (4, 3)])
def test_fast_pointwise_agrees_with_torch(size: tuple[int, int], bias: bool) -> None:
    _agrees(nn.Conv2d(6, 10, 1, bias=bias).double(), torch.randn(3, 6, *size, dtype=torch.float64))


def _agrees(layer: nn.Conv2d, x: Tensor) -> None:
    results = []
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    for fast in (False, True):
        layer.zero_grad()
        x.grad = None
        if fast:
            with fast_convolutions(layer):
                assert "forward" in vars(layer)
                y = layer(x)
        else:
            y = layer(x)
        (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for plain, fast_one in zip(*results, strict=True):
        torch.testing.assert_close(fast_one, plain)


def test_fast_convolutions_leave_no_trace_and_touch_no_subclass() -> None:
    class Other(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    module = nn.Sequential(nn.Conv2d(4, 4, 1), Other(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(RuntimeError), fast_convolutions(module):
        assert ["forward" in vars(layer) for layer in module] == [True, False, False]  # the last one is not padded
        with fast_convolutions(module):
            pass
        assert "forward" in vars(module[0])
        raise RuntimeError
    assert not any("forward" in vars(layer) for layer in module)
