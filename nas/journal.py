"""The journal: one line per finished evaluation, on disk before anyone acts on it. It is the state of a search."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from convnets.atomic_file import sync_folder
from convnets.errors import InputError
from convnets.settings import check_same_settings
from search_spaces.space import Picks

VERSION = 1


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


def _encode(record: Mapping[str, Any]) -> bytes:
    """One line: the record as JSON, with a checksum of itself."""
    text = json.dumps(record, separators=(",", ":"))
    return f'{text[:-1]},"crc":{zlib.crc32(text.encode())}}}\n'.encode()


def _decode(line: bytes) -> dict[str, Any]:
    """The inverse of `_encode`; ValueError when the line is damaged."""
    text, separator, checksum = line.decode().rstrip("\n").rpartition(',"crc":')
    if not separator or zlib.crc32(f"{text}}}".encode()) != int(checksum.removesuffix("}")):
        raise ValueError("the checksum does not match")
    record = json.loads(text + "}")
    assert isinstance(record, dict)
    return record


def _entry(record: dict[str, Any]) -> Entry:
    return Entry(**{**record, "picks": tuple(record["picks"]), "curve": tuple(record["curve"])})


def read_journal(path: Path | str) -> tuple[dict[str, Any], list[Entry], int]:
    """Settings of the search, its finished evaluations in the order they finished, and the length in bytes of the
    sound part: a line without its end, as an interrupted write leaves it, is no part of the journal.

    Reads only. Raises InputError naming the line that is damaged, or a version that this release cannot read.
    """
    sound, settings, entries = 0, {}, []
    for number, line in enumerate(Path(path).read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record = _decode(line)
            if number == 1:
                if record["journal"] != VERSION:
                    raise InputError(
                        f"{path} is a journal of version {record['journal']}; this release reads {VERSION}"
                    )
                settings = record["settings"]
            else:
                entries.append(_entry(record))
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number} is damaged ({error}); nothing was changed") from None
        sound += len(line)
    return settings, entries, sound


class Journal:
    """The one writer of a journal file. Opening creates the file, or repairs a torn last line and reads the rest."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """`settings` is what must agree for two searches to be one.

        Raises InputError naming what differs from an existing journal's settings, or the line that is damaged.
        """
        self.path = path
        self.entries: list[Entry] = []
        self.repaired = False
        started = False
        if path.exists():
            found, self.entries, sound = read_journal(path)
            started = sound > 0
            if started:
                check_same_settings(path, found, settings)
            self.repaired = sound < path.stat().st_size
            if self.repaired:
                os.truncate(path, sound)
        self._file: BinaryIO = open(path, "ab")  # closed by close()
        if not started:
            self._write({"journal": VERSION, "settings": settings})
            sync_folder(path.parent)

    def append(self, entry: Entry) -> None:
        """Write the entry and force it to disk; when this returns, it cannot be lost."""
        self._write(vars(entry))
        self.entries.append(entry)

    def close(self) -> None:
        self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(_encode(record))
        self._file.flush()
        os.fsync(self._file.fileno())


def check_journal(path: Path, settings: Mapping[str, Any]) -> list[Entry]:
    """The entries of the journal at `path`, none where there is no journal; changes nothing.

    Raises InputError where it is damaged or of other settings.
    """
    if not path.exists():
        return []
    found, entries, sound = read_journal(path)
    if sound:
        check_same_settings(path, found, settings)
    return entries
