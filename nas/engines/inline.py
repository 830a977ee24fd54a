"""The inline engine: one evaluation after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nas.evaluator import EvaluationFailed, Evaluator, measure
from nas.loop import RunSearch, Search


@contextmanager
def engine() -> Iterator[RunSearch]:
    """Nothing has to come up."""
    yield run


def run(search: Search, evaluator: Evaluator) -> None:
    """Evaluate until the search is done. The same seed gives the same journal, to the byte."""
    while candidate := search.propose():
        stopped = False
        try:
            for step, measurement in measure(evaluator, candidate.network, candidate.seed):
                keeps = search.keeps(candidate.number, step, measurement.accuracy)
                stopped = not (keeps or measurement.final)
                if stopped:
                    break
        except EvaluationFailed as failure:
            search.finish(candidate.number, error=str(failure))
        else:
            search.finish(candidate.number, stopped=stopped)
