"""A second search in a folder where one is running."""

from __future__ import annotations

import threading
import time

from nas.selftest import ledger
from nas.selftest.outcome import Finding, Outcome, summed
from nas.selftest.searches import INLINE, LIMIT, instant, subject
from nas.selftest.settings import Settings
from nas.selftest.witness import witnessing

BUDGET = 8


def two_at_once(settings: Settings) -> Outcome:
    """Start a search in the folder of a running one, `count` times: it refuses, naming the first, which goes on."""
    start = time.monotonic()
    alone = subject(settings, "alone", (*INLINE, *instant()), BUDGET)
    findings = alone.run().unless(0)
    for turn in range(1, settings.count + 1):
        findings += _beside(settings, f"shared-{turn}", alone.journal)
        settings.show(turn)
    note = "the second names the first, which is not disturbed"
    return summed("two_at_once", settings.count, time.monotonic() - start, findings, note)


def _beside(settings: Settings, name: str, undisturbed: bytes) -> list[Finding]:
    """What is wrong after a search was started beside one of the same name."""
    refused = threading.Event()

    def hold(begin: object) -> None:
        """Keep the first search in its first evaluation until the second has ended."""
        refused.wait(LIMIT)

    options = (*INLINE, *instant())
    path = subject(settings, name, options, BUDGET).path
    with witnessing(path, BUDGET, sentence=hold) as witness:
        first = subject(settings, name, options, BUDGET, witness.address)
        with first.running() as running:
            running.wait_until(lambda: bool(witness.begins))
            findings = first.run().unless(2, f"is in use by process {running.process.pid}")
            refused.set()
            findings += running.ended().unless(0)
        return findings + ledger.judge(b"", first.journal, BUDGET, undisturbed) + witness.findings
