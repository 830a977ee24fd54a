"""`python -m nas.search experiment=...`: several searches, and what they found beside networks that people know."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from nas.figures.comparison import Compared, comparison_figure
from nas.journal import Entry
from nas.objective import Objective
from nas.search import main
from phinas.command.configuration import configuration
from phinas.files.errors import InputError, one_line
from phinas.pages.style import png
from tests.conftest import ROOT, hear_ctrl_c

ARCHIVE = ROOT.parent / "shared" / "data" / "accel_nasbench.tar.gz"
needs_archive = pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive of Accel-NASBench is not here")

# An experiment of a user's own, which needs no data.
MINE = """# @package _global_
defaults:
  - override /evaluator: synthetic
  - override /engine: inline
name: mine
budget: 12
experiment:
  controllers: [random, evolution]
  beside: {efficientnet_b0: {published: 0.771}, mobilenet_v2: {}}
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


OWN = ("--config-dir", "own", "experiment=mine")


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_experiment_composes_and_the_command_line_overrides_it(file: Path) -> None:
    given, names = configuration("nas.search", "search", [f"experiment={file.stem}", "budget=7", "reward=absolute"])
    assert names["experiment"] == file.stem and names["reward"] == "absolute"
    assert given["budget"] == 7 and given["name"] and given["experiment"]["controllers"]


def test_b0_is_the_search_of_the_paper() -> None:
    given, names = configuration("nas.search", "search", ["experiment=b0"])
    assert (names["space"], names["evaluator"], names["reward"]) == ("efficientnet", "accel_nasbench", "mnas_soft")
    assert given["target_flops"] == given["targets"]["macs"] == 400e6 and given["reward"]["exponent"] == -0.07
    assert given["experiment"]["controllers"] == ["rl", "bayesian"]
    assert list(given["experiment"]["beside"]) == ["efficientnet_b0", "mnasnet_a1"]


def test_an_experiment_of_ones_own_is_searches_and_a_comparison(empty_folder: Path) -> None:
    assert main(OWN) == 0
    runs = empty_folder / "runs"
    rows = pd.read_csv(runs / "mine" / "comparison.csv")
    assert list(rows.network) == [
        "found by random", "found by evolution", "efficientnet_b0", "mobilenet_v2", "efficientnet_b0",
    ]  # fmt: skip
    assert list(rows.source) == ["measured"] * 4 + ["published"]
    assert rows.macs[2] == 385814752 and rows.accuracy[4] == 0.771
    for place, controller in enumerate(("random", "evolution")):
        trials = pd.read_csv(runs / f"mine-{controller}" / "trials.csv")
        assert len(trials) == 12 and rows.reward[place] == trials.reward.max()
        assert (runs / f"mine-{controller}" / "report.html").exists()
    with Image.open(runs / "mine" / "comparison.png") as picture:
        assert picture.width == 1600
    assert yaml.safe_load((runs / "mine" / "config.yaml").read_text())["experiment"]["controllers"]


@pytest.mark.slow
@pytest.mark.figures
def test_the_same_command_does_nothing_twice_and_a_larger_budget_goes_on(empty_folder: Path) -> None:
    main(OWN)
    journals = sorted((empty_folder / "runs").glob("*/journal.jsonl"))
    before, table = [file.read_bytes() for file in journals], empty_folder / "runs" / "mine" / "comparison.csv"
    text = table.read_bytes()
    assert main(OWN) == 0
    assert [file.read_bytes() for file in journals] == before and table.read_bytes() == text
    assert main([*OWN, "budget=16"]) == 0
    after = [file.read_bytes() for file in journals]
    assert all(new.startswith(old) and new.count(b"\n") == 17 for new, old in zip(after, before, strict=True))


