"""How busy other processes keep the cores meanwhile, which is what spoils measurements of time unseen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Load:
    """What the cores of this process did over a while.

    cores   how many it may use.
    others  how many of them, on average, worked for other processes, or for other guests of the host.
    """

    cores: int
    others: float

    @property
    def disturbs(self) -> bool:
        """Whether figures measured meanwhile are those of a busy machine."""
        return self.others > max(0.25, 0.1 * self.cores)


def watch_load() -> Callable[[], Load]:
    """Starts to watch; what it returns gives the load since then."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    start, busy, own = time.monotonic(), _busy(cores), _own()

    def load() -> Load:
        seconds = max(time.monotonic() - start, 1e-9)
        others = (_busy(cores) - busy - (_own() - own)) / seconds
        return Load(len(cores), min(max(others, 0.0), float(len(cores))))

    return load


def _busy(cores: list[int]) -> float:
    """Seconds that these cores have not been idle since the machine started."""
    times = psutil.cpu_times(percpu=True)
    kinds = ("user", "nice", "system", "steal")  # systems have not all of them
    return sum(getattr(spent, kind, 0.0) for core, spent in enumerate(times) if core in cores for kind in kinds)


def _own() -> float:
    """Seconds of work of this process and those that it started, the finished ones included."""
    process = psutil.Process()
    times = [process.cpu_times()]
    for child in process.children(recursive=True):
        try:
            times.append(child.cpu_times())
        except psutil.Error:  # it has just ended
            continue
    return sum(sum(spent[:4]) for spent in times)
