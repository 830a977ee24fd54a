"""Two workers are one with all of their images: in batch norm, and in what else they say to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist

from phinas.networks.build import build
from phinas.training.data.in_memory import InMemoryData
from phinas.training.full.training_loop import TrainingState, train
from phinas.training.scoring import evaluate
from phinas.training.workers.batch_norm import norm_workers, norms_over
from phinas.training.workers.worker_group import WorkerGroup, worker_group
from tests.test_fit import CPU, RECIPE, TINY, some_data

WORKERS = 2


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=1e-3), nn.SiLU(), nn.Conv2d(6, 5, 1))
    layers.append(nn.BatchNorm2d(5, momentum=None))
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return layers


def images(channels: int = 3) -> Tensor:
    """[8, channels, 7, 5], the first half unlike the second."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, channels, 7, 5, generator=generator) * torch.linspace(0.1, 3, 8)[:, None, None, None]


def trained(module: nn.Module, x: Tensor, whole: int) -> dict[str, Any]:
    """Outputs, gradients and statistics after two steps on x, of a loss that is a mean over the whole batch."""
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    module.train()
    for _ in range(2):
        y = module(x)
        loss = (y.float() ** 2 * torch.linspace(0, 1, y.shape[-1])).sum() / whole
        loss.backward()  # type: ignore[no-untyped-call]
    module.eval()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "gradients": gradients, "state": module.state_dict(), "scored": module(x)}


def work(rank: int, folder: str) -> None:
    """What one of the workers does with its half of the images."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=WORKERS)
    group, found = dist.group.WORLD, {}
    for name, module, x in cases():
        with norms_over(None if name == "alone" else group, module):
            found[name] = trained(module, x.chunk(WORKERS)[rank], 8)
        assert not any("forward" in vars(layer) for layer in module.modules())
    together = worker_group(1)
    found["averaged"] = averaged(together)
    found["told"] = [together.broadcast(rank), together.broadcast_flag(rank == 0), together.broadcast_flag(rank == 1)]
    found["learnt"] = learnt(together)
    found["one image"] = scored(together, 1)
    torch.save(found, f"{folder}/{rank}.pt")


def averaged(group: WorkerGroup) -> dict[str, Any]:
    """A number and statistics that each worker has of its own, made alike."""
    module, number = net().train(), torch.tensor(float(group.shard.rank))
    module(images()[group.shard.part(8)])
    own = {name: buffer.clone() for name, buffer in module.named_buffers()}
    group.average(number, module)
    return {"number": number, "own": own, "alike": dict(module.named_buffers())}


def learnt(group: WorkerGroup) -> dict[str, Any]:
    """What comes of a short training without norms; several workers compute their shares in two parts."""
    recipe = replace(RECIPE, recalibrate=0, head_only=True, accumulate=group.shard.world_size)
    source = InMemoryData(some_data(), None)
    batches = source.batches(recipe, 0, 8, CPU, group.shard)
    training = TrainingState(build(replace(TINY, dropout=0.0), 0), recipe, batches.steps, CPU)
    forward, held_out = group.data_parallel(training.module), source.held_out(recipe, 8, CPU, group.shard)
    epochs = list(train(training, batches, held_out, recipe, 0, forward=forward, workers=group))
    return {
        "losses": training.losses,
        "weights": training.module.state_dict(),
        "average": training.average.module.state_dict() if training.average else None,
        "scores": [asdict(epoch.score) for epoch in epochs],
    }


def scored(group: WorkerGroup, count: int) -> dict[str, float]:
    """Of so few images that some workers have none."""
    data = some_data()
    source = InMemoryData(replace(data, val=data.val[np.arange(count)]), None)
    return asdict(evaluate(build(TINY, 0), source.held_out(RECIPE, 8, CPU, group.shard), None, group))


def cases() -> Iterator[tuple[str, nn.Module, Tensor]]:
    yield "net", net(), images()
    yield "far", net()[1:2], images(6) + 1000  # type: ignore[index]
    yield "half", net()[1:2], images(6).bfloat16()  # type: ignore[index]
    yield "alone", net(), images()


def whole(wanted: str, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """What one worker finds with all the images of a case."""
    (module, x), *_ = [(module, x) for name, module, x in cases() if name == wanted]
    return trained(module if dtype is None else module.to(dtype), x if dtype is None else x.to(dtype), 8)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What each worker found."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, (str(folder),), WORKERS)  # type: ignore[attr-defined, no-untyped-call]
    yield [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_one_worker_in_its_group_is_torchs_own(tmp_path: Path, dtype: torch.dtype) -> None:
    """CUDA's kernel for channels_last reads the moments elsewhere than the CPU's."""
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        x = images(6).to("cuda", dtype).contiguous(memory_format=torch.channels_last)
        gradients = []
        for group in (dist.group.WORLD, None):
            layer, given = nn.BatchNorm2d(6).cuda().train(), x.clone().requires_grad_()
            with norms_over(group, layer):
                (layer(given).float() ** 2 * torch.linspace(0, 1, 5, device="cuda")).sum().backward()
            gradients.append(given.grad)
        torch.testing.assert_close(*gradients, atol=2e-2 if dtype is torch.bfloat16 else 1e-5, rtol=1e-2)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_values_gradients_and_statistics_are_the_whole_batchs(found: list[dict[str, Any]]) -> None:
    wanted, parts = whole("net"), [one["net"] for one in found]
    for name in ("y", "x", "scored"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), wanted[name], atol=1e-5, rtol=1e-4)
    for name, gradient in wanted["gradients"].items():
        total = torch.stack([part["gradients"][name] for part in parts]).sum(0)
        torch.testing.assert_close(total, gradient, atol=1e-4, rtol=1e-4)
    for part in parts:
        torch.testing.assert_close(part["state"], wanted["state"], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_far_from_zero_nothing_cancels(found: list[dict[str, Any]]) -> None:
    """E[x^2] - E[x]^2 of values near 1000 in float32 is wrong by 0.1; torch's own norm is the measure."""
    exact, own = whole("far", torch.float64), whole("far")
    for name in ("y", "x"):
        both = torch.cat([one["far"][name] for one in found])
        error = (own[name] - exact[name]).abs().max().item()
        torch.testing.assert_close(both.double(), exact[name], atol=2 * error, rtol=0)


