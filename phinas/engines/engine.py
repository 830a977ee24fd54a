"""What an engine is, and what it drives: it takes jobs, has an evaluator do them, and gives the outcomes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from phinas.engines.evaluator import Evaluator
from phinas.networks.network import Network


class Job(Protocol):
    """A network on its way to an evaluator. `seed` is the evaluation's own."""

    @property
    def number(self) -> int: ...
    @property
    def network(self) -> Network: ...
    @property
    def seed(self) -> int: ...


class Jobs(Protocol):
    """Work for an engine: `propose`, then `record` for each measurement, then `finish`.

    A search is one, a scaling study another. What is finished is on disk when `finish` returns.
    """

    @property
    def in_flight(self) -> Mapping[int, Job]:
        """Jobs that were proposed and are not finished, by number."""
        ...

    def propose(self) -> Job | None:
        """The next job, or None while there is none: all is done, or waits for what is in flight."""
        ...

    def record(self, number: int, step: int, accuracy: float) -> bool:
        """Note the accuracy after a step (counted from 1), and say whether the evaluation is worth continuing."""
        ...

    def finish(self, number: int, stopped: bool = False, error: str | None = None, retries: int = 0) -> object:
        """Record the outcome: evaluated to the end, stopped early, or failed for the network's own fault.

        retries  how often it was started again because its worker, or the node of its worker, died.
        """
        ...


@dataclass(frozen=True)
class RunJobs:
    """What an engine is once it is up (`with engine(...) as run_jobs`): runs evaluations until there are no more.

    run      does it; interrupted, it leaves no evaluation half recorded.
    workers  evaluations at a time.
    threads  of each; None: as many as the evaluator likes.
    """

    run: Callable[[Jobs, Evaluator], None]
    workers: int = 1
    threads: int | None = None

    def __call__(self, jobs: Jobs, evaluator: Evaluator) -> None:
        self.run(jobs, evaluator)
