"""Loggers get every figure of a run in the end, and whatever they do, they neither stop a training nor make it wait."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from phinas.train import loggers
from phinas.train.loggers import LoggedRun, check_loggers, logging

EPOCHS = [(6, {"loss": 2.0}), (12, {"loss": 1.5}), (18, {"loss": 1.25})]


class Recorder:
    """A logger that is told what to do at each of its calls, in their order: nothing, or to raise."""

    def __init__(self, *faults: BaseException | None) -> None:
        self.faults = list(faults)
        self.logged: list[tuple[int, Mapping[str, float]]] = []
        self.closed: list[bool] = []

    def _act(self) -> None:
        if self.faults and (fault := self.faults.pop(0)):
            raise fault

    def __call__(self, run: LoggedRun) -> Recorder:
        self._act()
        return self

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._act()
        self.logged.append((step, values))

    def close(self, finished: bool) -> None:
        self._act()
        self.closed.append(finished)


Use = Callable[[Any], list[str]]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Use:
    """Log EPOCHS by the given logger; returns what the user was told."""

    def run(logger: Any) -> list[str]:
        said: list[str] = []
        monkeypatch.setitem(loggers._LOGGERS, "own", (logger, "sys"))
        with logging(["own"], LoggedRun(tmp_path, {}, 0), said.append) as log:
            for epoch in EPOCHS:
                log(*epoch)
                time.sleep(0.01)
        return said

    return run


def test_a_logger_gets_everything_in_order(use: Use) -> None:
    recorder = Recorder()
    assert use(recorder) == []
    assert recorder.logged == EPOCHS and recorder.closed == [True]


NONE, FAULT = None, OSError("no\nroute")


@pytest.mark.parametrize(
    "faults",
    [[FAULT], [NONE, FAULT], [NONE, NONE, NONE, FAULT], [FAULT, FAULT], [FAULT, NONE, FAULT, NONE, FAULT]],
    ids=["when made", "at the first", "at the last", "for long", "now and then"],
)
def test_what_failed_is_tried_again(use: Use, faults: list[BaseException | None]) -> None:
    recorder = Recorder(*faults)
    assert use(recorder) == ["warning: own does not log all: no route"]
    assert recorder.logged == EPOCHS and recorder.closed == [True]


def test_a_run_that_ends_early_is_closed_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder = Recorder()
    monkeypatch.setitem(loggers._LOGGERS, "own", (recorder, "sys"))
    with pytest.raises(KeyboardInterrupt):
        with logging(["own"], LoggedRun(tmp_path, {}, 0), print) as log:
            log(*EPOCHS[0])
            raise KeyboardInterrupt
    assert recorder.logged == EPOCHS[:1] and recorder.closed == [False]


def test_one_that_hangs_is_left_behind(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "_PATIENCE", 0.2)
    answer = threading.Event()
    started = time.monotonic()
    assert use(lambda run: answer.wait()) == ["warning: own does not log all: no answer when the run ended"]
    assert time.monotonic() - started < 5
    answer.set()


# ------------------------------------------------------------------------------------ packages that raise on every call

RAISES = """
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError("out of order")
"""


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Puts a module of this name and code in the place of the real one."""

    def put(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        spec = spec_from_file_location(name, tmp_path / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_package_that_raises_is_told_once(
    put: Callable[[str, str], None], tmp_path: Path, name: str, package: str
) -> None:
    put(package, RAISES)
    said: list[str] = []
    with logging(check_loggers([name]), LoggedRun(tmp_path, {}, 0), said.append) as log:
        for epoch in EPOCHS:
            log(*epoch)
    assert said == [f"warning: {name} does not log all: out of order"]


# -------------------------------------------------------------------------------------------------- the packages proper


def run_twice(name: str, folder: Path) -> None:
    """A run that is stopped after two epochs, and goes on."""
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with logging([name], LoggedRun(folder, {"recipe.lr": 0.4, "from": None}, 0), said.append) as log:
            for epoch in EPOCHS[:2]:
                log(*epoch)
            raise KeyboardInterrupt
    with logging([name], LoggedRun(folder, {"recipe.lr": 0.4, "from": None}, 12), said.append) as log:
        log(*EPOCHS[2])
    assert said == []


def test_tensorboard_goes_on_with_its_run(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

    run_twice("tensorboard", tmp_path)
    shown: list[tuple[int, dict[str, float]]] = []
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        records = file.read_bytes()
        while records:  # each is its length, a checksum of that, itself, and its checksum
            length = int.from_bytes(records[:8], "little")
            event, records = Event.FromString(records[12 : 12 + length]), records[16 + length :]
            if event.session_log.status == SessionLog.START:  # takes back what was said from this step on
                shown = [one for one in shown if one[0] < event.step]
            shown += [(event.step, {value.tag: value.simple_value}) for value in event.summary.value]
    assert shown == EPOCHS


def test_mlflow_goes_on_with_its_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra loggers is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    monkeypatch.setattr(loggers, "_PATIENCE", 120.0)  # the first use makes the database
    run_twice("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("ours").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == tmp_path.name
    assert run.data.params == {"recipe.lr": "0.4", "from": "None"}
    history = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert history == [(step, values["loss"]) for step, values in EPOCHS]


def test_wandb_goes_on_with_its_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra loggers is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_twice("wandb", tmp_path)
    folders = [folder.name.rpartition("-")[2] for folder in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(folders) >= 1 and len(set(folders)) == 1
