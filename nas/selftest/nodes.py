"""Nodes of a Ray cluster that go in the middle of a search, with all that runs on them; and one that comes."""

from __future__ import annotations

import random
import time

from nas.selftest import ledger
from nas.selftest.drivers import until_begun
from nas.selftest.outcome import Finding, Outcome, summed
from nas.selftest.searches import EPOCHS, instant, subject
from nas.selftest.settings import Settings
from nas.selftest.witness import witnessing
from nas.selftest.workers import failed

STEP = 0.3  # seconds of each of an evaluation's steps
EACH = 8  # evaluations in the budget for each node that goes


def nodes(settings: Settings) -> Outcome:
    """Lose `count` nodes of a cluster on this machine, and add one after the first loss, or as many as are needed.

    A node goes while all are busy. The search goes on with what is left, to its full budget: what ran there is begun
    again elsewhere, and nothing else.
    """
    from phinas.engines.local_cluster import local_cluster  # imports Ray, which takes seconds

    start, rng = time.monotonic(), random.Random(f"nodes {settings.seed}")
    budget, lost, added = EACH * settings.count + 4, 0, 0
    findings: list[Finding] = []
    with local_cluster([1, 1, 1]) as cluster:  # a head, which stays, and two others
        options = (
            "engine=ray",
            f"engine.address={cluster.address}",
            "engine.workers=3",
            "engine.gpus_per_trial=0",
            *instant(STEP),
        )
        path = subject(settings, "search", options, budget).path
        with witnessing(path, budget) as witness:
            search = subject(settings, "search", options, budget, witness.address)
            with search.running() as running:
                while lost < settings.count:
                    if not until_begun(running, witness, rng.randint(3, 5)):
                        break
                    time.sleep(rng.uniform(0, EPOCHS * STEP))
                    cluster.lose(rng.choice(cluster.nodes[1:]))
                    lost += 1
                    settings.show(lost)
                    if lost == 1 or (len(cluster.nodes) == 1 and lost < settings.count):
                        cluster.add(1)
                        added += 1
                findings += running.ended().unless(0)
            findings += ledger.judge(b"", search.journal, budget) + witness.findings
    entries = ledger.evaluations(search.journal)
    findings += failed(entries)
    retries = sum(entry.get("retries", 0) for entry in entries.values())
    note = f"of 3, and {added} added meanwhile; {retries} retries recorded"
    return summed("nodes", lost, time.monotonic() - start, findings, note)
