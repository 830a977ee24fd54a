"""`python -m phinas.train` as people type it: what it writes, how it resumes, and one line for each mistake."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from phinas.command.run_folder import locked
from phinas.files.errors import InputError
from phinas.files.origin import read_origin
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.arch_file import read_arch, write_arch
from phinas.networks.build import build
from phinas.train import __main__ as command
from phinas.train.__main__ import main
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.digits import Digits
from phinas.training.data.load_for_training import with_test
from phinas.weights.checkpoints import load_weights
from tests.conftest import contents, hear_ctrl_c

TINY = Arch(
    stem=Stem(channels=8, stride=2),
    stages=(Stage("mbconv", 3, 2, channels=8, repeats=2, expand=2, se_ratio=0.25),),
    head_channels=16,
    resolution=16,
)
SMALL = ("model=tiny.yaml", "recipe.batch_size=256", "recipe.recalibrate=64", "recipe.epochs=2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_arch(TINY, "tiny.yaml")
    return tmp_path


def metrics(name: str) -> list[dict[str, str]]:
    with open(f"runs/{name}/metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def weights(name: str) -> dict[str, torch.Tensor]:
    return load_file(f"runs/{name}/weights.safetensors")


def summary(name: str) -> Any:
    return json.loads(Path(f"runs/{name}/summary.json").read_text())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_writes_what_the_contract_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "name=first", "loggers=tensorboard"]) == 0
    output = capsys.readouterr().out
    for said in (
        "resolution 16 -> 8, stem stride 2 -> 1, classes 1000 -> 10, channels 3 -> 1",
        "1,588 images to train on, 30 held out, 179 for the test",
        "test accuracy",
        "phinas.generate baseline=runs/first/model.yaml",
    ):
        assert said in output
    run = folder / "runs" / "first"
    assert {file.name for file in run.iterdir()} >= {
        "config.yaml", "metrics.csv", "summary.json", "report.html", "weights.safetensors", "model.yaml",
        "checkpoints", "tensorboard",
    }  # fmt: skip
    assert list((run / "tensorboard").iterdir())
    rows = metrics("first")
    assert [row["epoch"] for row in rows] == ["1", "2"] and [row["step"] for row in rows] == ["6", "12"]
    result = summary("first")
    assert result["test"].keys() == {"accuracy", "top5", "loss"}
    assert result["held_out"]["accuracy"] == float(rows[-1]["held_out_accuracy"])
    assert (result["recipe"], result["data"], result["seed"]) == ("fast", "digits", 0)
    arch = read_arch(run / "model.yaml")
    assert (arch.classes, arch.in_channels, arch.resolution, arch.stem.stride) == (10, 1, 8, 1)
    assert arch.key() == result["key"]
    state = load_weights(run / "weights.safetensors", arch)
    build(arch).load_state_dict(state)
    assert read_origin(run / "model.yaml")["weights"]["sha256"] == result["weights"]["sha256"]
    with safe_open(run / "weights.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    assert len(json.loads(about["class_names"])) == 10 and about["key"] == arch.key()
    assert "<svg" in (run / "report.html").read_text()

    before = contents(run)
    assert main([*SMALL, "name=first"]) == 0
    assert {**contents(run), ".lock": b""} == {**before, ".lock": b""}  # nothing is done twice
    assert "test accuracy" in capsys.readouterr().out


def test_the_test_split_is_read_once_and_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, scores = [], []
    read, evaluate = Digits.test, sys.modules["phinas.training.full.training_run"].evaluate  # type: ignore[attr-defined]
    monkeypatch.setattr(Digits, "test", lambda digits: reads.append(1) or read(digits))  # type: ignore[func-returns-value]
    monkeypatch.setattr(
        "phinas.training.full.training_run.evaluate",
        lambda module, samples, *_: scores.append(len(samples)) or evaluate(module, samples),
    )
    assert main([*SMALL, "name=once"]) == 0
    assert main([*SMALL, "name=once"]) == 0
    assert scores.count(179) == 1
    assert len(reads) == 2  # by each process, so that a fault in it shows at once


def test_a_run_that_goes_on_is_left_alone(folder: Path) -> None:
    with locked(folder / "runs/busy"):
        before = contents(folder)
        with pytest.raises(InputError, match="runs/busy is in use by process"):
            main([*SMALL, "name=busy"])
        assert contents(folder) == before


@pytest.mark.slow
def test_another_seed_is_another_run() -> None:
    main([*SMALL, "name=a"])
    main([*SMALL, "name=b"])
    main([*SMALL, "name=c", "seed=1"])
    assert same(weights("a"), weights("b")) and metrics("a") == metrics("b")
    assert not same(weights("a"), weights("c"))


# ------------------------------------------------------------------------------------------------------------- resuming


# Imports once, then a process of its own for each line on its standard input, whose number it prints.
FORKS = """
import os, sys
from phinas.command.configuration import configuration
from phinas.training.data.images import digits
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.load_for_training import with_test
from phinas.train.__main__ import main
digits(), configuration("phinas.train", "train", ["model=tiny.yaml"])  # what is slow the first time
assert "ray" not in sys.modules  # seconds to import, and one worker needs none of it
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.stdout = open(os.devnull, "w")
        os._exit(main(line.split()))
    print(child, flush=True)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_killed_five_times_it_ends_as_if_it_had_run_through(command_environment: dict[str, str]) -> None:
    """With -9, at random steps; the final weights and the metrics are the same to the bit."""
    settings = ["model=tiny.yaml", "recipe.batch_size=128", "recipe.recalibrate=64", "recipe.epochs=4"]
    assert main([*settings, "name=through"]) == 0
    draw, wait = random.Random(0), 0
    listed = Path("runs/killed/checkpoints/checkpoints.json")
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], env=command_environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forks:
        assert forks.stdin is not None and forks.stdout is not None
        for _ in range(5):
            wait += draw.randint(3, 9)  # steps, of 48
            forks.stdin.write(" ".join([*settings, "name=killed", "checkpoint_seconds=0"]) + "\n")
            forks.stdin.flush()
            child, deadline = int(forks.stdout.readline()), time.monotonic() + 30
            while not listed.exists() or json.loads(listed.read_text())["checkpoints"][-1]["step"] < wait:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL)
            assert not Path("runs/killed/summary.json").exists()
        forks.stdin.close()
    assert main([*settings, "name=killed", "checkpoint_seconds=300"]) == 0
    assert same(weights("killed"), weights("through"))
    assert metrics("killed") == metrics("through")
    assert summary("killed")["test"] == summary("through")["test"]


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(command_environment: dict[str, str]) -> None:
    settings = [*SMALL[:-1], "recipe.epochs=300", "name=stopped"]
    child = subprocess.Popen(
        [sys.executable, "-m", "phinas.train", *settings],
        env=command_environment, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("[1/300]"):
            break
    child.send_signal(signal.SIGINT)
    rest = child.stdout.read()
    assert child.wait(30) == 130
    assert "stopped after step" in rest and "python -m phinas.train model=tiny.yaml" in rest
    step = json.loads(Path("runs/stopped/checkpoints/checkpoints.json").read_text())["checkpoints"][-1]["step"]
    assert f"stopped after step {step:,}" in rest


def interrupted(monkeypatch: pytest.MonkeyPatch, *arguments: str, epochs: int = 1) -> None:
    """A run that is killed after its first epochs."""

    def show(line: str, best: str) -> None:
        nonlocal epochs
        epochs -= 1
        if epochs == 0:
            raise RuntimeError("killed")

    from contextlib import nullcontext

    with monkeypatch.context() as patched:
        patched.setattr(command, "progress", lambda *_: nullcontext(show))
        with pytest.raises(RuntimeError, match="killed"):
            main(list(arguments))


def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*SMALL[:-1], "recipe.epochs=3"]
    assert main([*settings, "name=through"]) == 0
    interrupted(monkeypatch, *settings, "name=run", epochs=2)
    newest = sorted((folder / "runs/run/checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    capsys.readouterr()
    assert main([*settings, "name=run"]) == 0
    output = capsys.readouterr().out
    assert f"{newest.name}: damaged" in output and "going on after step 6 of 18" in output
    assert same(weights("run"), weights("through")) and metrics("run") == metrics("through")


def test_patience_keeps_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL[:-1], "recipe.epochs=12", "recipe.patience=2", "recipe.lr=1e-9", "name=patient"])
    rows, result = metrics("patient"), summary("patient")
    best = max(rows, key=lambda row: (float(row["held_out_accuracy"]), int(row["epoch"])))
    assert result["epoch"] == int(best["epoch"])
    assert result["held_out"]["accuracy"] == float(best["held_out_accuracy"])