@pytest.mark.slow
def test_bfloat16_is_normalised_by_float32_moments(found: list[dict[str, Any]]) -> None:
    wanted = whole("half")
    torch.testing.assert_close(torch.cat([one["half"]["y"] for one in found]), wanted["y"])
    torch.testing.assert_close(torch.cat([one["half"]["x"] for one in found]), wanted["x"], atol=0.05, rtol=0.05)
    for one in found:
        torch.testing.assert_close(one["half"]["state"], wanted["state"])


@pytest.mark.slow
def test_without_a_group_each_has_its_own(found: list[dict[str, Any]]) -> None:
    for one, part in zip(found, images().chunk(WORKERS), strict=True):
        torch.testing.assert_close(one["alone"], trained(net(), part, 8))


@pytest.mark.slow
def test_statistics_of_their_own_are_averaged(found: list[dict[str, Any]]) -> None:
    one, other = (part["averaged"] for part in found)
    assert one["number"] == other["number"] == 0.5
    for name, alike in one["alike"].items():
        assert torch.equal(alike, other["alike"][name])
        if "running" in name:
            assert not torch.equal(one["own"][name], other["own"][name])
            torch.testing.assert_close(alike, (one["own"][name] + other["own"][name]) / 2)


@pytest.mark.slow
def test_the_first_is_heard_by_all(found: list[dict[str, Any]]) -> None:
    assert [part["told"] for part in found] == [[0, True, False]] * WORKERS


@pytest.mark.slow
def test_they_learn_what_one_does(found: list[dict[str, Any]]) -> None:
    wanted = learnt(WorkerGroup())
    assert wanted["losses"][-1] > 0 and not torch.equal(
        wanted["weights"]["classifier.weight"], build(TINY, 0).classifier.weight
    )
    for part in found:
        torch.testing.assert_close(part["learnt"], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_one_may_have_nothing_to_score(found: list[dict[str, Any]]) -> None:
    wanted = scored(WorkerGroup(), 1)
    for part in found:
        assert part["one image"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("workers", "images", "over"),
    [(1, 4, 1), (2, 16, 2), (2, 32, 1), (8, 256, 1), (16, 128, 8), (128, 32, 16), (12, 64, 12), (20, 64, 10)],
)
def test_over_how_many_workers(workers: int, images: int, over: int) -> None:
    """Of tensorflow/tpu's groups, max(8, workers // 8), where workers have many images."""
    assert norm_workers(workers, images) == over
