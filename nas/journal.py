"""The journal: one line per finished evaluation, on disk before anyone acts on it. It is the state of a search.

A line is a JSON object that ends in its checksum, a CRC-32 of the bytes before it. In version 2 the CRC goes on from
the checksum of the line before, so that a line that is missing, doubled or out of its place is noticed like a changed
byte; in version 1 each line stands for itself. The first line holds the version and the settings of the search.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from phinas.files.atomic_file import write_atomically, writing
from phinas.files.errors import InputError
from phinas.files.settings import check_same_settings
from search_spaces.space import Picks

VERSION = 2
READABLE = (1, 2)


@dataclass(frozen=True)
class Entry:
    """One finished evaluation. It holds no clock times, so that equal searches write equal journals.

    number       the evaluation's number, counted from 0 in the order of asking.
    picks        what the controller proposed: one index into each decision's choices.
    key          identity of the network.
    costs        what was known before the evaluation: macs, params, activations, and those of a device.
    curve        accuracy after each step (epoch) of the evaluation, fractions; the last is the result.
    reward       reward of the result; None when the evaluation failed.
    stopped      halted early by successive halving: its accuracy is that of fewer epochs than the others'.
    error        why the candidate failed, one line; None when it did not.
    retries      how often it was started again because its worker died, which is no fault of the candidate's.
    """

    number: int
    picks: Picks
    key: str
    costs: Mapping[str, float]
    curve: tuple[float, ...] = ()
    reward: float | None = None
    stopped: bool = False
    error: str | None = None
    retries: int = 0

    @property
    def accuracy(self) -> float | None:
        """The last accuracy measured; None when the evaluation failed."""
        return self.curve[-1] if self.curve and self.error is None else None

    @property
    def complete(self) -> bool:
        """Whether it was evaluated to the end: it neither failed nor was stopped early."""
        return self.reward is not None and not self.stopped


@dataclass(frozen=True)
class _Content:
    """What stands in a journal file.

    sound     length in bytes of what is part of the journal: all but a torn last line.
    checksum  of the last line, which the next goes on from.
    """

    version: int = VERSION
    settings: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    sound: int = 0
    checksum: int = 0


def read_journal(path: Path | str) -> tuple[dict[str, Any], list[Entry], int]:
    """Settings of the search, its finished evaluations in the order they finished, and the length in bytes of the
    sound part: a line without its end, as an interrupted write leaves it, is no part of the journal.

    Reads only, also while the search goes on. Raises InputError naming the line that is damaged, or a version that
    this release cannot read.
    """
    content = _read(Path(path))
    return content.settings, content.entries, content.sound


def check_journal(path: Path, settings: Mapping[str, Any]) -> list[Entry]:
    """The entries of the journal at `path`, none where there is no journal; changes nothing.

    Raises InputError where it is damaged or of other settings.
    """
    if not path.exists():
        return []
    settings_before, entries, sound = read_journal(path)
    if sound:
        check_same_settings(path, settings_before, settings)
    return entries


class Journal:
    """The one writer of a journal file; who opens it holds the lock of its folder.

    Opening creates the file, or reads it, without a torn last line, and in the format of this release.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """`settings` is what must agree for two searches to be one.

        Raises InputError naming what differs from an existing journal's settings, or the line that is damaged, and
        CannotWrite.
        """
        self.path = path
        content = _read(path) if path.exists() else _Content()
        if content.sound:
            check_same_settings(path, content.settings, settings)
        self.entries = content.entries
        self.repaired = path.exists() and content.sound < path.stat().st_size
        self.upgraded = bool(content.sound) and content.version < VERSION
        self._size, self._checksum = content.sound, content.checksum
        if self.upgraded or not content.sound:
            lines, self._checksum = _lines(content.settings if content.sound else settings, self.entries)
            self._size = len(lines)
            write_atomically(path, lines)
        with writing(path):
            self._file = open(path, "ab", buffering=0)  # closed by close()
            if self.repaired:
                self._take_back()

    def append(self, entry: Entry) -> None:
        """Write the entry and force it to disk; when this returns, it cannot be lost.

        Raises CannotWrite, and nothing of it is in the journal then.
        """
        line, checksum = _line(vars(entry), VERSION, self._checksum)
        with writing(self.path):
            try:
                unwritten = memoryview(line)
                while unwritten:
                    unwritten = unwritten[self._file.write(unwritten) :]
                os.fsync(self._file.fileno())
            except BaseException:
                with suppress(OSError):  # else whoever opens it next repairs it
                    self._take_back()
                raise
        self._size, self._checksum = self._size + len(line), checksum
        self.entries.append(entry)

    def close(self) -> None:
        self._file.close()

    def _take_back(self) -> None:
        """Cut off what is behind the last whole line."""
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())


