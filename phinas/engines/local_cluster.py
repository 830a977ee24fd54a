"""Several Ray nodes as processes of this machine: a cluster to test and to measure on, closed to other machines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from phinas.engines.connection import quiet  # before ray, which reads its settings
from phinas.engines.watchdog import bearing, watched

# isort: split
from ray.cluster_utils import Cluster

# A node that died is missed in 3 x 0.5 seconds instead of 15. One that is merely starved has 10 seconds for an answer.
_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
_STORE = 80 * 2**20  # bytes of a node's object store, little more than the least that Ray takes


class LocalCluster:
    """A head and other nodes, each with a raylet and workers of its own; `local_cluster` makes one."""

    def __init__(self, mark: str) -> None:
        self._mark = mark  # by which the watchdog knows its processes
        self._cluster = Cluster(shutdown_at_exit=False)

    @property
    def address(self) -> str:
        """host:port, for engine.address=."""
        return str(self._cluster.address)

    @property
    def nodes(self) -> list[Any]:
        """Those that are up, the head first."""
        return list(self._cluster.list_all_nodes())  # type: ignore[no-untyped-call]

    def add(self, cpus: int, gpus: int = 0) -> Any:
        """Another node with so many logical CPUs and GPUs, up when this returns; the first one is the head."""
        with bearing(self._mark):
            return self._cluster.add_node(
                num_cpus=cpus, num_gpus=gpus, object_store_memory=_STORE, include_dashboard=False
            )

    def lose(self, node: Any = None) -> None:
        """Kill -9 a node and everything on it, as when its power goes: this one, or the one that was added last."""
        lost = self.nodes[-1] if node is None else node
        if lost is self.nodes[0]:
            raise ValueError("the head is not to be lost: the cluster ends with it")
        for raylet in _raylets(lost):
            raylet.suspend()  # so that it starts nothing while its children are counted
            for process in [*raylet.children(recursive=True), raylet]:
                process.kill()
        self._cluster.remove_node(lost, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def local_cluster(cpus: Sequence[int]) -> Iterator[LocalCluster]:
    """A cluster of one node for each, with so many logical CPUs; the first is the head. It ends with the context.

    Logical: 64 on a machine with 2 cores are as good, for evaluations that sleep.
    """
    quiet()
    os.environ.update(_HEALTH_CHECKS)  # the head reads them when it starts
    with watched() as mark:
        cluster = LocalCluster(mark)
        try:
            for number in cpus:
                cluster.add(number)
            yield cluster
        finally:
            cluster.end()
            for name in _HEALTH_CHECKS:
                del os.environ[name]


def _raylets(node: Any) -> list[psutil.Process]:
    started = [info.process.pid for info in node.all_processes.get("raylet", [])]
    return [psutil.Process(pid) for pid in started if psutil.pid_exists(pid)]
