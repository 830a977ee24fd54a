"""`python -m scaling_search.grid` as people type it: what it writes, how it resumes, and one line for each mistake."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml

from phinas.files.errors import InputError, one_line
from phinas.networks.compound import PAPER, compound
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0
from phinas.networks.scaling_file import read_scaling
from phinas.pages.cost_text import macs_text
from scaling_search.grid import main
from tests.conftest import contents, hear_ctrl_c

pytestmark = pytest.mark.usefixtures("empty_folder")


SMALL = ("evaluator=synthetic", "lattice.alpha=[1.0,1.4]", "lattice.beta=[1.0,1.2]", "lattice.gamma=[1.0,1.3]")
FAST = (*SMALL, "engine=inline", "candidates=3", "seeds=2")


def finished(folder: Path) -> int:
    """Trials with a result, read as another program would; 0 while there is no table of them."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/study.db?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.figures
def test_it_writes_what_the_contract_names(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "name=first"]) == 0
    output = capsys.readouterr().out
    for said in (
        "3 of them evaluated with 2 seeds",
        "best constants",
        "report.html",
        "seed=1",
        "scaling_search.compare",
    ):
        assert said in output
    folder = empty_folder / "runs" / "first"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["candidates"], summary["evaluations"], summary["failures"], summary["seeds"]) == (3, 6, 0, 2)
    assert (summary["evaluator"], summary["engine"], summary["sampler"]) == ("synthetic", "inline", "grid")

    table = pd.read_csv(folder / "candidates.csv")
    assert list(table.columns[:7]) == ["alpha", "beta", "gamma", "nominal", "formula_ratio", "realised_macs", "ratio"]
    assert {"accuracy_mean", "accuracy_sd", "seeds", "low", "high", "probability_best", "status"} <= set(table.columns)
    assert summary["constants"] == len(table)
    assert ((table.alpha * table.beta**2 * table.gamma**2 - table.nominal).abs() < 1e-5).all()
    assert ((table.ratio_to_target.dropna() - 1).abs() <= 0.05).all()
    evaluated = table[table.status == "evaluated"]
    assert (evaluated.seeds == 2).all() and evaluated[evaluated.same_as.isna()].shape[0] == 3

    scaling = read_scaling(folder / "scaling.yaml")
    assert vars(scaling.constants) == {name: summary["best"][name] for name in ("alpha", "beta", "gamma")}
    assert scaling.baseline == EFFICIENTNET_B0 and (scaling.phi, scaling.rounding) == (1.0, "nearest")
    assert scaling.evidence["made_by"]["versions"]["optuna"] and scaling.evidence["seeds"] == 2
    assert scaling.evidence["baseline"]["variant"]["resolution"] == 28
    assert compound(scaling.baseline, scaling.constants, 1).resolution >= 224

    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["candidates"] == 3 and config["provenance"][0]["versions"]["torch"]
    assert "<html" in (folder / "report.html").read_text()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db")
    assert len(study.trials) == 6


@pytest.mark.slow
def test_typed_again_it_repeats_nothing_and_larger_numbers_extend_it(empty_folder: Path) -> None:
    folder = empty_folder / "runs" / "a"
    main([*FAST, "name=a"])
    first = contents(folder)
    main([*FAST, "name=a"])
    assert finished(folder) == 6
    assert all(contents(folder)[name] == first[name] for name in ("candidates.csv", "scaling.yaml"))
    main([*FAST, "name=a", "seeds=3"])
    assert finished(folder) == 9
    main([*FAST, "name=a", "seeds=3", "candidates=5"])
    assert finished(folder) == 15
    assert json.loads((folder / "summary.json").read_text())["evaluations"] == 15
    main([*FAST, "name=a"])
    assert finished(folder) == 15 and contents(folder)["candidates.csv"] == first["candidates.csv"]


@pytest.mark.parametrize(
    "options",
    [
        ["variant=null", "baseline=mobilenet_v2", "phi=0.5"],
        ["constraint=nominal", "rounding=official"],
        ["candidates=null", "seeds=1", "lattice.step=0.1"],
        ["sampler=tpe", "halving={grace: 1, eta: 2}", "evaluator.epochs=3"],
    ],
    ids=" ".join,
)
def test_its_options_run(empty_folder: Path, options: Sequence[str]) -> None:
    assert main([*FAST, "name=a", *options]) == 0
    assert read_scaling(empty_folder / "runs" / "a" / "scaling.yaml").constants.product > 1
    assert (empty_folder / "runs" / "a" / "report.html").exists()