def test_a_controller_of_the_command_line_is_the_only_one(empty_folder: Path) -> None:
    assert main([*OWN, "controller=evolution", "name=only"]) == 0
    assert sorted(folder.name for folder in (empty_folder / "runs").iterdir()) == ["only"]
    assert (empty_folder / "runs" / "only" / "journal.jsonl").exists()
    rows = pd.read_csv(empty_folder / "runs" / "only" / "comparison.csv")
    assert rows.network[0] == "found by evolution" and rows.network[1] == "efficientnet_b0"
    with pytest.raises(InputError, match="runs/only is a search, not an experiment"):
        main([*OWN, "name=only"])


@pytest.mark.slow
def test_what_goes_on_with_one_of_the_searches_is_that_search(empty_folder: Path) -> None:
    main(OWN)
    table = (empty_folder / "runs" / "mine" / "comparison.csv").read_bytes()
    assert main([*OWN, "controller=random", "name=mine-random", "budget=14"]) == 0  # as the search itself says
    assert (empty_folder / "runs" / "mine-random" / "journal.jsonl").read_bytes().count(b"\n") == 15
    assert (empty_folder / "runs" / "mine" / "comparison.csv").read_bytes() == table
    assert main(OWN) == 0


def test_an_experiment_may_set_options_alone(empty_folder: Path) -> None:
    text = MINE[: MINE.index("experiment:")]
    (empty_folder / "own" / "experiment" / "mine.yaml").write_text(text)
    assert main(OWN) == 0
    assert (empty_folder / "runs" / "mine" / "journal.jsonl").exists()
    assert not (empty_folder / "runs" / "mine" / "comparison.csv").exists()


@pytest.mark.slow
def test_ctrl_c_says_how_the_experiment_goes_on(empty_folder: Path, command_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "nas.search", *OWN, "evaluator.seconds=0.2"]
    running = subprocess.Popen(
        command, env=command_environment, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )
    journal = empty_folder / "runs" / "mine-random" / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "python -m nas.search --config-dir own experiment=mine evaluator.seconds=0.2 name=mine\n" in output
    kept = journal.read_bytes()
    assert main([*OWN, "evaluator.seconds=0.2"]) == 0
    assert journal.read_bytes().startswith(kept) and journal.read_bytes().count(b"\n") == 13
    assert (empty_folder / "runs" / "mine" / "comparison.png").exists()


