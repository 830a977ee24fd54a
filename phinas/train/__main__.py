"""`python -m phinas.train model=efficientnet_b0 data=... recipe=fast`: train one network to the end."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say, saying_what_is_kept
from phinas.command.parts import construct
from phinas.command.progress import Show, duration_text, progress
from phinas.command.run import run
from phinas.command.run_folder import (
    another_commands,
    check_unlocked,
    locked,
    read_config,
    run_folder,
    write_config,
    write_json,
)
from phinas.command.verbs import command_line
from phinas.engines.threads import torch_threads
from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError
from phinas.files.moved import renamed
from phinas.files.origin import file_source
from phinas.files.settings import flatten
from phinas.networks.arch import Arch
from phinas.networks.build import build
from phinas.networks.cost import cost
from phinas.networks.named import named
from phinas.networks.room import check_room
from phinas.pages.cost_text import macs_text
from phinas.train.loggers import Log, LoggedRun, check_loggers, logging
from phinas.training.data.load_for_training import load_for_training, takes
from phinas.training.data.training_data import TrainingData
from phinas.training.device import device
from phinas.training.full import checkpoint, metrics
from phinas.training.full.initial_network import below_head, fitted_to_data, read_weights
from phinas.training.full.recipe import FullRecipe
from phinas.training.full.trained_network import WEIGHTS
from phinas.training.full.training_loop import Epoch
from phinas.training.full.training_run import Outcome, Stopped, TrainingRun, Watcher, execute, worker_state
from phinas.training.own_failures import Diverged
from phinas.training.workers.engine import Engine, WorkersFailed
from phinas.training.workers.worker_group import ONE_WORKER

# What may change between the runs of one training: how it is kept and shown, and by which parts it is computed.
_FREE_TO_CHANGE = ("name", "data", "checkpoint_seconds", "loggers", "engine")  # the data is known by its hash
_FREE_OF_RECIPE = ("accumulate", "compile")
_SECONDS_BETWEEN_REPORTS = 60


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, names = configuration("phinas.train", "train", arguments)
    try:
        train(given, names, arguments)
    except TrainingFailed as error:
        say(f"failed: {error}")
        return 1
    return 0


class TrainingFailed(Exception):
    """The training ended before its end: it diverged, or lost its workers. The message says what may help."""


def train(given: Mapping[str, Any], names: Mapping[str, str], arguments: Sequence[str]) -> None:
    """One training, or as much of it as is left: its settings, the choice in each group, and what was typed.

    Raises InputError for what the user can mend, and TrainingFailed.
    """
    seed = check_whole("seed", given["seed"], least=0)
    every = check_number("checkpoint_seconds", given["checkpoint_seconds"], least=0)
    loggers = check_loggers(given["loggers"])
    folder = run_folder(given["name"])
    check_unlocked(folder)  # before its checkpoints, which come and go under a run that goes on, are read

    # Everything is checked before anything is written.
    recipe: FullRecipe = construct(given, "recipe")
    engine: Engine = construct(given, "engine")
    model = named("model", str(given["model"]))
    data = _data(given)
    arch = _fitted(model, data, recipe, given)
    weights = None if given["from"] is None else _weights(str(given["from"]), arch, recipe)
    if recipe.head_only and weights is None:
        raise InputError("recipe.head_only=true: it takes from=..., as all but the head stays as it is")
    settings = _settings(given, arch, data, weights)
    about = _about(given, names, folder, arch, recipe, data)
    start = None if weights is None else weights.state
    what = TrainingRun(folder, arch, recipe, data, seed, start, settings, about, every)
    engine.check(recipe, what.batch)
    state = _state_before(what)
    asked = _Asked(what, given, names, arguments, model, weights, engine)

    step, epochs = (0, 0) if state is None else (state["step"], state["epochs"])
    _introduce(asked, step)
    if asked.finished:
        _conclude(asked)
        return
    how_to_go_on = f"its checkpoints are kept. To go on: {asked.command}"
    with _workers(engine, what, state) as run_on, locked(folder), saying_what_is_kept(lambda: how_to_go_on):
        write_config(folder, given)
        try:
            with logging(loggers, LoggedRun(folder, flatten(given), step), say) as log:
                with _watching(asked, log, step, epochs) as watcher:
                    outcome = run_on(watcher)
                if outcome.test is not None:
                    last = metrics.read_metrics(folder / metrics.FILE)[-1].step  # `outcome` is of the best
                    log(last, {f"test_{name}": value for name, value in asdict(outcome.test).items()})
        except Diverged as error:
            raise TrainingFailed(f"{error}; a lower recipe.lr= may help, under another name=") from None
        except WorkersFailed as error:
            raise TrainingFailed(f"{error}; going on:\n  {asked.command}") from None
        # One write, by which the run is finished: the test split is not looked at again.
        write_json(folder / "summary.json", _summary(asked, outcome))
        _write_report(asked)
    _conclude(asked)


@dataclass(frozen=True)
class _Weights:
    """What to start from."""

    source: Mapping[str, str]
    state: Mapping[str, torch.Tensor]
    new_head: bool


@dataclass(frozen=True)
class _Asked:
    """What the user asked for, and what that comes to."""

    run: TrainingRun
    given: Mapping[str, Any]
    names: Mapping[str, str]
    arguments: Sequence[str]
    model: Arch  # as it was named
    weights: _Weights | None
    engine: Engine

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def finished(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def command(self) -> str:
        """The command line that resumes this run."""
        return command_line("phinas.train", self.arguments, name=self.folder.name)

    @property
    def export(self) -> str:
        """The command line that carries the trained network away."""
        model, weights = self.folder / "model.yaml", self.folder / WEIGHTS
        return command_line("phinas.generate", [f"baseline={model}", "phi=0", "export=all", f"weights={weights}"])


# ------------------------------------------------------------------------------------------------- before the training


def _data(given: Mapping[str, Any]) -> TrainingData:
    """What is trained on, held out, and tested on."""
    target, settings = str(given["data"]["_target_"]), dict(given["data"])
    fraction = check_number("data.val_fraction", settings["val_fraction"], above=0, below=1)
    if not takes(target, "val_fraction"):  # a loader of the user's own that knows what to hold out
        del settings["val_fraction"]
    return load_for_training("data", settings, fraction)


def _fitted(model: Arch, data: TrainingData, recipe: FullRecipe, given: Mapping[str, Any]) -> Arch:
    """The network as it is trained: its sides, channels and classes are the data's."""
    for name in ("resolution", "stem_stride"):
        if given[name] is not None:
            check_whole(name, given[name])
    arch = fitted_to_data(model, data, recipe, given["resolution"], given["stem_stride"])
    check_room(arch, f"model={given['model']}")
    return arch


