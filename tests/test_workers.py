"""Several workers train what one would: through Ray Train, over deaths, interruptions and another number of workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
import torch

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.arch_file import write_arch
from phinas.train import __main__ as command
from phinas.train.__main__ import main
from phinas.training.full import checkpoint
from phinas.training.full.metrics import read_metrics
from phinas.training.full.training_loop import Epoch
from tests.conftest import contents, hear_ctrl_c

pytestmark = pytest.mark.ray

TINY = Arch(
    stem=Stem(channels=8, stride=2),
    stages=(Stage("mbconv", 3, 2, channels=8, repeats=2, expand=2, se_ratio=0.25),),
    head_channels=16,
    resolution=16,
)
STEADY = ("model=tiny.yaml", "recipe.recalibrate=64", "recipe.drop_connect=0", "recipe.dropout=0")
TWO = ("engine.workers=2", "engine.address=auto")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_arch(TINY, "tiny.yaml")
    return tmp_path


def losses(name: str) -> torch.Tensor:
    """Of each step of the last epoch."""
    state = checkpoint.load_newest(Path(f"runs/{name}/checkpoints"), print)
    assert state is not None
    steps: torch.Tensor = state["losses"]
    return steps


def epochs(name: str) -> list[Epoch]:
    return read_metrics(Path(f"runs/{name}/metrics.csv"))


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_have_the_losses_of_one(two_cpus: None) -> None:
    """Of each of 52 steps, in batches of 30, over whose 2 x 15 images batch norm goes by itself."""
    settings = [*STEADY, "recipe.batch_size=30", "recipe.epochs=1", "recipe.lr=3"]
    assert main([*settings, "name=one"]) == 0
    assert main([*settings, *TWO, "name=two"]) == 0
    assert len(losses("one")) == 52 and losses("one")[-1] < losses("one")[0] - 0.5
    torch.testing.assert_close(losses("two"), losses("one"), atol=1e-3, rtol=0)
    assert epochs("two")[0].score.loss == pytest.approx(epochs("one")[0].score.loss, abs=1e-3)
    kept = {name: json.loads(Path(f"runs/{name}/summary.json").read_text()) for name in ("one", "two")}
    assert kept["two"]["test"]["loss"] == pytest.approx(kept["one"]["test"]["loss"], abs=1e-3)
    left = {name: {Path(file).name for file in contents(Path(f"runs/{name}"))} for name in ("one", "two")}
    assert left["two"] == left["one"]  # nothing of Ray's


@pytest.mark.slow
@pytest.mark.ray
def test_begun_by_one_and_taken_up_by_two_of_which_one_is_killed(
    two_cpus: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*STEADY, "recipe.batch_size=128", "recipe.epochs=6", "engine.norm_over=1"]
    together = [*settings[:-1], *TWO, "engine.norm_over=2", "checkpoint_seconds=0"]
    assert main([*settings, "name=through"]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(command, "progress", lambda *_: nullcontext(stop_at_once))
        with pytest.raises(RuntimeError, match="stopped"):
            main([*settings, "name=run"])
    killer = threading.Thread(target=kill_a_worker_after, args=(Path("runs/run/checkpoints"), 30), daemon=True)
    killer.start()
    assert main([*together, "name=run"]) == 0
    killer.join()
    output = capsys.readouterr().out
    assert "going on after step 12 of 72" in output and "a worker died; all are going on after step" in output
    assert [epoch.number for epoch in epochs("run")] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(epochs("run"), epochs("through"), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-3)


def stop_at_once(line: str, best: str) -> None:
    raise RuntimeError("stopped")


def kill_a_worker_after(checkpoints: Path, step: int) -> None:
    while not any(one.step >= step for one in checkpoint.listed(checkpoints)):
        time.sleep(0.01)
    workers = [one for one in psutil.Process().children(recursive=True) if "RayTrainWorker" in "".join(one.cmdline())]
    assert len(workers) == 2
    workers[-1].kill()


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_saves_and_leaves_no_process(command_environment: dict[str, str]) -> None:
    settings = [*STEADY, "recipe.batch_size=128", "recipe.epochs=900", "engine.workers=2", "name=run"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "phinas.train", *settings],
        env=command_environment, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith("[1/900]"):
            break
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGINT)
    rest = driver.stdout.read()
    assert driver.wait(60) == 130
    assert psutil.wait_procs(family, timeout=60)[1] == []
    step = json.loads(Path("runs/run/checkpoints/checkpoints.json").read_text())["checkpoints"][-1]["step"]
    assert f"stopped after step {step:,} of 10,800" in rest and "python -m phinas.train model=tiny.yaml" in rest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["engine.workers=0"], "engine.workers=0"),
        (["engine.workers=3"], "recipe.batch_size=128: it must be a multiple of engine.workers=3"),
        (["engine.address=auto"], "engine.address=auto: one worker trains here; it takes engine.workers=2"),
        (["engine.workers=2", "engine.norm_over=3"], "engine.norm_over=3: it must divide engine.workers=2"),
        (["engine.workers=2", "engine.cpus_per_worker=0"], "engine.cpus_per_worker=0"),
        (["engine.workers=2", "engine.gpus_per_worker=2"], "engine.gpus_per_worker=2: it must be null, 0 or 1"),
        (["engine.workers=2", "engine.max_failures=-1"], "engine.max_failures=-1"),
        (["engine.workers=2", "recipe.accumulate=64"], "recipe.accumulate=64: a worker's 64 images"),
        (["engine.workers=2", "recipe.compile=true"], "recipe.compile=true: it takes engine.workers=1, not 2"),
        (["engine.workers=2", "engine.address=nowhere"], "engine.address=nowhere: it must be null, auto, or host:port"),
        (["engine.worker=2"], "worker"),
        (["engine=ray"], "engine"),
    ],
)
def test_bad_settings_are_one_line_and_nothing_is_written(folder: Path, arguments: list[str], said: str) -> None:
    refused(folder, [*STEADY, "recipe.batch_size=128", *arguments], said)


@pytest.mark.slow
@pytest.mark.ray
def test_more_workers_than_there_is_room_for(two_cpus: None, folder: Path) -> None:
    settings = [*STEADY, "recipe.batch_size=128", "engine.address=auto", "engine.workers=4"]
    refused(folder, settings, "engine.workers=4: there is room for 2, with 1 CPU and 0 GPUs each")
    refused(
        folder, [*settings[:-1], "engine.workers=2", "engine.cpus_per_worker=2"], "there is room for 1, with 2 CPUs"
    )


def refused(folder: Path, arguments: list[str], said: str) -> None:
    before = contents(folder)
    with pytest.raises(InputError) as caught:
        main([*arguments, "name=bad"])
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert contents(folder) == before
