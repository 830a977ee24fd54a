"""A journal whose last line was torn by a crash, at every byte that it has."""

from __future__ import annotations

import random
import time

from nas.selftest import ledger
from nas.selftest.outcome import Outcome, summed
from nas.selftest.resumed import resumed
from nas.selftest.searches import INLINE, instant, subject
from nas.selftest.settings import Settings

BUDGET = 12


def torn(settings: Settings) -> Outcome:
    """Tear the last line at each byte and resume in this process; tear anywhere and resume by command, `count` times.

    Whatever was complete is kept, and every journal ends equal to the undisturbed one, byte for byte.
    """
    start, rng = time.monotonic(), random.Random(f"torn {settings.seed}")
    search = subject(settings, "search", (*INLINE, *instant()), BUDGET)
    findings = search.run().unless(0)
    undisturbed = search.journal
    findings += ledger.judge(b"", undisturbed, BUDGET)
    lines = ledger.complete_lines(undisturbed)
    if findings:
        return summed("torn", 0, time.monotonic() - start, findings)

    whole = settings.folder / "undisturbed.jsonl"
    whole.write_bytes(undisturbed)
    positions = range(len(undisturbed) - len(lines[-1]) - 1, len(undisturbed))
    for done, position in enumerate(positions, start=1):
        findings += resumed(settings.folder / "torn.jsonl", undisturbed[:position], whole, BUDGET)
        settings.show(done)

    anywhere = [rng.randrange(1, len(undisturbed)) for _ in range(settings.count)]
    for done, position in enumerate(anywhere, start=len(positions) + 1):
        search.path.write_bytes(undisturbed[:position])
        findings += search.run().unless(0)
        findings += ledger.judge(undisturbed[:position], search.journal, BUDGET, undisturbed)
        settings.show(done)
    note = f"{len(positions)} bytes of the last line, resumed in this process; {len(anywhere)} anywhere, by command"
    return summed("torn", len(positions) + len(anywhere), time.monotonic() - start, findings, note)
