"""kill -9 of the process that conducts a search, at random moments of its life."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence

from nas.selftest import ledger
from nas.selftest.outcome import Finding, Outcome, summed
from nas.selftest.searches import EPOCHS, INLINE, Running, Subject, instant, kill, subject
from nas.selftest.settings import Settings
from nas.selftest.witness import Witness, witnessing

STEP = 0.05  # seconds of each of an evaluation's steps
RESULTS = 1.0  # seconds that a search needs for its results after the last evaluation, about


def drivers(settings: Settings) -> Outcome:
    """Kill `count` drivers: three of four inline, the others on Ray where there is one.

    The search is resumed after each. Nothing that was on disk is lost, nothing is evaluated again, and it ends with
    its full budget; inline, with the undisturbed search's journal.
    """
    start, rng = time.monotonic(), random.Random(f"drivers {settings.seed}")
    on_ray = settings.count // 4 if settings.ray is not None else 0
    inline = settings.count - on_ray

    options: Sequence[str] = (*INLINE, *instant(STEP))
    budget = 4 * inline + 4
    undisturbed = subject(settings, "undisturbed", options, budget)
    findings = undisturbed.run().unless(0)
    killed, added = suffer(settings, "inline", options, budget, rng, inline, EPOCHS * STEP, undisturbed.journal)
    findings += added
    if settings.ray is not None and on_ray:
        options, budget = (*settings.ray, *instant(2 * STEP)), 6 * on_ray + 4
        more, added = suffer(settings, "ray", options, budget, rng, on_ray, EPOCHS * 2 * STEP, shown=killed)
        killed, findings = killed + more, findings + added
    note = f"{inline} inline, {on_ray} on Ray: while they start, evaluate, and write their results"
    return summed("drivers", killed, time.monotonic() - start, findings, note)


def suffer(
    settings: Settings,
    name: str,
    options: Sequence[str],
    budget: int,
    rng: random.Random,
    kills: int,
    seconds: float,
    undisturbed: bytes | None = None,
    shown: int = 0,
) -> tuple[int, list[Finding]]:
    """A search whose driver is killed again and again; how often it was, and what is wrong at the end.

    seconds      that an evaluation takes, about.
    undisturbed  the journal that it must have in the end; None: any of its budget.
    shown        faults of this kind that were injected before.
    """
    address = settings.address if "engine=ray" in options else None
    path = subject(settings, name, options, budget).path
    with witnessing(path, budget, address) as witness:
        search = subject(settings, name, options, budget, witness.address)
        killed, findings, seen = 0, list[Finding](), b""
        until_first: float | None = None  # seconds from a start to the first evaluation
        missed = False  # the last search ended before its time had come
        for _ in range(3 * kills):
            if killed == kills:
                break
            began = time.monotonic()
            with search.running() as running:
                if until_first is None:
                    until_begun(running, witness, 1)
                    until_first = time.monotonic() - began
                elif kills > 2 and killed == kills - 1 and not missed:
                    _until_results(running, search)
                    time.sleep(rng.uniform(0, RESULTS))
                elif missed or rng.random() < 1 / 3:
                    time.sleep(rng.uniform(0, until_first))
                else:
                    until_begun(running, witness, rng.randint(1, 2))
                    time.sleep(rng.uniform(0, seconds))
                before = witness.look()
                if running.alive and (outlived := kill(running.process)):
                    findings.append(Finding("wrong", f"{outlived} processes outlived a killed search"))
                missed = running.process.returncode != -signal.SIGKILL
                killed += not missed
                if missed:
                    findings += running.ended().unless(0)
            now = witness.look()
            findings += ledger.lost(seen, before) + ledger.lost(before, now)
            seen = now
            settings.show(shown + killed)
        findings += search.run().unless(0)
        findings += ledger.judge(seen, search.journal, budget, undisturbed) + witness.findings
    return killed, findings


def until_begun(running: Running, witness: Witness, more: int) -> bool:
    """Wait until so many more evaluations have begun; False where the search ended before."""
    enough = len(witness.begins) + more
    return running.wait_until(lambda: len(witness.begins) >= enough)


def _until_results(running: Running, search: Subject) -> None:
    """Until the last evaluation is in the journal."""
    running.wait_until(lambda: len(ledger.evaluations(search.journal)) >= search.budget)
