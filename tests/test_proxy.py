"""The proxy evaluator: same seed, same score; expected failures as EvaluationFailed; the network's cost untouched."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.evaluators.proxy import Proxy
from phinas.engines.evaluator import EvaluationFailed, measure
from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.samples import samples
from phinas.training.short.recipe import Recipe
from tests.conftest import Clock

TINY = Arch(Stem(8), (Stage("mbconv", 3, 2, 8, 1, expand=2.0, se_ratio=0.25),), head_channels=16)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def proxy(lr: float = 0.05, **settings: Any) -> Proxy:
    random = np.random.default_rng(0)
    labels = np.arange(48) % 3
    pixels = (random.integers(0, 60, (48, 8, 8, 1)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    images = Images(pixels, labels)
    recipe = Recipe(epochs=3, batch_size=8, lr=lr, recalibrate=24)
    settings = {"recipe": recipe, "resolution": 12, "stem_stride": 1} | settings
    return Proxy(Dataset(images, images, ("a", "b", "c")), **settings)


def test_it_scores_each_epoch_and_ends_with_a_final_one() -> None:
    steps = [(step, measurement.final) for step, measurement in measure(proxy(), TINY, 0)]
    assert steps == [(1, False), (2, False), (3, True)]


def test_it_scores_seldom_if_asked_to_and_trains_the_same() -> None:
    seldom = proxy(score_every=2)
    always, scored = list(proxy()(TINY, 0)), list(seldom(TINY, 0))
    assert scored == always[1:]  # after the second and the third, which is the last
    assert (seldom.epochs, proxy().epochs, proxy(score_every=9).epochs) == (len(scored), 3, 1)


def test_the_seed_decides_the_score_also_after_pickling() -> None:
    evaluator = proxy()
    first = list(evaluator(TINY, 5))
    shipped = pickle.loads(pickle.dumps(evaluator))
    assert first == list(evaluator(TINY, 5)) == list(shipped(TINY, 5))
    assert len(pickle.dumps(evaluator)) < len(pickle.dumps(proxy())) + 500  # no tensors travel
    assert first[-1].accuracy > 0.5 and type(first[-1].accuracy) is float


def test_it_adapts_an_arch_to_the_data_only_while_training() -> None:
    adapted = proxy().adapted(TINY)
    assert isinstance(adapted, Arch)
    assert (adapted.resolution, adapted.in_channels, adapted.classes, adapted.stem.stride) == (12, 1, 3, 1)
    assert adapted.stages == TINY.stages and (TINY.resolution, TINY.stem.stride) == (224, 2)


def test_each_network_is_trained_at_its_own_resolution() -> None:
    evaluator = proxy(resolution="network")
    for side in (12, 9, 20, 12):  # the first is placed anew after two others
        assert list(evaluator(replace(TINY, resolution=side), 1)) == list(proxy(resolution=side)(TINY, 1))
        adapted = evaluator.adapted(replace(TINY, resolution=side))
        assert isinstance(adapted, Arch) and (adapted.resolution, adapted.classes) == (side, 3)
        assert len(evaluator._samples) <= 2  # images of more sizes than that would fill the memory
    assert evaluator.adapted(proxy(resolution=20).adapted(TINY)) == proxy(resolution=20).adapted(TINY)


def test_it_says_whether_it_enlarges_images() -> None:
    """They are of 8 x 8 pixels."""
    evaluator = proxy(resolution="network")
    assert [evaluator.enlarges(replace(TINY, resolution=side)) for side in (4, 8, 9)] == [False, False, True]
    assert proxy(resolution=9).enlarges(TINY) and not proxy(resolution=None).enlarges(TINY)


def test_divergence_is_a_failed_evaluation() -> None:
    with pytest.raises(EvaluationFailed, match="loss is (nan|inf) at step"):
        list(proxy(lr=1e30)(TINY, 0))


@dataclass(frozen=True)
class Custom:
    """A user's network that is no Arch."""

    classes: int = 3
    error: str = ""

    def key(self) -> str:
        return "custom"

    def build(self) -> nn.Module:
        return Fails(self.error) if self.error else nn.Sequential(nn.Flatten(), nn.Linear(144, self.classes))


@dataclass(frozen=True)
class Sized(Custom):
    """It fails at any other side than its own."""

    input_shape: tuple[int, ...] = (1, 10, 10)

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(self.input_shape[1] ** 2, 3))


class Fails(nn.Module):
    def __init__(self, error: str) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(self.error)


