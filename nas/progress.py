"""Progress of a search: a bar on a terminal, plain lines elsewhere, and how long each evaluation took."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nas.costs import cost_text
from nas.journal import Entry
from nas.loop import best_of

PLAIN_INTERVAL = 1.0  # seconds; plain lines come no faster, so that a log of 100,000 evaluations stays readable


def duration_text(seconds: float) -> str:
    """`1h02m`, `3m05s` or `12s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


class Timings:
    """`timings.csv`: evaluation number, its seconds, and seconds of searching until then, over all resumptions.

    Kept apart from the journal, which equal searches write equal. A line torn by a crash costs a timing, nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = read_timings(path)
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            with open(path, "a") as file:  # close a line that a crash cut off, or the next would be lost with it
                file.write("\n")
        self._before = max((elapsed for _, elapsed in self.seconds.values()), default=0.0)
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of searching so far, earlier runs of the command included."""
        return self._before + time.monotonic() - self._start

    def add(self, number: int, seconds: float) -> None:
        self.seconds[number] = (seconds, self.elapsed)
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow([number, f"{seconds:.3f}", f"{self.elapsed:.3f}"])


def read_timings(path: Path) -> dict[int, tuple[float, float]]:
    """Evaluation number -> (its seconds, seconds of searching until then)."""
    timings = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            number, seconds, elapsed = line.split(",")
            timings[int(number)] = (float(seconds), float(elapsed))
        except ValueError:
            continue
    return timings


class Watch(Protocol):
    """Shows one finished evaluation."""

    def __call__(self, entry: Entry) -> None: ...


@contextmanager
def progress(console: Console, entries: list[Entry], budget: int, costs: Sequence[str] = ("macs",)) -> Iterator[Watch]:
    """Show finished/budget, rate, best reward and time left, for the evaluations on top of `entries`.

    Of each network the `costs` are shown, on lines that have room for them.
    """
    start, before = time.monotonic(), len(entries)
    finished, best = before, best_of(entries)
    last_line = 0.0

    def note(entry: Entry) -> str:
        nonlocal finished, best
        finished += 1
        best = best_of([e for e in (best, entry) if e])
        elapsed = time.monotonic() - start
        rate = (finished - before) / elapsed
        left = duration_text((budget - finished) / rate)
        reward = "-" if best is None or best.reward is None else f"{best.reward:.4f}"
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        return f"best {reward}  {speed}  left {left}"

    if console.is_terminal:
        with Progress(
            TextColumn("searching"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            console=console, refresh_per_second=2,
        ) as bar:  # fmt: skip
            task = bar.add_task("", total=budget, completed=before, note="the first results take a moment")

            def show_bar(entry: Entry) -> None:
                text = note(entry)
                bar.update(task, completed=finished, note=text)

            yield show_bar
    else:

        def show_line(entry: Entry) -> None:
            nonlocal last_line
            text = note(entry)
            if finished >= budget or time.monotonic() - last_line >= PLAIN_INTERVAL:
                last_line = time.monotonic()
                console.print(f"[{finished}/{budget}] {_outcome(entry, costs)}  {text}", markup=False, soft_wrap=True)

        yield show_line


def _outcome(entry: Entry, costs: Sequence[str]) -> str:
    if entry.error is not None:
        return f"failed: {entry.error}"
    halted = f" stopped after {len(entry.curve)}" if entry.stopped else ""
    known = "  ".join(cost_text(name, entry.costs[name]) for name in costs)
    return f"accuracy {entry.accuracy:.4f}{halted}  {known}  reward {entry.reward:.4f}"
