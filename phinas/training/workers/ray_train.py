"""A training on several workers: Ray Train places them, connects them, and starts them again when one dies.

The state of a run is what the first of them writes into its folder, as one worker does; Ray Train keeps nothing of it.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from phinas.engines.connection import connected, gone, resources, room, threads  # before ray, which reads its settings
from phinas.files.errors import CannotWrite, InputError
from phinas.training.full.training_loop import Epoch
from phinas.training.full.training_run import Outcome, Stopped, TrainingRun, Watcher, execute, newest, worker_state
from phinas.training.own_failures import Diverged
from phinas.training.workers.engine import Engine, WorkersFailed
from phinas.training.workers.worker_group import worker_group

# isort: split
import ray
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_SECONDS_BETWEEN_NEWS = 0.5
_SECONDS_TO_START = 60  # before something is said
_SECONDS_TO_END = 10  # for Ray Train, when the workers are done


@contextmanager
def started(engine: Engine) -> Iterator[Callable[[TrainingRun, Watcher], Outcome]]:
    """Ray, up and with room for the workers; leaving the context stops what it started.

    Yields what runs a training on them as `training_run.execute` does here; its folder must exist, with `config.yaml`.
    It also raises WorkersFailed, and RuntimeError with a worker's traceback for a bug. Raises InputError when the
    cluster is not there, or too small; RunFailed when Ray does not come up.
    """
    with connected(engine.address) as lost:
        gpus = engine.gpus_per_worker
        if gpus is None:
            gpus = 1 if resources().get("GPU") else 0
        cpus = _cpus(engine, gpus)

        def train(run: TrainingRun, watcher: Watcher) -> Outcome:
            return _train(run, watcher, engine, cpus, gpus, lost)

        yield train


def _cpus(engine: Engine, gpus: int) -> int:
    """Of each worker. Raises InputError where there is no room for so many."""
    there = int(resources().get("CPU", 0))
    wanted = engine.cpus_per_worker
    for cpus in [wanted] if wanted else range(max(1, there // engine.workers), 0, -1):
        places = room(cpus, gpus)
        if places >= engine.workers:
            return cpus
    raise InputError(
        f"engine.workers={engine.workers}: there is room for {places}, with {cpus} CPU{'s' if cpus > 1 else ''} "
        f"and {gpus} GPU{'' if gpus == 1 else 's'} each; there are {there} CPUs and {resources().get('GPU', 0):g} GPUs"
    )


def _train(
    run: TrainingRun, watcher: Watcher, engine: Engine, cpus: int, gpus: int, lost: Callable[[], bool]
) -> Outcome:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0)(_Mailbox).options(scheduling_strategy=here).remote()
    with _scratch(run, engine) as scratch:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "mailbox": mailbox,
                "run": ray.put(run),
                "folder": str(Path.cwd()),
                "norm_over": engine.norms(run.batch),
                "cpus": cpus,
                "gpus": gpus,
            },
            # What the host has to say, as whether to stop, must not wait for a GPU.
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=engine.workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
            ),
            run_config=RunConfig(
                name="train", storage_path=scratch, failure_config=FailureConfig(max_failures=engine.max_failures)
            ),
        )
        fitting = _Fitting(trainer)
        return _listen(fitting, mailbox, watcher, lost)


@contextmanager
def _scratch(run: TrainingRun, engine: Engine) -> Iterator[str]:
    """Where Ray Train may write, which leaves nothing there that anybody needs: what all machines see, on a cluster."""
    if engine.address is None:
        with tempfile.TemporaryDirectory(prefix="phinas-ray-", ignore_cleanup_errors=True) as folder:
            yield folder
        return
    shared = (run.folder / ".ray").resolve()
    shutil.rmtree(shared, ignore_errors=True)  # of a command that was killed
    try:
        yield str(shared)
    finally:
        shutil.rmtree(shared, ignore_errors=True)


class _Fitting(threading.Thread):
    """`fit` of a trainer, beside the thread that listens to the workers and to the user."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(name="Ray Train", daemon=True)
        self.trainer = trainer
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as error:  # handed over to the other thread
            self.error = error


def _listen(fitting: _Fitting, mailbox: Any, watcher: Watcher, lost: Callable[[], bool]) -> Outcome:
    """Pass on what the first worker tells, until it tells how the run ended."""
    starts = 0
    patience = time.monotonic() + _SECONDS_TO_START
    told_to_stop = False
    while True:
        ended = not fitting.is_alive()
        if lost():
            raise WorkersFailed(str(gone()))
        for news in ray.get(mailbox.news.remote()):
            match news:
                case Outcome() | Stopped() | Diverged():
                    fitting.join(_SECONDS_TO_END)
                    if isinstance(news, Outcome):
                        return news
                    raise news
                case Exception():
                    raise news
                case _Started(step):
                    starts, patience = starts + 1, math.inf
                    if starts > 1:
                        watcher.say(f"a worker died; all are going on after step {step:,}")
                case _Step(step, best):
                    watcher.after_step(step, best)
                case _Scored(epoch, best):
                    watcher.after_epoch(epoch, best)
                case str():
                    watcher.say(news)
        if ended:
            if isinstance(fitting.error, ControllerError):
                raise WorkersFailed(f"Ray Train gave up: {_reason(fitting.error)}")
            if isinstance(fitting.error, TrainingFailedError):
                said = _reason(fitting.error)
                raise WorkersFailed(f"workers died more often than engine.max_failures allows; at last: {said}")
            raise fitting.error or RuntimeError("the workers ended without an outcome")
        if time.monotonic() > patience:
            patience = math.inf
            watcher.say(f"no worker has begun in {_SECONDS_TO_START} seconds: CPUs or GPUs may be busy with others")
        if watcher.told_to_stop() and not told_to_stop:
            told_to_stop = True
            mailbox.stop.remote()
        fitting.join(_SECONDS_BETWEEN_NEWS / 2)


