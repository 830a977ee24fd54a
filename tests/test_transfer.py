"""`python -m phinas.transfer`: grid, then the best of it tested; nothing twice; one line for each mistake."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from phinas.engines import inline
from phinas.engines.evaluator import OUT_OF_MEMORY, WORKER_DIED, EvaluationFailed, Measurement
from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.arch_file import read_arch, write_arch
from phinas.networks.build import build
from phinas.networks.network import Network
from phinas.networks.reference import efficientnet
from phinas.training.data.in_memory import InMemoryData
from phinas.training.data.load_for_training import load_for_training
from phinas.training.data.streamed import StreamedData
from phinas.training.data.training_data import EvaluationData
from phinas.training.full.initial_network import initial_network
from phinas.training.full.recipe import plain_sgd
from phinas.training.scoring import evaluate
from phinas.transfer.__main__ import main
from phinas.transfer.data_sets import DESCRIBED, described
from phinas.transfer.plan import Contender, Results, Start, Trainings, Trial
from phinas.transfer.report import params_without_classifier
from phinas.transfer.training import FineTuning, norm_momentum
from phinas.weights.checkpoints import load_weights, save_weights
from tests.conftest import contents

TINY = Arch(
    stem=Stem(channels=8, stride=1),
    stages=(Stage("mbconv", 3, 2, channels=8, repeats=1, expand=2, se_ratio=0.25),),
    head_channels=16,
    resolution=8,
    in_channels=1,
    classes=5,
)
SMALL = (
    "from=pre", "sets.digits=digits", "engine=inline", "recipe.epochs=1", "recipe.batch_size=256", "lr=[0.05,0.1]",
    "weight_decay=0", "scratch=true", "scratch_lr=0.4", "scratch_weight_decay=[0,1e-3]", "seeds=2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with what phinas.train leaves of a network of five classes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pre").mkdir()
    write_arch(TINY, "pre/model.yaml")
    save_weights(build(TINY, 3).state_dict(), "pre/weights.safetensors", {})
    return tmp_path


def rows(name: str) -> list[dict[str, str]]:
    """But for their seconds."""
    with open(f"runs/{name}/results.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted() -> list[list[dict[str, str]]]:
    """The rows of a run that nothing stopped, from the test that made it."""
    return []


# --- what is trained, and in which order -----------------------------------------------------------------------------


def pretend(accuracies: dict[tuple[str, float, float], float | str]) -> Any:
    """An evaluator that knows the accuracy of each stage, learning rate and weight decay; a text is a failure."""

    def evaluator(network: Network, seed: int) -> Iterator[Measurement]:
        assert isinstance(network, Trial) and network.seed == seed
        found = accuracies[(network.stage, network.lr, network.weight_decay)]
        if isinstance(found, str):
            raise EvaluationFailed(found)
        yield Measurement(found + seed / 1000)

    return evaluator


GRID = {("grid", lr, decay): 0.1 * lr + decay for lr, decay in itertools.product((1.0, 2.0), (0.0, 0.01))}
FINAL = {("final", lr, decay): 0.5 for _, lr, decay in GRID}


def test_the_best_of_a_whole_grid_is_trained_again_and_nothing_twice(folder: Path) -> None:
    contenders = [Contender("set", "net", start, TINY, (1.0, 2.0), (0.0, 0.01)) for start in ("pretrained", "scratch")]
    seen: list[tuple[str, str, float, float, int]] = []

    everything = {**GRID, **FINAL}

    def conduct(seeds: int, accuracies: Any = everything) -> Results:
        results = Results(folder / "results.csv")
        jobs = Trainings(
            contenders, results, 0, seeds,
            lambda row: seen.append((row.start, row.stage, row.lr, row.weight_decay, row.seed)),
        )  # fmt: skip
        inline.run(jobs, pretend(accuracies))
        assert not jobs.in_flight and not jobs.left
        return Results(folder / "results.csv")

    results = conduct(2)
    assert [one[1] for one in seen] == ["grid"] * 8 + ["final"] * 4
    assert all(one[2:4] == (2.0, 0.01) for one in seen[8:]) and [one[4] for one in seen[8:]] == [0, 1, 0, 1]
    assert len(results) == 12 and contenders[0].best(results, 0) == (2.0, 0.01)
    conduct(2)
    assert len(seen) == 12
    conduct(3)  # more seeds go on from these
    assert seen[12:] == [("pretrained", "final", 2.0, 0.01, 2), ("scratch", "final", 2.0, 0.01, 2)]


def test_what_fails_is_no_better_than_anything_and_ties_go_to_the_first(folder: Path) -> None:
    one = Contender("set", "net", "pretrained", TINY, (1.0, 2.0, 3.0), (0.0,))
    results = Results(folder / "results.csv")
    known = {
        ("grid", 1.0, 0.0): 0.3,
        ("grid", 2.0, 0.0): 0.3,
        ("grid", 3.0, 0.0): "loss is nan",
        ("final", 1.0, 0.0): 0.2,
    }
    inline.run(Trainings([one], results, 0, 1), pretend(known))
    assert one.best(results, 0) == (1.0, 0.0)
    assert [row.error for row in results] == [None, None, "loss is nan", None]
    assert list(Results(folder / "results.csv")) == list(results)  # as it was written

    other = Contender("other", "net", "pretrained", TINY, (3.0, 4.0), (0.0,))
    inline.run(Trainings([other], results, 0, 1), pretend({("grid", lr, 0.0): "no" for lr in (3.0, 4.0)}))
    assert other.best(results, 0) is None and len(results) == 6  # and no final
    assert other.left(results, 0, 3) == []
    third = Contender("third", "net", "pretrained", TINY, (3.0, 4.0), (0.0,))
    assert [trial.stage for trial in third.left(results, 0, 3)] == ["grid"] * 2 + ["final"] * 3
    assert [(trial.lr, trial.seed) for trial in one.left(results, 0, 3)] == [(1.0, 1), (1.0, 2)]


def test_what_may_be_mended_is_tried_again_by_the_next_run_and_what_diverged_is_not(folder: Path) -> None:
    one = Contender("set", "net", "pretrained", TINY, (1.0, 2.0, 3.0, 4.0), (0.0,))
    known = {
        ("grid", 1.0, 0.0): f"{OUT_OF_MEMORY} at batch 8, 16 x 16 pixels",
        ("grid", 2.0, 0.0): f"{WORKER_DIED}, and so did those that tried it again",
        ("grid", 3.0, 0.0): "loss is nan at step 7",
        ("grid", 4.0, 0.0): 0.3,
        ("final", 4.0, 0.0): 0.2,
    }
    results = Results(folder / "results.csv")
    inline.run(Trainings([one], results, 0, 1), pretend(known))
    assert one.left(results, 0, 1) == []
    again = Results(folder / "results.csv")
    assert list(again) == list(results) and one.best(again, 0) == (4.0, 0.0)  # until they are tried
    assert [(trial.stage, trial.lr) for trial in one.left(again, 0, 1)] == [("grid", 1.0), ("grid", 2.0)]
    inline.run(Trainings([one], again, 0, 1), pretend(known | {("grid", 1.0, 0.0): 0.5, ("final", 1.0, 0.0): 0.4}))
    assert one.best(again, 0) == (1.0, 0.0) and one.left(again, 0, 1) == []


def test_a_grid_of_one_needs_no_choice() -> None:
    one = Contender("set", "net", "pretrained", TINY, (1.0,), (0.0,))
    assert one.grid(0) == [] and one.best(Results(Path("none.csv")), 0) == (1.0, 0.0)


# --- what is trained on, and from what -------------------------------------------------------------------------------


def digits() -> InMemoryData:
    found = load_for_training("data", {"_target_": "phinas.training.data.images.digits"}, 0.2)
    assert isinstance(found, InMemoryData)
    return found


def test_the_whole_is_what_is_trained_on_and_what_is_held_out() -> None:
    one = digits()
    both = one.whole()
    assert both.train_count == one.train_count + one.held_out_count and both.test_count == one.test_count
    assert (both.data.train.pixels[: one.train_count] == one.data.train.pixels).all()
    assert (both.data.train.labels[one.train_count :] == one.data.val.labels).all()


def test_the_whole_of_a_folder_is_every_file_once(folder: Path) -> None:
    image_folder("apart", ("train", "val", "test"))
    image_folder("together", ("train", "test"))
    for path, settings in (("apart", {}), ("together", {"val_fraction": 0.25})):
        one = load_for_training(
            "data",
            {"_target_": "phinas.training.data.images.imagefolder", "path": path, "stream": True, **settings},
            0.25,
        )
        assert isinstance(one, StreamedData)
        both = one.whole()
        assert sorted(both.train_files.paths) == sorted([*one.train_files.paths, *one.held_out_files.paths])
        assert all(Path(file).is_file() for file in both.train_files.paths) and both.train_count == len(
            both.train_files
        )
        names = [Path(file).parent.name for file in both.train_files.paths]
        assert [both.classes[label] for label in both.train_files.labels] == names


def test_weights_stand_below_a_fresh_classifier() -> None:
    state = {name: one for name, one in build(TINY, 3).state_dict().items() if not name.startswith("classifier.")}
    module = initial_network(replace(TINY, classes=10), 0, state)
    assert module.classifier.weight.shape == (10, 16) and not module.classifier.weight.any()
    assert all(torch.equal(module.state_dict()[name], one) for name, one in state.items())
    fresh = initial_network(replace(TINY, classes=10), 0, None).state_dict()
    assert not torch.equal(fresh["stem.conv.weight"], state["stem.conv.weight"])


def test_an_evaluator_travels_and_says_the_same_there(folder: Path) -> None:
    state = {name: one for name, one in build(TINY, 3).state_dict().items() if not name.startswith("classifier.")}
    recipes: dict[Start, Any] = {"pretrained": plain_sgd(1, 256, 0.1)}
    evaluator = FineTuning(digits(), recipes, {"net": state}, folder / "kept", 0)
    trial = Trial("set", "net", "pretrained", replace(TINY, classes=10), "grid", 0.1, 0.0, 0)
    found = [list(one(trial, 0)) for one in (evaluator, pickle.loads(pickle.dumps(evaluator)))]
    assert found[0] == found[1] and len(found[0]) == 1
    assert not (folder / "kept").exists()
    assert evaluator.forecast(trial, 1) > 0
    with pytest.raises(EvaluationFailed, match="loss is"):
        list(evaluator(replace(trial, lr=1e12), 0))


def test_statistics_of_norms_move_as_fast_as_there_are_steps_to_move_in() -> None:
    assert norm_momentum(5) == norm_momentum(100) == 0.1
    assert norm_momentum(1000) == pytest.approx(0.01)


# --- the published data sets -----------------------------------------------------------------------------------------


def test_the_eight_data_sets_are_those_of_table_6() -> None:
    assert [(one.name, one.train, one.test, one.classes) for one in DESCRIBED] == [
        ("cifar10", 50000, 10000, 10), ("cifar100", 50000, 10000, 100), ("birdsnap", 47386, 2443, 500),
        ("cars", 8144, 8041, 196), ("flowers", 2040, 6149, 102), ("aircraft", 6667, 3333, 100),
        ("pets", 3680, 3669, 37), ("food101", 75750, 25250, 101),
    ]  # fmt: skip
    flowers = described("flowers")
    assert flowers is not None and described("mine") is None
    flowers.check_classes(102)
    assert flowers.differences(2040, 6149) == ""
    assert flowers.differences(2041, 6149) == "2,041 images to learn from instead of 2,040"
    with pytest.raises(InputError, match="sets.flowers: 10 classes, Flowers has 102"):
        flowers.check_classes(10)


@pytest.mark.parametrize(
    ("name", "millions"), [("b0", 4.01), ("b3", 10.70), ("b4", 17.55), ("b5", 28.34), ("b6", 40.74), ("b7", 63.79)]
)
def test_parameters_are_counted_as_table_5_counts_them(name: str, millions: float) -> None:
    assert round(params_without_classifier(efficientnet(name)) / 1e6, 2) == millions


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.figures
def test_it_transfers_and_tests_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uninterrupted: list[Any]
) -> None:
    tested = []
    test = InMemoryData.test

    def counted(*arguments: Any) -> EvaluationData:
        tested.append(arguments)
        return test(*arguments)

    monkeypatch.setattr(InMemoryData, "test", counted)
    assert main([*SMALL, "name=first"]) == 0
    said = capsys.readouterr().out
    for text in ("pre fine-tuned is", "1,458 images to learn from, 160 held out", "179 for the test", "report.html"):
        assert text in said
    found = rows("first")
    uninterrupted.append(found)
    assert len(found) == 2 + 2 + 2 + 2 and len(tested) == 4  # two grids of two, and their finals
    for start in ("pretrained", "scratch"):
        grid, finals = (
            [row for row in found if row["start"] == start and row["stage"] == stage] for stage in ("grid", "final")
        )
        best = max(grid, key=lambda row: float(row["accuracy"]))
        assert all((row["lr"], row["weight_decay"]) == (best["lr"], best["weight_decay"]) for row in finals)
        assert [row["seed"] for row in finals] == ["0", "1"]
    summary = json.loads(Path("runs/first/summary.json").read_text())
    assert summary["finished"] and summary["complete"]
    assert summary["sets"]["digits"]["images"] == {"train": 1458, "held_out": 160, "test": 179}
    networks = summary["sets"]["digits"]["networks"]
    assert [one["start"] for one in networks] == ["pretrained", "scratch"]

    for one, kept in zip(networks, ("pre", "pre_from_scratch"), strict=True):  # what is kept does what is reported
        arch = read_arch(f"runs/first/digits/{kept}/model.yaml")
        module = build(arch)
        module.load_state_dict(load_weights(f"runs/first/digits/{kept}/weights.safetensors", arch))
        images = load_for_training(
            "data", {"_target_": "phinas.training.data.images.digits", "val_fraction": 0.1}, 0.1
        ).whole()
        score = evaluate(module, test(images, plain_sgd(1, 256, 0.1), 8, torch.device("cpu")))
        assert score.accuracy == one["test"]["seeds"][0]

    before = contents(Path("runs/first"))
    assert main([*SMALL, "name=first", "dry_run=true"]) == 0
    assert "0 trainings, 0" in capsys.readouterr().out and contents(Path("runs/first")) == before
    assert main([*SMALL, "name=first", "recipe.compile=true"]) == 0  # how it is computed may change
    assert rows("first") == found and len(tested) == 4
    assert (
        "<svg" in Path("runs/first/report.html").read_text()
        and "| digits | pre |" in Path("runs/first/table.md").read_text()
    )

    for changed, said in (("recipe.epochs=2", "recipe.epochs=1, not 2"), ("val_fraction=0.2", "sets.digits.images")):
        with pytest.raises(InputError, match=said):
            main([*SMALL, changed, "name=first"])
    assert rows("first") == found


def test_each_weights_go_by_a_name_of_their_own_with_the_stride_they_were_learnt_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, stride in (("a", 1), ("b", 1), ("half", 2)):
        arch = replace(TINY, stem=replace(TINY.stem, stride=stride))
        write_arch(arch, f"{'net' if stride == 1 else name}.yaml")
        save_weights(build(arch, 3).state_dict(), f"{name}.safetensors", {})
    given = ["from=[a.safetensors,b.safetensors,half.safetensors]", "model=[net.yaml,net.yaml,half.yaml]"]
    assert main([*given, "sets.digits=digits", "lr=0.1", "weight_decay=0", "recipe.epochs=1", "dry_run=true"]) == 0
    said = [line.split(" seeds")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in said] == ["net:", "b:", "half:"]
    assert [line[-1 - len("; 3")] for line in said] == ["1", "1", "2"], said


@pytest.mark.slow
def test_killed_and_resumed_it_repeats_nothing(command_environment: dict[str, str], uninterrupted: list[Any]) -> None:
    command = [sys.executable, "-m", "phinas.transfer", *SMALL, "name=killed"]
    process = subprocess.Popen(command, env=command_environment, stdout=subprocess.DEVNULL)
    results = Path("runs/killed/results.csv")
    while process.poll() is None and not (results.exists() and results.read_text().count("\n") > 3):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = results.read_text()
    assert main([*SMALL, "name=killed"]) == 0
    assert results.read_text().startswith(before)
    assert uninterrupted == [] or rows("killed") == uninterrupted[0]


def image_folder(path: str, splits: tuple[str, ...] = ("train", "test"), classes: tuple[str, ...] = ("a", "b")) -> None:
    rng = np.random.default_rng(0)
    for split, name, number in itertools.product(splits, classes, range(4)):
        Path(path, split, name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(Path(path, split, name, f"{number}.png"))


BAD = {
    ("sets={}",): "sets: give one or more data sets",
    ("sets.x=nowhere",): "sets.x: nowhere: no such file or folder",
    ("sets.x=3",): "sets.x=3: it must be the path of its images",
    ("sets.x=no_test",): "sets.x: no test split in no_test",
    ("sets.x=colours",): "sets.x: images of 3 channels, from=pre takes 1",
    ("sets.flowers=colours",): "sets.flowers: 2 classes, Flowers has 102",
    ("sets.x._target_=nobody.loads",): "sets.x: nobody.loads: cannot be found",
    ("sets.digits=digits", "from=nowhere"): "from=nowhere: no such file or folder",
    ("sets.digits=digits", "from=no_test"): "from=no_test: no weights.safetensors there",
    ("sets.digits=digits", "from=[]"): "from=[]: give at least one",
    ("sets.digits=digits", "from=[pre,pre]"): "two are called pre",
    ("sets.digits=digits", "from=other.safetensors"): "weights alone; give their network",
    ("sets.digits=digits", "from=other.safetensors", "model=[pre/model.yaml,efficientnet_b0]"): "2 networks for 1",
    ("sets.digits=digits", "from=other.safetensors", "model=pre/model.yaml"): "not the weights of this network",
    ("sets.digits=digits", "from=pre", "model=efficientnet_b0"): "which brings its own network",
    ("sets.digits=digits", "lr=0"): "lr=0: it must be a number above 0",
    ("sets.digits=digits", "lr=[]"): "lr=[]: give at least one",
    ("sets.digits=digits", "lr=[0.1,0.1]"): "each must differ",
    ("sets.digits=digits", "weight_decay=-1"): "weight_decay=-1: it must be a number 0 or more",
    ("sets.digits=digits", "scratch_lr=[fast]"): "scratch_lr=fast: it must be a number above 0",
    ("sets.digits=digits", "scratch_epochs=0"): "scratch_epochs=0: it must be a whole number",
    ("sets.digits=digits", "seeds=0"): "seeds=0: it must be a whole number",
    ("sets.digits=digits", "scratch=maybe"): "scratch=maybe: it must be true or false",
    ("sets.digits=digits", "recipe.lr=0.1"): "the grid says it",
    ("sets.digits=digits", "recipe.patience=3"): "nothing is held out to stop by",
    ("sets.digits=digits", "resolution=0"): "resolution=0: it must be a whole number",
    ("sets.digits=digits", "val_fraction=1"): "val_fraction=1: it must be a number",
    ("sets.digits=digits", "name=../up"): "a run's name has letters",
    ("sets.digits=digits", "name=other"): "holds another command's results",
}  # fmt: skip


@pytest.mark.slow
def test_a_mistake_is_one_line_and_leaves_everything_as_it_was(folder: Path) -> None:
    image_folder("no_test", ("train",))
    image_folder("colours")
    save_file({"stem.conv.weight": torch.zeros(1)}, "other.safetensors")
    Path("runs/other").mkdir(parents=True)
    Path("runs/other/config.yaml").write_text("space: mnasnet\n")
    before = contents(folder)
    for given, said in BAD.items():
        typed = [*([] if any(text.startswith("from=") for text in given) else ["from=pre"]), *given, "engine=inline"]
        with pytest.raises(InputError) as error:
            main(typed)
        assert said in str(error.value), (given, str(error.value))
        assert "\n" not in str(error.value)
        assert contents(folder) == before, given
