"""An evaluator that reports to a witness before each evaluation, and dies in it when told to."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

from phinas.engines.evaluator import Evaluator, Measurement
from phinas.files.errors import InputError
from phinas.networks.network import Network

PATIENCE = 600.0  # seconds for the witness to answer


class Witnessed:
    """What `of` measures. The witness at the address in PHINAS_WITNESS hears of each evaluation when it begins.

    The address is no setting: the journal of a search must be the same whoever watches. It is read where the search
    starts, and travels with the evaluator to the workers. Without one there is no witness.
    """

    def __init__(self, of: Evaluator) -> None:
        self.of = of
        self.witness = os.environ.get("PHINAS_WITNESS")

    @property
    def epochs(self) -> int:
        """Measurements of one evaluation, for engines that stop early."""
        return int(getattr(self.of, "epochs", 1))

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield what `of` does. Raises InputError where the witness does not answer."""
        seconds = None if self.witness is None else _report(self.witness, seed)
        if seconds is None:
            yield from self.of(network, seed)
        else:
            yield from _dying(self.of(network, seed), seconds)


def _dying(measurements: Iterator[Measurement], seconds: float) -> Iterator[Measurement]:
    """All but the last, for whoever is to die in so many seconds does not finish first."""
    death = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    death.start()
    for measurement, _ in pairwise(measurements):
        yield measurement
    death.join()


def _report(witness: str, seed: int) -> float | None:
    """Say that an evaluation begins; the seconds after which this process is to die, None: not at all."""
    address, _, secret = witness.partition("/")
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(f"{secret} {seed} {os.getpid()} {socket.gethostname()}\n".encode())
            answer = connection.makefile("r").readline().strip()
    except OSError as error:
        raise InputError(f"{socket.gethostname()} does not reach the self-test at {address} ({error})") from None
    return float(answer) if answer else None
