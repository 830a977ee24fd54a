"""The journal's laws: what was appended is read back; a torn tail is repaired; damage is named and left alone."""

from __future__ import annotations

import random
import re
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas.evaluators.synthetic import Synthetic
from nas.journal import Entry, Journal, check_journal, read_journal
from phinas.engines import inline
from phinas.files.errors import CannotWrite, InputError
from tests.conftest import MakeSearch

SETTINGS = {"seed": 0, "space": {"name": "tiny", "sizes": [1, 2]}}
ENTRIES = [
    Entry(0, (0, 1), "aa", {"macs": 10, "params": 2}, (0.1, 0.30000000000000004), 0.3),
    Entry(2, (1, 1), "bb", {"macs": 11, "params": 3, "crc": 0.5}, (0.2,), 0.19, stopped=True, retries=2),
    Entry(1, (1, 0), "cc", {"macs": 12, "params": 4}, error='diverged: loss is "nan"\nat step 3'),
]
# One search of twelve evaluations, some of which were stopped and some failed, as each version writes it.
FIXTURES = sorted((Path(__file__).parent / "journals").glob("version-*.jsonl"))
NEWEST = FIXTURES[-1]


def _written(path: Path) -> bytes:
    journal = Journal(path, SETTINGS)
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    return path.read_bytes()


def _line_named(path: Path, damaged: bytes) -> int:
    """The line that is named when a damaged journal is opened, which changes nothing."""
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r", line \d+") as caught:
        Journal(path, SETTINGS)
    assert path.read_bytes() == damaged and "\n" not in str(caught.value)
    return int(re.findall(r", line (\d+)", str(caught.value))[0])


def test_entries_are_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    _written(path)
    assert read_journal(path)[:2] == (SETTINGS, ENTRIES)
    assert Journal(path, SETTINGS).entries == ENTRIES


# -------------------------------------------------------------------------------------------------------- interruptions


def test_a_line_cut_off_at_any_byte_is_repaired_and_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = _written(path)
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1  # where the last line starts
    for cut in range(last + 1, len(whole)):
        path.write_bytes(whole[:cut])
        journal = Journal(path, SETTINGS)
        assert journal.repaired and journal.entries == ENTRIES[:-1] and path.read_bytes() == whole[:last]
        journal.append(ENTRIES[-1])
        journal.close()
        assert path.read_bytes() == whole


def test_a_first_line_cut_off_starts_the_journal_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = _written(path).split(b"\n")[0]
    for cut in range(1, len(first) + 1):
        path.write_bytes(first[:cut])
        journal = Journal(path, SETTINGS)
        journal.close()
        assert journal.repaired and journal.entries == [] and path.read_bytes() == first + b"\n"


def test_a_journal_read_while_it_is_written_is_sound_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = _written(path)
    for cut in range(len(whole) + 1):  # wherever the reader finds the writer
        path.write_bytes(whole[:cut])
        settings, found, sound = read_journal(path)
        assert found == ENTRIES[: max(0, whole[:cut].count(b"\n") - 1)]
        assert sound == whole.rfind(b"\n", 0, cut) + 1 and path.stat().st_size == cut
        assert bool(settings) == bool(sound)


def test_a_reader_beside_the_writer_sees_what_is_finished_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, SETTINGS)
    entries = [Entry(number, (0,) * 500, "k", {"macs": number}, (0.5,), 0.5) for number in range(50)]
    writer = threading.Thread(target=lambda: list(map(journal.append, entries)))
    writer.start()
    reads = 0
    while writer.is_alive():
        found = read_journal(path)[1]
        assert found == entries[: len(found)]
        reads += 1
        time.sleep(0.001)  # the writer is a thread of this process, which two busy ones would share badly
    writer.join()
    journal.close()
    assert reads and read_journal(path)[1] == entries
    path.chmod(0o400)  # a reader may have no more than this
    before = path.stat()
    assert len(read_journal(path)[1]) == len(check_journal(path, SETTINGS)) == 50
    assert path.stat().st_mtime_ns == before.st_mtime_ns and list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------------------------------------- damage


def test_any_byte_that_was_changed_is_named_by_its_line(tmp_path: Path) -> None:
    whole, dice = _written(tmp_path / "journal.jsonl"), random.Random(0)
    for place, byte in enumerate(whole):
        for mask in (1, 1 << dice.randrange(1, 8), dice.randrange(1, 256)):
            damaged = bytearray(whole)
            damaged[place] = byte ^ mask
            line = whole.count(b"\n", 0, place) + 1
            assert _line_named(tmp_path / "journal.jsonl", bytes(damaged)) == line, f"byte {place}: {damaged[place]}"


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_bytes_that_were_inserted_or_cut_out_are_named_by_their_line(tmp_path: Path, fixture: Path) -> None:
    whole, dice = fixture.read_bytes(), random.Random(1)
    for _ in range(100):
        place = dice.randrange(len(whole) - 1)
        line = whole.count(b"\n", 0, place) + 1
        inserted = bytes(dice.choice(b'0 ,"}\r\x00\xff7') for _ in range(dice.choice((1, 2, 9))))
        assert _line_named(tmp_path / "journal.jsonl", whole[:place] + inserted + whole[place:]) == line
        end = dice.randrange(place + 1, min(place + 600, len(whole)))
        assert _line_named(tmp_path / "journal.jsonl", whole[:place] + whole[end:]) == line
    assert _line_named(tmp_path / "journal.jsonl", whole + b"7") == whole.count(b"\n") + 1


