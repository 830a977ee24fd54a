"""Ends Ray's processes when the search that started them dies without a word, as by `kill -9`.

Ray 2.60's own guard ends the raylet and the workers in seconds, but two agents of the raylet outlive it by a minute or
more, while they try to report its death to a server that is dead too. This process sleeps on a pipe from the search;
when the pipe closes, whatever is left of the processes it was told of is killed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

GRACE = 3.0  # seconds for Ray to end by itself


@contextmanager
def watched() -> Iterator[None]:
    """Inside, the death of this process ends all processes that it has started so far, and theirs."""
    family = [f"{process.pid}:{process.create_time()}" for process in psutil.Process().children(recursive=True)]
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "engines.watchdog", *family], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        watchdog.wait(timeout=60)


def main(family: list[str]) -> None:
    """Wait for the end of standard input; then end the processes in `family`, each `pid:create time`."""
    sys.stdin.read()
    alive = []
    for pid, created in (member.split(":") for member in family):
        try:
            process = psutil.Process(int(pid))
            if process.create_time() == float(created):  # and not another that has got its number
                alive.append(process)
        except psutil.NoSuchProcess:
            continue
    for process in psutil.wait_procs(alive, timeout=GRACE)[1]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    main(sys.argv[1:])
