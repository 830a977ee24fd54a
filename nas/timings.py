"""How long evaluations took, over all runs of a search."""

from __future__ import annotations

import csv
import time
from pathlib import Path


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