def test_other_networks_are_built_as_they_are() -> None:
    assert len(list(proxy()(Custom(), 0))) == 3
    with pytest.raises(InputError, match="the network gives .2. per image; the data has 3 classes"):
        list(proxy()(Custom(classes=2), 0))


def test_the_resolution_of_other_networks_is_that_of_their_input_shape() -> None:
    evaluator = proxy(resolution="network")
    for network in (Sized(), Sized(input_shape=(1, 7, 7))):
        evaluator.check(network)
        assert len(list(evaluator(network, 0))) == 3
    evaluator.check(TINY)
    with pytest.raises(InputError, match="^evaluator.resolution=network: a network has no input_shape; it must be"):
        evaluator.check(Custom())
    with pytest.raises(InputError, match="a network has input_shape .1, 7, 8.; it must be .channels, side, side.$"):
        evaluator.check(Sized(input_shape=(1, 7, 8)))
    proxy().check(Custom())


OUT_OF_MEMORY = [
    "[enforce fail] DefaultCPUAllocator: can't allocate memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
]


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_out_of_memory_is_a_failed_evaluation_and_a_bug_is_a_bug(message: str) -> None:
    with pytest.raises(EvaluationFailed, match="out of memory at batch 8, 12 x 12 pixels"):
        list(proxy()(Custom(error=message), 0))
    with pytest.raises(RuntimeError, match="a bug"):
        list(proxy()(Custom(error="a bug"), 0))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_data_that_do_not_fit_are_the_users_to_mend(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def raises(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("nas.evaluators.proxy.samples", raises)
    with pytest.raises(InputError, match="the data's 96 images do not fit into .*; lower evaluator.resolution or"):
        list(proxy()(TINY, 0))
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        list(proxy()(TINY, 0))


def test_images_of_other_sizes_make_room_before_memory_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = proxy(resolution="network")

    def placed(*arguments: Any) -> Any:
        if evaluator._samples:
            raise MemoryError
        return samples(*arguments)

    monkeypatch.setattr("nas.evaluators.proxy.samples", placed)
    for side in (12, 9):
        assert len(list(evaluator(replace(TINY, resolution=side), 1))) == 3


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(proxy()(TINY, 1))
    proxy().forecast(TINY)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"resolution": 0}, "a whole number, from 1 to 4096, null, or network"),
        ({"resolution": True}, "a whole number, from 1 to 4096, null, or network"),
        ({"resolution": "Network"}, "a whole number, from 1 to 4096, null, or network"),
        ({"stem_stride": 1.5}, "a whole number, 1 or more"),
        ({"score_every": 0}, "a whole number, 1 or more"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], allowed: str) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(InputError, match=f"^evaluator.{name}={value}: it must be {allowed}$"):
        proxy(**settings)


# ------------------------------------------------------------------------------------------------------------ forecast


class Takes(nn.Module):
    """2 ms an image, on a clock that nothing else moves."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.linear = nn.Linear(144, 3)
        self.clock = clock

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += 0.002 * len(x)
        logits: torch.Tensor = self.linear(x.flatten(1))
        return logits


@dataclass(frozen=True)
class Timed(Custom):
    clock: Clock = field(kw_only=True)

    def build(self) -> nn.Module:
        return Takes(self.clock)


@pytest.mark.parametrize(
    ("recipe", "score_every", "images"),
    [
        (Recipe(epochs=1, batch_size=8, recalibrate=24), 1, 48 + 24 + 48),  # trained, recalibrated, scored
        (Recipe(epochs=20, batch_size=8, recalibrate=24), 1, 20 * (48 + 24 + 48)),
        (Recipe(epochs=20, batch_size=8, recalibrate=0), 1, 20 * (48 + 48)),
        (Recipe(epochs=20, batch_size=20, recalibrate=512), 10, 20 * 40 + 2 * (48 + 48)),  # a last batch is left out
        (Recipe(epochs=20, batch_size=40, recalibrate=0), 1, 20 * (40 + 48)),
    ],
)
def test_the_forecast_is_of_all_steps_and_scorings(recipe: Recipe, score_every: int, images: int, clock: Clock) -> None:
    assert proxy(recipe=recipe, score_every=score_every).forecast(Timed(clock=clock)) == pytest.approx(0.002 * images)


def test_a_forecast_fails_as_an_evaluation_does_but_takes_no_step_that_could_diverge() -> None:
    with pytest.raises(EvaluationFailed, match="out of memory at batch 8, 12 x 12 pixels"):
        proxy().forecast(Custom(error=OUT_OF_MEMORY[0]))
    assert proxy(lr=1e30).forecast(TINY) > 0
