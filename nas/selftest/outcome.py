"""What came of one kind of fault: how often it was injected, and what a search lost or repeated for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lost", "repeated", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that must not be, in a line.

    kind   lost: an evaluation that was on disk and is no longer there, or one of the budget that was never made;
           repeated: a number or a network that is there twice, or an evaluation begun again though it was finished;
           wrong: any other promise that was broken, such as one line instead of a traceback.
    count  of the entries concerned.
    """

    kind: Kind
    text: str
    count: int = 1


@dataclass(frozen=True)
class Outcome:
    """One kind of fault, all injections together.

    injected  how many there were.
    note      how they were injected, for people.
    """

    fault: str
    injected: int
    seconds: float
    findings: tuple[Finding, ...] = ()
    note: str = ""

    @property
    def lost(self) -> int:
        """Entries that a reader saw complete on disk and that are gone, and evaluations missing from the budget."""
        return self._count("lost")

    @property
    def repeated(self) -> int:
        """Evaluation numbers and networks that appear twice, and evaluations begun again though finished."""
        return self._count("repeated")

    @property
    def passed(self) -> bool:
        return not self.findings

    def _count(self, kind: Kind) -> int:
        return sum(finding.count for finding in self.findings if finding.kind == kind)


def summed(fault: str, injected: int, seconds: float, findings: Sequence[Finding], note: str = "") -> Outcome:
    """The outcome with equal findings said once, their counts added."""
    counts: dict[tuple[Kind, str], int] = {}
    for finding in findings:
        counts[finding.kind, finding.text] = counts.get((finding.kind, finding.text), 0) + finding.count
    said = tuple(Finding(kind, text, count) for (kind, text), count in counts.items())
    return Outcome(fault, injected, seconds, said, note)
