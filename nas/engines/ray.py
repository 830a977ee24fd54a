"""The Ray engine: Ray Tune runs the evaluations on the workers of a laptop or a cluster."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from typing import Any, cast

from convnets.errors import InputError
from nas.evaluator import EvaluationFailed, Evaluator, measure
from nas.loop import Search

# Read by Ray when it is imported or started. Our journal is the state, so Tune's own snapshots, logs and Ctrl-C
# handling would only cost time and stand in the way.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "60",
}
os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402
from ray.tune.stopper import Stopper  # noqa: E402


def run(
    search: Search,
    evaluator: Evaluator,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_trial: float = 1,
    gpus_per_trial: float = 0,
    max_failures: int = 2,
) -> None:
    """Evaluate on Ray until the search is done.

    address         an existing cluster ("auto" or host:port); None starts Ray on this machine and stops it afterwards.
    workers         evaluations at a time; None takes as many as the cluster's CPUs and GPUs allow.
    gpus_per_trial  may be a fraction: 0.25 puts four evaluations on one GPU.
    max_failures    how often an evaluation is started again when its worker dies, before it is recorded as failed.
    Raises InputError when the cluster is not there or has no room for one worker; RuntimeError with the worker's
    traceback when an evaluator has a bug.
    """
    _connect(address)
    try:
        room = _room(cpus_per_trial, gpus_per_trial)
        driver = _Driver(search, limit=room if workers is None else workers)
        trainable = tune.with_resources(
            tune.with_parameters(_Worker, evaluator=evaluator, threads=max(1, int(cpus_per_trial))),
            {"cpu": cpus_per_trial, "gpu": gpus_per_trial},
        )
        with tempfile.TemporaryDirectory(prefix="phinas-ray-") as scratch:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=driver,
                    num_samples=-1,  # until the Searcher says that it is finished
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=max_failures),
                    stop=_EarlyStopping(driver),
                ),
            ).fit()
        if driver.bug:
            raise RuntimeError(f"the evaluator failed in a worker:\n{driver.bug}")
    finally:
        if address is None:
            ray.shutdown()


class _Worker(tune.Trainable):
    """Evaluates candidates, one after the other; the evaluator and its data come up once per worker."""

    def setup(self, config: dict[str, Any], evaluator: Evaluator | None = None, threads: int = 1) -> None:
        assert evaluator is not None  # with_parameters binds it
        # One thread per CPU that this worker was given: more made training 20 times slower on a busy machine.
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
        self._evaluator = evaluator
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._measurements = measure(self._evaluator, new_config["network"], new_config["seed"])
        return True

    def step(self) -> dict[str, Any]:
        try:
            step, measurement = next(self._measurements)
        except EvaluationFailed as failure:
            return {"failed": str(failure), "done": True}
        except Exception:  # a bug: Tune would start it again as if the worker had died, so it travels as data
            return {"bug": traceback.format_exc(), "done": True}
        return {"step": step, "accuracy": measurement.accuracy, "done": measurement.final}


class _Driver(Searcher):
    """Lets the search speak Ray Tune's language: suggests candidates, hands results back."""

    def __init__(self, search: Search, limit: int) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.search = search
        self.limit = limit
        self.numbers: dict[str, int] = {}  # trial id -> evaluation number
        self.stopped: set[str] = set()
        self.bug: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy to restore itself from; we restore from the journal

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self.search.in_flight) >= self.limit:
            return None
        candidate = self.search.propose()
        if candidate is None:
            waiting = self.search.exhausted and self.search.in_flight
            return None if waiting else cast("dict[str, Any]", Searcher.FINISHED)  # a string, says Ray
        self.numbers[trial_id] = candidate.number
        return {"network": candidate.network, "seed": candidate.seed}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self.numbers.pop(trial_id)
        if error or result is None:
            self.search.finish(number, error="its worker died, and so did those that tried it again")
        elif "failed" in result:
            self.search.finish(number, error=result["failed"])
        elif "accuracy" in result and self.bug is None:
            self.search.finish(number, stopped=trial_id in self.stopped)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal is the state."""


class _EarlyStopping(Stopper):
    """Shows the search every measurement, and stops an evaluation, or everything when an evaluator has a bug."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if "bug" in result:
            self.driver.bug = result["bug"]
        if "accuracy" not in result:
            return False
        keeps = self.driver.search.keeps(self.driver.numbers[trial_id], result["step"], result["accuracy"])
        if not (keeps or result["done"]):
            self.driver.stopped.add(trial_id)
            return True
        return False

    def stop_all(self) -> bool:
        return self.driver.bug is not None


def _connect(address: str | None) -> None:
    try:
        ray.init(
            address=address or "local",  # None would join whatever cluster runs on this machine
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        raise InputError(f"engine.address={address}: no Ray cluster answers there ({error})") from None
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _room(cpus_per_trial: float, gpus_per_trial: float) -> int:
    """How many workers the cluster holds at once; InputError when not even one."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    rooms = [cpus / cpus_per_trial] if cpus_per_trial else []
    rooms += [gpus / gpus_per_trial] if gpus_per_trial else []
    room = int(min(rooms) + 1e-9)  # four quarters of a GPU are one, whatever floating point says
    if room < 1:
        raise InputError(
            f"engine.cpus_per_trial={cpus_per_trial} engine.gpus_per_trial={gpus_per_trial}: "
            f"no worker fits into this cluster's {cpus:g} CPUs and {gpus:g} GPUs"
        )
    return room
