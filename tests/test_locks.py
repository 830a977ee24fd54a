"""One command at a time in a folder: the second is refused, naming the first; who only reads is never refused."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from nas import report, search
from nas.journal import read_journal
from phinas.command.run_folder import check_unlocked, locked
from phinas.files.errors import InputError

pytestmark = pytest.mark.usefixtures("empty_folder")

FOLDER = Path("runs/a")
SEARCH = ("evaluator=synthetic", "engine=inline", "controller=random", "name=a")


def _begun(seconds: float) -> int:
    """A search in a child process, of so many seconds an evaluation, which has finished three; returns its number."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            search.main([*SEARCH, "budget=10000", f"evaluator.seconds={seconds}"])
        finally:
            os._exit(70)
    while not (FOLDER / "journal.jsonl").exists() or len(read_journal(FOLDER / "journal.jsonl")[1]) < 3:
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    return child


def _killed(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_search_is_refused_naming_the_first_which_goes_on_and_readers_are_not(empty_folder: Path) -> None:
    options = [*SEARCH, "budget=10000", "evaluator.seconds=0.05"]
    first = _begun(0.05)
    try:
        for _ in range(2):  # being refused changes nothing
            with pytest.raises(InputError) as refused:
                search.main(options)
            owner = rf"process {first} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
            assert re.fullmatch(f"runs/a is in use by {owner}", str(refused.value))
        seen = len(read_journal(FOLDER / "journal.jsonl")[1])
        report.main(["runs/a"])
        assert (FOLDER / "report.html").exists()
        while len(read_journal(FOLDER / "journal.jsonl")[1]) <= seen:
            assert os.waitpid(first, os.WNOHANG) == (0, 0)  # it is not disturbed
            time.sleep(0.05)
    finally:
        _killed(first)

    assert f"process {first} " in (FOLDER / ".lock").read_text()  # it could not clear up
    kept = read_journal(FOLDER / "journal.jsonl")[1]
    assert search.main([*options, f"budget={len(kept) + 1}"]) == 0
    assert read_journal(FOLDER / "journal.jsonl")[1][: len(kept)] == kept
    assert f"process {os.getpid()} " in (FOLDER / ".lock").read_text()


def test_a_lock_left_behind_binds_nobody_though_another_process_has_its_number_now() -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / ".lock").write_text(
        f"process {os.getppid()} on a-host-with-a-very-long-name.example.org since long ago\n"
    )
    check_unlocked(FOLDER)
    with locked(FOLDER):
        mine = (FOLDER / ".lock").read_text()
        assert mine.startswith(f"process {os.getpid()} on ") and "long ago" not in mine
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"), locked(FOLDER):
            pass
    with locked(FOLDER):  # and it is free again
        pass