def test_lines_that_are_missing_doubled_or_exchanged_are_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = NEWEST.read_bytes().splitlines(keepends=True)
    for place in range(len(lines) - 1):  # a journal without its last line is that of a shorter search
        without = [*lines[:place], *lines[place + 1 :]]
        doubled = [*lines[: place + 1], *lines[place:]]
        exchanged = [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]
        found = [_line_named(path, b"".join(changed)) for changed in (without, doubled, exchanged)]
        assert found == [place + 1, place + 2, place + 1]
    assert _line_named(path, b"".join([*lines, lines[-1]])) == len(lines) + 1


def test_a_last_line_whose_newline_was_changed_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    """Somebody counts on it: only a line that never got so far may be cut off."""
    whole = NEWEST.read_bytes()
    for byte in set(range(256)) - {ord("\n")}:
        assert _line_named(tmp_path / "journal.jsonl", whole[:-1] + bytes([byte])) == whole.count(b"\n")


@pytest.mark.parametrize(
    "content", [b"no journal", b"\n", b"[]\n", b'{"journal":2}\n', b"[" * 100_000 + b"\n", b"\xff"]
)
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    assert _line_named(tmp_path / "journal.jsonl", content) == 1


# ------------------------------------------------------------------------------------------------------------- versions


def test_version_1_is_read_as_its_successor_is() -> None:
    assert [path.name for path in FIXTURES] == ["version-1.jsonl", "version-2.jsonl"]
    older, newer = (read_journal(path)[:2] for path in FIXTURES)
    assert older == newer and len(newer[1]) == 12
    assert sum(entry.stopped for entry in newer[1]) == sum(entry.error is not None for entry in newer[1]) == 4


@pytest.mark.parametrize("torn", [b"", b'{"number":12,"picks":[2,'])
def test_a_writer_turns_version_1_into_its_successor(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(FIXTURES[0].read_bytes() + torn)
    journal = Journal(path, read_journal(NEWEST)[0])
    journal.close()
    assert journal.upgraded and journal.repaired == bool(torn)
    assert path.read_bytes() == NEWEST.read_bytes() and list(tmp_path.iterdir()) == [path]


def test_a_search_begun_by_version_1_goes_on_as_if_this_release_had_begun_it(
    make_search: MakeSearch, tmp_path: Path
) -> None:
    settings, _, _ = read_journal(NEWEST)
    for fixture in FIXTURES:
        shutil.copy(fixture, tmp_path / fixture.name)
        inline.run(make_search(18, name=fixture.name, settings=settings), Synthetic(epochs=3))
    older, newer = ((tmp_path / fixture.name).read_bytes() for fixture in FIXTURES)
    assert older == newer and newer.startswith(NEWEST.read_bytes()) and newer.count(b"\n") == 19


def test_a_line_of_version_1_that_is_doubled_is_named_by_its_evaluation(tmp_path: Path) -> None:
    lines = FIXTURES[0].read_bytes().splitlines(keepends=True)
    assert _line_named(tmp_path / "journal.jsonl", b"".join([*lines[:6], *lines[5:]])) == 7


def test_a_journal_of_a_later_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(NEWEST.read_bytes().replace(b'"journal":2', b'"journal":99'))
    with pytest.raises(InputError, match="version 99, .* this release reads 1 and 2"):
        read_journal(path)


def test_other_settings_are_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = _written(path)
    other = {"seed": 1, "space": {"name": "tiny", "sizes": [1, 2]}}
    for check in (check_journal, Journal):
        with pytest.raises(InputError, match=r"started with seed=0 \(now 1\)"):
            check(path, other)
    assert path.read_bytes() == whole
    check_journal(tmp_path / "none.jsonl", other)


# ----------------------------------------------------------------------------------------------------------- full disks


@contextmanager
def _room(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the system then takes a part of what is written, and refuses the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_entry_there_is_no_room_for_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = _written(path)
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    path.write_bytes(whole[:last])
    journal = Journal(path, SETTINGS)
    for size in range(last, len(whole)):
        with _room(size), pytest.raises(CannotWrite, match="journal.jsonl cannot be written: File too large"):
            journal.append(ENTRIES[-1])
        assert path.read_bytes() == whole[:last] and journal.entries == ENTRIES[:-1]
    journal.append(ENTRIES[-1])
    journal.close()
    assert path.read_bytes() == whole


def test_a_journal_there_is_no_room_for_is_not_upgraded_and_none_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    shutil.copy(FIXTURES[0], path)
    settings = read_journal(path)[0]
    for size in (0, 100, 3000):
        with _room(size), pytest.raises(CannotWrite):
            Journal(path, settings)
        with _room(min(size, 100)), pytest.raises(CannotWrite):
            Journal(tmp_path / "new.jsonl", settings)
        assert path.read_bytes() == FIXTURES[0].read_bytes() and list(tmp_path.iterdir()) == [path]
