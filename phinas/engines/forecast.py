"""How long an evaluation will take: by those that were done before, else by doing one of them for a moment."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from phinas.engines.evaluator import EvaluationFailed


def seconds_each(evaluator: Any, typical: Any, took: Sequence[float] = (), threads: int | None = 1) -> float | None:
    """Seconds of one evaluation: the median of what others `took`, else the evaluator's own forecast of `typical`.

    None where the evaluator makes no forecast, and where it fails with `typical`: that is recorded when its turn comes.
    `threads` are those of a worker; None: as many as it likes.
    """
    if took:
        return median(took)
    forecast = getattr(evaluator, "forecast", None)
    try:
        return None if forecast is None else float(forecast(typical, threads))
    except EvaluationFailed:
        return None
