"""The proxy evaluator: same seed, same score; expected failures as EvaluationFailed; the network's cost untouched."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convnets.arch import Arch, Stage, Stem
from convnets.errors import InputError
from nas.evaluator import EvaluationFailed, measure
from nas.evaluators.proxy import Proxy
from training.dataset import Dataset, Images
from training.recipe import Recipe

TINY = Arch(Stem(8), (Stage("mbconv", 3, 2, 8, 1, expand=2.0, se_ratio=0.25),), head_channels=16)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def proxy(lr: float = 0.05) -> Proxy:
    random = np.random.default_rng(0)
    labels = np.arange(48) % 3
    pixels = (random.integers(0, 60, (48, 8, 8, 1)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    images = Images(pixels, labels)
    recipe = Recipe(epochs=3, batch_size=8, lr=lr, recalibrate=24)
    return Proxy(Dataset(images, images, ("a", "b", "c")), recipe, resolution=12, stem_stride=1)


def test_it_scores_each_epoch_and_ends_with_a_final_one() -> None:
    steps = [(step, measurement.final) for step, measurement in measure(proxy(), TINY, 0)]
    assert steps == [(1, False), (2, False), (3, True)]


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


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(proxy()(TINY, 1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{"resolution": 0}, {"stem_stride": 1.5}, {"resolution": True}])
def test_bad_settings_are_named(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Proxy(proxy().data, **settings)  # type: ignore[arg-type]
