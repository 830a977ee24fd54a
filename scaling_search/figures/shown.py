"""A candidate of the scaling search as its figures show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from phinas.networks.compound import PAPER, Coefficients


@dataclass(frozen=True)
class Shown:
    """A candidate, with all that is known of it by now. Costs are multiples of the baseline's MACs.

    label             its name in the figures, such as `1.2 1.1 1.15`; a few words at the most.
    nominal           its cost by the formula, (alpha * beta^2 * gamma^2)^phi.
    formula           the MACs of the network that the formula makes, with whole layers, channels and pixels.
    realised          the MACs of the network that is trained; None for a candidate that was dropped.
    adjusted          whether that is another network than the formula's.
    accuracies        one a seed that was evaluated, as fractions; none for a candidate that was not, or failed.
    failed            whether its evaluations failed, as far as they were tried.
    expected          its true accuracy as believed, which lies between `low` and `high` with probability 0.95; None
                      where nothing is known.
    probability_best  that no other is better; None where nothing is known.
    contender         whether it is one of the fewest that hold the best with probability 0.95.
    shares_network    whether an earlier candidate has the very same network, and the ranking shows that one for both.
    """

    label: str
    coefficients: Coefficients
    nominal: float
    formula: float
    realised: float | None
    adjusted: bool
    accuracies: tuple[float, ...] = ()
    failed: bool = False
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    probability_best: float | None = None
    contender: bool = False
    shares_network: bool = False

    @property
    def state(self) -> Literal["evaluated", "shared", "failed", "waiting", "dropped"]:
        """What is known: its accuracy, that of its equal, that it has none, nothing yet; or that it has no network."""
        if self.accuracies:
            return "shared" if self.shares_network else "evaluated"
        return "dropped" if self.realised is None else "failed" if self.failed else "waiting"

    @property
    def mean(self) -> float | None:
        """The mean accuracy over its seeds; None without any."""
        return sum(self.accuracies) / len(self.accuracies) if self.accuracies else None

    @property
    def title(self) -> str:
        """The label, and whether these are the paper's constants."""
        return f"{self.label} (paper)" if self.coefficients == PAPER else self.label


def ranked(candidates: Sequence[Shown]) -> list[Shown]:
    """Those with an accuracy, the most probably best first; by their means where that is unknown, or equal."""
    known = [candidate for candidate in candidates if candidate.state == "evaluated"]
    return sorted(known, key=lambda candidate: (-(candidate.probability_best or 0.0), -(candidate.mean or 0.0)))
