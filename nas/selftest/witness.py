"""The witness: hears of every evaluation that begins, on whatever machine, and may sentence its process to death."""

from __future__ import annotations

import secrets
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from nas.selftest import ledger
from nas.selftest.outcome import Finding
from nas.selftest.searches import SEED


@dataclass(frozen=True)
class Begin:
    """An evaluation that begins: its number, and the process that it is in."""

    number: int
    pid: int
    host: str

    @property
    def here(self) -> bool:
        """Whether that is a process of this machine."""
        return self.host == socket.gethostname()


Sentence = Callable[[Begin], float | None]  # seconds after which the process kills itself; None: it lives


class Witness:
    """What was seen of one search."""

    def __init__(self, address: str, journal: Path, budget: int, sentence: Sentence) -> None:
        self._secret = secrets.token_hex(16)  # whom the witness does not know could have any process killed
        self.address = f"{address}/{self._secret}"
        self.begins: list[Begin] = []
        self._repeated: list[Finding] = []
        self._journal = journal
        self._sentence = sentence
        self._lock = threading.Lock()
        self._finished: set[int] = set()
        self._numbers = {_seed_of(number): number for number in range(budget)}

    @property
    def findings(self) -> list[Finding]:
        """Evaluations that began though they were in the journal before; and those that it did not see, being blind."""
        self.look()
        missed = sorted(self._finished - {begin.number for begin in self.begins})
        return self._repeated + [Finding("wrong", f"evaluation {number} was never seen to begin") for number in missed]

    def look(self) -> bytes:
        """The journal as it is now; what is in it is remembered as finished, even if it should vanish again."""
        journal = ledger.content(self._journal)
        self._finished |= ledger.evaluations(journal).keys()
        return journal

    def hear(self, line: str) -> str:
        """A report, `SECRET SEED PID HOST`; the answer. What is no report is not answered."""
        try:
            secret, seed, pid, host = line.split()
            begin = Begin(self._numbers[int(seed)], int(pid), host)
        except (ValueError, KeyError):
            return ""
        if not secrets.compare_digest(secret.encode(), self._secret.encode()):
            return ""
        with self._lock:
            self.look()
            if begin.number in self._finished:
                again = f"evaluation {begin.number} began again though it was finished"
                self._repeated.append(Finding("repeated", again))
            self.begins.append(begin)
            seconds = self._sentence(begin)  # which may take its time: so long the evaluation waits
        return "" if seconds is None else str(seconds)


@contextmanager
def witnessing(
    journal: Path, budget: int, address: str | None = None, sentence: Sentence = lambda begin: None
) -> Iterator[Witness]:
    """A witness of the search that writes `journal`, listening as long as the context lasts.

    address   of the cluster that evaluates; None: this machine alone, and nobody else can reach the witness.
    sentence  is asked once for each evaluation that begins.
    """
    with _Server((_own_address(address), 0), _Handler) as server:
        host, port = server.server_address[:2]
        server.witness = Witness(f"{host!s}:{port}", journal, budget, sentence)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.witness
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    witness: Witness


class _Handler(socketserver.StreamRequestHandler):
    timeout = 30  # seconds; who connects and says nothing does not stay

    def handle(self) -> None:
        answer = cast(_Server, self.server).witness.hear(self.rfile.readline(1000).decode(errors="replace"))
        self.wfile.write(f"{answer}\n".encode())


def _own_address(cluster: str | None) -> str:
    """This machine's address as the cluster's machines see it."""
    if cluster is None:
        return "127.0.0.1"
    host = cluster.removeprefix("ray://").rpartition(":")[0] or "192.0.2.1"  # for "auto": any address beyond this host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 1))  # sends nothing, but chooses the way
        except OSError:  # there is no way out of this machine, and so no other
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _seed_of(number: int) -> int:
    """An evaluation's seed, by which its process knows it; as `nas.jobs` draws it."""
    return int(np.random.SeedSequence((SEED, number)).generate_state(1)[0])
