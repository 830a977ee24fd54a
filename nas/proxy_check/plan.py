"""Which networks a check evaluates, and the bookkeeping of it that engines drive as their `Jobs`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.journal import Entry, Journal
from nas.problem import SearchProblem
from phinas.engines.in_flight import InFlight
from phinas.files.errors import InputError
from phinas.networks.network import Network
from search_spaces.space import Picks, sample

POOL = 512  # networks of a space among which those of a check are chosen; evaluations are numbered with that room
_ATTEMPTS = 20 * POOL  # draws after which a space holds no more
SCHEDULES = ("proxy", "longer")


@dataclass(frozen=True)
class Drawn:
    """A network that may be checked: its picks in the space, its identity, its known costs."""

    picks: Picks
    key: str
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Job:
    """One evaluation of a check; `seed` is its own, as in a search."""

    number: int
    drawn: Drawn
    network: Network
    seed: int


def drawn_from(problem: SearchProblem, seed: int) -> list[Drawn]:
    """Up to POOL distinct networks of the space, drawn at random; the same for the same seed."""
    rng = np.random.default_rng((seed, 0))
    by_key: dict[str, Drawn] = {}
    for _ in range(_ATTEMPTS):
        picks = sample(problem.decisions, rng)
        key = problem.key(picks)
        if key is not None and key not in by_key:
            by_key[key] = Drawn(picks, key, problem.cost(picks))
            if len(by_key) == POOL:
                break
    return list(by_key.values())


def drawn_by(entries: Iterable[Entry]) -> list[Drawn]:
    """The distinct networks that a search evaluated, whatever came of them short of failure."""
    looked_at = {entry.key: Drawn(entry.picks, entry.key, entry.costs) for entry in entries if entry.error is None}
    return list(looked_at.values())


def spread(pool: Sequence[Drawn], count: int, seed: int) -> list[Drawn]:
    """`count` of the pool, evenly over the ranks of their MACs; the first of more are those of fewer.

    Quantiles are those of van der Corput's sequence, begun anywhere: each prefix of it is about evenly spread, so that
    a check may be interrupted, or made larger, and is of the same kind.
    Raises InputError where the pool, of distinct networks, is too small.
    """
    if count > min(len(pool), POOL):
        raise InputError(f"networks={count}: there are {min(len(pool), POOL)} distinct ones to choose from")
    by_macs = sorted(pool, key=lambda drawn: (drawn.costs["macs"], drawn.key))
    start = float(np.random.default_rng((seed, 1)).random())
    free, chosen = list(range(len(by_macs))), []
    for number in range(count):
        wanted = (_van_der_corput(number) + start) % 1 * len(by_macs) - 0.5
        place = min(free, key=lambda place: abs(place - wanted))
        free.remove(place)
        chosen.append(by_macs[place])
    return chosen


def _van_der_corput(number: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, ...: the binary digits of `number` behind the point, in reverse."""
    value, place = 0.0, 0.5
    while number:
        value += place * (number & 1)
        number, place = number >> 1, place / 2
    return value


def number_of(network: int, schedule: int, replicate: int) -> int:
    """Of the evaluation of a network by a schedule with one of its seeds: the same however many are asked for."""
    return (2 * replicate + schedule) * POOL + network


def jobs_of(chosen: Sequence[Drawn], schedule: int, seeds: int, seed: int, problem: SearchProblem) -> list[Job]:
    """All evaluations by one schedule, every network once before any a second time.

    Each has a seed of its own, as in a search: a seed shared by all networks would hide the noise that ranks them.
    """
    return [
        Job(number, draw, problem.network(draw.picks), int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
        for replicate in range(seeds)
        for place, draw in enumerate(chosen)
        for number in (number_of(place, schedule, replicate),)
    ]


def check_known(jobs: Iterable[Job], entries: Iterable[Entry]) -> None:
    """InputError for an entry of the journal that is another network now."""
    keys = {job.number: job.drawn.key for job in jobs}
    for entry in entries:
        if keys.get(entry.number, entry.key) != entry.key:
            raise InputError(
                f"evaluation {entry.number} of the journal is another network now; the space was changed since: "
                "give another name="
            )


class Evaluations:
    """The evaluations that are left of a list. What is finished is in the journal before anybody hears of it.

    `watch` is shown every entry once it is safe, with the seconds between its proposal and its end.
    """

    def __init__(self, jobs: Iterable[Job], journal: Journal, watch: Callable[[Entry, float], None]) -> None:
        done = {entry.number for entry in journal.entries}
        self.journal = journal
        self.watch = watch
        self.waiting = [job for job in jobs if job.number not in done]
        self.in_flight = InFlight[Job]()

    def propose(self) -> Job | None:
        return self.in_flight.begin(self.waiting.pop(0)) if self.waiting else None

    def record(self, number: int, step: int, accuracy: float) -> bool:
        """Note the accuracy after a step; everything goes on to its end."""
        self.in_flight.note(number, step, accuracy)
        return True

    def finish(self, number: int, stopped: bool = False, error: str | None = None, retries: int = 0) -> Entry:
        """Journal the outcome. The reward is the accuracy: nothing is weighed here."""
        drawn = self.in_flight[number].drawn
        curve = self.in_flight.curve(number)
        reward = curve[-1] if error is None else None
        entry = Entry(number, drawn.picks, drawn.key, drawn.costs, curve, reward, stopped, error, retries)
        self.journal.append(entry)
        seconds = self.in_flight.seconds(number)
        self.in_flight.end(number)
        self.watch(entry, seconds)
        return entry
