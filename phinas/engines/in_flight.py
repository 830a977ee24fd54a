"""What is noted of jobs in flight, whatever they are for: which, since when, and how accurate after each step."""

from __future__ import annotations

import time
from typing import TypeVar

from phinas.engines.engine import Job

J = TypeVar("J", bound=Job)


class InFlight(dict[int, J]):
    """Jobs by their number, from when they are proposed until their outcome is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[int, float] = {}
        self._curves: dict[int, list[float]] = {}

    def begin(self, job: J) -> J:
        self[job.number], self._began[job.number] = job, time.monotonic()
        return job

    def note(self, number: int, step: int, accuracy: float) -> bool:
        """Note the accuracy after a step (counted from 1). False for one that is known: the job was started again
        elsewhere after its worker died."""
        curve = self._curves.setdefault(number, [])
        known = step <= len(curve)
        curve[step - 1 : step] = [accuracy]
        return not known

    def curve(self, number: int) -> tuple[float, ...]:
        """The accuracies after each step, as far as they are known."""
        return tuple(self._curves.get(number, ()))

    def seconds(self, number: int) -> float:
        """Since it began."""
        return time.monotonic() - self._began[number]

    def end(self, number: int) -> None:
        """Forget a job whose outcome is recorded."""
        del self[number], self._began[number]
        self._curves.pop(number, None)