def _weights(text: str, arch: Arch, recipe: FullRecipe) -> _Weights:
    """What is in the file, or in the folder of a run, under our names; without a head of other classes."""
    path = Path(text) / WEIGHTS if Path(text).is_dir() else Path(text)
    state, classes = read_weights(path, arch, f"from={text}", say)
    if classes != arch.classes and not recipe.new_head:
        raise InputError(
            f"from={text}: it has {classes} classes, the data {arch.classes}; recipe=finetune gives a new head"
        )
    if classes != arch.classes:
        state = below_head(state)
    return _Weights(file_source(path), state, classes != arch.classes)


def _settings(given: Mapping[str, Any], arch: Arch, data: TrainingData, weights: _Weights | None) -> dict[str, Any]:
    """What must agree between two runs of one training."""
    settings = {name: value for name, value in given.items() if name not in _FREE_TO_CHANGE}
    settings["recipe"] = {name: value for name, value in given["recipe"].items() if name not in _FREE_OF_RECIPE}
    return {
        **settings,
        "network": arch.key(),
        "weights": None if weights is None else weights.source["sha256"],
        "data_hash": data.hash,
        "classes": list(data.classes),
        "flip": data.flip,
    }


def _about(
    given: Mapping[str, Any], names: Mapping[str, str], folder: Path, arch: Arch, recipe: FullRecipe, data: TrainingData
) -> dict[str, Any]:
    """What it takes to use the trained network."""
    return {
        "made_by": "phinas.train",
        "run": folder.name,
        "model": str(given["model"]),
        "key": arch.key(),
        "recipe": names["recipe"],
        "data": names["data"],
        "mean": data.mean.tolist(),  # of the pixels, from 0 to 255
        "std": data.std.tolist(),
        "evaluation_crop": recipe.evaluated_share(arch.resolution),
        "class_names": list(data.classes),
    }


