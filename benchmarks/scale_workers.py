"""Whether many workers get as much done as there are of them: simulated workers, each evaluation a second of sleep.

    python -m benchmarks.scale_workers [workers=1,2,4,8,16,32,64] [seconds=1] [window=20]

A Ray cluster of one node with as many logical CPUs as the most workers, all of them real processes of this machine,
driven through our engine with everything a search does: controller, costs, a journal line on disk before the next is
proposed. Workers take seconds to come up, a few at a time, so the rate is that of the steady state: from the moment
when every worker has finished one evaluation, over `window` seconds. A worker says who it is in place of an accuracy.

Beside the rate, the share of one core that the driver used, and the part of it that was ours (controller, journal).
Exit code 1 where the rate is below 0.92 of linear.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from nas.controllers.evolution import Evolution
from nas.jobs import Candidate, SearchJobs
from nas.journal import Entry, Journal
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from phinas.command.run_folder import provenance
from phinas.engines import ray as ray_engine
from phinas.engines.evaluator import Measurement
from phinas.engines.local_cluster import local_cluster
from phinas.networks.network import Network
from search_spaces.mnasnet import MnasNet

LINEAR = 0.92  # of so many workers times the rate of one that sleeps and does nothing else


@dataclass(frozen=True)
class Sleeper:
    """An evaluator that sleeps, and yields the number of its process, as a fraction."""

    seconds: float

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        time.sleep(self.seconds)
        yield Measurement(os.getpid() / 2**23)  # Linux gives no number above 2^22


class Timed(SearchJobs):
    """A search that adds up the seconds of its own part: the controller, the network and its costs, the journal."""

    own = 0.0

    def propose(self) -> Candidate | None:
        start = time.perf_counter()
        try:
            return super().propose()
        finally:
            self.own += time.perf_counter() - start

    def finish(self, *arguments: object, **settings: object) -> Entry:
        start = time.perf_counter()
        try:
            return super().finish(*arguments, **settings)  # type: ignore[arg-type]
        finally:
            self.own += time.perf_counter() - start


@dataclass(frozen=True)
class Steady:
    """What was measured in the steady state."""

    rate: float  # evaluations a second
    waiting: float  # seconds of a worker between two evaluations, the median
    driver: float  # seconds of a core that the driver used, a second
    own: float  # and of these, our part
    coming_up: float  # seconds until every worker had finished one


def steady(address: str, workers: int, seconds: float, window: float) -> Steady:
    with tempfile.TemporaryDirectory() as folder:
        problem = SearchProblem(MnasNet(), on_macs(mnas_soft, 400e6))
        journal = Journal(Path(folder) / "journal.jsonl", {})
        running = Timed(problem, Evolution(problem, seed=0), journal, budget=10**9, seed=0)
        process = psutil.Process()
        begun = time.perf_counter()
        known: set[float | None] = set()
        inside: list[tuple[float, float]] = []  # when they ended, and what they took from proposal to end
        at_start = at_end = (0.0, 0.0, 0.0)

        def now() -> tuple[float, float, float]:
            used = process.cpu_times()
            return time.perf_counter(), used.user + used.system, running.own

        def watch(entry: Entry, took: float) -> None:
            nonlocal at_start, at_end
            if len(known) < workers:
                known.add(entry.accuracy)
                at_start = now()
            elif not at_end[0]:
                inside.append((time.perf_counter(), took))
                if time.perf_counter() - at_start[0] >= window:
                    at_end = now()
                    running.budget = 0  # nothing more is proposed; what runs is waited for

        running.watch = watch
        with ray_engine.engine(address=address, workers=workers) as run_jobs:
            run_jobs(running, Sleeper(seconds))
        journal.close()
    elapsed, used, own = (end - start for start, end in zip(at_start, at_end, strict=True))
    waiting = statistics.median(took for _, took in inside) - seconds
    return Steady(len(inside) / elapsed, waiting, used / elapsed, own / elapsed, at_start[0] - begun)


def main() -> int:
    options = dict(argument.split("=") for argument in sys.argv[1:])
    counts = [int(count) for count in options.get("workers", "1,2,4,8,16,32,64").split(",")]
    seconds, window = float(options.get("seconds", 1)), float(options.get("window", 20))
    print(f"hardware: {provenance()['hardware']}; load {os.getloadavg()[0]:.1f}")
    print("workers  evaluations/s  of linear  ms between two of a worker  driver's CPU  ours of it  up after")
    enough = True
    with local_cluster([max(counts)]) as cluster:
        for workers in counts:
            found = steady(cluster.address, workers, seconds, window)
            linear = found.rate * seconds / workers
            enough &= linear >= LINEAR
            print(
                f"{workers:7}  {found.rate:13.2f}  {linear:9.3f}  {1e3 * found.waiting:26.0f}  {found.driver:12.1%}"
                f"  {found.own:10.1%}  {found.coming_up:6.1f} s",
                flush=True,
            )
    print(f"load {os.getloadavg()[0]:.1f} at the end; {'all' if enough else 'NOT all'} at least {LINEAR} of linear")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
