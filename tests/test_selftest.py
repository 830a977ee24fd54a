"""The self-test: it finds what was lost and what was repeated, and a small one passes here."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from numpy.random import SeedSequence

from nas.evaluators.synthetic import Synthetic
from nas.journal import read_journal
from nas.selftest import corrupted as corruptions
from nas.selftest import ledger
from nas.selftest.__main__ import FAULTS, _all_of, main
from nas.selftest.corrupted import KINDS, corrupted, corruption
from nas.selftest.drivers import suffer
from nas.selftest.outcome import Finding, summed
from nas.selftest.searches import INLINE, SEED, instant
from nas.selftest.settings import Settings
from nas.selftest.witness import Begin, witnessing
from nas.selftest.witnessed import Witnessed
from nas.selftest.workers import LATE, Lottery
from phinas.engines import inline
from phinas.files.errors import InputError, one_line
from tests.conftest import MakeSearch, contents, hear_ctrl_c

NO_FAULTS = tuple(f"{name}=0" for name in FAULTS)


@pytest.fixture
def journal(make_search: MakeSearch, tmp_path: Path) -> bytes:
    """Of a search with a budget of 6."""
    inline.run(make_search(budget=6), Synthetic())
    return (tmp_path / "journal.jsonl").read_bytes()


def _kinds(findings: Sequence[Finding]) -> list[tuple[str, int]]:
    return [(finding.kind, finding.count) for finding in findings]


def test_a_journal_that_only_grew_is_sound(journal: bytes) -> None:
    lines = journal.splitlines(keepends=True)
    for kept in range(len(lines) + 1):
        assert ledger.judge(b"".join(lines[:kept]), journal, 6, journal) == []
    assert ledger.judge(journal[:-20], journal, 6, journal) == []  # a torn line was not complete


def test_what_vanished_or_changed_is_lost(journal: bytes) -> None:
    lines = journal.splitlines(keepends=True)
    without = b"".join([*lines[:3], *lines[4:]])
    changed = journal.replace(b'"reward":0.', b'"reward":1.', 1)
    assert [finding.text for finding in ledger.lost(journal, without)] == ["evaluation 2 was on disk and is lost"]
    assert _kinds(ledger.lost(journal, changed)) == [("lost", 1)]
    assert len(ledger.lost(journal, b"")) == 6
    assert [finding.text for finding in ledger.judge(b"", without, 6)] == ["evaluation 2 of the budget is missing"]


def test_what_is_there_twice_is_repeated(journal: bytes) -> None:
    lines = journal.splitlines(keepends=True)
    again = b"".join([*lines, lines[4]])
    renumbered = journal + lines[4].replace(b'"number":3', b'"number":6')
    assert [finding.text for finding in ledger.judge(journal, again, 6)] == ["evaluation 3 is in the journal twice"]
    network = json.loads(lines[4])["key"]
    assert [finding.text for finding in ledger.judge(journal, renumbered, 7)] == [
        f"network {network} is in the journal twice"
    ]


def test_another_journal_than_the_undisturbed_is_wrong(journal: bytes) -> None:
    other = journal.replace(b'"accuracy"', b'"exactness"').replace(b'"macs"', b'"MACs"')
    assert _kinds(ledger.judge(b"", other, 6, journal)) == [("wrong", 1)]


def test_an_evaluation_that_begins_though_it_was_finished_is_repeated(
    make_search: MakeSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a process of its own: over the network, known by its seed alone."""
    with witnessing(tmp_path / "journal.jsonl", budget=4) as witness:
        monkeypatch.setenv("PHINAS_WITNESS", witness.address)
        evaluator = Witnessed(Synthetic())
        search = make_search(budget=4)
        inline.run(search, evaluator)
        assert [begin.number for begin in witness.begins] == [0, 1, 2, 3] and witness.findings == []
        third = search.journal.entries[2]
        network = search.problem.network(third.picks)
        search.journal.path.unlink()  # a journal that forgets does not make it forget
        (other,) = [begin for begin in [make_search(budget=1).propose()] if begin]
        list(evaluator(other.network, other.seed))
        assert [finding.text for finding in witness.findings] == ["evaluation 0 began again though it was finished"]
        assert network.key() == third.key


