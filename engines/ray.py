"""The Ray engine: Ray Tune runs the evaluations on the workers of a laptop or a cluster."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from convnets.checks import check_number, check_whole
from convnets.errors import InputError
from engines.connection import connected, resources, room, threads  # before ray, which reads its settings
from engines.engine import Jobs, RunJobs
from engines.evaluator import EvaluationFailed, Evaluator, measure

# isort: split
from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper


@contextmanager
def engine(
    address: str | None = None,
    workers: int | None = None,
    cpus_per_trial: float = 1,
    gpus_per_trial: float | None = None,
    max_failures: int = 2,
) -> Iterator[RunJobs]:
    """Ray, up and with room for at least one worker; leaving the context stops what it started.

    address         an existing cluster ("auto" or host:port); None starts Ray on this machine.
    workers         evaluations at a time; None takes as many as the cluster's CPUs and GPUs allow.
    gpus_per_trial  may be a fraction: 0.25 puts four evaluations on one GPU. None: a whole one where there are any.
    max_failures    how often an evaluation is started again when its worker dies, before it is recorded as failed.
    Raises InputError for a wrong setting, and when the cluster is not there or has no room for one worker.
    """
    if workers is not None:
        check_whole("engine.workers", workers)
    check_number("engine.cpus_per_trial", cpus_per_trial, above=0)
    check_whole("engine.max_failures", max_failures, least=0)
    if gpus_per_trial is not None:
        check_number("engine.gpus_per_trial", gpus_per_trial, least=0)
    with connected(address):
        if gpus_per_trial is None:
            gpus_per_trial = 1 if resources().get("GPU") else 0
        places = _check_room(cpus_per_trial, gpus_per_trial)
        limit = places if workers is None else workers

        def run(jobs: Jobs, evaluator: Evaluator) -> None:
            _run(jobs, evaluator, limit, cpus_per_trial, gpus_per_trial, max_failures)

        yield RunJobs(run, limit, threads(cpus_per_trial))


def _run(
    jobs: Jobs, evaluator: Evaluator, limit: int, cpus_per_trial: float, gpus_per_trial: float, max_failures: int
) -> None:
    """Evaluate until there are no more jobs.

    Raises InputError that an evaluator raised in a worker, and RuntimeError with the worker's traceback for its bugs.
    """
    driver = _Driver(jobs, limit, max_failures)
    trainable = tune.with_resources(
        tune.with_parameters(_Worker, evaluator=evaluator, threads=threads(cpus_per_trial)),
        {"cpu": cpus_per_trial, "gpu": gpus_per_trial},
    )
    with tempfile.TemporaryDirectory(prefix="phinas-ray-") as scratch:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=driver,
                scheduler=_Errors(driver),
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
    if driver.refused:
        raise InputError(driver.refused)
    if driver.bug:
        raise RuntimeError(f"the evaluator failed in a worker:\n{driver.bug}")


class _Worker(tune.Trainable):
    """Evaluates candidates, one after the other; the evaluator and its data come up once per worker."""

    def setup(self, config: dict[str, Any], evaluator: Evaluator | None = None, threads: int = 1) -> None:
        assert evaluator is not None  # with_parameters binds it
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
        self._evaluator = evaluator
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._measurements = measure(self._evaluator, new_config["network"], new_config["seed"])
        return True

    def step(self) -> dict[str, Any]:
        # Tune would start a trial that raises again, as if its worker had died; so what it raises travels as data.
        try:
            step, measurement = next(self._measurements)
        except EvaluationFailed as failure:
            return {"failed": str(failure), "done": True}
        except InputError as error:
            return {"refused": str(error), "done": True}
        except Exception:
            return {"bug": traceback.format_exc(), "done": True}
        return {"step": step, "accuracy": measurement.accuracy, "done": measurement.final}


class _Driver(Searcher):
    """Lets the jobs speak Ray Tune's language: suggests them, hands results back."""

    def __init__(self, jobs: Jobs, limit: int, max_failures: int) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.jobs = jobs
        self.limit = limit
        self.max_failures = max_failures
        self.numbers: dict[str, int] = {}  # trial id -> evaluation number
        self.stopped: set[str] = set()
        self.errors: dict[str, Trial] = {}  # trials whose worker died, to be looked at if that ends them
        self.never_started: Counter[int] = Counter()  # evaluation number -> workers that died before they began
        self.refused: str | None = None
        self.bug: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy to restore itself from; we restore from the journal

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self.jobs.in_flight) >= self.limit:
            return None
        job = self.jobs.propose()
        if job is None:
            # With evaluations in flight one may come back unstarted, or tell the controller of something new.
            return None if self.jobs.in_flight else cast("dict[str, Any]", Searcher.FINISHED)  # a string, says Ray
        self.numbers[trial_id] = job.number
        return {"network": job.network, "seed": job.seed}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self.numbers.pop(trial_id)
        if error or result is None:
            self._on_death(number, self.errors.pop(trial_id))
        elif self.broken:
            return  # everything ends
        elif "failed" in result:
            self.jobs.finish(number, error=result["failed"])
        else:
            self.jobs.finish(number, stopped=trial_id in self.stopped)

    def _on_death(self, number: int, trial: Trial) -> None:
        """The worker died, and Tune will not start the trial again by itself."""
        error = _error_of(trial)
        if not isinstance(error, RayActorError) or error.actor_init_failed:
            self.bug = str(error)  # it could not come up, as when a module is missing there: no candidate's fault
        elif trial.status == Trial.PENDING and self.never_started[number] < self.max_failures:
            self.never_started[number] += 1
            self.jobs.withdraw(number)
        else:
            self.jobs.finish(number, error="its worker died, and so did those that tried it again")

    @property
    def broken(self) -> bool:
        """Whether the run cannot go on."""
        return self.bug is not None or self.refused is not None

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal is the state."""


class _Errors(FIFOScheduler):
    """Tune's scheduler, which alone is shown why a trial ended in an error before the Searcher hears of it."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self.driver.errors[trial.trial_id] = trial


class _EarlyStopping(Stopper):
    """Shows the jobs every measurement, and stops an evaluation, or everything when the run cannot go on."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.driver.bug = self.driver.bug or result.get("bug")
        self.driver.refused = self.driver.refused or result.get("refused")
        if "accuracy" not in result:
            return False
        keeps = self.driver.jobs.keeps(self.driver.numbers[trial_id], result["step"], result["accuracy"])
        if keeps or result["done"]:
            return False
        self.driver.stopped.add(trial_id)
        return True

    def stop_all(self) -> bool:
        return self.driver.broken


def _error_of(trial: Trial) -> object:
    """The exception that ended a trial, as Tune keeps it in a file of its own."""
    try:
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (OSError, TypeError):  # there is no such file for errors that do not pickle
        return trial.get_error()


def _check_room(cpus_per_trial: float, gpus_per_trial: float) -> int:
    """How many workers the cluster's nodes hold at once; InputError when not even one."""
    places = room(cpus_per_trial, gpus_per_trial)
    if places < 1:
        cpus, gpus = resources().get("CPU", 0), resources().get("GPU", 0)
        raise InputError(
            f"engine.cpus_per_trial={cpus_per_trial} engine.gpus_per_trial={gpus_per_trial}: "
            f"no worker fits on a node of this cluster, which has {cpus:g} CPUs and {gpus:g} GPUs in all"
        )
    return places
