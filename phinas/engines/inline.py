"""The inline engine: one evaluation after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phinas.engines.engine import Jobs, RunJobs
from phinas.engines.evaluator import EvaluationFailed, Evaluator, measure


@contextmanager
def engine() -> Iterator[RunJobs]:
    """Nothing has to come up."""
    yield RunJobs(run)


def run(jobs: Jobs, evaluator: Evaluator) -> None:
    """Evaluate until there are no more jobs, in order: the same ones give the same results."""
    while job := jobs.propose():
        stopped = False
        try:
            for step, measurement in measure(evaluator, job.network, job.seed):
                keeps = jobs.record(job.number, step, measurement.accuracy)
                stopped = not (keeps or measurement.final)
                if stopped:
                    break
        except EvaluationFailed as failure:
            jobs.finish(job.number, error=str(failure))
        else:
            jobs.finish(job.number, stopped=stopped)