@pytest.mark.slow
def test_a_network_of_ones_own_is_a_baseline(empty_folder: Path) -> None:
    main([*FAST, "name=a"])
    (empty_folder / "mine.yaml").write_text(yaml.safe_dump(compound(EFFICIENTNET_B0, PAPER, 1).to_dict()))
    assert main([*FAST, "name=b", "baseline=mine.yaml", "variant=null"]) == 0
    scaling = read_scaling(empty_folder / "runs" / "b" / "scaling.yaml")
    assert scaling.baseline == compound(EFFICIENTNET_B0, PAPER, 1)
    before = contents(empty_folder)
    (empty_folder / "mine.yaml").write_text(yaml.safe_dump(EFFICIENTNET_B0.to_dict()))
    with pytest.raises(InputError, match="baseline_key="):  # the same name, and now another network
        main([*FAST, "name=b", "baseline=mine.yaml", "variant=null"])
    assert contents(empty_folder / "runs") == {
        name.removeprefix("runs/"): data for name, data in before.items() if name.startswith("runs/")
    }


@pytest.mark.parametrize("options", [[], ["sampler=gp"]], ids=["grid", "gp"])
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str]
) -> None:
    assert main([*FAST, *options, "name=a", "dry_run=true"]) == 0
    assert "6 evaluations" in capsys.readouterr().out
    assert contents(empty_folder) == {}


@pytest.mark.slow
def test_a_dry_run_counts_what_is_left_of_what_is_asked_for_now(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*FAST, "name=a", "candidates=4"])
    for options, says in (
        (["candidates=2", "seeds=3"], "2 evaluations left"),
        (["candidates=5"], "2 evaluations left"),
    ):
        capsys.readouterr()
        main([*FAST, "name=a", "dry_run=true", *options])
        assert says in capsys.readouterr().out
    main([*FAST, "name=a", "dry_run=true", "candidates=2"])
    assert "evaluations left" not in capsys.readouterr().out


