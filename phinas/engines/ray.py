"""The Ray engine: Ray Tune runs the evaluations on the workers of a laptop or a cluster."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from phinas.engines.connection import connected, gone, resources, room, threads  # before ray, which reads its settings
from phinas.engines.engine import Jobs, RunJobs
from phinas.engines.evaluator import WORKER_DIED, EvaluationFailed, Evaluator, OutOfMemory, measure
from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError, RunFailed
from phinas.networks.network import Network

# isort: split
from ray import cloudpickle, exceptions, tune
from ray.air.execution._internal import actor_manager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

_FALSE_STARTS = 5  # deaths of workers before an evaluation began, for one evaluation: after that, no worker can come up
_SECONDS_BETWEEN_COUNTS = 1.0  # of the room in the cluster

# Of these, Tune takes the first alone for the death of one worker. Upon the others it gives up, and all workers with
# it: as where Ray ends a worker before the memory of its machine is full.
_DEATHS = (
    RayActorError,
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
    exceptions.WorkerCrashedError,
    exceptions.ObjectLostError,
)
for _module in (actor_manager, tune_controller):
    vars(_module).update(RayActorError=_DEATHS)


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
    workers         evaluations at a time; None takes as many as the cluster's CPUs and GPUs allow, and follows when
                    nodes come and go.
    gpus_per_trial  may be a fraction: 0.25 puts four evaluations on one GPU. None: a whole one where there are any.
                    What does not fit into the memory of a shared GPU is tried once more with twice the share.
    max_failures    how often an evaluation is started again when its worker dies, before it is recorded as failed.
    Raises InputError for a wrong setting, and when the cluster is not there or has no room for one worker; RunFailed
    when Ray does not come up.
    """
    if workers is not None:
        check_whole("engine.workers", workers)
    check_number("engine.cpus_per_trial", cpus_per_trial, above=0)
    check_whole("engine.max_failures", max_failures, least=0)
    if gpus_per_trial is not None:
        check_number("engine.gpus_per_trial", gpus_per_trial, least=0)
    with connected(address) as lost:
        if gpus_per_trial is None:
            gpus_per_trial = 1 if resources().get("GPU") else 0
        places = _check_room(cpus_per_trial, gpus_per_trial)
        limit = _Room(cpus_per_trial, gpus_per_trial) if workers is None else lambda: workers

        def run(jobs: Jobs, evaluator: Evaluator) -> None:
            _run(jobs, evaluator, limit, cpus_per_trial, gpus_per_trial, max_failures, lost)

        yield RunJobs(run, workers or places, threads(cpus_per_trial))


def _run(
    jobs: Jobs,
    evaluator: Evaluator,
    limit: Callable[[], int],
    cpus: float,
    gpus: float,
    max_failures: int,
    lost: Callable[[], bool],
) -> None:
    """Evaluate until there are no more jobs.

    Raises InputError that an evaluator raised in a worker, RuntimeError with the worker's traceback for its bugs,
    RunFailed when Ray is lost or no worker can come up, and what `jobs` raise.
    """
    driver = _Driver(jobs, limit, gpus, max_failures, lost)
    trainable = tune.with_resources(
        tune.with_parameters(_Worker, evaluator=evaluator, threads=threads(cpus)),
        lambda config: _resources(cpus, config["task"].gpus),
    )
    with tempfile.TemporaryDirectory(prefix="phinas-ray-", ignore_cleanup_errors=True) as scratch, _looked_up_once():
        try:
            _tuner(trainable, driver, scratch).fit()
        except _Lost:
            raise gone() from None
        except RuntimeError as error:
            if not isinstance(error.__cause__, RayError):
                raise
            raise RunFailed(f"Ray gave way: {_beginning(error.__cause__)}") from error
    if driver.raised:
        raise driver.raised


def _tuner(trainable: Any, driver: _Driver, scratch: str) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=driver,
            scheduler=_Trials(driver),
            num_samples=-1,  # until the Searcher says that it is finished
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=scratch,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),  # it is ours to start an evaluation again
            callbacks=[_Beginnings(driver)],
            stop=_EarlyStopping(driver),
        ),
    )


def _resources(cpus: float, gpus: float) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([{"CPU": cpus, **({"GPU": gpus} if gpus else {})}])