def _reason(error: Exception) -> str:
    """What a worker said at last, if it could, rather than those that lost it."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    first = sorted(failures.values(), key=_of_the_others)
    return " ".join(str(first[0] if first else error).split())[:300]


# ---------------------------------------------------------------------------------------------------------------- news


@dataclass(frozen=True)
class _Started:
    """The workers are up, and going on after so many steps."""

    step: int


@dataclass(frozen=True)
class _Step:
    """`Watcher.after_step`."""

    step: int
    best: float | None


@dataclass(frozen=True)
class _Scored:
    """`Watcher.after_epoch`."""

    epoch: Epoch
    best: float


class _Mailbox:
    """What the workers tell the command, and it them.

    An actor of its own on the command's machine, so that neither a worker's death nor another machine's loses anything.
    """

    def __init__(self) -> None:
        self._news: list[Any] = []
        self._stop = self._over = False

    def tell(self, news: Any) -> bool:
        """Returns whether the command wants to stop."""
        self._news.append(news)
        self._over = self._over or isinstance(news, (Outcome, Exception))
        return self._stop

    def news(self) -> list[Any]:
        """Since the last time."""
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        self._stop = True

    def over(self) -> bool:
        """Whether the run has ended, well or not."""
        return self._over


class _Teller:
    """The watcher in the first worker: tells the command, and hears from it."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._answer: Any = None
        self._told = 0.0
        self._stop = False

    def after_step(self, step: int, best: float | None) -> None:
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_NEWS:
            self._told = time.monotonic()
            self._answer = self._mailbox.tell.remote(_Step(step, best))

    def after_epoch(self, epoch: Epoch, best: float) -> None:
        self._answer = self._mailbox.tell.remote(_Scored(epoch, best))

    def told_to_stop(self) -> bool:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._stop, self._answer = ray.get(self._answer), None
        return self._stop

    def say(self, text: str) -> None:
        ray.get(self._mailbox.tell.remote(text))


class _Silent:
    """The watcher in the others: what they see is what the first sees."""

    def after_step(self, step: int, best: float | None) -> None: ...

    def after_epoch(self, epoch: Epoch, best: float) -> None: ...

    def told_to_stop(self) -> bool:
        return False

    def say(self, text: str) -> None: ...


# ------------------------------------------------------------------------------------------------------- in the workers


def _work(config: dict[str, Any]) -> None:
    """What each worker does. How the run ended is told, not raised: Ray Train would start all again."""
    mailbox = config["mailbox"]
    if ray.get(mailbox.over.remote()):
        return  # another worker told so, and then this group took over from a group that had lost it
    try:
        outcome = _outcome(config)
    except (Stopped, Diverged) as error:  # in all workers at once
        if dist.get_rank() == 0:  # which saves, and until then the command must wait
            ray.get(mailbox.tell.remote(error))
    except (InputError, CannotWrite) as error:
        ray.get(mailbox.tell.remote(error))
        raise  # the others may be waiting for this worker, until Ray Train ends them
    except Exception as error:
        if not _of_the_others(error):
            ray.get(mailbox.tell.remote(RuntimeError(f"a worker failed:\n{traceback.format_exc()}")))
        raise
    else:
        if outcome is not None:
            ray.get(mailbox.tell.remote(outcome))


def _of_the_others(error: Exception) -> bool:
    """Whether another worker died, so that this worker has nobody to talk to: Ray Train starts them all again."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in ("gloo", "Gloo", "NCCL"))


def _outcome(config: dict[str, Any]) -> Outcome | None:
    """Of the run; None in all workers but the first."""
    _enter(config["folder"])
    run: TrainingRun = ray.get(config["run"])
    if not (run.folder / "config.yaml").exists():
        raise InputError(_not_shared(f"{config['folder']}/{run.folder}"))
    torch.set_num_threads(threads(config["cpus"]))
    where = get_device() if config["gpus"] else torch.device("cpu")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    workers = worker_group(config["norm_over"])
    watcher: Watcher = _Teller(config["mailbox"]) if workers.first else _Silent()
    state = newest(run, workers, watcher.say)
    worker = worker_state(run, state, where, workers)
    if workers.first:
        ray.get(config["mailbox"].tell.remote(_Started(worker.training.step)))
    outcome = execute(worker, watcher)
    return outcome if workers.first else None


def _enter(folder: str) -> None:
    """Work where the command was typed, so that its paths mean the same."""
    try:
        os.chdir(folder)
    except OSError:
        raise InputError(_not_shared(folder)) from None


def _not_shared(folder: str) -> str:
    return (
        f"engine.address: {socket.gethostname()} does not see {folder}, which must be on storage that all workers share"
    )