# Each row: what is typed, and what the one line must say.
BAD_INPUT = [
    (["tolerance=0"], "tolerance=0: none of 51 constants makes a network"),
    (["tolerance=0.000001"], "tolerance=1e-06: none of 51 constants makes a network"),
    (["tolerance=0", "sampler=tpe"], "tolerance=0: none of 51 constants makes a network"),
    (["tolerance=-1"], "tolerance=-1: it must be a number 0 or more and below 1"),
    (["tolerance=1"], "tolerance=1"),
    (["tolerance=null"], "tolerance=None"),
    (["lattice.gamma=[0.9,1.2]"], "lattice.gamma=0.9: it must be a number 1 or more"),
    (["lattice.alpha=[2,1]"], "lattice.alpha=[2,1]: the highest is below the lowest"),
    (["lattice.beta=wide"], "lattice.beta=wide: it must be [lowest,highest]"),
    (["lattice.tolerance=0"], "lattice.tolerance=0: none of the 315 constants"),
    (["lattice.step=0"], "lattice.step=0"),
    (["lattice.step=0.001"], "lattice.step=0.001: 24,260,901 points"),
    (["lattice=null"], "lattice=None: it must have step, tolerance, alpha, beta and gamma"),
    (["lattice=fine"], "lattice=fine: it must have step, tolerance, alpha, beta and gamma"),
    (["lattice.steps=0.1"], "steps"),
    (["+lattice.delta=0.1"], "lattice: it has step, tolerance, alpha, beta and gamma, and no more"),
    (["phi=0"], "phi=0: it must be a number above 0 and below 20"),
    (["phi=-1"], "phi=-1: it must be a number above 0 and below 20"),
    (["phi=text"], "phi=text"),
    (["phi=null"], "phi=None"),
    (["phi=.nan"], "phi=.nan"),
    (["baseline=nowhere.yaml"], "nowhere.yaml: No such file"),
    (["baseline=nothing"], "baseline=nothing: no file, and no published network; allowed: FILE.yaml, efficientnet_b0,"),
    (["baseline=null"], "baseline=None: no file, and no published network"),
    (["baseline=[a,b]"], "no file, and no published network"),
    ([f"baseline={'b' * 300}"], "bbb"),
    (["baseline=folder"], "folder: Is a directory"),
    (["baseline=recipe.yaml"], "recipe.yaml: "),
    (["baseline=text.yaml"], "text.yaml: "),
    (["baseline=scaling.yaml"], "scaling.yaml: "),
    (["constraint=real"], "constraint=real: it must be one of realised, nominal"),
    (["rounding=up"], "rounding=up: it must be one of official, nearest"),
    (["sampler=cma"], "sampler=cma: it must be one of grid, gp, tpe"),
    (["sampler=gp", "candidates=null"], "sampler=gp needs candidates=NUMBER and constraint=realised"),
    (["sampler=tpe", "constraint=nominal"], "sampler=tpe needs candidates=NUMBER and constraint=realised"),
    (["variant=small"], "variant=small"),
    (["variant.widht=1"], "widht"),
    (["+variant.depth=1"], "variant has no depth; it has resolution, stem_stride, width"),
    (["variant.width=0"], "variant.width=0: it must be a number above 0"),
    (["variant.resolution=0"], "variant.resolution=0"),
    (["variant.resolution=wide"], "variant.resolution=wide"),
    (["variant.stem_stride=1.5"], "variant.stem_stride=1.5"),
    (["candidates=0"], "candidates=0: it must be a whole number, 1 or more"),
    (["candidates=many"], "candidates=many"),
    (["seeds=0"], "seeds=0: it must be a whole number, 1 or more"),
    (["seeds=null"], "seeds=None"),
    (["seed=-1"], "seed=-1"),
    (["dry_run=maybe"], "dry_run=maybe: it must be true or false"),
    (["halving=3"], "halving=3: it must be null, or have grace and eta"),
    (["halving={grace: 1}"], "it must be null, or have grace and eta"),
    (["halving={grace: 0, eta: 3}"], "halving.grace=0"),
    (["evaluator=proxy"], "evaluator.resolution=16: it trains all networks at one size; "),
    (["evaluator=proxy", "variant.resolution=16"], "evaluator.resolution=16: it trains all networks at one size; "),
    (
        ["evaluator=proxy_own_size", "evaluator.resolution=null", "variant.resolution=8"],
        "evaluator.resolution=None: it",
    ),
    (["evaluator=nasbench_macro"], "path"),
    (["evaluator=accel_nasbench"], "path"),
    (["evaluator=oracle"], "evaluator=oracle"),
    (["evaluator.noise=7"], "noise=7"),
    (["engine=steam"], "engine=steam"),
    (["sedes=3"], "did you mean seeds"),
    (["name=../out"], "name=../out"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD_INPUT, ids=[" ".join(arguments)[:60] for arguments, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_nothing_is_written(empty_folder: Path, arguments: Sequence[str], says: str) -> None:
    (empty_folder / "folder").mkdir()
    (empty_folder / "recipe.yaml").write_text("epochs: 4\nlr: 0.003\n")
    (empty_folder / "text.yaml").write_text("a network of mine")
    (empty_folder / "scaling.yaml").write_text(
        yaml.safe_dump({"constants": {"alpha": 1.2, "beta": 1.1, "gamma": 1.15}})
    )
    before = contents(empty_folder)
    groups = {argument.split("=")[0] for argument in arguments}
    with pytest.raises(InputError) as caught:
        main([*(option for option in FAST if option.split("=")[0] not in groups), "name=a", *arguments])
    assert says in str(caught.value)
    assert "\n" not in one_line(caught.value) and len(one_line(caught.value)) < 700
    assert contents(empty_folder) == before and not (empty_folder / "runs").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("baseline=resnet50", r"baseline=efficientnet_b0 \(now resnet50\), baseline_key="),
        ("phi=2", r"phi=1 \(now 2\)"),
        ("variant.width=1", r"variant\.width=0\.5 \(now 1\)"),
        ("evaluator.noise=0.01", r"evaluator\.noise=0\.05 \(now 0\.01\)"),
        ("lattice.step=0.1", r"lattice\.step=0\.05 \(now 0\.1\)"),
        ("seed=1", r"seed=0 \(now 1\)"),
    ],
)
def test_resuming_with_other_settings_is_refused(empty_folder: Path, change: str, says: str) -> None:
    main([*FAST, "name=a", "candidates=1", "seeds=1"])
    before = contents(empty_folder)
    with pytest.raises(InputError, match=says):
        main([*FAST, "name=a", change])
    assert contents(empty_folder) == before


def test_a_folder_of_another_command_and_a_broken_study_are_left_alone(empty_folder: Path) -> None:
    folder = empty_folder / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    before = contents(empty_folder)
    with pytest.raises(InputError, match="another command's results"):
        main([*FAST, "name=a"])
    assert contents(empty_folder) == before
    (folder / "study.db").write_text("what is this?")
    before = contents(empty_folder)
    with pytest.raises(InputError, match="study.db is no study of Optuna's"):
        main([*FAST, "name=a"])
    assert contents(empty_folder) == before


def test_a_candidate_none_of_which_can_be_trained_exits_1(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "failing.py").write_text(
        "from phinas.engines.evaluator import EvaluationFailed\n\n\n"
        "class Failing:\n"
        "    def __call__(self, network, seed):\n"
        "        raise EvaluationFailed('diverged: loss is nan')\n"
        "        yield\n"
    )
    monkeypatch.syspath_prepend(empty_folder)
    own = [option for option in FAST if not option.startswith("evaluator")]
    assert main([*own, "name=a", "evaluator._target_=failing.Failing"]) == 1
    counts = "0 evaluations to the end, 0 stopped early, 6 failed (diverged: loss is nan)"
    assert f"no candidate has a result: {counts}" in capsys.readouterr().out
    folder = empty_folder / "runs" / "a"
    assert json.loads((folder / "summary.json").read_text())["failures"] == 6
    assert not (folder / "scaling.yaml").exists() and (folder / "report.html").exists()


def _started(options: Sequence[str], folder: Path, environment: dict[str, str], least: int) -> subprocess.Popen[str]:
    """The command in a process of its own, with so many evaluations finished."""
    command = [sys.executable, "-m", "scaling_search.grid", *options]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    while finished(folder) < least:
        assert running.poll() is None
        time.sleep(0.1)
    return running


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_a_kill_loses_no_more_than_what_is_in_flight(
    empty_folder: Path, command_environment: dict[str, str]
) -> None:
    options = [*FAST, "name=a", "evaluator.seconds=0.3"]
    folder = empty_folder / "runs" / "a"
    running = _started(options, folder, command_environment, 2)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "evaluations are kept. To go on:\n  python -m scaling_search.grid" in output and "name=a" in output
    assert json.loads((folder / "summary.json").read_text())["evaluations"] == finished(folder) >= 2
    assert (folder / "report.html").exists() and read_scaling(folder / "scaling.yaml")

    before = finished(folder)
    running = _started(options, folder, command_environment, before + 1)
    running.kill()
    running.communicate()
    before = finished(folder)
    trials = optuna.load_study(study_name="scaling", storage=f"sqlite:///{folder}/study.db").trials

    assert main(options) == 0
    after = optuna.load_study(study_name="scaling", storage=f"sqlite:///{folder}/study.db").trials
    assert finished(folder) == 6 and before < 6
    assert [one for one in trials if one.value is not None] == [one for one in after if one.value is not None][:before]
    assert not any(one.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING) for one in after)
    main([*options, "name=whole"])
    assert (folder.parent / "whole" / "candidates.csv").read_bytes() == (folder / "candidates.csv").read_bytes()


