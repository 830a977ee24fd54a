"""One training from its start to its test, as each of its workers does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from phinas.engines.out_of_memory import out_of_memory
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.training.data.training_data import Batches, EvaluationData, TrainingData
from phinas.training.full import checkpoint, metrics
from phinas.training.full.initial_network import initial_network
from phinas.training.full.metrics import read_metrics, write_metrics
from phinas.training.full.recipe import FullRecipe
from phinas.training.full.trained_network import save_network
from phinas.training.full.training_loop import Epoch, TrainingState, fitting_parts, train
from phinas.training.scoring import Score, evaluate
from phinas.training.workers.worker_group import WorkerGroup


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What is trained, by what, on what. Pickles, so that every worker gets it whole.

    folder              the run's, where the first worker writes checkpoints, metrics and, in the end, the network.
    weights             to start from, those of the classifier perhaps missing; None: fresh ones of the seed.
    settings            what must be the same in a run that goes on from a checkpoint of this run.
    about               what goes with the weights when they are carried away.
    checkpoint_seconds  between checkpoints within an epoch.
    """

    folder: Path
    arch: Arch
    recipe: FullRecipe
    data: TrainingData
    seed: int
    weights: Mapping[str, Tensor] | None
    settings: Mapping[str, Any]
    about: Mapping[str, Any]
    checkpoint_seconds: float

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def batch(self) -> int:
        """Images of a step, those of all workers together."""
        return min(self.recipe.batch_size, self.data.train_count)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.data.train_count // self.batch


class Watcher(Protocol):
    """Who follows the first worker, and may stop it."""

    def after_step(self, step: int, best: float | None) -> None:
        """`step` steps are taken since the run began; `best` is the highest accuracy held out."""

    def after_epoch(self, epoch: Epoch, best: float) -> None:
        """The epoch is scored, in `metrics.csv`, and saved."""

    def told_to_stop(self) -> bool:
        """Whether the training should be saved and end now."""

    def say(self, text: str) -> None:
        """A line for the user."""


@dataclass(frozen=True)
class Outcome:
    """What came of a training that is done.

    epochs, steps, seconds  of the network that is kept.
    held_out, test          its scores; None where there is no test split.
    weights                 where they are: file and SHA-256.
    """

    epochs: int
    steps: int
    seconds: float
    held_out: Score
    test: Score | None
    weights: Mapping[str, str]


