"""The study: which networks are evaluated with which seeds, kept in an Optuna study in the run's folder.

Its SQLite file is the state. A finished trial is on disk before anybody hears of it, and is never evaluated again;
trials that a crash left running are failed, and enqueued anew. `optuna-dashboard sqlite:///runs/NAME/study.db`.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from nas.halving import Halving
from phinas.engines.in_flight import InFlight
from phinas.files.errors import CannotWrite, InputError
from phinas.files.settings import check_same_settings
from phinas.networks.arch import Arch

NAME = "scaling"
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "gp": lambda seed: GPSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True),
}
_SIBLING = "another seed of this network was stopped early"
PROPOSALS = 20  # that a sampler may make for each network that is wanted

Params = Mapping[str, float | str]
Ranges = Mapping[str, tuple[float, float] | tuple[str, ...]]

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # the GP sampler, and TPE's multivariate


@dataclass(frozen=True)
class Task:
    """A network to evaluate, and the parameters by which people know it."""

    params: Params
    network: Arch


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation.

    network    key of the network.
    replicate  which of its seeds, from 0.
    curve      accuracy after each epoch, fractions; the last is the result.
    stopped    halted early by successive halving.
    error      why it failed; None if it did not.
    retries    how often it was started again because its worker died.
    seconds    from its start to its end.
    """

    network: str
    params: Params
    replicate: int
    curve: tuple[float, ...]
    stopped: bool
    error: str | None
    seconds: float
    retries: int = 0

    @property
    def accuracy(self) -> float | None:
        """Of the whole evaluation; None where it failed or was stopped."""
        return self.curve[-1] if self.curve and self.error is None and not self.stopped else None


@dataclass(frozen=True)
class Explore:
    """Let a sampler propose networks, in place of a list of them.

    sampler  one of `SAMPLERS`.
    count    networks wanted.
    task_of  what it chose -> the task, or None where that is no network.
    """

    sampler: str
    count: int
    task_of: Callable[[Params], Task | None]


@dataclass(frozen=True)
class Job:
    """An evaluation in flight; `number` is its trial's."""

    number: int
    network: Arch
    seed: int
    replicate: int


