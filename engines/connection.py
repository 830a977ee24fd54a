"""A connection to Ray, on this machine or on a cluster, and how much room there is."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from convnets.errors import InputError
from engines.watchdog import watched

# Read by Ray when it is imported or started. The state of a run is what we write ourselves, so Ray's own snapshots,
# logs and Ctrl-C handling would only cost time and stand in the way.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker that was given no GPU sees none, and trains on its CPUs
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a result may be a failure, which has no accuracy
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "60",
}
os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})

import ray  # noqa: E402
from ray._private import worker as driver  # noqa: E402

# A dead worker is ours to report; Ray has a page about it that it prints whatever `log_to_driver` says.
driver.print_to_stdstream = lambda data, ignore_prefix: None


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to Ray: the one that this process has, or else a new one, which ends with the context.

    address  an existing cluster ("auto" or host:port); None starts Ray on this machine.
    Raises InputError when the cluster is not there.
    """
    if address is not None:
        _check_answers(address)
    if ray.is_initialized():
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own handler in place, which would exit at once
    try:
        ray.init(
            address=address or "local",  # None would join whatever cluster runs on this machine
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except ConnectionError as error:
        raise InputError(f"engine.address={address}: no Ray cluster answers there ({error})") from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a dead worker is ours to report
    with watched() if address is None else nullcontext():
        try:
            yield
        finally:
            ray.shutdown()


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


def _check_answers(address: str) -> None:
    """InputError where nothing listens at host:port; Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not separator or not port.isdigit():
        raise InputError(f"engine.address={address}: it must be null, auto, or host:port")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"engine.address={address}: no Ray cluster answers there ({error})") from None
