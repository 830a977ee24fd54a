"""A connection to Ray, on this machine or on a cluster, and how much room there is."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phinas.engines.watchdog import bearing, watched
from phinas.files.errors import InputError, RunFailed

# Read by Ray when it is imported or started.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Whoever reaches Ray's ports can run code here. Ray opens them to this machine alone where it does not expect other
    # machines, which it does on Linux; then even a `127.0.0.1:port` that was asked for becomes the address that they
    # know this one by.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # A dead worker is ours to report; Ray has a page about it that it prints whatever `log_to_driver` says.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker that was given no GPU sees none, and trains on its CPUs
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
}
os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})

import ray  # noqa: E402

_SECONDS_BETWEEN_LOOKS = 1.0
_PATIENCE = 30.0  # seconds without a server before it is given up; Ray itself ends the process after 60
_SECONDS_TO_END = 20.0  # for this process to notice, before it is ended


@contextmanager
def connected(address: str | None) -> Iterator[Callable[[], bool]]:
    """A connection to Ray: the one that this process has, or else a new one, which ends with the context.

    address  an existing cluster ("auto" or host:port); None starts Ray on this machine, which hears nobody else.
    Yields whether Ray is lost: its server died, or has not answered for 30 seconds. Whoever waits for Ray looks at it
    now and then, and raises RunFailed; a process that does not, because it waits within Ray, is ended.
    Raises InputError when the cluster is not there, RunFailed when Ray does not come up on this machine.
    """
    quiet()
    if address not in (None, "auto"):
        _check_answers(str(address), str(address))
    if ray.is_initialized():
        with _pulse(_PATIENCE) as lost:
            yield lost
        return
    if address is not None:
        _join(address)
        with _pulse(_PATIENCE) as lost:
            try:
                yield lost
            finally:
                _leave(lost())
        return
    with watched() as mark:
        with bearing(mark):
            _start()
        with _pulse(2 * _SECONDS_BETWEEN_LOOKS) as lost:
            try:
                yield lost
            finally:
                _leave(lost())


def quiet() -> None:
    """Ray's loggers say nothing: a dead worker is ours to report."""
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def gone() -> RunFailed:
    """What to raise when Ray is lost."""
    return RunFailed("Ray's server has died, or cannot be reached any more, and its workers with it")


def _start() -> None:
    """Ray on this machine."""
    try:
        _init("local")  # None would join whatever cluster runs on this machine
    except Exception as error:  # Ray raises bare ones, for all that may be wrong with a machine
        ray.shutdown()
        raise RunFailed(
            f"Ray did not come up on this machine: {_first_line(error)}. Its memory or {tempfile.gettempdir()} may be "
            "full, or it too busy; engine=inline needs no Ray"
        ) from error
    _check_closed()


def _check_closed() -> None:
    """Ray reads its settings when it is imported: where that was before ours were set, it hears other machines too."""
    heard = {node["NodeManagerAddress"] for node in ray.nodes()}  # type: ignore[no-untyped-call]
    if not heard <= {"127.0.0.1", "::1"}:
        ray.shutdown()
        raise InputError(
            "Ray was imported before it could be told to hear this machine alone: set "
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before `import ray`, call ray.init() yourself, or take engine=inline"
        )


def _join(address: str) -> None:
    """A cluster that runs."""
    if address == "auto" and (known := os.environ.get("RAY_ADDRESS")):
        _check_answers(address, known)
    try:
        _init(address)
    except Exception as error:  # of another version, of Python or of Ray; with a token that is not ours; and so on
        if address == "auto" and isinstance(error, ConnectionError):
            raise InputError("engine.address=auto: no Ray cluster was found on this machine") from None
        raise InputError(
            f"engine.address={address}: Ray cannot join it: {_first_line(error)}. "
            "A cluster with a token is joined with RAY_AUTH_MODE=token, and the same Python and Ray"
        ) from error


def _init(address: str) -> None:
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own handler in place, which would exit at once
    try:
        ray.init(address=address, include_dashboard=False, logging_level=logging.CRITICAL, log_to_driver=False)
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    quiet()  # again: it sets its own level


def _leave(lost: bool) -> None:
    """Disconnect. From a server that is no more it would take a minute; what Ray does at exit is left out too."""
    if lost:
        atexit.unregister(ray.shutdown)
        atexit.register(_end)
    else:
        ray.shutdown()


def _end() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@contextmanager
def _pulse(patience: float) -> Iterator[Callable[[], bool]]:
    """Whether Ray's server has not answered for so many seconds."""
    host, port = _host_and_port(ray.get_runtime_context().gcs_address)
    lost, noticed, ended = threading.Event(), threading.Event(), threading.Event()

    def look() -> None:
        answered = time.monotonic()
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                socket.create_connection((host, port), timeout=5).close()
                answered = time.monotonic()
            except OSError:
                if time.monotonic() - answered > patience:
                    lost.set()
                    break
        if lost.is_set() and not noticed.wait(_SECONDS_TO_END):
            print(f"error: {gone()}", file=sys.stderr, flush=True)
            os._exit(1)  # what is finished is on disk, and the watchdog ends the others

    def is_lost() -> bool:
        if lost.is_set():
            noticed.set()
        return lost.is_set()

    threading.Thread(target=look, name="Ray's pulse", daemon=True).start()
    try:
        yield is_lost
    finally:
        ended.set()
        noticed.set()


def resources() -> dict[str, float]:
    """CPUs and GPUs of the whole cluster, by the names "CPU" and "GPU"."""
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def room(cpus: float, gpus: float) -> int:
    """How many workers of so many CPUs and GPUs the cluster's nodes hold at once."""
    workers = 0
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            fits = [node["Resources"].get("CPU", 0.0) / cpus]
            fits += [node["Resources"].get("GPU", 0.0) / gpus] if gpus else []
            workers += int(min(fits) + 1e-9)  # four quarters of a GPU are one, whatever floating point says
    return workers


def threads(cpus: float) -> int:
    """One thread per CPU that a worker was given: more made training 20 times slower on a busy machine."""
    return max(1, int(cpus))


def _check_answers(given: str, address: str) -> None:
    """InputError where nothing listens at host:port; Ray itself would try for minutes."""
    try:
        host_and_port = _host_and_port(address.removeprefix("ray://"))
    except ValueError:
        raise InputError(f"engine.address={given}: it must be null, auto, or host:port") from None
    try:
        socket.create_connection(host_and_port, timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"engine.address={given}: no Ray cluster answers there ({error})") from None


def _host_and_port(address: str) -> tuple[str, int]:
    """Of `host:port`, or of `[host]:port` where the host's address is one of IPv6. ValueError for anything else."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(address)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
