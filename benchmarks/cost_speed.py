"""How long one count of EfficientNet-B0 takes: our `cost` beside torch's FlopCounterMode on the meta device.

python -m benchmarks.cost_speed

A search counts every candidate, the refused ones too, before anything is trained. Both are timed in this process, in
turns, on one thread. FlopCounterMode has to be given a module; the time to build it is shown apart. `cost` remembers
the counts of stages: the ratio is taken without that memory, and the time with it, which is what a search sees once it
has met the few stages of its space, is shown beside it.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from phinas.networks.build import build
from phinas.networks.cost import cost, count_stage
from phinas.networks.reference import EFFICIENTNET_B0

ROUNDS = 20
COUNTS_PER_ROUND = 100  # one count is too short to be timed alone


def build_on_meta() -> torch.nn.Module:
    with torch.device("meta"):
        return build(EFFICIENTNET_B0).eval()


def flops_on_meta(net: torch.nn.Module) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops()


def cost_from_nothing() -> None:
    count_stage.cache_clear()
    cost(EFFICIENTNET_B0)


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def report(name: str, times: list[float], unit: float = 1e-6) -> None:
    low, median, high = (quantile / unit for quantile in statistics.quantiles(times, n=4))
    least = min(times) / unit
    print(f"{name:24} median {median:9.1f} us, quartiles {low:.1f} - {high:.1f}, least {least:.1f}, n = {len(times)}")


def processor() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    torch.set_num_threads(1)
    net = build_on_meta()
    assert flops_on_meta(net) == 2 * cost(EFFICIENTNET_B0).macs
    ours, remembered, building, torchs = [], [], [], []
    for _ in range(ROUNDS):
        ours.append(seconds(cost_from_nothing, COUNTS_PER_ROUND))
        remembered.append(seconds(lambda: cost(EFFICIENTNET_B0), COUNTS_PER_ROUND))
        building.append(seconds(build_on_meta))
        torchs.append(seconds(lambda: flops_on_meta(net)))
    print(f"{processor()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} thread; load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    report("cost(B0)", ours)
    report("cost(B0), stages known", remembered)
    report("build on meta", building)
    report("FlopCounterMode on meta", torchs)
    print(f"ratio of the medians of counting alone: {statistics.median(torchs) / statistics.median(ours):,.0f}")


if __name__ == "__main__":
    main()