class Study:
    """The bookkeeping of a scaling search, which every engine drives as its `Jobs`.

    All networks of a list are trained once before any is trained a second time; a sampler's are trained with all
    seeds before it proposes the next. Replicate k has the same evaluation seed for every network, so that they are
    compared on the same orders of the same images. Halving goes by replicate 0: what it stops has no others.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        ranges: Ranges,
        tasks: Sequence[Task] = (),
        replicates: int = 1,
        seed: int = 0,
        halving: Halving | None = None,
        explore: Explore | None = None,
        watch: Callable[[Evaluation], None] = lambda evaluation: None,
    ) -> None:
        """
        settings    what must agree for two runs to be one study; `check_study` tells without writing.
        ranges      the parameters of all tasks: between two numbers, or one of several words.
        tasks       the networks, unless a sampler is to `explore`.
        replicates  evaluations of each network, with different seeds.
        """
        check_study(path, settings)
        self.path = path
        self.replicates = replicates
        self.seed = seed
        self.halving = halving
        self.explore = explore
        self.watch = watch
        self.in_flight = InFlight[Job]()
        self._tasks = {task.network.key(): task for task in tasks}
        self._distributions = {name: _distribution(values) for name, values in ranges.items()}
        self._trials: dict[int, Trial] = {}
        self._storage = RDBStorage(f"sqlite:///{path}")
        self._study = optuna.create_study(
            storage=self._storage, study_name=NAME, direction="maximize", load_if_exists=True, sampler=RandomSampler()
        )
        self._study.set_user_attr("settings", settings)
        self.stale = self._fail_stale()
        if explore:
            for trial in self._study.get_trials(deepcopy=False):
                self._recall(explore, trial)
        if halving:
            for evaluation in self.evaluations:
                if evaluation.replicate == 0:
                    halving.replay(evaluation.curve)
        self._enqueue_missing()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The networks of this study by key; a sampler's grow in number as it goes on."""
        return self._tasks

    @property
    def wanted(self) -> int:
        """Evaluations when all is done; fewer, where halving stops some or a sampler finds no more."""
        return (self.explore.count if self.explore else len(self._tasks)) * self.replicates

    @property
    def left(self) -> int:
        """Evaluations that are neither finished nor known to be needless."""
        notes = [trial.user_attrs for trial in self._study.get_trials(deepcopy=False)]
        needless = {(note["network"], note["replicate"]) for note in notes if note.get("void") == _SIBLING}
        spared: int = sum(key in self._tasks and replicate < self.replicates for key, replicate in needless)
        return self.wanted - len(self.evaluations) - spared

    @property
    def evaluations(self) -> list[Evaluation]:
        """All that are finished, of networks and seeds that are wanted, in the order they finished."""
        finished = [trial for trial in self._study.get_trials(deepcopy=False) if _finished(trial)]
        results = [_evaluation(trial) for trial in sorted(finished, key=lambda trial: _end(trial))]
        return [result for result in results if result.network in self._tasks and result.replicate < self.replicates]

    def propose(self) -> Job | None:
        """The next network and seed, or None while there is none."""
        while True:
            trial = self._waiting() or self._asked()
            if trial is None:
                return None
            job = self._job(trial)
            if job is not None:
                self._trials[job.number] = trial
                return self.in_flight.begin(job)

    def record(self, number: int, step: int, accuracy: float) -> bool:
        """Note the accuracy after a step (counted from 1), and say whether the evaluation is worth continuing."""
        if not self.in_flight.note(number, step, accuracy):  # the rungs have seen this step
            return True
        self._trials[number].report(accuracy, step)
        # The first seed decides. Another hurdle for each seed would leave hardly a network with all of them.
        return self.halving is None or self.in_flight[number].replicate > 0 or self.halving.keeps(step, accuracy)

    def finish(self, number: int, stopped: bool = False, error: str | None = None, retries: int = 0) -> Evaluation:
        """Record the outcome: evaluated to the end, stopped early, or failed for the network's own fault."""
        if retries:
            self._trials[number].set_user_attr("retries", retries)
        if error is not None:
            self._trials[number].set_user_attr("error", error)
            frozen = self._study.tell(number, state=TrialState.FAIL)
        elif stopped:
            frozen = self._study.tell(number, state=TrialState.PRUNED)
        else:
            frozen = self._study.tell(number, self.in_flight.curve(number)[-1])
        del self._trials[number]
        self.in_flight.end(number)
        evaluation = _evaluation(frozen)
        self.watch(evaluation)
        return evaluation

    def close(self) -> None:
        """Leave no trial running. What is in flight is evaluated when the study is opened again.

        An interruption may have come between the database and `in_flight`, so that it is the database that is asked.
        Where there is no room to say so, they are found running then.
        """
        self.in_flight.clear()
        self._trials.clear()
        with suppress(CannotWrite), writing_study(self.path):
            self._fail_stale()
        self._storage.remove_session()

    def _waiting(self) -> Trial | None:
        """The first trial in the queue, set running."""
        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return None
        self._study.sampler = RandomSampler()  # it has nothing to choose: all parameters are fixed
        return self._study.ask(self._distributions)

    def _asked(self) -> Trial | None:
        """A new proposal of the sampler, set running; None where none is wanted."""
        if self.explore is None or len(self._tasks) >= self.explore.count:
            return None
        made = sum(self._distributions.keys() <= set(trial.params) for trial in self._study.get_trials(deepcopy=False))
        if made >= PROPOSALS * self.explore.count * self.replicates:
            return None  # it finds nothing new
        self._study.sampler = SAMPLERS[self.explore.sampler](_seed(self.seed, made))
        return self._study.ask(self._distributions)

    def _job(self, trial: Trial) -> Job | None:
        """What the trial, which is running, asks to be evaluated; None where it is settled already."""
        if "network" in trial.user_attrs:
            task, replicate = self._tasks.get(trial.user_attrs["network"]), trial.user_attrs["replicate"]
            if task is None or replicate >= self.replicates:
                self._fail(trial, "not wanted")  # of an earlier run with more networks or seeds
                return None
            if self.halving and any(
                result.stopped and result.network == task.network.key() for result in self.evaluations
            ):
                self._fail(trial, _SIBLING)
                return None
        else:
            settled = self._settled(trial)
            if settled is None:
                return None
            task, replicate = settled, 0
        return Job(trial.number, task.network, _seed(self.seed, replicate), replicate)

    def _settled(self, trial: Trial) -> Task | None:
        """The new network that a sampler proposed. What is no network, or a known one, is told at once."""
        assert self.explore is not None
        task = self.explore.task_of(trial.params)
        if task is None:
            self._fail(trial, "no network of these MACs")
            return None
        key = task.network.key()
        if key in self._tasks:
            known = [
                result.accuracy for result in self.evaluations if result.network == key and result.accuracy is not None
            ]
            if known:
                trial.set_user_attr("same_as", key)
                self._study.tell(trial, float(np.mean(known)))
            else:
                self._fail(trial, f"the same network as one in flight: {key}")
            return None
        self._tasks[key] = task
        trial.set_user_attr("replicate", 0)
        trial.set_user_attr("network", key)
        for replicate in range(1, self.replicates):
            self._enqueue(task, replicate)
        return task

    def _recall(self, explore: Explore, trial: FrozenTrial) -> None:
        """Know a network again that a sampler proposed in an earlier run, if so many are wanted."""
        if len(self._tasks) >= explore.count:
            return
        if "network" in trial.user_attrs and trial.params and trial.user_attrs["network"] not in self._tasks:
            task = explore.task_of(trial.params)
            if task is None or task.network.key() != trial.user_attrs["network"]:
                raise InputError(f"trial {trial.number} of the study is another network now; give another name=")
            self._tasks[task.network.key()] = task

    def _enqueue_missing(self) -> None:
        """Every network with every seed that was neither evaluated nor waits for it, seed by seed."""
        if self.halving and self._missing():  # it judges by what came before, so what was interrupted comes first again
            while trial := self._waiting():
                self._fail(trial, "queued anew")
        for task, replicate in self._missing():
            self._enqueue(task, replicate)

    def _missing(self) -> list[tuple[Task, int]]:
        """What is neither evaluated nor in the queue, nor needless: all networks with one seed, then with the next."""
        known = {
            (trial.user_attrs.get("network"), trial.user_attrs.get("replicate"))
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == TrialState.WAITING or _finished(trial) or trial.user_attrs.get("void") == _SIBLING
        }
        every = [(task, replicate) for replicate in range(self.replicates) for task in self._tasks.values()]
        return [(task, replicate) for task, replicate in every if (task.network.key(), replicate) not in known]

    def _enqueue(self, task: Task, replicate: int) -> None:
        notes = {"network": task.network.key(), "replicate": replicate}
        self._study.enqueue_trial(dict(task.params), user_attrs=notes)

    def _fail_stale(self) -> int:
        """Fail what a crash left running; returns how many there were. They are missing now, and enqueued again."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            self._study.tell(trial.number, state=TrialState.FAIL)
        return len(running)

    def _fail(self, trial: Trial, why: str) -> None:
        """End a trial in which nothing was evaluated."""
        trial.set_user_attr("void", why)
        self._study.tell(trial.number, state=TrialState.FAIL)


@contextmanager
def writing_study(path: Path) -> Iterator[Path]:
    """For all that is done with the study in a file: where the system does not let SQLite write, CannotWrite."""
    try:
        yield path
    except (StorageInternalError, SQLAlchemyError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, sqlite3.OperationalError):
            cause = cause.__cause__
        if cause is None:  # a bug
            raise
        raise CannotWrite(None, str(cause), str(path)) from None


def check_study(path: Path, settings: Mapping[str, Any]) -> list[Evaluation]:
    """The finished evaluations of the study in the file, none where there is no file; changes nothing.

    Raises InputError where it is no study, or one of other settings. A copy is read, as Optuna adds its tables to
    whatever database it opens.
    """
    if not path.exists():
        return []
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        try:
            _copy(path, copy)
            with closing(sqlite3.connect(copy)) as database:
                tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is no study of Optuna's ({error}); give another name=") from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; give another name=") from None
        if not tables:  # created, and interrupted before anything was in it
            return []
        try:
            names = optuna.get_all_study_names(f"sqlite:///{copy}") if "studies" in tables else None
            if names == []:  # interrupted a little later
                return []
            if names is None or NAME not in names:
                raise InputError(f"{path} holds no study of scaling constants; give another name=")
            study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{copy}")
        except (RuntimeError, SQLAlchemyError) as error:
            raise InputError(f"{path}: {' '.join(str(error).split())}; give another name=") from None
        if "settings" in study.user_attrs:
            settings_before = study.user_attrs["settings"]
            if settings_before.get("command") != settings.get("command"):
                raise InputError(f"{path} is a study of {settings_before.get('command')}; give another name=")
            check_same_settings(path, settings_before, settings)
        return [_evaluation(trial) for trial in study.get_trials(deepcopy=False) if _finished(trial)]


def _copy(path: Path, copy: Path) -> None:
    """A consistent copy of a database, also while another process writes to it."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as to:
            source.backup(to)
    except sqlite3.OperationalError:  # a crash left it half written, and it cannot be mended without writing
        for file in (path, Path(f"{path}-journal")):
            if file.exists():
                shutil.copy(file, copy.parent)


def _distribution(values: tuple[float, float] | tuple[str, ...]) -> BaseDistribution:
    first, last = values[0], values[-1]
    if isinstance(first, str) or isinstance(last, str):
        return CategoricalDistribution(values)
    return FloatDistribution(first, last)


def _finished(trial: FrozenTrial) -> bool:
    """Whether it is an evaluation that ended: complete, stopped early, or with an error of the network's own."""
    ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (
        trial.state == TrialState.FAIL and "error" in trial.user_attrs
    )
    return ended and "network" in trial.user_attrs


def _end(trial: FrozenTrial) -> tuple[datetime, int]:
    assert trial.datetime_complete is not None  # Optuna sets it when it finishes a trial
    return trial.datetime_complete, trial.number


def _evaluation(trial: FrozenTrial) -> Evaluation:
    return Evaluation(
        network=trial.user_attrs["network"],
        params=trial.params,
        replicate=trial.user_attrs["replicate"],
        curve=tuple(value for _, value in sorted(trial.intermediate_values.items())),
        stopped=trial.state == TrialState.PRUNED,
        error=trial.user_attrs.get("error"),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        retries=trial.user_attrs.get("retries", 0),
    )


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
