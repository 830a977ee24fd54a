"""A journal that was damaged on disk: by a failing disk, a power cut, an editor, or somebody's script."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from nas.selftest import ledger
from nas.selftest.outcome import Finding, Outcome, summed
from nas.selftest.resumed import resume, resumed
from nas.selftest.searches import INLINE, Subject, instant, subject
from nas.selftest.settings import Settings
from phinas.files.errors import InputError

BUDGET = 12
BY_COMMAND = 20  # one corruption in so many is found by the command too
BLOCK = 512  # bytes; what a disk writes at once

Corrupt = Callable[[random.Random, bytes], bytes]


def corrupted(settings: Settings) -> Outcome:
    """Corrupt a journal at random, `count` times, and resume: the damage is named by its line and nothing is changed.

    What is left may also be the beginning of the journal, as a torn last line leaves it: then nothing tells it from
    an interruption, and it must be resumed to the undisturbed end. So may the whole journal with something after it,
    of which nothing was finished. Restored, the journal is resumed in every case.
    """
    start, rng = time.monotonic(), random.Random(f"corrupted {settings.seed}")
    search = subject(settings, "search", (*INLINE, *instant()), BUDGET)
    findings = search.run().unless(0)
    undisturbed = search.journal
    findings += ledger.judge(b"", undisturbed, BUDGET)
    if findings:
        return summed("corrupted", 0, time.monotonic() - start, findings)

    whole = settings.folder / "undisturbed.jsonl"
    whole.write_bytes(undisturbed)
    path = settings.folder / "corrupted.jsonl"
    # Two evaluations are still to come, so that there is something to resume.
    journal = b"".join(line + b"\n" for line in ledger.complete_lines(undisturbed)[:-2])
    kinds = list(KINDS)
    named = by_command = 0
    for done in range(1, settings.count + 1):
        kind = kinds[done % len(kinds)]
        damaged = corruption(rng, journal, kind)
        added = _in_process(path, damaged, journal, whole)
        if done % BY_COMMAND == 0:
            added += _by_command(search, damaged, journal, undisturbed)
            by_command += 1
        findings += [Finding(finding.kind, f"{kind}: {finding.text}", finding.count) for finding in added]
        named += not journal.startswith(damaged)
        settings.show(done)
    note = (
        f"{named} to be named by their line, {settings.count - named} no more than a torn end; {by_command} by command"
    )
    return summed("corrupted", settings.count, time.monotonic() - start, findings, note)


def corruption(rng: random.Random, journal: bytes, kind: str) -> bytes:
    """The journal with a corruption of that kind, which changes at least one byte."""
    while (damaged := KINDS[kind](rng, journal)) == journal:
        continue
    return damaged


def _in_process(path: Path, damaged: bytes, journal: bytes, whole: Path) -> list[Finding]:
    """What is wrong after a resumption from the damaged journal, and then from the sound one."""
    path.write_bytes(damaged)
    findings = []
    try:
        resume(path, whole, BUDGET)
    except InputError as error:
        findings += _refused(str(error), damaged, path.read_bytes(), journal)
    except Exception as error:  # whatever it is, a person would have seen its traceback
        findings.append(Finding("wrong", f"{type(error).__name__}: {error}"))
    else:
        findings += _accepted(damaged, path.read_bytes(), journal, whole.read_bytes())
    return findings + resumed(path, journal, whole, BUDGET)


def _by_command(search: Subject, damaged: bytes, journal: bytes, undisturbed: bytes) -> list[Finding]:
    """The same, of the command."""
    search.path.write_bytes(damaged)
    ended = search.run()
    if journal.startswith(damaged) or (damaged.startswith(journal) and ended.code == 0):
        findings = ended.unless(0) + _accepted(damaged, search.journal, journal, undisturbed)
    else:
        findings = ended.unless(2) + _refused(ended.errors, damaged, search.journal, journal)
    search.path.write_bytes(journal)
    findings += search.run().unless(0)
    return findings + ledger.judge(journal, search.journal, BUDGET, undisturbed)


def _refused(said: str, damaged: bytes, now: bytes, journal: bytes) -> list[Finding]:
    """What is wrong with a refusal: it names no line or another, or the file was changed."""
    if now != damaged:
        return [Finding("wrong", "the damaged journal was refused, and changed")]
    if journal.startswith(damaged):
        return [Finding("wrong", f"what is left is sound, and was refused: {said}")]
    line, name = ledger.first_difference(damaged, journal), re.search(r"line (\d+)", said)
    if name is None or int(name[1]) != line:
        return [Finding("wrong", f"the damage in line {line} was not named: {said}")]
    return []


def _accepted(damaged: bytes, now: bytes, journal: bytes, undisturbed: bytes) -> list[Finding]:
    """What is wrong with an acceptance: entries were skipped without a word, or the end is not the undisturbed one."""
    behind = damaged[len(journal) :]
    if not journal.startswith(damaged) and (not damaged.startswith(journal) or b"\n" in behind):
        line = ledger.first_difference(damaged, journal)
        entries = max(1, len(ledger.complete_lines(journal)) - line + 1)
        return [Finding("lost", f"the damage in line {line} was not noticed", entries)]
    return ledger.judge(min(damaged, journal, key=len), now, BUDGET, undisturbed)


def _span(rng: random.Random, journal: bytes, longest: int) -> tuple[int, int]:
    """Where a run of up to `longest` bytes begins and ends."""
    start = rng.randrange(len(journal))
    return start, min(start + rng.randint(1, longest), len(journal))


def _flip_a_bit(rng: random.Random, journal: bytes) -> bytes:
    place = rng.randrange(len(journal))
    return journal[:place] + bytes([journal[place] ^ (1 << rng.randrange(8))]) + journal[place + 1 :]


def _overwrite(rng: random.Random, journal: bytes) -> bytes:
    start, end = _span(rng, journal, 64)
    return journal[:start] + rng.randbytes(end - start) + journal[end:]


def _insert(rng: random.Random, journal: bytes) -> bytes:
    place = rng.randrange(len(journal) + 1)
    return journal[:place] + rng.randbytes(rng.randint(1, 16)) + journal[place:]


def _insert_an_end(rng: random.Random, journal: bytes) -> bytes:
    place = rng.randrange(len(journal) + 1)
    return journal[:place] + rng.choice([b"\n", b"\r", b"\r\n", b"\x0b", b"\x1c", b"\xc2\x85"]) + journal[place:]


def _remove(rng: random.Random, journal: bytes) -> bytes:
    start, end = _span(rng, journal, 64)
    return journal[:start] + journal[end:]


def _zero(rng: random.Random, journal: bytes) -> bytes:
    start = rng.randrange(len(journal)) // BLOCK * BLOCK
    end = min(start + BLOCK * rng.randint(1, 2), len(journal))
    return journal[:start] + bytes(end - start) + journal[end:]


def _append_zeros(rng: random.Random, journal: bytes) -> bytes:
    return journal + bytes(rng.randint(1, BLOCK))


def _delete_a_line(rng: random.Random, journal: bytes) -> bytes:
    lines = journal.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def _double_a_line(rng: random.Random, journal: bytes) -> bytes:
    lines = journal.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    return b"".join([*lines[: place + 1], *lines[place:]])


def _exchange_lines(rng: random.Random, journal: bytes) -> bytes:
    lines = journal.splitlines(keepends=True)
    first, second = rng.sample(range(len(lines)), 2)
    lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


KINDS: dict[str, Corrupt] = {
    "a bit flipped": _flip_a_bit,
    "bytes overwritten": _overwrite,
    "bytes inserted": _insert,
    "an end of line inserted": _insert_an_end,
    "bytes removed": _remove,
    "blocks of zeros": _zero,
    "zeros at the end": _append_zeros,
    "a line deleted": _delete_a_line,
    "a line doubled": _double_a_line,
    "lines exchanged": _exchange_lines,
}
