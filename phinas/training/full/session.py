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
from phinas.training.data.batches import Batches
from phinas.training.data.source import Scored, Source
from phinas.training.full import checkpoint, metrics
from phinas.training.full.fit import Epoch, Score, Training, evaluate, fit, fitting_parts
from phinas.training.full.kept import keep
from phinas.training.full.metrics import read_metrics, write_metrics
from phinas.training.full.recipe import FullRecipe
from phinas.training.full.start import built
from phinas.training.workers.group import Group


@dataclass(frozen=True, eq=False)
class Session:
    """What is trained, by what, on what. Pickles, so that every worker gets it whole.

    folder              the run's, where the first worker writes checkpoints, metrics and, in the end, the network.
    weights             to start from, those of the classifier perhaps missing; None: fresh ones of the seed.
    settings            what must be the same in a run that goes on from a checkpoint of this one.
    about               what goes with the weights when they are carried away.
    checkpoint_seconds  between checkpoints within an epoch.
    """

    folder: Path
    arch: Arch
    recipe: FullRecipe
    source: Source
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
        return min(self.recipe.batch_size, self.source.train_count)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.source.train_count // self.batch


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
class Work:
    """A session's parts in one worker, on its device."""

    session: Session
    group: Group
    training: Training
    batches: Batches
    held_out: Scored


def prepared(session: Session, state: Mapping[str, Any] | None, where: torch.device, group: Group) -> Work:
    """All on the device, and as `state` left it.

    Raises InputError for a state of another network, and for images that cannot be read or do not fit into memory.
    """
    recipe, side = session.recipe, session.arch.resolution
    module = built(session.arch, session.seed, session.weights)
    if state is not None:
        checkpoint.check_same_network(state["module"], module.state_dict(), str(session.checkpoints))
    batches = session.source.batches(recipe, session.seed, side, where, group.share)
    held_out = session.source.held_out(recipe, side, where, group.share)
    training = Training(module, recipe, batches.steps, where)
    if state is not None:
        training.load_state_dict(state)
    return Work(session, group, training, batches, held_out)


def newest(session: Session, group: Group, say: Callable[[str], None]) -> Mapping[str, Any] | None:
    """The state in the newest whole checkpoint, for all workers the same one; None where the run has not begun."""
    # The first worker looks for it: storage that is shared may show the others an older list.
    state = checkpoint.load_newest(session.checkpoints, say) if group.first else None
    found = group.told(checkpoint.listed(session.checkpoints)[-1:] if group.first else [])
    if found and not group.first:
        state = checkpoint.load(session.checkpoints, found[0])
    return state


def run(work: Work, watcher: Watcher) -> Outcome:
    """Train to the end, and test what is kept, once.

    Raises Stopped, Diverged, and InputError where memory is too small.
    """
    try:
        _train(work, watcher)
        fits = True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        fits = False
    if not fits:  # by now the exception is gone, and what the step that failed held with it
        raise _too_little_memory(work)
    return _finish(work)


def _train(work: Work, watcher: Watcher) -> None:
    """Train to the end; the first worker saves on the way."""
    session, group, training, recipe = work.session, work.group, work.training, work.session.recipe
    history = [one for one in read_metrics(session.folder / metrics.FILE) if one.number <= training.epochs]
    saved = time.monotonic()
    forward = torch.compile(training.module) if recipe.compile else group.parallel(training.module)

    def save(accuracy: float | None = None) -> None:
        nonlocal saved
        training.check_finite()
        if group.first:
            checkpoint.save(session.checkpoints, training.state_dict(), session.settings, accuracy)
        saved = time.monotonic()

    def after_step() -> None:
        watcher.after_step(training.step, training.best if training.epochs else None)
        if group.agree(watcher.told_to_stop()):
            save()
            raise Stopped(training.step)
        if group.first and time.monotonic() - saved >= session.checkpoint_seconds:
            save()

    try:
        for epoch in fit(training, work.batches, work.held_out, recipe, session.seed, after_step, forward, group):
            history.append(epoch)
            if group.first:
                # Before the checkpoint: rows that it does not know of are dropped, but a missing one would stay so.
                write_metrics(session.folder / metrics.FILE, history)
            save(epoch.score.accuracy)
            watcher.after_epoch(epoch, training.best)
    except InputError as error:  # an image that cannot be read, between two steps
        if group.share.of > 1:
            raise  # the first worker, which saves, may not have met it
        save()
        raise InputError(f"{error}; what was learnt until then, in {training.step:,} steps, is saved") from None


def _finish(work: Work) -> Outcome:
    session, group, training, recipe = work.session, work.group, work.training, work.session.recipe
    if recipe.patience is not None:
        best = group.told([checkpoint.best(session.checkpoints)] if group.first else [])
        training.load_state_dict(checkpoint.load(session.checkpoints, best[0]))
    module = training.scored(work.batches.calibration, recipe.bfloat16)
    weights = group.told(keep(session.folder, session.arch, module.state_dict(), session.about) if group.first else {})
    score = evaluate(module, work.held_out, recipe.bfloat16, group)
    test = None
    if session.source.test_count is not None:
        tested = session.source.test(recipe, session.arch.resolution, training.where, group.share)
        test = evaluate(module, tested, recipe.bfloat16, group)
    return Outcome(training.epochs, training.step, training.seconds, score, test, weights)


def _too_little_memory(work: Work) -> InputError:
    """It says what would fit, where it was a step that did not."""
    session, training, batches = work.session, work.training, work.batches
    where = f"recipe.batch_size={session.batch} and {session.arch.resolution} px"
    if training.step == (training.epochs + 1) * batches.steps:
        return InputError(f"out of memory at {where}, in scoring")
    training.optimizer.zero_grad(set_to_none=True)
    parts = fitting_parts(training.module, batches, session.recipe)
    help = "no accumulate helps" if parts is None else f"recipe.accumulate={parts} would fit"
    return InputError(f"out of memory at {where}; {help}")