@contextmanager
def _looked_up_once() -> Iterator[None]:
    """For every trial Tune asks Ray's server five times for the class of its workers; inside, once for all."""
    registry: Any = tune.registry._global_registry
    found = cache(registry.get)

    def contains(category: str, key: str) -> bool:
        try:
            found(category, key)
        except ValueError:  # not yet
            return False
        return True

    vars(registry).update(get=found, contains=contains)
    try:
        yield
    finally:
        for name in ("get", "contains"):  # those of the class are in force again
            del vars(registry)[name]


class _Lost(BaseException):
    """Ray is lost. No `Exception`: upon those Tune would first ask Ray to end its workers, and wait for the answer."""


@dataclass(frozen=True)
class _Task:
    """What travels to a worker. Tune copies, flattens and prints a configuration; this it takes as one value."""

    network: Network
    seed: int
    gpus: float  # share of one, or how many

    def __deepcopy__(self, memo: object) -> _Task:
        return self

    def __repr__(self) -> str:
        return "task"


@dataclass(frozen=True)
class _Evaluation:
    """One of the jobs, as often as it is tried. Ray Tune sees a new trial each time."""

    number: int
    task: _Task
    retries: int = 0  # workers that died while they evaluated it
    false_starts: int = 0  # workers that died before
    wants_more: bool = False  # of the GPU than others have


class _Worker(tune.Trainable):
    """Evaluates candidates, one after the other; the evaluator and its data come up once per worker."""

    def setup(self, config: dict[str, Any], evaluator: Evaluator | None = None, threads: int = 1) -> None:
        assert evaluator is not None  # with_parameters binds it
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
        self._evaluator = evaluator
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._measurements = measure(self._evaluator, new_config["task"].network, new_config["task"].seed)
        return True

    def step(self) -> dict[str, Any]:
        # What it raises travels as data: to Tune an exception is an exception.
        try:
            step, measurement = next(self._measurements)
        except OutOfMemory as failure:
            return {"failed": str(failure), "out_of_memory": True, "done": True}
        except EvaluationFailed as failure:
            return {"failed": str(failure), "done": True}
        except InputError as error:
            return {"refused": str(error), "done": True}
        except Exception:
            return {"bug": traceback.format_exc(), "done": True}
        return {"step": step, "accuracy": measurement.accuracy, "done": measurement.final}


class _Driver(Searcher):
    """Lets the jobs speak Ray Tune's language: suggests them, hands results back, and has them tried again."""

    def __init__(
        self, jobs: Jobs, limit: Callable[[], int], gpus: float, max_failures: int, lost: Callable[[], bool]
    ) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.jobs = jobs
        self.limit = limit
        self.gpus = gpus
        self.max_failures = max_failures
        self.lost = lost
        self.trying: dict[str, _Evaluation] = {}  # by trial id
        self.again: list[_Evaluation] = []
        self.trials: dict[str, Trial] = {}
        self.begun: set[str] = set()  # trials whose worker is up
        self.stopped: set[str] = set()
        self.raised: Exception | None = None  # why the run cannot go on

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy to restore itself from; we restore from the journal

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        with self.guarded():
            evaluation = self._next()
            if evaluation is not None:
                self.trying[trial_id] = evaluation
                return {"task": evaluation.task}
        # With evaluations in flight, the controller may know of something new once it was told of them.
        finished = self.raised or not self.jobs.in_flight
        return cast("dict[str, Any]", Searcher.FINISHED) if finished else None  # a string, says Ray

    def _next(self) -> _Evaluation | None:
        """What is to be tried again comes first; while it waits for a larger share of a GPU, nothing new takes that."""
        if self.again:
            return self.again.pop(0)
        waiting = any(one.wants_more and trial_id not in self.begun for trial_id, one in self.trying.items())
        if waiting or len(self.jobs.in_flight) >= self.limit():
            return None
        job = self.jobs.propose()
        return None if job is None else _Evaluation(job.number, _Task(job.network, job.seed, self.gpus))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        evaluation, trial = self.trying.pop(trial_id), self.trials.pop(trial_id)
        begun, stopped = trial_id in self.begun, trial_id in self.stopped
        self.begun.discard(trial_id)
        self.stopped.discard(trial_id)
        with self.guarded():
            if self.raised:
                return  # everything ends
            if error or result is None:
                self._on_death(evaluation, _error_of(trial), begun)
            elif "out_of_memory" in result and 0 < evaluation.task.gpus < 1 and not evaluation.wants_more:
                larger = replace(evaluation.task, gpus=min(1.0, 2 * evaluation.task.gpus))
                self.again.append(replace(evaluation, task=larger, wants_more=True))
            else:
                self.jobs.finish(evaluation.number, stopped, result.get("failed"), evaluation.retries)

    def _on_death(self, evaluation: _Evaluation, error: object, begun: bool) -> None:
        """A worker died: try again on another, unless its evaluation was the death of too many."""
        if _is_bug(error):
            self.raised = RuntimeError(f"the evaluator failed in a worker:\n{error}")
        elif not begun and evaluation.false_starts == _FALSE_STARTS:
            said = f"{_FALSE_STARTS + 1} workers died before they could begin; the last: {_beginning(error)}"
            self.raised = RunFailed(said)
        elif not begun:
            self.again.append(replace(evaluation, false_starts=evaluation.false_starts + 1))
        elif evaluation.retries < self.max_failures:
            self.again.append(replace(evaluation, retries=evaluation.retries + 1))
        else:
            others = ", and so did those that tried it again" if evaluation.retries else ""
            self.jobs.finish(evaluation.number, error=f"{WORKER_DIED}{others}", retries=evaluation.retries)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What the jobs raise ends the run; Tune would make a failed trial of it."""
        try:
            yield
        except Exception as error:  # handed over to `_run`
            self.raised = self.raised or error

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal is the state."""


