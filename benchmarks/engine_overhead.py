"""What an engine costs per evaluation: an instant evaluator, so that all the time is ours.

    python -m benchmarks.engine_overhead [trials=1000] [repeats=3]

Baseline: Ray Tune alone with reused class Trainables and a Searcher that suggests from a list. Ours adds the
controller, the space, the cost, and a journal line that is on disk before the next step.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nas.controllers.random import Random
from nas.evaluators.synthetic import Synthetic
from nas.jobs import SearchJobs
from nas.journal import Journal
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from phinas.command.run_folder import provenance
from phinas.engines import inline
from phinas.engines import ray as ray_engine
from search_spaces.mnasnet import MnasNet

import ray  # isort: skip  # behind our engine, which sets Ray's environment
from ray import tune  # isort: skip
from ray.tune.search import Searcher  # isort: skip


def search(folder: str, trials: int) -> SearchJobs:
    problem = SearchProblem(MnasNet(), on_macs(mnas_soft, 400e6))
    journal = Journal(Path(folder) / "journal.jsonl", {})
    return SearchJobs(problem, Random(problem=problem, seed=0), journal, trials, seed=0)


def ours_inline(trials: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        running = search(folder, trials)
        start = time.perf_counter()
        inline.run(running, Synthetic())
        return (time.perf_counter() - start) / trials


def ours_on_ray(trials: int) -> float:
    """Seconds per trial from the first result to the last: starting Ray and its workers is no trial's cost."""
    with tempfile.TemporaryDirectory() as folder:
        running = search(folder, trials)
        times: list[float] = []
        running.watch = lambda entry, seconds: times.append(time.perf_counter())
        with ray_engine.engine(address="auto") as run_search:
            run_search(running, Synthetic())
        return (times[-1] - times[0]) / (len(times) - 1)


class _Instant(tune.Trainable):
    def step(self) -> dict[str, Any]:
        return {"accuracy": 0.5, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True


class _List(Searcher):
    """Suggests the same as often as asked for, as few at a time as there are CPUs."""

    def __init__(self, trials: int, limit: int) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.left, self.limit, self.running, self.times = trials, limit, 0, list[float]()

    def suggest(self, trial_id: str) -> Any:
        if self.running >= self.limit:
            return None
        if not self.left:
            return Searcher.FINISHED
        self.left, self.running = self.left - 1, self.running + 1
        return {"number": self.left}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.running -= 1
        self.times.append(time.perf_counter())

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


def tune_alone(trials: int) -> float:
    searcher = _List(trials, limit=int(ray.cluster_resources()["CPU"]))
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(_Instant, {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
            ),
        ).fit()
    return (searcher.times[-1] - searcher.times[0]) / (trials - 1)


def main() -> None:
    options = dict(argument.split("=") for argument in sys.argv[1:])
    trials, repeats = int(options.get("trials", 1000)), int(options.get("repeats", 3))
    print(f"hardware: {provenance()['hardware']}; {trials} trials, {repeats} repeats, alternating")
    ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    measured: dict[str, list[float]] = {"inline": [], "Ray Tune alone": [], "ours on Ray": []}
    for _ in range(repeats):
        measured["inline"].append(ours_inline(trials))
        measured["Ray Tune alone"].append(tune_alone(trials))
        measured["ours on Ray"].append(ours_on_ray(trials))
    for name, seconds in measured.items():
        spread = f"{min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f}"
        print(f"{name:15s} {statistics.median(seconds) * 1e3:7.2f} ms a trial  (n={repeats}, {spread})")
    ratio = statistics.median(measured["ours on Ray"]) / statistics.median(measured["Ray Tune alone"])
    print(f"ours on Ray / Ray Tune alone: {ratio:.2f}")


if __name__ == "__main__":
    main()
