"""The trainings of a transfer: a grid, scored on images held out, and its best again, scored on the test split."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from phinas.engines.evaluator import OUT_OF_MEMORY, WORKER_DIED
from phinas.engines.in_flight import InFlight
from phinas.files.atomic_file import write_atomically
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.build import build

FILE = "results.csv"

Start = Literal["pretrained", "scratch"]
Stage = Literal["grid", "final"]


@dataclass(frozen=True)
class Trial:
    """One training of a network on a data set: what an engine hands to its evaluator as the network.

    model  which one, by the name of its checkpoint.
    start  from the checkpoint's weights, or from fresh ones.
    stage  "grid": trained without what is held out, and scored on that. "final": trained on both, scored on the test.
    """

    data: str
    model: str
    start: Start
    arch: Arch
    stage: Stage
    lr: float
    weight_decay: float
    seed: int

    @property
    def name(self) -> str:
        """Of the network with its start: `b0`, or `b0 from scratch`."""
        return contender_name(self.model, self.start)

    def key(self) -> str:
        """The same for the same training."""
        parts = (self.data, self.model, self.start, self.stage, self.lr, self.weight_decay, self.seed)
        return "/".join(str(part) for part in parts)

    def build(self) -> nn.Module:
        """The network with fresh weights of the trial's seed."""
        return build(self.arch, self.seed)


@dataclass(frozen=True)
class Result:
    """What came of a trial; a row of the file.

    accuracy  on the images held out of a grid's, on the test split of a final one's; None where it failed.
    error     why it failed: it diverged, or did not fit into memory.
    """

    data: str
    model: str
    start: Start
    stage: Stage
    lr: float
    weight_decay: float
    seed: int
    accuracy: float | None
    seconds: float
    error: str | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        return (self.data, self.model, self.start, self.stage, self.lr, self.weight_decay, self.seed)


@dataclass(frozen=True)
class Contender:
    """A network with its start on a data set, and the settings among which it is given its best."""

    data: str
    model: str
    start: Start
    arch: Arch
    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]

    @property
    def name(self) -> str:
        return contender_name(self.model, self.start)

    @property
    def cells(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) of the grid; one alone need not be tried."""
        return list(itertools.product(self.lrs, self.weight_decays))

    def grid(self, seed: int) -> list[Trial]:
        """One training of each cell, all with the same seed; none where there is nothing to choose."""
        return [self._trial("grid", *cell, seed) for cell in self.cells] if len(self.cells) > 1 else []

    def finals(self, cell: tuple[float, float], seed: int, seeds: int) -> list[Trial]:
        """The cell's own, one for each seed from `seed` on."""
        return [self._trial("final", *cell, seed + number) for number in range(seeds)]

    def best(self, results: Results, seed: int) -> tuple[float, float] | None:
        """The cell of the highest accuracy held out, of equal ones the first; None until all are tried, or if none is.

        What failed is no better than anything.
        """
        trials = self.grid(seed)
        if not trials:
            return self.cells[0]
        results_of_grid = [results.of(trial) for trial in trials]
        if None in results_of_grid:
            return None
        scored = [result for result in results_of_grid if result is not None and result.accuracy is not None]
        if not scored:
            return None
        first = max(scored, key=lambda result: result.accuracy or 0.0)
        return first.lr, first.weight_decay

    def left(self, results: Results, seed: int, seeds: int) -> list[Trial]:
        """What is still to come; where all of the grid failed, no finals.

        As long as nobody knows the best cell, its finals are stood for by those of the first.
        """
        cell, missing = self.best(results, seed), [trial for trial in self.grid(seed) if results.lacks(trial)]
        if cell is not None:
            return missing + [trial for trial in self.finals(cell, seed, seeds) if results.lacks(trial)]
        return missing + (self.finals(self.cells[0], seed, seeds) if missing else [])

    def _trial(self, stage: Stage, lr: float, weight_decay: float, seed: int) -> Trial:
        return Trial(self.data, self.model, self.start, self.arch, stage, lr, weight_decay, seed)


def contender_name(model: str, start: Start) -> str:
    """`b0`, or `b0 from scratch`."""
    return model if start == "pretrained" else f"{model} from scratch"