class _Trials(FIFOScheduler):
    """Tune's scheduler, which alone is shown the trials themselves."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: without advice, Tune gives a free worker to the trial that was added last, which has none.

        FIFO would give it to the one that waits longest, and end the worker that is coming up for that one.
        """

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.driver.trials[trial.trial_id] = trial

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        _forget_finished(tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        _forget_finished(tune_controller)


def _forget_finished(tune_controller: Any) -> None:
    """Tune keeps all trials, ~45 KB each, and looks through them at every step; what they found is in the journal.

    The one that is ending is forgotten with the next. What Tune calls its sets may change; then they are merely kept.
    """
    trials = tune_controller.get_trials()
    finished = [trial for trial in trials if trial.is_finished()]
    trials[:] = [trial for trial in trials if not trial.is_finished()]
    for name in ("_live_trials", "_stopped_trials", "_failed_trials", "_resetting_trials", "_trials_to_cache"):
        getattr(tune_controller, name, set()).difference_update(finished)


class _Beginnings(tune.Callback):
    """Notes which trials have begun: until then, a worker that dies is no candidate's fault."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.driver.begun.add(trial.trial_id)


class _EarlyStopping(Stopper):
    """Shows the jobs every measurement, and stops an evaluation, or everything when the run cannot go on."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        driver = self.driver
        with driver.guarded():
            if "bug" in result:
                raise RuntimeError(f"the evaluator failed in a worker:\n{result['bug']}")
            if "refused" in result:
                raise InputError(result["refused"])
            if "accuracy" in result:
                keeps = driver.jobs.keeps(driver.trying[trial_id].number, result["step"], result["accuracy"])
                if not (keeps or result["done"]):
                    driver.stopped.add(trial_id)
        return trial_id in driver.stopped

    def stop_all(self) -> bool:
        if self.driver.lost():
            raise _Lost
        return self.driver.raised is not None


class _Room:
    """How many workers the cluster holds now, which is at least one: a cluster without any waits for a node."""

    def __init__(self, cpus: float, gpus: float) -> None:
        self._cpus, self._gpus = cpus, gpus
        self._places, self._counted = 1, -_SECONDS_BETWEEN_COUNTS

    def __call__(self) -> int:
        if time.monotonic() - self._counted >= _SECONDS_BETWEEN_COUNTS:
            self._places, self._counted = max(1, room(self._cpus, self._gpus)), time.monotonic()
        return self._places


def _error_of(trial: Trial) -> object:
    """The exception that ended a trial, as Tune keeps it in a file of its own, or what it said."""
    for file, read in ((trial.pickled_error_file, cloudpickle.loads), (trial.error_file, bytes.decode)):
        if file is not None and Path(file).exists():  # only those that `_is_bug` asks for are pickled
            return read(Path(file).read_bytes())
    return None


def _is_bug(error: object) -> bool:
    """Whether Python code raised it, as when a module is missing there. All else is a worker or a machine that died."""
    if isinstance(error, RayActorError):
        return error.actor_init_failed
    return isinstance(error, RayTaskError) or "Traceback" in str(error)


def _beginning(error: object) -> str:
    """Of what it says, in one line."""
    return " ".join(str(error).split())[:300]


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
