"""The journal's laws: what was appended is read back; a torn tail is repaired; damage is named and left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from convnets.errors import InputError
from nas.journal import Entry, Journal, check_journal, read_journal

SETTINGS = {"seed": 0, "space": {"name": "tiny", "sizes": [1, 2]}}
ENTRIES = [
    Entry(0, (0, 1), "aa", {"macs": 10, "params": 2}, (0.1, 0.30000000000000004), 0.3),
    Entry(2, (1, 1), "bb", {"macs": 11, "params": 3}, (0.2,), 0.19, stopped=True),
    Entry(1, (1, 0), "cc", {"macs": 12, "params": 4}, error='diverged: loss is "nan"\nat step 3'),
]


def _written(path: Path) -> bytes:
    journal = Journal(path, SETTINGS)
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    return path.read_bytes()


def test_entries_are_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    _written(path)
    assert read_journal(path)[:2] == (SETTINGS, ENTRIES)
    assert Journal(path, SETTINGS).entries == ENTRIES


def test_a_line_cut_off_at_any_byte_is_repaired_and_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = _written(path)
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1  # where the last line starts
    for cut in range(last + 1, len(whole)):
        path.write_bytes(whole[:cut])
        journal = Journal(path, SETTINGS)
        assert journal.repaired and journal.entries == ENTRIES[:-1]
        journal.append(ENTRIES[-1])
        journal.close()
        assert path.read_bytes() == whole


def test_a_first_line_cut_off_starts_the_journal_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = _written(path)
    path.write_bytes(whole[:20])
    journal = Journal(path, SETTINGS)
    assert journal.repaired and journal.entries == []
    assert read_journal(path)[0] == SETTINGS


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_damaged_line_is_named_and_nothing_is_changed(tmp_path: Path, line: int) -> None:
    path = tmp_path / "journal.jsonl"
    lines = _written(path).splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"', b"'", 1)
    path.write_bytes(b"".join(lines))
    damaged = path.read_bytes()
    with pytest.raises(InputError, match=f"line {line} is damaged"):
        Journal(path, SETTINGS)
    assert path.read_bytes() == damaged


def test_a_changed_digit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(_written(path).replace(b'"macs":11', b'"macs":17'))
    with pytest.raises(InputError, match="line 3 is damaged"):
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


def test_a_journal_of_a_later_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    monkeypatch.setattr("nas.journal.VERSION", 99)
    _written(path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="version 99"):
        read_journal(path)