class Results:
    """`results.csv`: a row for each finished training, on disk before anybody hears of it. What a run resumes from.

    Whoever reads the file tries once more what may have been mended: too little memory, a worker that died. What
    diverged would do so again.
    """

    def __init__(self, path: Path) -> None:
        """Raises InputError for a file that is none of ours."""
        self.path = path
        self._rows: dict[tuple[Any, ...], Result] = {row.identity: row for row in _read(path)}
        self._once_more = {
            row.identity for row in self if row.error is not None and row.error.startswith((OUT_OF_MEMORY, WORKER_DIED))
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._rows.values())

    def of(self, trial: Trial) -> Result | None:
        """What came of the trial; None where it is still to come."""
        return self._rows.get(_result(trial, None, 0.0, None).identity)

    def lacks(self, trial: Trial) -> bool:
        """Whether the trial is to be trained: for the first time, or once more."""
        result = self.of(trial)
        return result is None or result.identity in self._once_more

    def add(self, trial: Trial, accuracy: float | None, seconds: float, error: str | None) -> Result:
        row = _result(trial, accuracy, round(seconds, 3), error)
        self._rows[row.identity] = row
        self._once_more.discard(row.identity)
        write_atomically(self.path, _text(self._rows.values()))
        return row


def _result(trial: Trial, accuracy: float | None, seconds: float, error: str | None) -> Result:
    return Result(
        trial.data, trial.model, trial.start, trial.stage, trial.lr, trial.weight_decay, trial.seed, accuracy, seconds,
        error,
    )  # fmt: skip


_COLUMNS = tuple(field.name for field in fields(Result))


def _text(rows: Any) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _read(path: Path) -> list[Result]:
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return [_row(line) for line in csv.DictReader(file)]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: damaged, or another command's; give another name=") from None


def _row(line: Mapping[str, str]) -> Result:
    return Result(
        line["data"],
        line["model"],
        _one_of(line["start"], get_args(Start)),
        _one_of(line["stage"], get_args(Stage)),
        float(line["lr"]),
        float(line["weight_decay"]),
        int(line["seed"]),
        float(line["accuracy"]) if line["accuracy"] else None,
        float(line["seconds"]),
        line["error"] or None,
    )


def _one_of(text: str, allowed: tuple[Any, ...]) -> Any:
    if text not in allowed:
        raise ValueError(text)
    return text


# ----------------------------------------------------------------------------------------------------------- the engine


@dataclass(frozen=True)
class Job:
    """A trial on its way through an engine."""

    number: int
    network: Trial
    seed: int


class Trainings:
    """All trainings of some contenders: an engine's `Jobs`.

    A contender's finals are proposed when its whole grid is done. Only what has no result yet is proposed at all.
    `watch` is shown each result once it is on disk.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        results: Results,
        seed: int,
        seeds: int,
        watch: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self.in_flight = InFlight[Job]()
        self._contenders, self._results, self._seed, self._seeds, self._watch = contenders, results, seed, seeds, watch
        self._waiting: list[Job] = []
        self._numbers = itertools.count()
        self._with_finals: set[str] = set()
        self._queue(trial for contender in contenders for trial in contender.grid(seed))
        self._queue_finals()

    @property
    def left(self) -> int:
        """Trainings that wait, or are being done; finals of unfinished grids are not yet among them."""
        return len(self._waiting) + len(self.in_flight)

    def propose(self) -> Job | None:
        return self.in_flight.begin(self._waiting.pop(0)) if self._waiting else None

    def record(self, number: int, step: int, accuracy: float) -> bool:
        """Note the accuracy; every training goes on to its end."""
        self.in_flight.note(number, step, accuracy)
        return True

    def finish(self, number: int, stopped: bool = False, error: str | None = None, retries: int = 0) -> Result:
        trial, curve = self.in_flight[number].network, self.in_flight.curve(number)
        row = self._results.add(trial, None if error else curve[-1], self.in_flight.seconds(number), error)
        self.in_flight.end(number)
        self._queue_finals()
        self._watch(row)
        return row

    def _queue_finals(self) -> None:
        for contender in self._contenders:
            cell = contender.best(self._results, self._seed)
            undecided = any(self._results.lacks(trial) for trial in contender.grid(self._seed))
            if cell is not None and not undecided and contender.name not in self._with_finals:
                self._with_finals.add(contender.name)
                self._queue(contender.finals(cell, self._seed, self._seeds))

    def _queue(self, trials: Any) -> None:
        self._waiting += [Job(next(self._numbers), trial, trial.seed) for trial in trials if self._results.lacks(trial)]
