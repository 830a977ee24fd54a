"""The jobs of a search: ask the controller, have it evaluated elsewhere, write the journal, tell the controller."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nas.controller import Controller, Result
from nas.halving import Halving
from nas.journal import Entry
from nas.problem import SearchProblem
from phinas.engines.in_flight import InFlight
from phinas.networks.network import Network
from search_spaces.space import Picks


@dataclass(frozen=True)
class Candidate:
    """A network on its way to an evaluator. `seed` is the evaluation's own, drawn from (search seed, number)."""

    number: int
    picks: Picks
    key: str
    network: Network
    seed: int
    costs: Mapping[str, float]


class Recorded(Protocol):
    """What was evaluated, in the order in which it finished: a journal, or a list of entries."""

    entries: list[Entry]

    def append(self, entry: Entry) -> None: ...


class SearchJobs:
    """A search as an engine's `Jobs`.

    After `give_up_after` failures in a row it proposes nothing more; None: it never gives up.
    `watch` is shown every entry once it is safe, with the seconds between its proposal and its end.
    Its state is the journal. Construction replays what the journal holds, so a search that was interrupted and one
    that was not are the same search.
    """

    def __init__(
        self,
        problem: SearchProblem,
        controller: Controller,
        journal: Recorded,
        budget: int,
        seed: int,
        halving: Halving | None = None,
        give_up_after: int | None = None,
        watch: Callable[[Entry, float], None] = lambda entry, seconds: None,
    ) -> None:
        self.problem = problem
        self.controller = controller
        self.journal = journal
        self.budget = budget
        self.seed = seed
        self.halving = halving
        self.give_up_after = give_up_after
        self.watch = watch
        self.in_flight = InFlight[Candidate]()
        self.exhausted = False
        self._failures: list[str] = []  # of this process, since one last succeeded
        self._finished = {entry.number for entry in journal.entries}
        self._next_number = 0
        for entry in journal.entries:
            if halving:
                halving.replay([self._reward_of(accuracy, entry.costs) for accuracy in entry.curve])
            self._tell(entry)

    @property
    def done(self) -> bool:
        """Whether everything was evaluated, or the controller knows nothing new to evaluate."""
        return len(self._finished) >= self.budget or (self.exhausted and not self.in_flight)

    @property
    def given_up(self) -> str | None:
        """Why the search proposes nothing more, in one line; None as long as it goes on.

        Those in flight may still succeed: what fails, fails sooner than a training ends, and were it counted alone,
        ten of a hundred that began together would end the search.
        """
        if not self._failing or self.in_flight:
            return None
        reasons = Counter(self._failures).most_common()
        shown = "; ".join(f"{count} x {reason}" for reason, count in reasons[:3])
        more = f"; {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
        return f"the last {len(self._failures)} evaluations all failed: {shown}{more}"

    @property
    def _failing(self) -> bool:
        return self.give_up_after is not None and len(self._failures) >= self.give_up_after

    def propose(self) -> Candidate | None:
        """The next candidate, or None while there is none: the budget is in flight, the space is exhausted, or too
        many have failed in a row."""
        if self._failing:
            return None
        number = self._next_number
        while number in self._finished or number in self.in_flight:
            number += 1
        if number >= self.budget:
            return None
        picks = self.controller.ask(number, [candidate.picks for candidate in self.in_flight.values()])
        # With evaluations in flight, a controller may find something new once it has been told of them.
        self.exhausted = picks is None
        if picks is None:
            return None
        self._next_number = number
        return self.take_up(number, picks)

    def take_up(self, number: int, picks: Picks) -> Candidate:
        """The candidate of these picks, which is in flight from now on."""
        network = self.problem.network(picks)
        return self.in_flight.begin(
            Candidate(
                number=number,
                picks=picks,
                key=network.key(),
                network=network,
                seed=int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]),
                costs=self.problem.cost(picks),
            )
        )

    def record(self, number: int, step: int, accuracy: float) -> bool:
        """Note the accuracy after a step (counted from 1), and say whether the evaluation is worth continuing."""
        new = self.in_flight.note(number, step, accuracy)
        if self.halving is None or not new:  # the rungs have seen a step that is known
            return True
        return self.halving.keeps(step, self._reward_of(accuracy, self.in_flight[number].costs))

    def finish(self, number: int, stopped: bool = False, error: str | None = None, retries: int = 0) -> Entry:
        """Journal the outcome, then tell the controller."""
        candidate = self.in_flight[number]
        curve = self.in_flight.curve(number)
        entry = Entry(
            number=number,
            picks=candidate.picks,
            key=candidate.key,
            costs=candidate.costs,
            curve=curve,
            reward=self._reward_of(curve[-1], candidate.costs) if error is None else None,
            stopped=stopped,
            error=error,
            retries=retries,
        )
        self.journal.append(entry)
        seconds = self.in_flight.seconds(number)
        self.in_flight.end(number)
        self._finished.add(number)
        if entry.error is None:
            self._failures.clear()
        else:
            self._failures.append(entry.error)
        self._tell(entry)
        self.watch(entry, seconds)
        return entry

    def _reward_of(self, accuracy: float, costs: Mapping[str, float]) -> float:
        reward = float(self.problem.reward_of(accuracy, costs))  # a plug-in's may be numpy's, which JSON does not know
        if not math.isfinite(reward):
            raise ValueError(f"the reward of accuracy {accuracy} and {dict(costs)} is {reward}")
        return reward

    def _tell(self, entry: Entry) -> None:
        self.controller.tell(
            Result(entry.number, entry.picks, entry.accuracy, entry.reward, entry.stopped, entry.curve)
        )


def best_of(entries: list[Entry]) -> Entry | None:
    """The entry of the highest reward among those evaluated to the end, the earliest of equals; None if none was."""
    complete = [entry for entry in entries if entry.complete]
    return max(complete, key=lambda entry: (entry.reward, -entry.number), default=None)