def test_whatever_else_is_said_to_a_witness_is_not_heard(tmp_path: Path) -> None:
    with witnessing(tmp_path / "journal.jsonl", budget=4) as witness:
        secret, seed = witness.address.partition("/")[2], int(SeedSequence((SEED, 0)).generate_state(1)[0])
        for line in ("", "hello", "1 2 3 4", f"{secret} 1 2 here", f"{secret} {seed} -x here", f"secret {seed} 1 here",
                     f"{seed} 1 here", f"{secret} {seed} 1"):  # fmt: skip
            assert witness.hear(line) == ""
        assert witness.begins == []
        witness.hear(f"{secret} {seed} 1 here")
        assert witness.begins == [Begin(0, 1, "here")]


def test_a_witness_that_heard_nothing_says_so(make_search: MakeSearch, tmp_path: Path) -> None:
    with witnessing(tmp_path / "journal.jsonl", budget=2) as witness:
        inline.run(make_search(budget=2), Synthetic())
        assert [finding.text for finding in witness.findings] == [
            "evaluation 0 was never seen to begin", "evaluation 1 was never seen to begin"
        ]  # fmt: skip


# An evaluation of three steps, each of which is said.
EVALUATION = """
from phinas.networks.reference import reference
from nas.evaluators.synthetic import Synthetic
from nas.selftest.witnessed import Witnessed
for measured in Witnessed(Synthetic(3))(reference("mobilenet_v2"), SEED):
    print("measured", flush=True)
"""


def test_who_is_sentenced_does_not_finish_first(tmp_path: Path, command_environment: dict[str, str]) -> None:
    seed = int(SeedSequence((SEED, 0)).generate_state(1)[0])
    with witnessing(tmp_path / "journal.jsonl", budget=1, sentence=lambda begin: 0.3) as witness:
        done = subprocess.run(
            [sys.executable, "-c", EVALUATION.replace("SEED", str(seed))], capture_output=True, text=True, timeout=120,
            env=command_environment | {"PHINAS_WITNESS": witness.address},
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "measured\n" * 2, "")


def test_as_many_die_as_were_wanted_and_none_too_often() -> None:
    for seed in range(20):
        lottery = Lottery(random.Random(seed), 20, 24, 0.5, lambda deaths: None)
        waiting = list(range(24))
        while waiting:  # whoever dies begins again
            number = waiting.pop(0)
            delay = lottery(Begin(number, pid=0, host="elsewhere"))
            waiting += [number] if delay is not None else []
        deaths = [death.number for death in lottery.deaths]
        assert len(deaths) == 20 and max(deaths.count(number) for number in deaths) <= 2
        assert all(death.own_hand for death in lottery.deaths)
        recorded = {number: {"retries": deaths.count(number)} for number in range(24)}
        assert lottery.unrecorded(recorded) == []
        recorded[deaths[0]] = {"retries": 0}
        assert _kinds(lottery.unrecorded(recorded)) == [("wrong", 1)]


def test_a_kill_from_outside_comes_before_the_one_by_its_own_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    lottery = Lottery(random.Random(0), 8, 10, 0.01, lambda deaths: None)
    sentences = [lottery(Begin(number, pid=number + 1, host=socket.gethostname())) for number in range(10)]
    outside = [death.number + 1 for death in lottery.deaths if not death.own_hand]
    time.sleep(0.5)
    assert outside and sorted(killed) == outside
    assert all(delay is not None and delay > LATE for delay in (sentences[pid - 1] for pid in outside))


