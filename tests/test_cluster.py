"""Searches over several nodes: all of them work, and one that dies or comes changes nothing about what is found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from nas.jobs import SearchJobs
from nas.journal import Entry, read_journal
from phinas.engines import connection
from phinas.engines import ray as ray_engine
from phinas.engines.evaluator import Measurement, OutOfMemory
from phinas.engines.local_cluster import LocalCluster, local_cluster
from phinas.files.errors import InputError
from phinas.networks.network import Network
from tests.conftest import MakeSearch, listens

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One for this file, of two nodes at first."""
    with local_cluster([1, 1]) as started:
        yield started


@dataclass(frozen=True)
class _OnNode:
    """Leaves a file named after the node that it runs on, and takes a while: until there are so many."""

    folder: Path
    nodes: int

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        import ray

        yield Measurement(0.2, final=False)
        (self.folder / str(ray.get_runtime_context().get_node_id())).touch()
        deadline = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < self.nodes and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.3)
        yield Measurement(seed % 1000 / 1000)


def search_while(
    happens: Callable[[], object], after: int, search: SearchJobs, evaluator: _OnNode, address: str
) -> None:
    """A search in which something happens after so many evaluations, on so many nodes: it loses nothing."""
    evaluator.folder.mkdir()
    before: list[Entry] = []

    def meanwhile() -> None:
        while len(search.journal.entries) < after:
            time.sleep(0.05)
        before.extend(search.journal.entries)
        happens()

    beside = threading.Thread(target=meanwhile)
    beside.start()
    with ray_engine.engine(address=address) as run_jobs:
        run_jobs(search, evaluator)
    beside.join()
    entries = read_journal(search.journal.path)[1]
    assert entries[: len(before)] == before
    assert sorted(entry.number for entry in entries) == list(range(search.budget))
    assert len({entry.key for entry in entries}) == search.budget
    assert all(entry.complete and len(entry.curve) == 2 for entry in entries)
    assert len(list(evaluator.folder.iterdir())) == evaluator.nodes


@pytest.mark.slow
def test_two_nodes_work_and_the_death_of_one_loses_nothing(
    cluster: LocalCluster, make_search: MakeSearch, tmp_path: Path
) -> None:
    search = make_search(budget=12)
    search_while(cluster.lose, 4, search, _OnNode(tmp_path / "nodes", nodes=2), cluster.address)
    assert len(cluster.nodes) == 1
    assert sum(entry.retries for entry in search.journal.entries) <= 1  # what the lost node was at


@pytest.mark.slow
def test_nodes_that_come_in_the_middle_get_work(cluster: LocalCluster, make_search: MakeSearch, tmp_path: Path) -> None:
    def come() -> None:
        cluster.add(1)
        cluster.add(1, gpus=1)

    search = make_search(budget=8)
    search_while(come, 0, search, _OnNode(tmp_path / "nodes", nodes=3), cluster.address)
    assert all(entry.retries == 0 for entry in search.journal.entries)


class _Wide:
    """Some networks need the whole GPU, and some more than that."""

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        import ray

        share = ray.get_runtime_context().get_assigned_resources()["GPU"]
        if seed % 8 == 0 or (seed % 4 == 1 and share < 1):
            raise OutOfMemory(f"out of memory with {share:g} of the GPU")
        yield Measurement(share)


@pytest.mark.slow
def test_what_does_not_fit_on_a_shared_gpu_is_tried_once_more_with_more_of_it(
    cluster: LocalCluster, make_search: MakeSearch
) -> None:
    search = make_search(budget=6)
    with ray_engine.engine(address=cluster.address, cpus_per_trial=0.5, gpus_per_trial=0.5) as run_jobs:
        assert run_jobs.workers == 2
        run_jobs(search, _Wide())
    assert len(search.journal.entries) == 6
    seeds = {entry.number: entry for entry in search.journal.entries}
    said = {entry.error or entry.accuracy for entry in seeds.values()}
    assert said == {0.5, 1.0, "out of memory with 1 of the GPU"}


def test_every_port_of_a_cluster_is_open_to_this_machine_alone(cluster: LocalCluster) -> None:
    with ray_engine.engine(address=cluster.address):
        assert listens(psutil.Process(), *psutil.Process().children(recursive=True)) == {"127.0.0.1"}


def test_addresses_are_those_of_both_internet_protocols() -> None:
    assert connection._host_and_port("10.0.0.1:6379") == ("10.0.0.1", 6379)
    assert connection._host_and_port("[fd00::2]:6379") == ("fd00::2", 6379)


def test_an_address_where_nobody_answers_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # as `auto` finds it when a cluster's head has died
    start = time.monotonic()
    for address in ("127.0.0.1:1", "auto"):
        with pytest.raises(InputError, match=f"engine.address={address}: no Ray cluster answers"):
            ray_engine.engine(address=address).__enter__()
    assert time.monotonic() - start < 5
