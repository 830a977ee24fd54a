"""Asynchronous successive halving: which candidates are worth more epochs.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", arXiv 1810.05934, in its stopping variant: at
epochs grace, grace*eta, grace*eta^2, ... a candidate goes on while it is in the top 1/eta of all that got there.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any

from phinas.files.checks import check_whole
from phinas.files.errors import InputError


class Halving:
    """The rungs of one search. State is the values recorded so far: replay the curves to have it back."""

    def __init__(self, epochs: int, grace: int = 1, eta: int = 3) -> None:
        """`epochs`: length of a full training; `grace`: epochs before the first rung; one in `eta` goes on."""
        check_whole("halving.grace", grace)
        check_whole("halving.eta", eta, least=2)
        self.eta = eta
        self.rungs: dict[int, list[float]] = {}  # epoch -> values recorded there, ascending
        epoch = grace
        while epoch < epochs:  # at the last epoch there is nothing left to save
            self.rungs[epoch] = []
            epoch *= eta

    def keeps(self, epoch: int, value: float) -> bool:
        """Record `value` (higher is better) after `epoch` epochs, from 1; False: stop this candidate.

        Between rungs and at the last epoch nothing is recorded and everything goes on. So does everything while a
        rung holds fewer than eta values: there is no top 1/eta of them yet.
        """
        rung = self.rungs.get(epoch)
        if rung is None:
            return True
        insort(rung, value)
        better = len(rung) - bisect_right(rung, value)
        return len(rung) < self.eta or better * self.eta < len(rung)  # value >= the (1 - 1/eta) quantile

    def replay(self, curve: Sequence[float]) -> None:
        """Record a finished candidate's values after epochs 1, 2, ...; however short it was stopped."""
        for epoch, value in enumerate(curve, start=1):
            self.keeps(epoch, value)


def read_halving(settings: Any, evaluator: Any) -> Halving | None:
    """Successive halving over the evaluator's epochs, as a configuration describes it; None without.

    Evaluators that have no epochs have nothing to halve. Raises InputError for a setting that is wrong.
    """
    if settings is None:
        return None
    if not isinstance(settings, Mapping) or set(settings) != {"grace", "eta"}:
        raise InputError(f"halving={settings}: it must be null, or have grace and eta")
    halving = Halving(getattr(evaluator, "epochs", 1), settings["grace"], settings["eta"])
    return halving if halving.rungs else None
