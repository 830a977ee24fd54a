"""`python -m nas.search` as people type it: what it writes, how it resumes, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nas.search import main
from phinas.files.errors import InputError, RunFailed
from phinas.files.origin import file_source, read_origin
from phinas.networks.arch_file import read_arch
from phinas.networks.cost import cost
from tests.conftest import ROOT, contents, hear_ctrl_c

pytestmark = pytest.mark.usefixtures("empty_folder")


FAST = ("evaluator=synthetic", "engine=inline", "budget=12")


@pytest.mark.figures
def test_a_search_writes_what_the_contract_names(empty_folder: Path) -> None:
    assert main([*FAST, "name=first", "target_flops=300e6"]) == 0
    folder = empty_folder / "runs" / "first"
    summary = json.loads((folder / "summary.json").read_text())
    best = summary["best"]
    assert summary["evaluations"] == summary["unique"] == 12 and summary["failures"] == 0
    assert summary["target_flops"] == 300e6 and summary["seconds"] > 0 and summary["seed"] == 0
    named = {name: summary[name] for name in ("space", "controller", "evaluator", "engine")}
    assert named == {"space": "mnasnet", "controller": "bayesian", "evaluator": "synthetic", "engine": "inline"}
    arch = read_arch(folder / "best.yaml")
    origin = read_origin(folder / "best.yaml")
    assert origin["key"] == arch.key() and origin["from"] == file_source(folder / "journal.jsonl") | {
        "file": "runs/first/journal.jsonl"
    }
    assert (arch.key(), cost(arch).macs, cost(arch).params) == (best["key"], best["macs"], best["params"])
    assert isinstance(best["macs"], int) and 0 <= best["accuracy"] <= 1
    assert best["reward"] == pytest.approx(best["accuracy"] * (best["macs"] / 300e6) ** -0.07)
    trials = pd.read_csv(folder / "trials.csv")
    assert len(trials) == 12 and trials.reward.max() == pytest.approx(best["reward"])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["budget"] == 12 and config["provenance"][0]["versions"]["torch"]
    assert "<html" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_journal_and_a_larger_budget_extends_it(empty_folder: Path) -> None:
    main([*FAST, "name=a"])
    main([*FAST, "name=b"])
    main([*FAST, "name=c", "seed=1"])
    journals = [(empty_folder / "runs" / name / "journal.jsonl").read_bytes() for name in "abc"]
    assert journals[0] == journals[1] != journals[2]
    main([*FAST, "name=a", "budget=20"])
    extended = (empty_folder / "runs" / "a" / "journal.jsonl").read_bytes()
    assert extended.startswith(journals[0]) and extended.count(b"\n") == 21


def test_ctrl_c_keeps_what_is_finished_and_prints_how_to_go_on(
    empty_folder: Path, command_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "nas.search", "name=stopped", "evaluator=synthetic", "engine=inline"]
    command += ["evaluator.seconds=0.2", "budget=100"]
    running = subprocess.Popen(
        command, env=command_environment, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )
    journal = empty_folder / "runs" / "stopped" / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "evaluations are kept" in output and "python -m nas.search" in output and "name=stopped" in output
    # What was being forced to disk when the signal came is taken back.
    kept = journal.read_bytes().count(b"\n") - 1
    assert json.loads((journal.parent / "summary.json").read_text())["evaluations"] == kept >= 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("seed=1", r"seed=0 \(now 1\)"),
        ("space=efficientnet", r"space\._target_=search_spaces\.mnasnet"),
        ("reward=absolute", r"reward\._target_=nas\.reward\.mnas_soft \(now nas\.reward\.absolute\)"),
        ("target_flops=5e8", r"target_flops=400000000\.0 \(now 500000000\.0\)"),
        ("controller.start=7", r"controller\.start="),
    ],
)
def test_resuming_with_other_settings_is_refused(empty_folder: Path, change: str, says: str) -> None:
    main([*FAST, "name=a"])
    before = contents(empty_folder)
    with pytest.raises(InputError, match=says):
        main([*FAST, "name=a", "budget=30", change])
    assert contents(empty_folder) == before


def test_a_broken_journal_line_is_named_and_a_torn_one_repaired(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*FAST, "name=a"])
    journal = empty_folder / "runs" / "a" / "journal.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], lines[5][:40] + b"\n", *lines[6:]]))
    before = contents(empty_folder)
    with pytest.raises(InputError, match="line 6 is damaged"):
        main([*FAST, "name=a"])
    assert contents(empty_folder) == before

    journal.write_bytes(whole[:-25])
    capsys.readouterr()
    main([*FAST, "name=a"])
    assert "repaired" in capsys.readouterr().out
    assert journal.read_bytes() == whole


ALL_FAIL = """
from phinas.engines.evaluator import EvaluationFailed

class Fails:
    def __call__(self, network, seed):
        raise EvaluationFailed("out of memory")
        yield
"""


def test_a_search_in_which_all_fails_says_why_and_keeps_it(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "all_fail.py").write_text(ALL_FAIL)
    monkeypatch.syspath_prepend(empty_folder)
    options = ["evaluator._target_=all_fail.Fails", "engine=inline", "controller=random", "name=a"]
    for finished in (10, 20):  # typed again, it tries again
        with pytest.raises(RunFailed, match=rf"the last 10 .* failed: 10 x out of memory; {finished} of 30 .*name=a"):
            main([*options, "budget=30"])
        assert json.loads((empty_folder / "runs" / "a" / "summary.json").read_text())["failures"] == finished
    assert main([*options, "budget=30"]) == 1  # the last ten: nothing is left to go on with


def test_a_folder_of_another_command_is_left_alone(empty_folder: Path) -> None:
    folder = empty_folder / "runs" / "scaling"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    before = contents(empty_folder)
    with pytest.raises(InputError, match="another command's results"):
        main([*FAST, "name=scaling"])
    assert contents(empty_folder) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "options"),
    [
        ("custom_space", [*FAST, "space._target_=my_spaces.Tiny"]),
        ("custom_space", [*FAST, "--config-dir", "my_conf", "space=tiny", "space.resolution=64"]),
        ("cell_space", [*FAST, "space._target_=cells.Cells", "space.channels=4"]),
        ("cell_space", ["--config-dir", "my_conf", "space=cell", "evaluator=cell", "evaluator.epochs=1", "budget=12"]),
    ],
    ids=lambda value: " ".join(value[-3:]) if isinstance(value, list) else value,
)
def test_examples_are_searched_outside_the_repository(
    empty_folder: Path, command_environment: dict[str, str], example: str, options: Sequence[str]
) -> None:
    shutil.copytree(ROOT / "examples" / example, empty_folder / "mine")
    command = [sys.executable, "-m", "nas.search", *options, "name=a", "target_flops=1e6"]
    subprocess.run(command, cwd=empty_folder / "mine", env=command_environment, check=True, timeout=240)
    folder = empty_folder / "mine" / "runs" / "a"
    assert json.loads((folder / "summary.json").read_text())["evaluations"] == 12
    assert (folder / "best.yaml").exists() and (folder / "report.html").exists()