# ------------------------------------------------------------------------------------------------------------- transfer


def image_folder(root: Path, classes: int = 3, splits: tuple[str, ...] = ("train", "test"), side: int = 8) -> Path:
    """Images whose brightness is their class's."""
    noise = np.random.default_rng(0)
    for split in splits:
        for label in range(classes):
            place = root / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(12):
                pixels = noise.integers(0, 60, (side, side, 1)) + 60 * label
                Image.fromarray(pixels.astype(np.uint8)[..., 0]).save(place / f"{number}.png")
    return root


OF_IMAGES = ("data=imagefolder", "data.path=images", "data.channels=1", "data.val_fraction=0.3")
TUNED = ("model=tiny.yaml", "recipe=finetune", "recipe.epochs=2", "recipe.batch_size=8", "resolution=8")


def test_weights_go_over_with_a_new_head(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "name=first"])
    image_folder(folder / "images")
    assert main([*TUNED, *OF_IMAGES, "from=runs/first", "name=head", "recipe.head_only=true"]) == 0
    assert "from runs/first/weights.safetensors, with a new head" in capsys.readouterr().out
    before, after = weights("first"), weights("head")
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("classifier"))
    assert after["classifier.weight"].shape[0] == 3 and after["classifier.weight"].any()
    checkpoint = max(Path("runs/first/checkpoints").glob("*.pt"))
    assert main([*TUNED, *OF_IMAGES, f"from={checkpoint}", "name=whole"]) == 0
    assert not torch.equal(weights("whole")["stem.conv.weight"], before["stem.conv.weight"])
    assert summary("whole")["from"]["sha256"]


