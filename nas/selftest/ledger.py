"""What was lost or repeated between two states of a journal, found out from its bytes alone.

It shares no code with `nas.journal`: a reader that skipped a line would skip it here, too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nas.selftest.outcome import Finding


def content(path: Path) -> bytes:
    """What is on disk; nothing where there is no file."""
    return path.read_bytes() if path.exists() else b""


def complete_lines(journal: bytes) -> list[bytes]:
    """The lines that have their end."""
    return journal.split(b"\n")[:-1]


def evaluations(journal: bytes) -> dict[int, dict[str, Any]]:
    """Evaluation number -> what its complete line says, checksum apart; the first line of each number counts."""
    records: dict[int, dict[str, Any]] = {}
    for record in _records(journal):
        if "number" in record:
            records.setdefault(record["number"], record)
    return records


def lost(before: bytes, after: bytes) -> list[Finding]:
    """Evaluations that were complete on disk in `before` and are gone from `after`, or say something else there."""
    now = evaluations(after)
    gone = [number for number, record in evaluations(before).items() if now.get(number) != record]
    return [Finding("lost", f"evaluation {number} was on disk and is lost") for number in gone]


def short(journal: bytes, budget: int) -> list[Finding]:
    """Evaluations of the budget, numbers 0 to budget - 1, that are not there."""
    missing = set(range(budget)) - set(evaluations(journal))
    return [Finding("lost", f"evaluation {number} of the budget is missing") for number in sorted(missing)]


def repeated(journal: bytes) -> list[Finding]:
    """Numbers and networks that are there more than once."""
    records = [record for record in _records(journal) if "number" in record]
    twice = [f"evaluation {number}" for number in _repeats(record["number"] for record in records)]
    firsts = evaluations(journal).values()  # a line that is there twice is one repetition, not two
    twice += [f"network {key}" for key in _repeats(record["key"] for record in firsts)]
    return [Finding("repeated", f"{what} is in the journal twice") for what in twice]


def differs(journal: bytes, undisturbed: bytes) -> list[Finding]:
    """Nothing if both are equal to the byte."""
    if journal == undisturbed:
        return []
    line = first_difference(journal, undisturbed)
    return [Finding("wrong", f"the journal is not the undisturbed search's, from line {line} on")]


def judge(before: bytes, after: bytes, budget: int, undisturbed: bytes | None = None) -> list[Finding]:
    """All that is wrong with a search that ended with the journal `after`; `before` is what a reader saw earlier."""
    findings = [*lost(before, after), *short(after, budget), *repeated(after)]
    return findings if findings or undisturbed is None else differs(after, undisturbed)


def first_difference(one: bytes, other: bytes) -> int:
    """The line, from 1, on which the first byte stands that differs."""
    return 1 + _common(one, other).count(b"\n")


def _records(journal: bytes) -> Iterator[dict[str, Any]]:
    """Lines that are no JSON are left to others to complain of: here they are evaluations that are missing."""
    for line in complete_lines(journal):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield {name: value for name, value in record.items() if name != "crc"}


def _repeats(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() for _ in range(count - 1)]


def _common(first: bytes, second: bytes) -> bytes:
    """What both begin with."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[:middle] == second[:middle] else (low, middle - 1)
    return first[:low]