def test_a_fault_that_did_not_happen_does_not_pass() -> None:
    assert _all_of(3, summed("nodes", 3, 1.0, [])).passed
    outcome = _all_of(3, summed("nodes", 2, 1.0, []))
    assert [finding.text for finding in outcome.findings] == ["2 of 3 could be injected"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_changes_something_and_a_seed_repeats_it(journal: bytes, kind: str) -> None:
    first, again = (corruption(random.Random(1), journal, kind) for _ in range(2))
    assert first == again != journal


@pytest.mark.slow
def test_a_reader_that_skips_damaged_lines_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As good as a loss is one that nobody is told of."""

    def forgiving(path: Path, undisturbed: Path, budget: int) -> None:
        path.write_bytes(undisturbed.read_bytes())

    monkeypatch.setattr(corruptions, "resume", forgiving)
    outcome = corrupted(Settings(tmp_path, count=10))
    assert outcome.injected == 10 and outcome.lost > 10 and not outcome.passed
    assert any("the damage in line" in finding.text for finding in outcome.findings)


# A search that loses the last line of its journal whenever it is started.
FORGETFUL = """
import sys
from pathlib import Path
from phinas.command.run import run
from nas.search import main
journal = Path("runs/search/journal.jsonl")
if journal.exists():
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
run(main)
"""


@pytest.mark.slow
def test_a_search_that_forgets_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    settings = Settings(tmp_path, count=1, command=(sys.executable, str(tmp_path / "forgetful.py")))
    killed, findings = suffer(settings, "search", (*INLINE, *instant(0.1)), 8, random.Random(0), 2, 0.3)
    assert killed == 2
    assert "repeated" in {finding.kind for finding in findings}


def test_equal_findings_are_said_once() -> None:
    twice = summed("torn", 5, 1.0, [Finding("lost", "a"), Finding("lost", "a", 2), Finding("wrong", "b")])
    assert (twice.lost, twice.repeated, twice.passed) == (3, 0, False)
    assert twice.findings == (Finding("lost", "a", 3), Finding("wrong", "b"))


@pytest.mark.slow
def test_a_small_self_test_is_stopped_goes_on_and_passes(
    empty_folder: Path, command_environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*NO_FAULTS, "name=small", "engine=inline", "torn=1", "corrupted=10", "drivers=1", "disk_full=1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "nas.selftest", *options], env=command_environment, stdout=subprocess.PIPE, text=True,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    searches = empty_folder / "runs" / "small" / "searches"
    deadline = time.monotonic() + 120
    while not list(searches.rglob("output-1.txt")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "0 of 4 faults are done" in output and "python -m nas.selftest" in output and "name=small" in output
    assert psutil.wait_procs(family, timeout=10)[1] == []

    assert main(options) == 0
    folder = empty_folder / "runs" / "small"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["passed"] and (summary["lost"], summary["repeated"]) == (0, 0)
    injected = {name: fault["injected"] for name, fault in summary["faults"].items()}
    assert {name: injected[name] for name in ("corrupted", "drivers", "disk_full")} == {
        "corrupted": 10, "drivers": 1, "disk_full": 1
    }  # fmt: skip
    assert injected["torn"] > 100  # a line has as many bytes
    assert "nothing lost" in (folder / "report.html").read_text()
    assert (folder / "config.yaml").exists() and not list((folder / "searches").iterdir())

    capsys.readouterr()
    before = contents(empty_folder)
    assert main(options) == 0 and "nothing to do" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"corrupted=10 \(now 11\)"):
        main([*options, "corrupted=11"])
    assert contents(empty_folder) == before


# Each row: what is typed, and what the one line must say.
BAD_INPUT = [
    (["only=fire"], "only=fire: it must be a list of torn, corrupted"),
    (["only=[fire]"], "only=['fire']: it must be a list of torn, corrupted"),
    (["only=[]"], "only=[]"),
    (["only=3"], "only=3"),
    (["drivers=-1"], "drivers=-1"),
    (["drivers=many"], "drivers=many"),
    (["drivers=1.5"], "drivers=1.5"),
    (["seed=-1"], "seed=-1"),
    (["fires=3"], "unknown option 'fires'"),
    (["engine=steam"], "engine=steam"),
    (["engine._target_=math.sqrt"], "engine=math.sqrt: it must be ray, or inline"),
    (["engine=inline", "only=[workers]"], "workers needs a Ray of its own"),
    (["only=[nodes]", "engine.address=auto"], "engine.address=auto is not for us to break"),
    (["only=[workers]", "engine.address=127.0.0.1:1"], "no Ray cluster answers there"),
    ([*NO_FAULTS], "there is nothing to do"),
    (["name=../out"], "name=../out"),
    (["name=taken"], "another command's results"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_nothing_is_written(empty_folder: Path, arguments: Sequence[str], says: str) -> None:
    (empty_folder / "runs" / "taken").mkdir(parents=True)
    (empty_folder / "runs" / "taken" / "config.yaml").write_text("budget: 3\n")
    before = contents(empty_folder)
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert says in str(caught.value)
    assert "\n" not in one_line(caught.value) and len(one_line(caught.value)) < 600
    assert contents(empty_folder) == before


def test_a_journal_of_the_command_can_be_read_without_its_reader(journal: bytes, tmp_path: Path) -> None:
    entries = read_journal(tmp_path / "journal.jsonl")[1]
    found = ledger.evaluations(journal)
    assert {number: record["key"] for number, record in found.items()} == {e.number: e.key for e in entries}
