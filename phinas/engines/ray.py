"""The Ray engine: actors that stay up evaluate the candidates, on the cores of a laptop or the nodes of a cluster."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from phinas.engines.connection import connected, gone, resources, room, threads  # before ray, which reads its settings
from phinas.engines.engine import Jobs, RunJobs
from phinas.engines.evaluator import WORKER_DIED, EvaluationFailed, Evaluator, Measurement, OutOfMemory, measure
from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError, RunFailed
from phinas.networks.network import Network

# isort: split
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

_FALSE_STARTS = 5  # deaths in a row of workers that were to take one place, before they were up: none can come up there
_SECONDS_BETWEEN_COUNTS = 1.0  # of the room in the cluster
_SECONDS_BETWEEN_LOOKS = 1.0  # at whether Ray is still there


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
    pool = _Pool(jobs, evaluator, limit, cpus, gpus, max_failures)
    try:
        while pool.hand_out():
            pool.hear(_SECONDS_BETWEEN_LOOKS)
            if lost():
                raise gone()
    except RayError as error:
        if lost():
            raise gone() from None
        raise RunFailed(f"Ray gave way: {_beginning(error)}") from error
    finally:
        if not lost():
            pool.end()


@dataclass(frozen=True)
class _Evaluation:
    """One of the jobs, as often as it is tried."""

    number: int
    network: Network
    seed: int
    gpus: float  # share of one, or how many
    retries: int = 0  # workers that died while they evaluated it
    wants_more: bool = False  # of a GPU than others have


class _Evaluating:
    """The actor: evaluates candidates, one after the other; the evaluator and its data come up once."""

    def __init__(self, evaluator: Evaluator, threads: int) -> None:
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
        self._evaluator = evaluator
        self._measurements: Iterator[tuple[int, Measurement]] = iter(())

    def is_up(self) -> None:
        """Answered once the actor is there."""

    def begin(self, network: Network, seed: int) -> dict[str, Any]:
        self._measurements = measure(self._evaluator, network, seed)
        return self.go_on()

    def go_on(self) -> dict[str, Any]:
        """The next measurement, or why there is none. What is raised travels as data: to Ray, an exception is a bug."""
        try:
            step, measurement = next(self._measurements)
        except OutOfMemory as failure:
            return {"failed": str(failure), "out_of_memory": True}
        except EvaluationFailed as failure:
            return {"failed": str(failure)}
        except InputError as error:
            return {"refused": str(error)}
        except Exception:
            return {"bug": traceback.format_exc()}
        return {"step": step, "accuracy": measurement.accuracy, "final": measurement.final}


@dataclass(eq=False)
class _Worker:
    """An actor, as the driver knows it."""

    actor: Any
    gpus: float
    false_starts: int  # of those before it, whose place it takes
    up: bool = False
    evaluation: _Evaluation | None = None  # that it is at


class _Pool:
    """The workers of one run, the evaluations that wait for one, and what becomes of both when a worker dies.

    There are never more workers than jobs in flight were at once, so that an autoscaler sees in those that Ray has no
    room for what is wanted, and no more.
    """

    def __init__(
        self, jobs: Jobs, evaluator: Evaluator, limit: Callable[[], int], cpus: float, gpus: float, max_failures: int
    ) -> None:
        self.jobs, self.limit, self.gpus, self.max_failures = jobs, limit, gpus, max_failures
        self.actors = ray.remote(max_restarts=0, max_task_retries=0, num_cpus=cpus)(_Evaluating)
        self.arguments = (ray.put(evaluator), threads(cpus))
        self.waiting = deque[_Evaluation]()
        self.asked = dict[Any, _Worker]()  # by the answer that is awaited: workers that come up, or evaluate
        self.free = list[_Worker]()

    def hand_out(self) -> bool:
        """Take new jobs as far as there is room, and give what waits to workers. False when all is done."""
        while not self._wanting_more() and len(self.jobs.in_flight) < self.limit():
            job = self.jobs.propose()
            if job is None:
                break
            self.waiting.append(_Evaluation(job.number, job.network, job.seed, self.gpus))
        wanting = self._wanting_more()
        if wanting:  # until it has its larger share of a GPU, nobody else may take that
            self._dismiss_idle(self.gpus)
        for evaluation in wanting or list(self.waiting):
            worker = next((worker for worker in self.free if worker.gpus == evaluation.gpus), None)
            if worker is not None:
                self.free.remove(worker)
                self.waiting.remove(evaluation)
                worker.evaluation = evaluation
                self.asked[worker.actor.begin.remote(evaluation.network, evaluation.seed)] = worker
        needed = Counter(evaluation.gpus for evaluation in self._wanting_more() or self.waiting)
        for gpus in (needed - Counter(worker.gpus for worker in self.asked.values() if not worker.up)).elements():
            self._start(gpus)
        return bool(self.waiting) or any(worker.up for worker in self.asked.values())

    def _wanting_more(self) -> list[_Evaluation]:
        return [evaluation for evaluation in self.waiting if evaluation.wants_more]

    def _start(self, gpus: float, false_starts: int = 0) -> None:
        """Another worker, which waits within Ray as long as there is no room for it."""
        worker = _Worker(self.actors.options(num_gpus=gpus).remote(*self.arguments), gpus, false_starts)
        self.asked[worker.actor.is_up.remote()] = worker

    def _dismiss_idle(self, gpus: float) -> None:
        """End the workers with this share of a GPU that are free, or not up yet."""
        for worker in [worker for worker in self.free if worker.gpus == gpus]:
            self.free.remove(worker)
            _dismiss(worker)
        for answer in [answer for answer, worker in self.asked.items() if worker.gpus == gpus and not worker.up]:
            _dismiss(self.asked.pop(answer))

    def hear(self, seconds: float) -> None:
        """Act upon the next answer, unless there is none for so long."""
        for answer in ray.wait(list(self.asked), timeout=seconds)[0]:
            worker = self.asked.pop(answer)
            try:
                told = ray.get(answer)
            except RayError as error:
                if _is_bug(error):
                    raise RuntimeError(f"the evaluator failed in a worker:\n{error}") from error
                self._on_death(worker, error)
            else:
                self._on_answer(worker, told)

    def _on_answer(self, worker: _Worker, told: dict[str, Any]) -> None:
        evaluation, worker.up = worker.evaluation, True
        if evaluation is None:
            self.free.append(worker)
            return
        if "bug" in told:
            raise RuntimeError(f"the evaluator failed in a worker:\n{told['bug']}")
        if "refused" in told:
            raise InputError(told["refused"])
        if "accuracy" in told:
            keeps = self.jobs.record(evaluation.number, told["step"], told["accuracy"])
            if keeps and not told["final"]:
                self.asked[worker.actor.go_on.remote()] = worker
                return
            self.jobs.finish(evaluation.number, stopped=not (keeps or told["final"]), retries=evaluation.retries)
        elif "out_of_memory" in told and 0 < evaluation.gpus < 1 and not evaluation.wants_more:
            self.waiting.append(replace(evaluation, gpus=min(1.0, 2 * evaluation.gpus), wants_more=True))
        else:
            self.jobs.finish(evaluation.number, error=told["failed"], retries=evaluation.retries)
        worker.evaluation = None
        if worker.gpus == self.gpus:
            self.free.append(worker)
        else:
            _dismiss(worker)

    def _on_death(self, worker: _Worker, error: RayError) -> None:
        """Try again on another, unless its evaluation was the death of too many."""
        _dismiss(worker)  # it may be cut off only
        evaluation = worker.evaluation
        if evaluation is None:
            if worker.false_starts == _FALSE_STARTS:
                said = f"{_FALSE_STARTS + 1} workers died before they could begin; the last: {_beginning(error)}"
                raise RunFailed(said)
            if any(waits.gpus == worker.gpus for waits in self._wanting_more() or self.waiting):
                self._start(worker.gpus, worker.false_starts + 1)
        elif evaluation.retries < self.max_failures:
            self.waiting.appendleft(replace(evaluation, retries=evaluation.retries + 1))
        else:
            others = ", and so did those that tried it again" if evaluation.retries else ""
            self.jobs.finish(evaluation.number, error=f"{WORKER_DIED}{others}", retries=evaluation.retries)

    def end(self) -> None:
        """Nothing of the run is left in Ray."""
        for worker in [*self.free, *self.asked.values()]:
            _dismiss(worker)


def _dismiss(worker: _Worker) -> None:
    ray.kill(worker.actor)


def _is_bug(error: RayError) -> bool:
    """Whether Python code raised it, as when a module is missing there. All else is a worker or a machine that died."""
    return error.actor_init_failed if isinstance(error, RayActorError) else isinstance(error, RayTaskError)


class _Room:
    """How many workers the cluster holds now, which is at least one: a cluster without any waits for a node."""

    def __init__(self, cpus: float, gpus: float) -> None:
        self._cpus, self._gpus = cpus, gpus
        self._places, self._counted = 1, -_SECONDS_BETWEEN_COUNTS

    def __call__(self) -> int:
        if time.monotonic() - self._counted >= _SECONDS_BETWEEN_COUNTS:
            self._places, self._counted = max(1, room(self._cpus, self._gpus)), time.monotonic()
        return self._places


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