@pytest.mark.slow
def test_without_a_test_split_a_given_validation_split_is_the_test(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(folder / "images", splits=("train", "val"))
    assert main([*TUNED, *OF_IMAGES, "name=run"]) == 0
    assert summary("run")["images"] == {"train": 24, "held_out": 12, "test": 36}
    assert "these are drawn anew" in capsys.readouterr().out  # without from=
    image_folder(folder / "flat", splits=("",))
    assert main([*TUNED, *OF_IMAGES, "data.path=flat", "name=flat"]) == 0
    assert summary("flat")["test"] is None and "no test split" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what bad options name. Nothing is written there, so that all can share it."""
    folder = tmp_path_factory.mktemp("spoiled")
    image_folder(folder / "images")
    image_folder(folder / "holed")
    for file in (folder / "holed/train/class1").iterdir():
        file.unlink()
    torch.save({"weights": torch.zeros(3)}, folder / "other.pt")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    other = build(Arch(TINY.stem, (Stage("mbconv", 5, 2, channels=8, repeats=2),), in_channels=1, classes=10))
    save_file(other.state_dict(), folder / "another.safetensors")
    write_arch(TINY, folder / "tiny.yaml")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        main([*SMALL, "name=done", "recipe.epochs=1"])
    shutil.copytree(folder / "runs/done", folder / "runs/bare", ignore=shutil.ignore_patterns("checkpoints"))
    (folder / "runs/other").mkdir()
    (folder / "runs/other/config.yaml").write_text(yaml.safe_dump({"budget": 3}))
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=efficientnet_b99"], "model=efficientnet_b99"),
        (["model=missing.yaml"], "missing.yaml"),
        (["recipe=slow"], "recipe=slow: there is no such recipe"),
        (["recipe.epoch=3"], "epoch"),
        (["recipe.optimizer.beta=3"], "beta"),
        (["recipies=fast"], "did you mean recipe"),
        (["seed=-1"], "seed=-1"),
        (["loggers=[tensorboard,paper]"], "loggers=paper: there is no such logger; allowed: tensorboard, "),
        (["checkpoint_seconds=-1"], "checkpoint_seconds=-1"),
        (["resolution=0"], "resolution=0"),
        (["stem_stride=x"], "stem_stride=x"),
        (["from=missing.pt"], "missing.pt: No such file"),
        (["recipe.head_only=true", "recipe.recalibrate=0"], "recipe.head_only=true: it takes from=..."),
        (["from=other.pt"], "other.pt: names neither ours"),
        (["from=broken.safetensors"], "broken.safetensors: damaged"),
        (["from=another.safetensors"], "from=another.safetensors: not the weights of this network"),
        (["from=runs/done", *OF_IMAGES], "it has 10 classes, the data 3; recipe=finetune gives a new head"),
        (["data=imagefolder", "data.path=holed"], "class1: no images"),
        (["data=imagefolder", "data.path=nowhere"], "nowhere: no such file or folder"),
        (["recipe.accumulate=20", *OF_IMAGES], "recipe.accumulate=20: a worker's 24 images of a batch must have parts"),
        (["name=done", "recipe.lr=0.3"], "was trained with recipe.lr=0.4, not 0.3; give another name="),
        (["name=done", "seed=3"], "was trained with seed=0, not 3"),
        (["name=done", *OF_IMAGES], "was trained with"),
        (["name=other"], "holds another command's results"),
        (["name=bare"], "holds results without their checkpoints"),
        (["name=../up"], "name=../up"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    spoiled: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(spoiled)
    before = contents(spoiled)
    with pytest.raises(InputError) as caught:
        main([*SMALL, "recipe.epochs=1", *arguments])
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert contents(spoiled) == before


@pytest.mark.slow
def test_a_checkpoint_of_another_network_names_the_parameters(folder: Path) -> None:
    main([*SMALL, "name=done"])
    write_arch(replace(TINY, head_channels=24), "wider.yaml")
    main([*SMALL, "model=wider.yaml", "name=wider"])
    for file in Path("runs/wider/checkpoints").glob("*.pt"):  # listed as if they were its own
        list_of = [json.loads((folder / f"runs/{name}/checkpoints/checkpoints.json").read_text()) for name in NAMES]
        list_of[0]["checkpoints"] = list_of[1]["checkpoints"]
        (folder / "runs/done/checkpoints" / file.name).write_bytes(file.read_bytes())
        (folder / "runs/done/checkpoints/checkpoints.json").write_text(json.dumps(list_of[0]))
    before = contents(folder)
    with pytest.raises(InputError) as caught:
        main([*SMALL, "name=done"])
    assert "runs/done/checkpoints: of another network: head.conv.weight is [24, 8, 1, 1]" in str(caught.value)
    assert "\n" not in str(caught.value) and contents(folder) == before


NAMES = ("done", "wider")


def test_a_diverging_run_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "recipe.lr=1e30", "name=wild"]) == 1
    assert "failed: loss is" in capsys.readouterr().out
    assert not Path("runs/wild/summary.json").exists()


def test_a_logger_never_stops_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __init__(self, *_: object, **__: object) -> None:
            raise OSError("no space\nleft")

    monkeypatch.setattr("tensorboardX.SummaryWriter", Broken)
    assert main([*SMALL, "name=run", "loggers=[tensorboard]"]) == 0
    assert capsys.readouterr().out.count("warning: tensorboard does not log all: no space left") == 1


def test_out_of_memory_says_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from phinas.training.full import training_loop as fitting

    real = fitting._take_step

    held: list[weakref.ref[torch.Tensor]] = []

    def full(training: Any, batches: Any, recipe: Any, *rest: Any) -> None:
        if batches.size // recipe.accumulate > 100:
            activations = torch.zeros(10)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(training, batches, recipe, *rest)

    def tried(*arguments: Any) -> int | None:
        assert [one() for one in held] == [None]  # what the step that failed held is free
        return fitting.fitting_parts(*arguments)

    monkeypatch.setattr(fitting, "_take_step", full)
    monkeypatch.setattr("phinas.training.full.training_run.fitting_parts", tried)
    with pytest.raises(InputError, match="out of memory at recipe.batch_size=256 and 8 px; recipe.accumulate=2"):
        main([*SMALL, "name=run"])
    assert main([*SMALL, "name=run", "recipe.accumulate=4"]) == 0


def test_a_setting_that_is_taken_back_is_noticed() -> None:
    policy = "recipe.policy={_target_:phinas.training.augment.policies.cutout,share:0.2}"
    assert main([*SMALL, "name=run", "recipe.epochs=1", policy]) == 0
    with pytest.raises(
        InputError, match="trained with recipe.policy._target_=phinas.training.augment.policies.cutout, not None"
    ):
        main([*SMALL, "name=run", "recipe.epochs=1"])


def test_what_chooses_is_neither_trained_on_nor_reported() -> None:
    pixels = np.arange(120, dtype=np.uint8).reshape(120, 1, 1, 1)
    labels = np.arange(120) % 3
    given = Dataset(Images(pixels[:90], labels[:90]), Images(pixels[90:], labels[90:]), ("a", "b", "c"), val_given=True)
    data, test = with_test(given, None, 0.1, 0)
    parts = [set(images.pixels.ravel()) for images in (data.train, data.val, test or data.val)]
    assert [len(part) for part in parts] == [81, 9, 30]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    own = replace(given, val_given=False)
    assert with_test(own, None, 0.1, 0) == (own, None)
    assert with_test(given, own.val, 0.1, 0) == (given, own.val)
