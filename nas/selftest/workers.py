"""Workers of a Ray search that die in the middle of an evaluation, by their own hand or from outside."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nas.selftest import ledger
from nas.selftest.outcome import Finding, Outcome, summed
from nas.selftest.searches import EPOCHS, instant, subject
from nas.selftest.settings import Settings
from nas.selftest.witness import Begin, witnessing

STEP = 0.25  # seconds of each of an evaluation's steps
MOST = 2  # deaths of one evaluation, which is given up after more than engine.max_failures
LATE = 60.0  # seconds after which who was to be killed from outside does it by itself


def workers(settings: Settings) -> Outcome:
    """Kill `count` workers of one search: half of those on this machine from outside, all others by themselves.

    The search ends with its full budget; no evaluation failed or was begun again without need, and each says how often
    it was retried.
    """
    start, rng = time.monotonic(), random.Random(f"workers {settings.seed}")
    budget = settings.count + 4
    # To the end, so that no worker outlives the evaluation that it was to die in.
    options = (*(settings.ray or ()), f"engine.max_failures={MOST}", "halving=null", *instant(STEP))
    lottery = Lottery(rng, settings.count, budget, (EPOCHS - 1) * STEP, settings.show)
    path = subject(settings, "search", options, budget).path
    with witnessing(path, budget, settings.address, lottery) as witness:
        search = subject(settings, "search", options, budget, witness.address)
        findings = search.run().unless(0)
        findings += ledger.judge(b"", search.journal, budget) + witness.findings
    entries = ledger.evaluations(search.journal)
    findings += failed(entries)
    findings += lottery.unrecorded(entries)
    retries = sum(entry.get("retries", 0) for entry in entries.values())
    outside = sum(not death.own_hand for death in lottery.deaths)
    by = f"{len(lottery.deaths) - outside} by their own hand, {outside} from outside"
    note = f"{by}; {retries} retries recorded"
    return summed("workers", len(lottery.deaths), time.monotonic() - start, findings, note)


def failed(entries: Mapping[int, Mapping[str, object]]) -> list[Finding]:
    """Evaluations that are recorded as failed, though no candidate was at fault."""
    return [
        Finding("lost", f"evaluation {number} is recorded as failed: {entry['error']}")
        for number, entry in entries.items()
        if entry.get("error") is not None
    ]


@dataclass(frozen=True)
class Death:
    """Of the worker that evaluated `number`."""

    number: int
    own_hand: bool


class Lottery:
    """Draws who dies among the evaluations that begin, so that `wanted` deaths are spread over a search evenly."""

    def __init__(
        self, rng: random.Random, wanted: int, budget: int, seconds: float, show: Callable[[int], None]
    ) -> None:
        """Workers die within `seconds` of the beginning. `show` is told how many were sentenced."""
        self.deaths: list[Death] = []
        self._rng = rng
        self._wanted = wanted
        self._begins_left = budget + wanted  # each death is one more
        self._never_begun = set(range(budget))
        self._seconds = seconds
        self._show = show

    def __call__(self, begin: Begin) -> float | None:
        """The sentence of an evaluation that begins. A kill from outside is set off here, and comes before it."""
        wanted, before = self._wanted - len(self.deaths), sum(death.number == begin.number for death in self.deaths)
        # The last to begin for the first time make up for those that died too often to die again.
        due = begin.number in self._never_begun and wanted >= len(self._never_begun)
        drawn = self._rng.random() * max(1, self._begins_left) < wanted
        self._begins_left -= 1
        self._never_begun.discard(begin.number)
        if before >= MOST or not (due or drawn):
            return None
        delay, own_hand = self._rng.uniform(0, self._seconds), not begin.here or self._rng.random() < 0.5
        self.deaths.append(Death(begin.number, own_hand))
        self._show(len(self.deaths))
        if own_hand:
            return delay
        killer = threading.Timer(delay, _kill, (begin.pid,))
        killer.daemon = True
        killer.start()
        return delay + LATE

    def unrecorded(self, entries: Mapping[int, Mapping[str, object]]) -> list[Finding]:
        """Evaluations that died and whose entries say nothing of it, or too little."""
        deaths = Counter(death.number for death in self.deaths)
        return [
            Finding("wrong", f"evaluation {number} was retried {times} times, and recorded: {retries}")
            for number, times in deaths.items()
            if isinstance(retries := entries.get(number, {}).get("retries", 0), int) and retries < times
        ]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has died already
        pass
