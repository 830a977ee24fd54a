"""Ends Ray's processes when the search that started them dies without a word, as by `kill -9`.

Ray 2.60's own guard ends the raylet and the workers in seconds, but two agents of the raylet outlive it by a minute or
more, while they try to report its death to a server that is dead too; and when that server dies first, all the others
live on. This process sleeps on a pipe from the search; when the pipe closes, it kills whatever is left of them.

They are known by a mark in their environment, which they inherit from whoever started them, so that workers which
came up in the middle of the search are known as well as those from its beginning.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

GRACE = 3.0  # seconds for Ray to end by itself
PATIENCE = 30.0  # seconds after which what cannot be killed, as a process that hangs in the kernel, is left alone
_VARIABLE = "PHINAS_WATCHED"  # marks, separated by colons: what is watched may start what is watched on its own account


@contextmanager
def watched() -> Iterator[str]:
    """Inside, the death of this process ends every process that bears the mark; so does leaving the context.

    Yields the mark, which those processes get that are started while `bearing(mark)`, and the ones that they start.
    """
    mark = uuid.uuid4().hex
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "engines.watchdog", mark], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield mark
    finally:
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        watchdog.wait(timeout=2 * PATIENCE)


@contextmanager
def bearing(mark: str) -> Iterator[None]:
    """Inside, processes that this one starts bear the mark."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = mark if before is None else f"{before}:{mark}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def family(mark: str) -> list[psutil.Process]:
    """The living processes that bear the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ().get(_VARIABLE, "").split(":"):
                found.append(process)
        except (psutil.Error, OSError):  # it has ended meanwhile, or is another user's
            continue
    return found


def main(mark: str) -> None:
    """Wait for the end of standard input; then end the family."""
    sys.stdin.read()
    start = time.monotonic()
    while (left := family(mark)) and time.monotonic() < start + PATIENCE:
        if time.monotonic() > start + GRACE:
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
