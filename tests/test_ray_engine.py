"""The Ray engine's laws: it is the inline engine on more workers, and no death loses or repeats anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nas.evaluators.synthetic import Synthetic
from nas.halving import Halving
from nas.jobs import SearchJobs
from nas.journal import Entry, read_journal
from phinas.engines import inline
from phinas.engines import ray as ray_engine
from phinas.engines.evaluator import EvaluationFailed, Evaluator, Measurement
from phinas.files.errors import InputError, RunFailed
from phinas.networks.network import Network
from tests.conftest import MakeSearch, hear_ctrl_c, listens

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("two_cpus")]


def on_ray(search: SearchJobs, evaluator: Evaluator, **settings: Any) -> None:
    with ray_engine.engine(address="auto", **settings) as run_search:
        run_search(search, evaluator)


def test_one_worker_on_ray_writes_the_inline_engines_journal(make_search: MakeSearch, tmp_path: Path) -> None:
    evaluator = Synthetic(epochs=9)
    inline.run(make_search(budget=25, halving=Halving(epochs=9), name="inline.jsonl"), evaluator)
    search = make_search(budget=25, halving=Halving(epochs=9), name="ray.jsonl")
    on_ray(search, evaluator, workers=1)
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "inline.jsonl").read_bytes()


def test_two_workers_evaluate_a_budget_of_distinct_networks(make_search: MakeSearch) -> None:
    search = make_search(budget=40, halving=Halving(epochs=9))
    on_ray(search, Synthetic(epochs=9))
    entries = search.journal.entries
    assert sorted(entry.number for entry in entries) == list(range(40))
    assert len({entry.key for entry in entries}) == 40
    assert any(entry.stopped for entry in entries) and not search.in_flight


class _Moody:
    """Fails as a candidate for some seeds; kills its own worker the first time it meets another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        if seed % 5 == 0:
            raise EvaluationFailed("diverged: loss is nan at step 7")
        yield Measurement(0.2, final=False)
        if seed % 5 == 1 and not (self.folder / str(seed)).exists():
            (self.folder / str(seed)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield Measurement(0.5)


def test_a_dead_worker_is_not_the_candidates_fault_but_a_failure_is(make_search: MakeSearch, tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    search = make_search(budget=20)
    on_ray(search, _Moody(tmp_path / "killed"), max_failures=2)
    entries = search.journal.entries
    killed = list((tmp_path / "killed").iterdir())
    assert len(entries) == 20 and killed
    failed = [entry for entry in entries if entry.error]
    assert failed and all("step 7" in str(entry.error) for entry in failed)
    assert all(entry.curve == (0.2, 0.5) for entry in entries if not entry.error)
    assert sum(entry.retries for entry in entries) == len(killed)


@pytest.mark.slow
def test_a_worker_that_ray_ends_for_want_of_memory_is_one_death_and_the_others_go_on(
    make_search: MakeSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = ray_engine.ray.get

    def for_memory(answer: Any) -> Any:
        try:
            return get(answer)
        except ray_engine.RayActorError as death:
            raise ray_engine.ray.exceptions.OutOfMemoryError("the node is running low on memory") from death

    monkeypatch.setattr(ray_engine.ray, "get", for_memory)
    (tmp_path / "killed").mkdir()
    search = make_search(budget=8)
    on_ray(search, _Moody(tmp_path / "killed"), max_failures=1)
    killed = list((tmp_path / "killed").iterdir())
    assert killed and sum(entry.retries for entry in search.journal.entries) == len(killed)


class _AlwaysDies:
    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield Measurement(0.0)


def test_a_candidate_whose_workers_always_die_is_recorded_as_failed(make_search: MakeSearch) -> None:
    search = make_search(budget=1)
    on_ray(search, _AlwaysDies(), max_failures=1)
    (entry,) = search.journal.entries
    assert (entry.error, entry.retries) == ("its worker died, and so did those that tried it again", 1)


class _Buggy:
    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        raise KeyError("a bug")
        yield Measurement(0.0)


def test_a_bug_in_a_worker_stops_the_search_with_the_workers_traceback(make_search: MakeSearch) -> None:
    search = make_search(budget=20)
    with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
        on_ray(search, _Buggy())
    assert search.journal.entries == []


class _RefusesInWorker:
    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        raise InputError("the network gives 2 logits; the data has 10 classes")
        yield Measurement(0.0)


@pytest.mark.slow
def test_what_a_worker_refuses_is_the_users_to_mend(make_search: MakeSearch) -> None:
    search = make_search(budget=20)
    with pytest.raises(InputError, match="2 logits"):
        on_ray(search, _RefusesInWorker())
    assert search.journal.entries == []


class _CannotComeUp:
    """Pickles, but no worker can load it, as when a node lacks the user's module."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise ModuleNotFoundError('no module named my_evaluators')",))

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        yield Measurement(0.0)


def test_an_evaluator_that_cannot_come_up_is_no_candidates_fault(make_search: MakeSearch) -> None:
    search = make_search(budget=20)
    with pytest.raises(RuntimeError, match="my_evaluators"):
        on_ray(search, _CannotComeUp())
    assert search.journal.entries == []


class _DiesComingUp:
    """Its worker dies while it loads what the evaluator needs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import os; os.kill(os.getpid(), 9)",))

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        yield Measurement(0.0)


def test_workers_that_die_before_they_begin_are_no_candidates_fault(
    make_search: MakeSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "_FALSE_STARTS", 1)  # each takes seconds
    search = make_search(budget=20)
    with pytest.raises(RunFailed, match="2 workers died before they could begin"):
        on_ray(search, _DiesComingUp(), workers=1)
    assert search.journal.entries == []


def test_what_the_jobs_raise_is_raised(make_search: MakeSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(budget=20)

    def full(entry: Entry) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(search.journal, "append", full)
    with pytest.raises(OSError, match="No space left"):
        on_ray(search, Synthetic())


def test_workers_for_whom_there_is_no_room_hold_nothing_up_and_none_is_left(make_search: MakeSearch) -> None:
    import ray

    search = make_search(budget=12)
    on_ray(search, Synthetic(), workers=5)  # there are two CPUs
    assert len(search.journal.entries) == 12
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cpus_per_trial": 64}, "cpus_per_trial=64.* 2 CPUs"),
        ({"gpus_per_trial": 64}, "gpus_per_trial=64"),
        ({"cpus_per_trial": 0}, "cpus_per_trial=0"),
        ({"cpus_per_trial": "many"}, "cpus_per_trial=many"),
        ({"gpus_per_trial": -1}, "gpus_per_trial=-1"),
        ({"workers": 0}, "workers=0"),
        ({"max_failures": -1}, "max_failures=-1"),
    ],
)
def test_wrong_settings_are_refused(make_search: MakeSearch, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        on_ray(make_search(), Synthetic(), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_keeps_what_is_finished(
    tmp_path: Path, command_environment: dict[str, str], number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "nas.search", "name=stopped", "budget=500", "evaluator=synthetic"]
    journal = tmp_path / "runs" / "stopped" / "journal.jsonl"
    driver = _started(command + ["evaluator.seconds=0.2"], tmp_path, command_environment, journal)
    family = psutil.Process(driver.pid).children(recursive=True)
    assert listens(psutil.Process(driver.pid), *family) == {"127.0.0.1"}
    second = subprocess.run(
        [*command, "evaluator.seconds=0.2", "engine=inline"], cwd=tmp_path, env=command_environment, capture_output=True
    )
    assert second.returncode == 2 and f"in use by process {driver.pid}" in second.stderr.decode()
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "evaluations are kept" in output and "name=stopped" in output
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert json.loads((journal.parent / "summary.json").read_text())["evaluations"] >= 5


def _started(
    command: list[str], folder: Path, environment: dict[str, str], journal: Path, evaluations: int = 5
) -> subprocess.Popen[str]:
    """A driver that has finished so many evaluations."""
    driver = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < 1 + evaluations:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return driver


@pytest.mark.slow
def test_whatever_dies_the_search_resumes_and_no_process_is_left(
    tmp_path: Path, command_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "nas.search", "name=killed", "budget=24", "evaluator=synthetic", "engine=ray"]
    command += ["evaluator.seconds=0.4", "engine.workers=2"]
    journal = tmp_path / "runs" / "killed" / "journal.jsonl"
    kept: list[Entry] = []
    for killed, after in (("gcs_server", 5), ("driver", 12)):
        driver = _started(command, tmp_path, command_environment, journal, after)
        family = psutil.Process(driver.pid).children(recursive=True)
        assert family  # Ray's processes
        victims = [one for one in family if one.name() == killed] if killed != "driver" else [driver]
        assert len(victims) == 1
        victims[0].kill()
        _, said = driver.communicate(timeout=60)
        if killed == "gcs_server":
            assert driver.returncode == 1
            assert said.count("\n") == 1 and said.startswith("error: Ray's server has died")
        assert psutil.wait_procs(family, timeout=60)[1] == []
        _, entries, _ = read_journal(journal)
        assert len(entries) >= after and entries[: len(kept)] == kept
        kept = entries

    subprocess.run(command, cwd=tmp_path, env=command_environment, check=True, capture_output=True, timeout=240)
    _, entries, _ = read_journal(journal)
    assert entries[: len(kept)] == kept
    assert sorted(entry.number for entry in entries) == list(range(24))
    assert len({entry.key for entry in entries}) == 24
    summary = json.loads((journal.parent / "summary.json").read_text())
    assert (summary["evaluations"], summary["unique"]) == (24, 24)
