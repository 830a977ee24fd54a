"""A run's figures for others to show: TensorBoard, MLflow, Weights & Biases. None can stop a training, or make it wait.

Each works in a thread of its own, through which neither an exception nor a delay comes: what a server does not take is
tried again with the next epoch, and when the run ends it is waited for a little while.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from phinas.files.atomic_file import write_atomically
from phinas.files.errors import InputError

_PATIENCE = 30.0  # seconds for which the end of a run waits for what is not yet sent
_PROJECT = "phinas"  # where the user names none

Log = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class LoggedRun:
    """What a logger is told about the run: its folder, its settings by their dotted names, and the steps taken."""

    folder: Path
    settings: Mapping[str, Any]
    step: int


class Logger(Protocol):
    """Where figures go; anything may raise. Made from a LoggedRun, it goes on with what it has of the same folder."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures by name, as they are after `step` steps."""

    def close(self, finished: bool) -> None:
        """No more will come; unless the run is finished, until it is resumed."""


class TensorBoard:
    """Into runs/NAME/tensorboard, on top of what the first steps left there."""

    def __init__(self, run: LoggedRun) -> None:
        from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

        # What a run that went on from an earlier step had said; not the figures of the step itself.
        place = str(run.folder / "tensorboard")
        self._writer = SummaryWriter(place, purge_step=run.step + 1, filename_suffix=f".{run.step}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class MLflow:
    """To the server, or into the store, of MLFLOW_TRACKING_URI, as a run of the experiment MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, run: LoggedRun) -> None:
        import mlflow  # type: ignore[import-not-found,unused-ignore]

        self._client = mlflow.MlflowClient()
        store, before = mlflow.get_tracking_uri(), _note(run.folder, "mlflow")
        if before.get("store") == store:
            self._id = before["run"]
            self._client.set_terminated(self._id, "RUNNING")
            return
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(project)
        number = self._client.create_experiment(project) if experiment is None else experiment.experiment_id
        self._id = self._client.create_run(number, run_name=run.folder.name).info.run_id
        # First, so that a setting which the server does not take costs that setting, and no figures.
        _write_note(run.folder, "mlflow", {"store": store, "run": self._id})
        for name, value in run.settings.items():
            self._client.log_param(self._id, name, value)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


class WandB:
    """To Weights & Biases, as a run of WANDB_PROJECT; into runs/NAME/wandb for `wandb sync` where nobody logged in."""

    def __init__(self, run: LoggedRun) -> None:
        import wandb  # type: ignore[import-not-found,unused-ignore]

        name = _note(run.folder, "wandb").get("run") or secrets.token_hex(4)
        _write_note(run.folder, "wandb", {"run": name})
        online = wandb.login(prompt=False, verify=False)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=run.folder.name, id=name, resume="allow",
            dir=run.folder, config=dict(run.settings), mode=os.environ.get("WANDB_MODE") if online else "offline",
            settings=wandb.Settings(console="off", silent=True, init_timeout=_PATIENCE, finish_timeout=_PATIENCE),
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


_LOGGERS: Mapping[str, tuple[Callable[[LoggedRun], Logger], str]] = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "mlflow": (MLflow, "mlflow"),
    "wandb": (WandB, "wandb"),
}  # with the package that each needs


def check_loggers(names: Any) -> tuple[str, ...]:
    """What `loggers=` asks for; InputError for a name that there is not, and for a package that is not installed."""
    asked = names if isinstance(names, list) else [] if names is None else [names]
    for name in asked:
        if name not in _LOGGERS:
            raise InputError(f"loggers={name}: there is no such logger; allowed: {', '.join(_LOGGERS)}")
        package = _LOGGERS[name][1]
        if importlib.util.find_spec(package) is None:
            raise InputError(f"loggers={name}: it needs the package {package}")
    return tuple(dict.fromkeys(asked))


@contextmanager
def logging(names: Sequence[str], run: LoggedRun, say: Callable[[str], None]) -> Iterator[Log]:
    """Yields what gives (step, values) to all the named loggers, and returns at once.

    What goes wrong with a logger is told to `say`, once for each, and goes no further.
    """
    threads = [_Thread(name, run, say) for name in names]
    finished = False

    def log(step: int, values: Mapping[str, float]) -> None:
        for thread in threads:
            thread.put(step, values)

    try:
        yield log
        finished = True
    finally:
        for thread in threads:
            thread.end(finished)
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.wait(until)


class _Thread:
    """A logger in a thread: it is made there too, since its server may be what does not answer."""

    def __init__(self, name: str, run: LoggedRun, say: Callable[[str], None]) -> None:
        self._name, self._run, self._say = name, run, say
        self._queue: SimpleQueue[tuple[int, Mapping[str, float]] | bool] = SimpleQueue()
        self._warned = False
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._thread.start()

    def put(self, step: int, values: Mapping[str, float]) -> None:
        self._queue.put((step, values))

    def end(self, finished: bool) -> None:
        self._queue.put(finished)

    def wait(self, until: float) -> None:
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._warn("no answer when the run ended")

    def _work(self) -> None:
        logger: Logger | None = None
        waiting: list[tuple[int, Mapping[str, float]]] = []
        finished: bool | None = None
        while True:
            try:
                if logger is None:
                    logger = _LOGGERS[self._name][0](self._run)
                while waiting:
                    logger.log(*waiting[0])
                    del waiting[0]
                if finished is not None:
                    logger.close(finished)
            except Exception as error:  # whatever it is: nobody's logger stops a training
                self._warn(" ".join(str(error).split()) or type(error).__name__)
            if finished is not None:
                return
            item = self._queue.get()
            if isinstance(item, bool):
                finished = item
            else:
                waiting.append(item)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            self._say(f"warning: {self._name} does not log all: {reason}")


def _note(folder: Path, name: str) -> dict[str, str]:
    """Under which name the run is known there; empty where it is not."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write_note(folder: Path, name: str, content: Mapping[str, str]) -> None:
    write_atomically(folder / f"{name}.json", json.dumps(content) + "\n")