def _state_before(what: TrainingRun) -> dict[str, Any] | None:
    """Where the run in the folder stands; None where it has not begun.

    Raises InputError where the folder is another command's, or of a training with other settings or another network.
    """
    folder, checkpoints = what.folder, what.checkpoints
    before = renamed(checkpoint.settings_of(checkpoints))
    if before is None:
        config = read_config(folder)
        if config is not None and "recipe" not in config:
            raise another_commands(folder)
        if (folder / "summary.json").exists():
            raise InputError(
                f"name={folder.name}: {folder} holds results without their checkpoints; give another name="
            )
        return None
    earlier, now = flatten(before), flatten(what.settings)
    for option in [*now, *earlier]:
        if earlier.get(option) != now.get(option):
            why = " (other images, or read otherwise: data.stream?)" if option == "data_hash" else ""
            raise InputError(
                f"name={folder.name}: {folder} was trained with {option}={earlier.get(option)}, "
                f"not {now.get(option)}{why}; give another name="
            )
    metrics.read_metrics(folder / metrics.FILE)  # to have what is damaged said now
    state = checkpoint.load_newest(checkpoints, say)
    if state is not None:
        with torch.device("meta"):
            ours_now = build(what.arch).state_dict()
        checkpoint.check_same_network(state["module"], ours_now, str(checkpoints))
    return state


def _introduce(asked: _Asked, step: int) -> None:
    """Say what is about to happen."""
    what, model = asked.run, asked.model
    arch, data, recipe = what.arch, what.data, what.recipe
    costs = cost(arch)
    changed = [
        f"{name} {before} -> {after}"
        for name, before, after in (
            ("resolution", model.resolution, arch.resolution),
            ("stem stride", model.stem.stride, arch.stem.stride),
            ("classes", model.classes, arch.classes),
            ("channels", model.in_channels, arch.in_channels),
        )
        if before != after
    ]
    say(
        f"{asked.given['model']}: {macs_text(costs.macs)}, {costs.params:,} parameters at {arch.resolution} px"
        + (f"; fitted to the data: {', '.join(changed)}" if changed else "")
    )
    if asked.weights is not None:
        head = ", with a new head" if asked.weights.new_head else ""
        say(f"from {asked.weights.source['file']}{head}")
    elif recipe.new_head:
        say(f"recipe {asked.names['recipe']} is for weights that have learnt (from=...); these are drawn anew")
    test = "no test split" if data.test_count is None else f"{data.test_count:,} for the test at the end"
    say(
        f"{data.train_count:,} images to train on, {data.held_out_count:,} held out, {test}; "
        f"recipe {asked.names['recipe']}: {recipe.epochs} epochs of {what.steps} steps of {what.batch}"
    )
    if asked.engine.workers > 1:
        workers, norms = asked.engine.workers, asked.engine.norms(what.batch)
        over = {1: "each worker's own", workers: "all workers'"}.get(norms, f"{norms} workers'")
        say(f"{workers} workers, {what.batch // workers} images of a step each; batch norm over {over} images")
    if step:
        say(f"{asked.folder}: going on after step {step:,} of {recipe.epochs * what.steps:,}")


# --------------------------------------------------------------------------------------------------------- the training


@contextmanager
def _workers(
    engine: Engine, what: TrainingRun, state: Mapping[str, Any] | None
) -> Iterator[Callable[[Watcher], Outcome]]:
    """What trains, in this process or in others, once all that can be checked before has been."""
    if engine.workers > 1:
        from phinas.training.workers.ray_train import started  # with Ray, which takes seconds to import

        with started(engine) as train:
            yield partial(train, what)
        return
    where = torch.device("cpu") if engine.gpus_per_worker == 0 else device()
    if engine.gpus_per_worker and where.type == "cpu":
        raise InputError("engine.gpus_per_worker=1: there is no GPU here that torch can use")
    with torch_threads(engine.cpus_per_worker):
        yield partial(execute, worker_state(what, state, where, ONE_WORKER))


