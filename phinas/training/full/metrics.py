"""Metrics of a run by epoch, as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phinas.files.atomic_file import write_atomically
from phinas.files.errors import InputError
from phinas.training.full.training_loop import Epoch
from phinas.training.scoring import Score

FILE = "metrics.csv"

_SCORE = ("loss", "accuracy", "top5")
COLUMNS = ("epoch", "step", "lr", "train_loss", *(f"held_out_{name}" for name in _SCORE), "seconds")


def row(epoch: Epoch) -> dict[str, float]:
    """By the names in `COLUMNS`."""
    score = (getattr(epoch.score, name) for name in _SCORE)
    values = (epoch.number, epoch.step, epoch.lr, epoch.train_loss, *score, round(epoch.seconds, 1))
    return dict(zip(COLUMNS, values, strict=True))


def write_metrics(path: Path, epochs: Sequence[Epoch]) -> None:
    """Numbers in full, so that equal files are equal runs but for the last column, their seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row(epoch).values() for epoch in epochs)
    write_atomically(path, text.getvalue())


def read_metrics(path: Path) -> list[Epoch]:
    """What `write_metrics` wrote; nothing where there is no such file. InputError for another file."""
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return [_epoch(line) for line in csv.DictReader(file)]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: damaged; remove it to go on without the epochs before") from None


def _epoch(line: dict[str, Any]) -> Epoch:
    score = Score(**{name: float(line[f"held_out_{name}"]) for name in _SCORE})
    lr, train_loss, seconds = (float(line[name]) for name in ("lr", "train_loss", "seconds"))
    return Epoch(int(line["epoch"]), int(line["step"]), lr, train_loss, score, seconds)
