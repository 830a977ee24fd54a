"""The memory model against what autograd keeps and what is alive while PyTorch runs, storage by storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from phinas.files.errors import InputError
from phinas.networks.arch import SKIPS, Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.compound import PAPER, compound
from phinas.networks.cost import cost
from phinas.networks.memory import OPTIMISERS, memory
from phinas.networks.reference import EFFICIENTNET_B0, RESNET_50, reference

REFERENCES = (
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "mnasnet_a1",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet50",
)


def _unusual(activation: str, skip: str, **other: Any) -> Arch:
    """Every kind of block, with squeeze-excitation where it may be, at an odd resolution."""
    kinds = [("conv", 1.0), ("linear", 1.0), ("separable", 1.0), ("mbconv", 1.0), ("mbconv", 3.0), ("bottleneck", 0.5)]
    stages = tuple(
        Stage(block, 3, 2 - index % 2, 16 + 8 * index, 2, expand, 0.25 * (block != "bottleneck" and index > 0), skip)
        for index, (block, expand) in enumerate(kinds)
    )
    return Arch(Stem(16, pool=skip == "pool"), stages, 64, activation, resolution=75, classes=10, **other)


UNUSUAL = [
    _unusual(activation, skip, drop_connect=0.2 * (skip != "pool"), dropout=0.2 * (skip != "none"))
    for activation, skip in zip(("silu", "relu", "hardswish", "relu6"), SKIPS, strict=True)
]


def _on(device: str, arch: Arch, batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    with torch.device(device):
        images = torch.zeros(batch, arch.in_channels, arch.resolution, arch.resolution)
        return build(arch), images, torch.zeros(batch, dtype=torch.long)


def _autocast(device: str, dtype: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16) if dtype == "bfloat16" else nullcontext()


def _kept_by_autograd(arch: Arch, batch: int, device: str = "meta", dtype: str = "float32") -> int:
    """Bytes of the storages that one forward pass and its loss save, but for parameters and buffers."""
    net, images, labels = _on(device, arch, batch)
    own = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _autocast(device, dtype):
        functional.cross_entropy(net(images), labels)
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of all storages that are alive, from `tensors` on; `peak` is the most after any operation."""

    def __init__(self, tensors: Iterable[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: dict[int, tuple[Any, int]] = {}
        self._most = self.peak = 0
        self._see(tensors)

    def _see(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._most -= self._seen.get(storage._cdata, (None, 0))[1]
                self._seen[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
                self._most += storage.nbytes()
        if self._most > self.peak:  # unless some are gone
            self._seen = {address: seen for address, seen in self._seen.items() if not seen[0].expired()}
            self._most = sum(size for _, size in self._seen.values())
            self.peak = max(self.peak, self._most)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self._see(result if isinstance(result, (tuple, list)) else [result])
        return result


# As on a GPU; fused optimisers have no meta kernels, and allocate nothing.
_OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, foreach=False),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.1, momentum=0.9, weight_decay=1e-5, foreach=True),
}


def _trained(
    arch: Arch, batch: int, optimiser: str, watched: Callable[[list[Any]], AbstractContextManager[Any]],
    device: str = "meta", dtype: str = "float32",
) -> None:  # fmt: skip
    """Two steps in the order of `phinas.training.short.training_loop`; the second one is watched."""
    net, images, labels = _on(device, arch, batch)
    used = _OPTIMISERS[optimiser](net.parameters())
    for watch in (lambda _: nullcontext(), watched):
        state = [value for values in used.state.values() for value in values.values()]
        with watch([*net.parameters(), *net.buffers(), *state, *(p.grad for p in net.parameters()), images, labels]):
            with _autocast(device, dtype):
                logits = net(images)
                loss = functional.cross_entropy(logits, labels)
            used.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            used.step()


def _peak_of_training(arch: Arch, batch: int, optimiser: str = "sgd", **where: str) -> int:
    found: list[_Live] = []

    def watched(tensors: list[Any]) -> _Live:
        found.append(_Live(tensors))
        return found[0]

    _trained(arch, batch, optimiser, watched, **where)
    return found[0].peak


def _peak_of_inference(arch: Arch, batch: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> int:
    net, images, _ = _on(device, arch, batch)
    net, images = net.eval().to(dtype), images.to(dtype)
    with torch.no_grad(), _Live([*net.parameters(), *net.buffers(), images]) as live:
        net(images)
    return int(live.peak)


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("name", REFERENCES)
def test_activations_are_what_autograd_keeps_of_the_reference_networks(name: str, batch: int) -> None:
    arch = reference(name)
    assert memory(arch, batch).activations == _kept_by_autograd(arch, batch)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_peak_is_what_is_alive_in_the_reference_networks(name: str) -> None:
    arch = reference(name)
    for optimiser, batch in (("rmsprop", 1), ("sgd", 8)):
        total = memory(arch, batch, optimiser=optimiser, ema=False).total
        assert total == pytest.approx(_peak_of_training(arch, batch, optimiser), rel=1e-4)
    assert memory(arch, 4, "infer").total == pytest.approx(_peak_of_inference(arch, 4, "meta"), rel=1e-4)


@pytest.mark.parametrize("arch", UNUSUAL, ids=lambda arch: f"{arch.activation}-{arch.stages[0].skip}")
def test_the_model_is_exact_for_every_block_activation_and_shortcut(arch: Arch) -> None:
    for batch in (2, 5):
        assert memory(arch, batch).activations == _kept_by_autograd(arch, batch, "cpu")
        # Batch norms in evaluation mode may put out statistics of no use, a few hundred bytes.
        assert memory(arch, batch, "infer").total == pytest.approx(_peak_of_inference(arch, batch), rel=3e-4)
        peak = _peak_of_training(arch, batch, device="cpu")
        assert memory(arch, batch, optimiser="sgd", ema=False).total == pytest.approx(peak, rel=2e-4)


@pytest.mark.parametrize("arch", [*UNUSUAL, replace(EFFICIENTNET_B0, resolution=64), replace(RESNET_50, resolution=64)])
def test_bfloat16_is_autocast_in_training_and_the_whole_network_at_inference(arch: Arch) -> None:
    """The CPU's autocast casts the same layers as CUDA's but for the loss, and keeps copies of the biases besides."""
    kept = _kept_by_autograd(arch, 4, "cpu", "bfloat16")
    assert memory(arch, 4, dtype="bfloat16").activations == pytest.approx(kept, rel=2e-3)
    peak = _peak_of_inference(arch, 4, dtype=torch.bfloat16)
    assert memory(arch, 4, "infer", "bfloat16").total == pytest.approx(peak, rel=3e-4)
    peak = _peak_of_training(arch, 4, device="cpu", dtype="bfloat16")
    assert memory(arch, 4, dtype="bfloat16", optimiser="sgd", ema=False).total == pytest.approx(peak, rel=2e-3)


def test_what_stays_is_counted_in_copies_of_the_weights() -> None:
    params = cost(EFFICIENTNET_B0).params
    statistics = sum(buffer.nbytes for buffer in build(EFFICIENTNET_B0).buffers())
    for optimiser, copies in (("sgd", 1), ("rmsprop", 2), ("adamw", 2)):
        found = memory(EFFICIENTNET_B0, 8, optimiser=optimiser, ema=True)
        assert (found.weights, found.gradients) == (4 * params + statistics, 4 * params)
        assert found.optimiser == copies * 4 * params + found.weights
        assert found.optimiser - memory(EFFICIENTNET_B0, 8, optimiser=optimiser, ema=False).optimiser == found.weights
        assert found.total == sum(vars(found).values())
    found = memory(EFFICIENTNET_B0, 8, "infer")
    assert (found.weights, found.gradients, found.optimiser, found.activations) == (4 * params + statistics, 0, 0, 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("baseline", [EFFICIENTNET_B0, RESNET_50])
def test_memory_grows_with_the_batch_and_with_phi(baseline: Arch, mode: str, dtype: str) -> None:
    batches = [memory(baseline, batch, mode, dtype) for batch in range(1, 20)]
    assert all(small.total < large.total for small, large in zip(batches, batches[1:], strict=False))
    steps = {large.activations - small.activations for small, large in zip(batches, batches[1:], strict=False)}
    assert len(steps) == 1  # linear in the batch, to the byte
    phis = [memory(compound(baseline, PAPER, phi / 4), 8, mode, dtype).total for phi in range(12)]
    assert phis == sorted(phis)


def test_half_precision_halves_the_maps_and_inference_needs_far_less() -> None:
    whole, half = (memory(EFFICIENTNET_B0, 64, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert 0.49 < half.activations / whole.activations < 0.53
    assert memory(EFFICIENTNET_B0, 64, "infer").total < whole.total / 5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 0}, "batch_size=0: it must be a whole number, 1 or more"),
        ({"mode": "test"}, "mode=test: allowed: train, infer"),
        ({"dtype": "float16"}, "dtype=float16: allowed: float32, bfloat16"),
        ({"optimiser": "lion"}, f"optimiser=lion: allowed: {', '.join(OPTIMISERS)}"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        memory(EFFICIENTNET_B0, **settings)


def test_a_network_of_a_billion_blocks_is_refused_at_once() -> None:
    stages = (replace(EFFICIENTNET_B0.stages[0], repeats=10**9),)
    with pytest.raises(InputError, match="1,000,000,000 blocks: memory is counted for at most 100,000"):
        memory(replace(EFFICIENTNET_B0, stages=stages))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", REFERENCES)
def test_cuda_allocates_what_the_model_says(name: str, dtype: str) -> None:
    def allocated(_tensors: list[Any]) -> AbstractContextManager[Any]:
        torch.cuda.reset_peak_memory_stats()
        return nullcontext()

    arch = reference(name)
    torch.cuda.empty_cache()
    _trained(arch, 32, "rmsprop", allocated, "cuda", dtype)
    measured = torch.cuda.max_memory_allocated()
    assert memory(arch, 32, dtype=dtype, ema=False).total == pytest.approx(measured, rel=0.15)
    _inferred(arch, dtype)
    assert memory(arch, 32, "infer", dtype).total == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.15)


def _inferred(arch: Arch, dtype: str) -> None:
    net, images, _ = _on("cuda", arch, 32)
    net, images = net.eval().to(getattr(torch, dtype)), images.to(getattr(torch, dtype))
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        net(images)