@pytest.mark.slow
def test_a_mistake_exits_2_with_one_line_on_standard_error(
    empty_folder: Path, command_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "scaling_search.grid", "evaluator=synthetic", "phi=0"]
    done = subprocess.run(command, env=command_environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: phi=0: it must be")


@pytest.mark.slow
@pytest.mark.ray
def test_on_ray_it_is_the_same_table(empty_folder: Path) -> None:
    import ray

    main([*FAST, "name=inline"])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        options = [option for option in FAST if not option.startswith("engine")]
        assert main([*options, "name=ray", "engine.address=auto"]) == 0
    finally:
        ray.shutdown()
    inline, on_ray = ((empty_folder / "runs" / name / "candidates.csv").read_bytes() for name in ("inline", "ray"))
    assert inline == on_ray
    assert json.loads((empty_folder / "runs" / "ray" / "summary.json").read_text())["engine"] == "ray"


def test_a_plan_of_the_default_costs_what_it_says(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluator=synthetic", "variant=null", "dry_run=true"]) == 0
    output = capsys.readouterr().out
    assert "109 constants with alpha*beta^2*gamma^2 ~ 2: the formula's networks really cost 1.76x to 2.53x" in output
    assert macs_text(cost(EFFICIENTNET_B0).macs) in output and "(1.2, 1.1, 1.15)" in output
