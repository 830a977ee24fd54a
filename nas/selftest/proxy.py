"""Drivers and workers that are killed while networks really train: one epoch on the embedded digits."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from nas.selftest import ledger
from nas.selftest.drivers import suffer
from nas.selftest.outcome import Outcome, summed
from nas.selftest.searches import INLINE, subject
from nas.selftest.settings import Settings
from nas.selftest.witness import witnessing
from nas.selftest.workers import MOST, Lottery, failed

# Smaller than any proxy that ranks: what is tried here is how it dies, not what it finds.
PROXY = (
    "evaluator._target_=nas.selftest.witnessed.Witnessed",
    "evaluator.of._target_=nas.evaluators.proxy.Proxy",
    "evaluator.of.data=${data}",
    "data=digits",
    "evaluator.of.resolution=8",
    "evaluator.of.recipe._target_=phinas.training.short.recipe.Recipe",
    "evaluator.of.recipe.epochs=1",
    "evaluator.of.recipe.batch_size=128",
)
SECONDS = 1.0  # that an evaluation takes, about: within them a driver or a worker dies after one began


def proxy(settings: Settings) -> Outcome:
    """Half of `count` kill the driver of an inline search, half a worker on Ray; all the driver where Ray is not.

    As with made-up accuracies: full budgets, nothing lost, and inline the undisturbed search's journal.
    """
    start, rng = time.monotonic(), random.Random(f"proxy {settings.seed}")
    of_workers = settings.count // 2 if settings.ray is not None else 0
    of_drivers = settings.count - of_workers

    options: Sequence[str] = (*INLINE, *PROXY)
    budget = 2 * of_drivers + 2
    undisturbed = subject(settings, "undisturbed", options, budget)
    findings = undisturbed.run().unless(0)
    killed, added = suffer(settings, "inline", options, budget, rng, of_drivers, SECONDS, undisturbed.journal)
    findings += added

    if settings.ray is not None and of_workers:
        options, budget = (*settings.ray, f"engine.max_failures={MOST}", *PROXY), 2 * of_workers + 2
        lottery = Lottery(rng, of_workers, budget, SECONDS, lambda deaths: settings.show(of_drivers + deaths))
        path = subject(settings, "ray", options, budget).path
        with witnessing(path, budget, settings.address, lottery) as witness:
            search = subject(settings, "ray", options, budget, witness.address)
            findings += search.run().unless(0)
            findings += ledger.judge(b"", search.journal, budget) + witness.findings
        entries = ledger.evaluations(search.journal)
        findings += failed(entries) + lottery.unrecorded(entries)
        killed += len(lottery.deaths)
    note = f"{of_drivers} drivers inline, {of_workers} workers on Ray, training on the digits"
    return summed("proxy", killed, time.monotonic() - start, findings, note)
