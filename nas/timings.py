"""How long evaluations took, over all runs of a search."""

from __future__ import annotations

import time
from pathlib import Path

from phinas.files.atomic_file import writing


class Timings:
    """`timings.csv`: evaluation number, its seconds, and seconds of searching until then, over all resumptions.

    Kept apart from the journal, which equal searches write equal. A line torn by a crash costs a timing, nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = read_timings(path)
        self._torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._before = max((elapsed for _, elapsed in self.seconds.values()), default=0.0)
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of searching so far, earlier runs of the command included."""
        return self._before + time.monotonic() - self._start

    def add(self, number: int, seconds: float) -> None:
        """Raises CannotWrite; what the file lacks then is known to this process all the same."""
        self.seconds[number] = (seconds, self.elapsed)
        close = "\n" if self._torn else ""  # the line that a crash cut off, or this one would be lost with it
        with writing(self.path), open(self.path, "a", newline="") as file:
            file.write(f"{close}{number},{seconds:.3f},{self.elapsed:.3f}\n")
        self._torn = False


def read_timings(path: Path) -> dict[int, tuple[float, float]]:
    """Evaluation number -> (its seconds, seconds of searching until then)."""
    timings = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            number, seconds, elapsed = line.split(",")
            timings[int(number)] = (float(seconds), float(elapsed))
        except ValueError:
            continue
    return timings
