"""Disks without room: one line, exit code 1, what is finished is kept, and with room again it ends as if undisturbed.

The disk is real: the system lets no file of the command grow beyond so many bytes, as a quota does.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nas import search
from nas.journal import read_journal
from phinas.command.run import run
from scaling_search import grid

pytestmark = pytest.mark.usefixtures("empty_folder")

SEARCH = ("evaluator=synthetic", "evaluator.epochs=9", "engine=inline", "controller=random", "budget=40", "name=a")
GRID = ("evaluator=synthetic", "engine=inline", "candidates=3", "seeds=2", "lattice.alpha=[1.0,1.4]",
        "lattice.beta=[1.0,1.2]", "lattice.gamma=[1.0,1.3]")  # fmt: skip


def _ended(main: Callable[[Sequence[str]], int], arguments: Sequence[str], room: int | None = None) -> tuple[int, str]:
    """Exit code of a command and what it wrote to the terminal, run by a child that may write files of `room` bytes."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code: object = "a traceback"
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
            sys.argv = ["command", *arguments]
            if room is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            run(main)
        except SystemExit as end:
            code = end.code
        finally:
            os._exit(code if isinstance(code, int) else 70)
    os.close(writer)
    with os.fdopen(reader) as output:
        said = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def _failed(said: str) -> str:
    """The one line by which a command ends that failed."""
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert said.endswith(f"{line}\n") and "Traceback" not in said
    return line


@pytest.mark.figures
def test_a_search_keeps_what_is_finished_and_ends_as_if_there_had_always_been_room(empty_folder: Path) -> None:
    folder = empty_folder / "runs" / "a"
    journal = folder / "journal.jsonl"
    code, said = _ended(search.main, SEARCH, room=9000)
    kept = read_journal(journal)[1]
    assert code == 1 and 0 < len(kept) < 40
    assert _failed(said) == (
        f"error: runs/a/journal.jsonl cannot be written: File too large; {len(kept)} of 40 evaluations are kept. "
        f"To go on: python -m nas.search {' '.join(SEARCH)}"
    )
    before = journal.read_bytes()
    code, said = _ended(search.main, SEARCH, room=500)  # there is less room now than there was
    assert code == 1 and f"; {len(kept)} of 40 evaluations are kept" in _failed(said)
    assert journal.read_bytes() == before and len(list(folder.glob(".*.*"))) == 0  # and nothing half written

    (folder / "timings.csv").write_bytes((folder / "timings.csv").read_bytes().ljust(60_000, b"\n"))
    code, said = _ended(search.main, SEARCH, room=60_010)
    assert code == 1 and f"timings.csv cannot be written: File too large; {len(kept) + 1} of 40" in _failed(said)
    (folder / "timings.csv").unlink()

    code, said = _ended(search.main, SEARCH, room=40_000)  # enough for the journal
    assert code == 1 and "report.html cannot be written: File too large; 40 of 40 evaluations" in _failed(said)
    assert _ended(search.main, SEARCH)[0] == 0
    assert (folder / "report.html").exists()
    assert _ended(search.main, [*SEARCH[:-1], "name=b"])[0] == 0
    assert journal.read_bytes() == (empty_folder / "runs" / "b" / "journal.jsonl").read_bytes()


@pytest.mark.slow
def test_a_scaling_search_keeps_what_is_finished(empty_folder: Path) -> None:
    assert _ended(grid.main, [*GRID, "name=small", "seeds=1"])[0] == 0
    room = (empty_folder / "runs" / "small" / "study.db").stat().st_size
    options = [*GRID, "name=a", "evaluator.epochs=100", "halving=null"]  # each epoch takes its place in the database
    code, said = _ended(grid.main, options, room + 16_000)
    line = _failed(said)
    kept = re.fullmatch(
        r"error: runs/a/study.db cannot be written: [\w /]+; (\d) of 6 evaluations are kept. "
        r"To go on: python -m scaling_search.grid .+",
        line,
    )
    assert code == 1 and kept and 0 < int(kept[1]) < 6
    assert _ended(grid.main, options)[0] == 0
    summaries = [json.loads((empty_folder / "runs" / name / "summary.json").read_text()) for name in ("small", "a")]
    assert [summary["evaluations"] for summary in summaries] == [3, 6]