@contextmanager
def _watching(asked: _Asked, log: Log, step: int, epochs: int) -> Iterator[Watcher]:
    """Shows a training that has come so far, and stops it when the user says so, with how to go on."""
    by_step = CONSOLE.is_terminal  # a log has a line an epoch
    all_epochs = asked.run.recipe.epochs
    done, of = (step, all_epochs * asked.run.steps) if by_step else (epochs, all_epochs)
    try:
        with _stopping() as told_to_stop, progress(CONSOLE, "steps" if by_step else "epochs", done, of) as show:
            yield _Watcher(asked, log, told_to_stop, show, by_step, done)
    except Stopped as stopped:
        total = all_epochs * asked.run.steps
        say(f"\nstopped after step {stopped.step:,} of {total:,}; going on:\n  {asked.command}")
        raise KeyboardInterrupt from None


@dataclass
class _Watcher:
    """The user's terminal, the loggers, and the report of a run that goes on."""

    asked: _Asked
    log: Log
    told_to_stop: Callable[[], bool]
    show: Show
    by_step: bool
    shown: int  # steps, or epochs
    reported: float = field(default_factory=time.monotonic)

    def after_step(self, step: int, best: float | None) -> None:
        if self.by_step:
            self._show(step, "", best)

    def after_epoch(self, epoch: Epoch, best: float) -> None:
        self.log(epoch.step, {name: value for name, value in metrics.row(epoch).items() if name != "step"})
        if time.monotonic() - self.reported >= _SECONDS_BETWEEN_REPORTS:
            _write_report(self.asked)
            self.reported = time.monotonic()
        if not self.by_step:
            self._show(epoch.number, f"loss {epoch.train_loss:.4f}  held out {epoch.score.accuracy:.4f}", best)

    def say(self, text: str) -> None:
        say(text)

    def _show(self, number: int, line: str, best: float | None) -> None:
        while self.shown < number:  # others tell of several steps at once, and repeat some that were lost
            self.shown += 1
            self.show(line, "" if best is None else f"{best:.4f}")


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM only makes the yielded function true; the second stops at once."""
    told = False

    def listen(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            raise KeyboardInterrupt
        told = True

    before = {number: signal.signal(number, listen) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------------------------------- after the training


def _conclude(asked: _Asked) -> None:
    """Say what came of it."""
    folder = asked.folder
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text())
        test, held_out = summary["test"], summary["held_out"]["accuracy"]
        accuracy = f"test accuracy {test['accuracy']:.4f} (top 5: {test['top5']:.4f})" if test else "no test split"
        training = f"after epoch {summary['epoch']}, {duration_text(summary['seconds'])} of training"
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: damaged; remove it, and the same command makes it again") from None
    say(
        f"{accuracy}; held out {held_out:.4f} {training}\n"
        f"written: {folder}/ with {WEIGHTS}, model.yaml, metrics.csv, summary.json, checkpoints\n"
        f"look at it: {folder}/report.html\n"
        f"carry it away:\n  {asked.export}"
    )


def _summary(asked: _Asked, outcome: Outcome) -> dict[str, Any]:
    arch, data = asked.run.arch, asked.run.data
    costs = cost(arch)
    return {
        "model": str(asked.given["model"]),
        "key": arch.key(),
        "macs": costs.macs,
        "params": costs.params,
        "resolution": arch.resolution,
        "classes": arch.classes,
        "recipe": asked.names["recipe"],
        "data": asked.names["data"],
        "images": {"train": data.train_count, "held_out": data.held_out_count, "test": data.test_count},
        "seed": asked.given["seed"],
        "from": None if asked.weights is None else dict(asked.weights.source),
        "epoch": outcome.epochs,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "held_out": asdict(outcome.held_out),
        "test": None if outcome.test is None else asdict(outcome.test),
        "weights": dict(outcome.weights),
    }


def _write_report(asked: _Asked) -> None:
    """`report.html`, of a run that may go on."""
    from phinas.train.report import write_report  # with matplotlib, which takes a second

    write_report(asked.run, asked.export if asked.finished else asked.command)


if __name__ == "__main__":
    run(main)
