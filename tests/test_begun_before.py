"""Runs that were begun at 46dbb47, before the packages had one name, go on as they would have then.

`begun_before/README.md` says by which commands each was made; `expected/` is what that code made of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas import report
from phinas.__main__ import command_module
from phinas.files.errors import InputError
from tests.conftest import ROOT

BEFORE = ROOT / "tests" / "begun_before"
COMMANDS = {
    "search": "nas.search space=nasbench_macro target_flops=40e6 evaluator.recipe.epochs=2 evaluator.resolution=8 "
    "budget=6 engine=inline",
    "search_synthetic": "nas.search controller=evolution evaluator=synthetic evaluator.epochs=9 engine=inline "
    "budget=12 seed=1",
    "grid": "scaling_search.grid baseline=tiny.yaml variant=null candidates=3 seeds=2 tolerance=0.2 "
    "evaluator.recipe.epochs=1 engine=inline",
    "compare": "scaling_search.compare baseline=tiny.yaml variant=null scaling=[1.2,1.1,1.15] seeds=1 factors=[2] "
    "figure4=false tolerance=0.3 evaluator.recipe.epochs=1 engine=inline",
    "train": "phinas.train model=tiny.yaml recipe=fast recipe.epochs=4",
    "transfer": "phinas.transfer from=tiny.safetensors model=tiny.yaml sets.digits=digits lr=[0.03,0.1] "
    "weight_decay=1e-5 seeds=2 recipe.epochs=1 resolution=8 engine=inline",
    "generate": "phinas.generate baseline=tiny.yaml scaling=paper phi=[0,1] export=[pytorch,weights]",
    "check": "nas.proxy_check space=nasbench_macro engine=inline networks=3 evaluator.recipe.epochs=1 longer.epochs=2 "
    "evaluator.resolution=8",
    "selftest": "nas.selftest engine=inline torn=0 corrupted=20 disk_full=0 two_at_once=1 drivers=0 proxy=0",
}


@pytest.fixture
def begun(empty_folder: Path) -> Path:
    """The folder of the runs, as they were left."""
    for file in (BEFORE / "inputs").iterdir():
        shutil.copy(file, file.name)
    for name in COMMANDS:
        shutil.copytree(BEFORE / name, Path("runs", name))
    return empty_folder / "runs"


def typed_again(name: str, *more: str) -> int | None:
    module, *options = COMMANDS[name].split()
    code: int | None = command_module(module).main([f"name={name}", *options, *more])
    return code


def table(path: Path, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    return pd.read_csv(path).drop(columns=list(without)).to_dict("records")


def sorted_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """What does not hang on accuracies, which differ between CPUs, nor on the order that they make."""
    return sorted(str([row[column] for column in columns]) for row in rows)


@pytest.mark.parametrize("name", ["search", "search_synthetic", "check"])
def test_a_journal_goes_on(begun: Path, name: str) -> None:
    journal = begun / name / "journal.jsonl"
    before = journal.read_bytes()
    assert typed_again(name) == 0
    assert journal.read_bytes().startswith(before), "what was done is kept as it was"
    expected = (BEFORE / "expected" / f"{name}.jsonl").read_text()
    now = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    then = [json.loads(line) for line in expected.splitlines()[1:]]
    assert [entry["number"] for entry in now] == [entry["number"] for entry in then]
    first = 5 if name == "search" else len(then)  # the controller's own; then it goes by accuracies, which differ
    assert [entry["picks"] for entry in now][:first] == [entry["picks"] for entry in then][:first]
    if name == "search_synthetic":  # nothing is trained, which would differ from one CPU to another
        assert journal.read_text() == expected


def test_a_report_is_made_again(begun: Path) -> None:
    report.main(["runs/search"])
    page = (begun / "search" / "report.html").read_text()
    assert "3 evaluations" in page and page.count("<svg") >= 3


def test_a_study_goes_on_and_its_constants_keep_the_name_of_their_settings(begun: Path) -> None:
    before = (begun / "grid" / "scaling.yaml").read_text()
    assert typed_again("grid") == 0
    rows = table(begun / "grid" / "candidates.csv")
    expected = table(BEFORE / "expected" / "grid_candidates.csv")
    columns = ["alpha", "beta", "gamma", "realised_macs"]
    assert sorted_rows(rows, columns) == sorted_rows(expected, columns)
    (settings,) = {line.strip() for line in before.splitlines() if "settings_hash" in line}
    assert settings in (begun / "grid" / "scaling.yaml").read_text()


@pytest.mark.slow
def test_a_comparison_goes_on(begun: Path) -> None:
    assert typed_again("compare") == 0
    rows, expected = table(begun / "compare" / "comparison.csv"), table(BEFORE / "expected" / "compare_comparison.csv")
    assert [row["macs"] for row in rows] == [row["macs"] for row in expected]


def test_a_training_goes_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed_again("train") == 0
    assert "going on after step 25 of 48" in capsys.readouterr().out
    rows, expected = table(begun / "train" / "metrics.csv"), table(BEFORE / "expected" / "train_metrics.csv")
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    assert rows[:2] == table(BEFORE / "train" / "metrics.csv")
    summary = json.loads((begun / "train" / "summary.json").read_text())
    then = json.loads((BEFORE / "expected" / "train_summary.json").read_text())
    assert [summary[name] for name in ("key", "macs", "epoch")] == [then[name] for name in ("key", "macs", "epoch")]


def test_a_transfer_goes_on(begun: Path) -> None:
    assert typed_again("transfer") == 0
    rows, expected = table(begun / "transfer" / "results.csv"), table(BEFORE / "expected" / "transfer.csv")
    columns = ["data", "model", "start", "stage", "seed"]
    assert sorted_rows(rows, columns) == sorted_rows(expected, columns)
    before = (BEFORE / "transfer" / "results.csv").read_text()
    assert (begun / "transfer" / "results.csv").read_text().startswith(before), "what was done is kept as it was"


def test_a_family_goes_on(begun: Path) -> None:
    kept = begun / "generate" / "tiny_phi0"
    before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert typed_again("generate") == 0
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == before, (
        "what was exported is not made again"
    )
    summary = json.loads((begun / "generate" / "summary.json").read_text())
    expected = json.loads((BEFORE / "expected" / "generate_summary.json").read_text())
    assert summary["finished"] and [member["model"] for member in summary["members"]] == [
        member["model"] for member in expected["members"]
    ]


@pytest.mark.slow
def test_a_self_test_goes_on(begun: Path) -> None:
    assert typed_again("selftest") == 0
    summary = json.loads((begun / "selftest" / "summary.json").read_text())
    assert list(summary["faults"]) == ["corrupted", "two_at_once"] and summary["passed"]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"selftest"}))
def test_another_setting_is_refused_by_its_name_alone(begun: Path, name: str) -> None:
    option, named = {
        "search": ("evaluator.recipe.lr=1", "evaluator.recipe.lr="),
        "search_synthetic": ("evaluator.noise=0.2", "evaluator.noise="),
        "grid": ("evaluator.recipe.lr=1", "evaluator.recipe.lr="),
        "compare": ("evaluator.recipe.lr=1", "evaluator.recipe.lr="),
        "train": ("recipe.schedule.warmup=0.3", "recipe.schedule.warmup=0.1"),
        "transfer": ("recipe.epochs=2", "recipe.epochs=1"),
        "generate": ("seed=9", "seed=0 (now 9)"),
        "check": ("seed=9", "seed=0 (now 9)"),
    }[name]
    module, *typed = [word for word in COMMANDS[name].split() if word.split("=")[0] != option.split("=")[0]]
    with pytest.raises(InputError) as caught:
        command_module(module).main([f"name={name}", *typed, option])
    assert named in str(caught.value) and "_target_" not in str(caught.value), "what moved is not what differs"