class Stopped(Exception):
    """The training ended because its watcher wanted it to, after `step` steps, which are saved."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


@dataclass(frozen=True, eq=False)
class WorkerState:
    """A training run in one worker, on its device."""

    run: TrainingRun
    workers: WorkerGroup
    training: TrainingState
    batches: Batches
    held_out: EvaluationData


def worker_state(
    run: TrainingRun, state: Mapping[str, Any] | None, where: torch.device, workers: WorkerGroup
) -> WorkerState:
    """All on the device, and as `state` left it.

    Raises InputError for a state of another network, and for images that cannot be read or do not fit into memory.
    """
    recipe, side = run.recipe, run.arch.resolution
    module = initial_network(run.arch, run.seed, run.weights)
    if state is not None:
        checkpoint.check_same_network(state["module"], module.state_dict(), str(run.checkpoints))
    batches = run.data.batches(recipe, run.seed, side, where, workers.shard)
    held_out = run.data.held_out(recipe, side, where, workers.shard)
    training = TrainingState(module, recipe, batches.steps, where)
    if state is not None:
        training.load_state_dict(state)
    return WorkerState(run, workers, training, batches, held_out)


def newest(run: TrainingRun, workers: WorkerGroup, say: Callable[[str], None]) -> Mapping[str, Any] | None:
    """The state in the newest whole checkpoint, for all workers the same one; None where the run has not begun."""
    # The first worker looks for it: storage that is shared may show the others an older list.
    state = checkpoint.load_newest(run.checkpoints, say) if workers.first else None
    newest_checkpoint = workers.broadcast(checkpoint.listed(run.checkpoints)[-1:] if workers.first else [])
    if newest_checkpoint and not workers.first:
        state = checkpoint.load(run.checkpoints, newest_checkpoint[0])
    return state


def execute(worker: WorkerState, watcher: Watcher) -> Outcome:
    """Train to the end, and test what is kept, once.

    Raises Stopped, Diverged, and InputError where memory is too small.
    """
    try:
        _train(worker, watcher)
        fits = True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        fits = False
    if not fits:  # by now the exception is gone, and what the step that failed held with it
        raise _too_little_memory(worker)
    return _finish(worker)


def _train(worker: WorkerState, watcher: Watcher) -> None:
    """Train to the end; the first worker saves on the way."""
    run, workers, training, recipe = worker.run, worker.workers, worker.training, worker.run.recipe
    history = [epoch for epoch in read_metrics(run.folder / metrics.FILE) if epoch.number <= training.epochs]
    saved = time.monotonic()
    forward = torch.compile(training.module) if recipe.compile else workers.data_parallel(training.module)

    def save(accuracy: float | None = None) -> None:
        nonlocal saved
        training.check_finite()
        if workers.first:
            checkpoint.save(run.checkpoints, training.state_dict(), run.settings, accuracy)
        saved = time.monotonic()

    def after_step() -> None:
        watcher.after_step(training.step, training.best if training.epochs else None)
        if workers.broadcast_flag(watcher.told_to_stop()):
            save()
            raise Stopped(training.step)
        if workers.first and time.monotonic() - saved >= run.checkpoint_seconds:
            save()

    try:
        for epoch in train(training, worker.batches, worker.held_out, recipe, run.seed, after_step, forward, workers):
            history.append(epoch)
            if workers.first:
                # Before the checkpoint: rows that it does not know of are dropped, but a missing row would stay so.
                write_metrics(run.folder / metrics.FILE, history)
            save(epoch.score.accuracy)
            watcher.after_epoch(epoch, training.best)
    except InputError as error:  # an image that cannot be read, between two steps
        if not workers.alone:
            raise  # the first worker, which saves, may not have met it
        save()
        raise InputError(f"{error}; what was learnt until then, in {training.step:,} steps, is saved") from None


def _finish(worker: WorkerState) -> Outcome:
    run, workers, training, recipe = worker.run, worker.workers, worker.training, worker.run.recipe
    if recipe.patience is not None:
        best = workers.broadcast([checkpoint.best(run.checkpoints)] if workers.first else [])
        training.load_state_dict(checkpoint.load(run.checkpoints, best[0]))
    module = training.scored(worker.batches.calibration, recipe.bfloat16)
    weights = workers.broadcast(
        save_network(run.folder, run.arch, module.state_dict(), run.about) if workers.first else {}
    )
    score = evaluate(module, worker.held_out, recipe.bfloat16, workers)
    test = None
    if run.data.test_count is not None:
        tested = run.data.test(recipe, run.arch.resolution, training.where, workers.shard)
        test = evaluate(module, tested, recipe.bfloat16, workers)
    return Outcome(training.epochs, training.step, training.seconds, score, test, weights)


def _too_little_memory(worker: WorkerState) -> InputError:
    """It says what would fit, where it was a step that did not."""
    run, training, batches = worker.run, worker.training, worker.batches
    where = f"recipe.batch_size={run.batch} and {run.arch.resolution} px"
    if training.step == (training.epochs + 1) * batches.steps:
        return InputError(f"out of memory at {where}, in scoring")
    training.optimizer.zero_grad(set_to_none=True)
    parts = fitting_parts(training.module, batches, run.recipe)
    help = "no accumulate helps" if parts is None else f"recipe.accumulate={parts} would fit"
    return InputError(f"out of memory at {where}; {help}")