def _read(path: Path) -> _Content:
    """Raises InputError `path, line N ...`."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    number = 1
    try:
        if not lines:
            _check_torn(rest, b'{"journal":', VERSION, 0)
            return _Content()
        version = json.loads(lines[0])["journal"]
        if version not in READABLE:
            raise InputError(
                f"{path}, line 1: a journal of version {version!r:.9}, of a later release or damaged; "
                f"this release reads {' and '.join(map(str, READABLE))}"
            )
        header, checksum = _record(lines[0], version, 0)
        settings = header["settings"]
        if not isinstance(settings, dict):
            raise TypeError
        entries: dict[int, Entry] = {}
        for line in lines[1:]:
            number += 1
            record, checksum = _record(line, version, checksum)
            entry = _entry(record)
            if entry.number in entries:
                raise ValueError(f"evaluation {entry.number} has a line before it")
            entries[entry.number] = entry
        number += 1
        _check_torn(rest, b'{"number":', version, checksum)
    except InputError:
        raise
    except (KeyError, TypeError, RecursionError):
        raise _damaged(path, number, "it is no line of a journal") from None
    except ValueError as error:
        raise _damaged(path, number, str(error)) from None
    return _Content(version, settings, list(entries.values()), sum(map(len, lines)) + len(lines), checksum)


def _damaged(path: Path, number: int, why: str) -> InputError:
    before = f"the {number - 1} before it are sound, " if number > 1 else ""
    return InputError(f"{path}, line {number} is damaged ({why}); {before}nothing was changed")


def _lines(settings: Mapping[str, Any], entries: Iterable[Entry]) -> tuple[bytes, int]:
    """A whole journal, and the checksum of its last line."""
    lines, checksum = [], 0
    for record in ({"journal": VERSION, "settings": settings}, *map(vars, entries)):
        line, checksum = _line(record, VERSION, checksum)
        lines.append(line)
    return b"".join(lines), checksum


def _line(record: Mapping[str, Any], version: int, before: int) -> tuple[bytes, int]:
    """The line of a record behind one whose checksum is `before`, and its own checksum."""
    body = json.dumps(record, separators=(",", ":"))[:-1].encode()
    end, checksum = _end(body, version, before)
    return body + end + b"\n", checksum


def _record(line: bytes, version: int, before: int) -> tuple[dict[str, Any], int]:
    """The inverse of `_line`, of a line without its newline; ValueError when it is not what was written there."""
    body = line.rpartition(b',"crc":')[0]
    end, checksum = _end(body, version, before)
    if line != body + end:
        chained = "" if version == 1 else ", or a line is missing, doubled or out of its place"
        raise ValueError(f"bytes were changed{chained}: the checksum does not match")
    record: dict[str, Any] = json.loads(body + b"}")
    return record, checksum


def _end(body: bytes, version: int, before: int) -> tuple[bytes, int]:
    """What stands behind the body of a line, up to its newline, and the line's checksum."""
    checksum = zlib.crc32(body + b"}", 0 if version == 1 else before)
    return b',"crc":%d}' % checksum, checksum


def _entry(record: dict[str, Any]) -> Entry:
    """Raises KeyError, TypeError or ValueError for fields that are not an entry's: somebody else wrote the line."""
    picks, costs, curve = record["picks"], record["costs"], record["curve"]
    entry = Entry(**{**record, "picks": tuple(picks), "curve": tuple(curve)})
    if not (
        (type(picks), type(costs), type(curve)) == (list, dict, list)
        and {type(entry.number), type(entry.retries), *map(type, picks)} == {int}
        and {*map(type, curve), *map(type, costs.values())} <= {int, float}
        and type(entry.reward) in (int, float, NoneType)
        and (type(entry.key), type(entry.stopped)) == (str, bool)
        and type(entry.error) in (str, NoneType)
    ):
        raise TypeError
    return entry


def _check_torn(rest: bytes, start: bytes, version: int, before: int) -> None:
    """ValueError where what stands behind the last newline is more than an interrupted write leaves of a line.

    A whole line whose newline was changed is no torn one: whoever wrote it counts on it.
    """
    if not (rest.startswith(start[: len(rest)]) and re.fullmatch(rb"[ -~]*", rest)):
        raise ValueError("it has no newline, and is not the beginning of a line")
    try:
        json.JSONDecoder().raw_decode(rest.decode())
    except ValueError:
        return  # as the rest of the line is missing
    _record(rest, version, before)