# Each row: what is typed, and what the one line must say.
BAD_INPUT = [
    (["experiment=nope"], "experiment=nope: there is no such experiment; allowed: b0"),
    (["experiment=[b0]"], "it must name one experiment of b0"),
    (["experiment=b0"], "evaluator.path is missing"),
    (["experiment=b0", "evaluator.path=nowhere.tar.gz"], "nowhere.tar.gz: no such file"),
    ([*OWN, "experiment.controllers=[]"], "experiment.controllers=[]"),
    ([*OWN, "experiment.controllers=rl"], "experiment.controllers=rl"),
    ([*OWN, "experiment.controllers=[rl,rl]"], "each of them once"),
    ([*OWN, "experiment.controllers=[random,genius]"], "controller=genius: there is no such controller"),
    ([*OWN, "+experiment.beside.lenet={}"], "no reference network 'lenet'"),
    ([*OWN, "experiment.beside.efficientnet_b0.published=77"], "published=77: it must be a fraction"),
    ([*OWN, "+experiment.beside.mobilenet_v2.top1=0.72"], "allowed: title, published"),
    ([*OWN, "+experiment.mood=3"], "experiment has no mood"),
    ([*OWN, "experiment=b0", "name=a/b"], "name=a/b"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD_INPUT, ids=lambda value: " ".join(value)[-40:] if value else "")
def test_bad_input_is_one_line_that_names_the_culprit(arguments: list[str], said: str, empty_folder: Path) -> None:
    with pytest.raises(InputError) as error:
        main(arguments)
    assert said in one_line(error.value) and not (empty_folder / "runs").exists()


def test_an_experiment_that_is_not_global_says_so(empty_folder: Path) -> None:
    (empty_folder / "own" / "experiment" / "mine.yaml").write_text("budget: 3\n")
    with pytest.raises(InputError, match="@package _global_"):
        main(OWN)


@pytest.mark.slow
def test_the_picture_stands_without_any_result(empty_folder: Path) -> None:
    objective = Objective({"macs": 400e6}, {})
    failed = [Entry(0, (0,), "k", {"macs": 1e8, "params": 1, "activations": 1}, error="out of memory")]
    beside = [Compared("b0", "reference", 0.6, "measured", {"macs": 386e6}, 0.6, "b0")]
    for searches in ({}, {"rl": []}, {"rl": failed}):
        for rows in ([], beside):
            png(comparison_figure(searches, rows, None, objective, lambda a, c: a, "accuracy"), "empty.png", 800)


# An evaluator whose noise is far beyond what networks differ by.
NOISY = """
from phinas.engines.evaluator import Measurement
from nas.evaluators.published import with_noise


class Noisy:
    def expected(self, network):
        return 0.5

    def __call__(self, network, seed):
        yield Measurement(with_noise(0.5, 10, seed))
"""


def test_networks_are_compared_without_noise(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "noisy.py").write_text(NOISY)
    monkeypatch.syspath_prepend(str(empty_folder))
    assert main([*OWN, "evaluator._target_=noisy.Noisy"]) == 0
    rows = pd.read_csv(empty_folder / "runs" / "mine" / "comparison.csv")
    assert list(rows.accuracy[:4]) == [0.5] * 4
    assert list(rows.reward[:4]) == pytest.approx(list(0.5 * (rows.macs[:4] / 400e6) ** -0.07))
    for controller in ("random", "evolution"):
        assert pd.read_csv(empty_folder / "runs" / f"mine-{controller}" / "trials.csv").accuracy.max() > 0.55


# An evaluator that knows of two real trainings; the larger network is the better one.
TRAINED = """
from phinas.networks.reference import reference
from nas.evaluators.synthetic import Synthetic


class Knows(Synthetic):
    def trained(self):
        yield reference("efficientnet_b0"), 0.6
        yield reference("efficientnet_b1"), 0.9
"""


@pytest.mark.slow
def test_trained_networks_are_compared_within_the_limits(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (empty_folder / "knows.py").write_text(TRAINED)
    monkeypatch.syspath_prepend(str(empty_folder))
    for limits, accuracy, count in (([], 0.9, 2), (["limits.macs=450e6"], 0.6, 1), (["limits.params=5e6"], None, 0)):
        assert main([*OWN, "evaluator._target_=knows.Knows", "budget=3", f"name=within-{count}", *limits]) == 0
        rows = pd.read_csv(empty_folder / "runs" / f"within-{count}" / "comparison.csv")
        known = rows[rows.source == "trained"]
        assert list(known.network) == ([f"best of {count} trained"] if count else [])
        assert list(known.accuracy) == ([accuracy] if count else [])


@pytest.mark.slow
@needs_archive
def test_b0_is_beaten_on_published_results(empty_folder: Path, command_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "nas.search", "experiment=b0", f"evaluator.path={ARCHIVE}", "budget=60"]
    done = subprocess.run(command, env=command_environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "EfficientNet-B0" in done.stdout and "MnasNet-A1" in done.stdout and not done.stderr
    rows = pd.read_csv(empty_folder / "runs" / "b0" / "comparison.csv").set_index("network")
    b0 = rows[rows.source == "predicted"].loc["EfficientNet-B0"]
    assert b0.macs == 385814752 and b0.reward == pytest.approx(0.658, abs=0.003)
    assert rows.loc["found by bayesian"].reward > b0.reward
    trained = rows.loc["best of 5,138 trained"]
    assert trained.source == "trained" and trained.reward == pytest.approx(0.66537, abs=1e-5)
    a1 = rows.loc["MnasNet-A1"]
    assert (a1.source, a1.accuracy, a1.macs, a1.params) == ("published", 0.752, 311579072, 3887038)
