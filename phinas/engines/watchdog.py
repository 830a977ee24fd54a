"""Ends Ray's processes when the search that started them dies without a word, as by `kill -9`.

Ray 2.60's own guard ends the raylet and the workers in seconds, but two agents of the raylet outlive it by a minute or
more, while they try to report its death to a server that is dead too; and when that server dies first, all the others
live on. This process sleeps on a pipe from the search; when the pipe closes, it kills whatever is left of them.

They are known by a mark in their environment, which they inherit from whoever started them, and by their parents: a
process that gives itself a title, as Ray's workers do, overwrites its environment. This process looks every few
seconds, so that workers which come up in the middle of the search are known as well as those from its beginning.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

GRACE = 3.0  # seconds for Ray to end by itself
INTERVAL = 2.0  # seconds between looks
PATIENCE = 30.0  # seconds after which what cannot be killed, as a process that hangs in the kernel, is left alone
_VARIABLE = "PHINAS_WATCHED"  # marks, separated by colons: what is watched may start what is watched on its own account


@contextmanager
def watched() -> Iterator[str]:
    """Inside, the death of this process ends every process that bears the mark; so does leaving the context.

    Yields the mark, which those processes get that are started while `bearing(mark)`, and the ones that they start.
    """
    mark = uuid.uuid4().hex
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "phinas.engines.watchdog", mark], stdin=subprocess.PIPE, start_new_session=True
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


def family(mark: str) -> set[psutil.Process]:
    """The living processes that bear the mark, and all below them."""
    there = {process.pid: process for process in psutil.process_iter(["ppid", "environ", "status"])}
    there = {pid: process for pid, process in there.items() if process.info["status"] != psutil.STATUS_ZOMBIE}
    found: set[int] = set()
    more = {pid for pid, one in there.items() if mark in (one.info["environ"] or {}).get(_VARIABLE, "").split(":")}
    while more - found:
        found |= more
        more = {pid for pid, one in there.items() if one.info["ppid"] in found}
    return {there[pid] for pid in found}


def main(mark: str) -> None:
    """Wait for the end of standard input; then end the family."""
    known: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], INTERVAL)[0]:
        known |= family(mark)
        known = {process for process in known if process.is_running()}
    start = time.monotonic()
    while (left := _alive(known | family(mark))) and time.monotonic() < start + PATIENCE:
        if time.monotonic() > start + GRACE:
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.1)


def _alive(processes: set[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=0)[1]


if __name__ == "__main__":
    main(sys.argv[1])
