"""Timing side by side: turns are fair, ratios cancel drift, and the process is as it was."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from phinas.files.errors import DoesNotFit, InputError
from phinas.measure import machine, timing
from phinas.measure.machine import Load, watch_load
from phinas.measure.timing import Ratio, ThisMachine, Timing, initialised, prepared, random_images, timed
from phinas.networks.reference import EFFICIENTNET_B0
from tests.conftest import Clock

_BURN = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"
SMALL = replace(EFFICIENTNET_B0, stages=EFFICIENTNET_B0.stages[:2], resolution=32)


def test_ratios_cancel_drift(clock: Clock) -> None:
    """A machine that gets ever slower: times double, what is twice as long stays so."""

    def slowed(seconds: float) -> Callable[[], float]:
        return lambda: seconds * (1 + clock.now / 10)

    short, long = timed([clock.lasting("a", slowed(0.05)), clock.lasting("b", slowed(0.1))], "cpu", seconds=5)
    assert (short.upper - short.lower) / short.median > 0.15  # what drift does to times
    assert short.ratio == Ratio(1.0, 1.0, 1.0)
    assert long.ratio.median == pytest.approx(2, rel=0.02) and long.ratio.upper - long.ratio.lower < 0.1


def test_quick_passes_repeat_within_their_turn_and_slow_ones_do_not(clock: Clock) -> None:
    quick, slow = timed([clock.lasting("q", lambda: 0.01), clock.lasting("s", lambda: 1.0)], "cpu", seconds=1)
    assert slow.passes == 5 and 40 <= quick.passes <= 50 and slow.ratio.median == pytest.approx(100)
    assert clock.now < 12  # the warm-up, and five rounds


def test_the_first_pass_of_a_turn_does_not_count(clock: Clock) -> None:
    """It finds the caches as another left them."""

    def cold() -> float:
        return 0.02 if clock.order[-2:] == ["a", "a"] else 0.06

    one, _ = timed([clock.lasting("a", cold), clock.lasting("b", lambda: 0.03)], "cpu", seconds=1)
    assert one.median == one.upper == pytest.approx(0.02)


def test_turns_come_in_changing_order(clock: Clock) -> None:
    timed([clock.lasting(name, lambda: 0.2) for name in "abc"], "cpu", spread=0.0, seconds=4)
    rounds = ["".join(clock.order[place : place + 3]) for place in range(len(clock.order) - 30, len(clock.order), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds) and len(set(rounds)) > 3


@pytest.mark.parametrize("count", [1, 3])
def test_steady_passes_end_early_and_unsteady_ones_in_time(clock: Clock, count: int) -> None:
    steady = timed([clock.lasting("a", lambda: 0.3)] * count, "cpu", seconds=100)
    assert [one.passes for one in steady] == [20] * count
    start, calls = clock.now, iter(range(10**6))
    timed([clock.lasting("a", lambda: 0.1 + 0.1 * (next(calls) % 2))] * count, "cpu", seconds=10)
    assert clock.now - start < 14 * count


def test_what_compiles_itself_at_first_does_so_before_the_clock_counts(clock: Clock) -> None:
    calls = iter(range(10**6))
    found = timed([clock.lasting("a", lambda: 60.0 if next(calls) == 0 else 0.01)], "cpu")[0]
    assert found.upper == pytest.approx(0.01)


def test_nothing_takes_no_time() -> None:
    assert timed([], "cpu") == []


@pytest.mark.parametrize("backend", ["eager", "folded", "onnx"])
def test_the_process_is_as_it_was(backend: str) -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    ThisMachine("cpu", threads=before + 1, seconds=0.02, backend=backend).timing(SMALL)
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)


def test_a_network_of_the_users_own_is_measured() -> None:
    class Mine:
        input_shape = (1, 16, 16)

        def key(self) -> str:
            return "mine"

        def build(self) -> nn.Module:
            layers = (nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 3))

    for backend in ("eager", "folded"):
        costs = ThisMachine(kind="cpu", seconds=0.02, backend=backend).costs(Mine())
        assert costs["throughput"] == pytest.approx(1 / costs["latency"]) and costs["latency"] > 0


def test_forms_compute_the_same_from_the_same_seed() -> None:
    images = random_images(SMALL, "cpu", 2)
    plain = prepared(initialised(SMALL, seed=3), "eager", images).run()
    for backend in ("folded", "onnx"):
        assert torch.allclose(prepared(initialised(SMALL, seed=3), backend, images).run(), plain, atol=1e-6)
    assert not torch.allclose(prepared(initialised(SMALL, seed=4), "eager", images).run(), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "fast"}, "backend=fast: it must be one of eager, folded, compiled, onnx"),
        ({"dtype": "int8"}, "dtype=int8: it must be one of float32, bfloat16, float16"),
        ({"dtype": "float16"}, "dtype=float16: it is for CUDA"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "dtype=bfloat16: backend=onnx computes in float32"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ThisMachine(kind="cpu", **settings)


def test_bfloat16_on_a_cpu() -> None:
    assert ThisMachine(kind="cpu", seconds=0.02, dtype="bfloat16").timing(SMALL).median > 0


def test_latency_and_throughput_are_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThisMachine, "timing", lambda self, network: Timing(0.2, 0.1, 0.3, passes=5))
    assert ThisMachine(kind="cpu", batch_size=4).costs(SMALL) == pytest.approx({"latency": 0.05, "throughput": 20})


def test_out_of_memory_is_expected_and_a_bug_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_with(error: Exception) -> Any:
        def build(network: object) -> None:
            raise error

        return build

    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        Exception("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 822083584"),
    ):
        monkeypatch.setattr(timing, "build_network", fails_with(error))
        with pytest.raises(DoesNotFit, match="out of memory at batch 1 on cpu"):
            ThisMachine("cpu").timing(SMALL)
    monkeypatch.setattr(timing, "build_network", fails_with(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        ThisMachine("cpu").timing(SMALL)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_on_cuda_memory_is_told(dtype: str) -> None:
    memory = ThisMachine("cuda", seconds=0.2, dtype=dtype).timing(SMALL).memory
    assert memory is not None and memory > 2 * 1000 * 1280  # the classifier at least


# --- the load of the machine -----------------------------------------------------------------------------------------


def test_own_work_is_no_load_and_that_of_others_is(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own, now = iter([100.0, 106.0]), iter([50.0, 53.0]), iter([0.0, 4.0])
    monkeypatch.setattr(machine, "_busy", lambda cores: next(busy))
    monkeypatch.setattr(machine, "_own", lambda: next(own))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(now))
    assert watch_load()().others == pytest.approx(3 / 4)


def test_own_work_is_that_of_all_threads_and_children() -> None:
    before, end = machine._own(), time.monotonic() + 0.3
    workers = [threading.Thread(target=subprocess.run, args=(["sh", "-c", _BURN],)) for _ in range(2)]
    for worker in workers:
        worker.start()
    while time.monotonic() < end:
        pass
    for worker in workers:
        worker.join()
    assert machine._own() - before > 0.1  # less than 0.3 each where others take the cores


def test_a_few_busy_cores_of_many_do_not_disturb() -> None:
    assert Load(2, 0.4).disturbs and not Load(2, 0.1).disturbs
    assert Load(64, 8.0).disturbs and not Load(64, 3.0).disturbs
