"""`python -m nas.search` as people type it: what it writes, how it resumes, and one line for each mistake."""

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

from conf.command import one_line
from convnets.arch_file import read_arch
from convnets.cost import cost
from convnets.errors import InputError
from convnets.origin import file_source, read_origin
from nas.search import main
from tests.conftest import ROOT, contents, hear_ctrl_c

pytestmark = pytest.mark.usefixtures("empty_folder")


FAST = ("evaluator=synthetic", "engine=inline", "budget=12")


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
    assert json.loads((journal.parent / "summary.json").read_text())["evaluations"] >= 3


# Each row: what is typed, and what the one line must say.
BAD_INPUT = [
    (["target_flops=-1"], "target_flops=-1"),
    (["target_flops=0"], "target_flops=0"),
    (["target_flops=many"], "target_flops=many"),
    (["target_flops=null"], "target_flops"),
    (["target_flops=.inf"], "target_flops"),
    (["budget=0"], "budget=0"),
    (["budget=1.5"], "budget=1.5"),
    (["budget=true"], "budget=True"),
    (["seed=-1"], "seed=-1"),
    (["refuse_above=0"], "refuse_above=0"),
    (["refuse_above=0.0001", *FAST], "refuse_above"),
    (["space=nowhere"], "space=nowhere: there is no such space; allowed: custom, efficientnet, mnasnet, nasbench_"),
    (["controller=genius"], "controller=genius"),
    (["evaluator=oracle"], "evaluator=oracle"),
    (["engine=steam"], "engine=steam"),
    (["reward=fame"], "reward=fame"),
    (["data=dreams"], "data=dreams"),
    (["controler=random"], "did you mean controller"),
    (["budgets=3"], "did you mean budget"),
    (["controller.mood=3"], "mood"),
    (["space.wings=3"], "wings"),
    (["controller.population=0", *FAST], "population"),
    (["controller.population=many", *FAST], "population"),
    (["halving.eta=1"], "eta"),
    (["halving.eta=many"], "eta"),
    (["halving=3"], "halving"),
    (["evaluator=synthetic", "evaluator.noise=7"], "noise=7"),
    (["evaluator.recipe.optimizer=magic"], "optimizer"),
    (["evaluator.recipe.lr=0"], "lr"),
    (["space._target_=nowhere.Space", *FAST], "nowhere"),
    (["space._target_=pathlib.Path", *FAST], "decisions"),
    (["space.kernels=[]", *FAST], "kernels must be a list of one or more"),
    (["space.kernels=3"], "kernels"),
    (["space=null"], "space=null: it must name one space of custom, efficientnet, mnasnet, nasbench_macro"),
    (["engine=null"], "engine=null: it must name one engine"),
    (["space=[mnasnet]"], "space=[mnasnet]: it must name one"),
    (["~space"], "~space"),
    (["~budget"], "~budget"),
    (["+mood=3"], "mood"),
    (["hydra.verbose=true"], "hydra.verbose"),
    (["reward.exponent=many", *FAST], "reward"),
    (["+reward.mood=3", *FAST], "mood"),
    (["reward._target_=math.nothing", *FAST], "math.nothing"),
    (["engine.workers=0", "evaluator=synthetic"], "workers=0"),
    (["engine.workers=many", "evaluator=synthetic"], "workers=many"),
    (["engine.cpus_per_trial=0", "evaluator=synthetic"], "cpus_per_trial=0"),
    (["engine.address=127.0.0.1:1", "evaluator=synthetic"], "no Ray cluster answers"),
    (["+engine.mood=3", "evaluator=synthetic"], "mood"),
    (["seed=99999999999999999999"], "seed="),
    (["name=../out"], "name=../out"),
    (["name=a/b"], "name=a/b"),
    (["name=."], "name=."),
    (["data=parquet"], "data.path is missing"),
    (["data=parquet", "data.path=nowhere"], "nowhere"),
    (["data=parquet", "data.path=empty"], "empty"),
    (["data=imagefolder", "data.path=nowhere"], "nowhere"),
    (["data=imagefolder", "data.path=empty"], "empty"),
    (["data=imagefolder", "data.path=corrupt"], "corrupt/cat/2.png"),
    (["budget=[3"], "budget=[3"),
    (["--config-dir", "nowhere"], "nowhere"),
    (["--budget", "3"], "--budget"),
    (["justaword"], "justaword"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_nothing_is_written(empty_folder: Path, arguments: Sequence[str], says: str) -> None:
    from PIL import Image

    (empty_folder / "empty").mkdir()
    for label in ("cat", "dog"):
        (empty_folder / "corrupt" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (9 * number, 0, 0)).save(empty_folder / "corrupt" / label / f"{number}.png")
    (empty_folder / "corrupt" / "cat" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    before = contents(empty_folder)
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert says in str(caught.value)
    assert "\n" not in one_line(caught.value) and len(one_line(caught.value)) < 600
    assert contents(empty_folder) == before


def test_a_mistake_exits_2_with_one_line_on_standard_error(
    empty_folder: Path, command_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "nas.search", "space=nowhere"]
    done = subprocess.run(command, env=command_environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: space=nowhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("seed=1", r"seed=0 \(now 1\)"),
        ("space=efficientnet", r"space\._target_=search_spaces\.mnasnet"),
        ("reward=absolute", r"reward\._target_=nas\.reward\.mnas_soft \(now nas\.reward\.absolute\)"),
        ("target_flops=5e8", r"target_flops=400000000\.0 \(now 500000000\.0\)"),
        ("controller.population=7", r"controller\.population="),
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


def test_a_folder_of_another_command_is_left_alone(empty_folder: Path) -> None:
    folder = empty_folder / "runs" / "scaling"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    before = contents(empty_folder)
    with pytest.raises(InputError, match="another command's results"):
        main([*FAST, "name=scaling"])
    assert contents(empty_folder) == before


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
