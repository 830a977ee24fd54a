"""Measured latency: it leaves no trace in the process, grows with the work, and the command says and writes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from convnets import timing
from convnets.arch_file import write_arch
from convnets.errors import DoesNotFit, InputError
from convnets.measure import ThisMachine, main
from convnets.reference import EFFICIENTNET_B0
from convnets.timing import Timing, latency

SMALL = replace(EFFICIENTNET_B0, stages=EFFICIENTNET_B0.stages[:2], resolution=32)
QUICK = ("device.seconds=0.05", "device.resolution=32")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class OnVectors:
    """A network of the user's own: images of another shape, and slow by the number of multiplications."""

    input_shape = (1, 16, 16)

    def __init__(self, times: int) -> None:
        self.times = times

    def key(self) -> str:
        return str(self.times)

    def build(self) -> nn.Module:
        class Net(nn.Module):
            def forward(_, images: torch.Tensor) -> torch.Tensor:
                assert images.shape[1:] == (1, 16, 16)
                square = torch.ones(64, 64)
                for _number in range(self.times):
                    square = square @ square
                return images.mean((1, 2, 3))[:, None]

        return Net()


def test_quartiles_surround_the_median_and_more_work_takes_longer() -> None:
    little, much = (latency(OnVectors(times), seconds=0.2) for times in (1, 400))
    for one in (little, much):
        assert 0 < one.lower <= one.median <= one.upper and one.passes >= 5 and one.memory is None
    assert much.lower > 3 * little.lower


def test_the_process_is_as_it_was() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    latency(SMALL, threads=before + 1, seconds=0.02)
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)


def test_a_steady_network_is_measured_no_longer_than_needed() -> None:
    assert latency(SMALL, spread=1e9, seconds=0.5).passes == 20
    assert latency(SMALL, spread=0.0, seconds=0.1).passes > 5


def test_latency_and_throughput_are_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThisMachine, "timing", lambda self, network: Timing(0.2, 0.1, 0.3, passes=5))
    assert ThisMachine(kind="cpu", batch_size=4).costs(SMALL) == pytest.approx({"latency": 0.05, "throughput": 20})


def test_out_of_memory_is_expected_and_a_bug_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_with(error: Exception) -> Any:
        def build(network: object) -> None:
            raise error

        return build

    monkeypatch.setattr(timing, "build_network", fails_with(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(DoesNotFit, match="out of memory at batch 1 on cpu"):
        latency(SMALL)
    monkeypatch.setattr(timing, "build_network", fails_with(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        latency(SMALL)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_memory_is_told() -> None:
    memory = latency(SMALL, kind="cuda", seconds=0.2).memory
    assert memory is not None and memory > 4 * 1000 * 1280  # the classifier at least


def test_the_command_prints_a_table_and_writes_a_folder(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert main(["model=efficientnet_b0", "device=cpu", *QUICK, "name=a"]) == 0
    printed = capsys.readouterr().out
    assert "386M MACs (0.77 GFLOPs)" in printed and "latency of one image" in printed and "1 thread" in printed
    found = json.loads((empty_folder / "runs/a/summary.json").read_text())
    assert found["macs"] == 385814752 and found["params"] == 5288548 and found["device"] == "cpu"
    batch = found["batch_latency"]
    assert batch["lower"] <= batch["median"] <= batch["upper"] and found["resolution"] == 32
    assert found["latency"] == pytest.approx(batch["median"]) and found["throughput"] == pytest.approx(
        1 / batch["median"]
    )
    assert yaml.safe_load((empty_folder / "runs/a/config.yaml").read_text())["provenance"]
    with pytest.raises(InputError, match="name=a: runs/a is there already"):
        main(["model=efficientnet_b0", "device=cpu", *QUICK, "name=a"])


def test_the_command_reads_a_file(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arch(SMALL, empty_folder / "mine.yaml")
    main(["model=mine.yaml", "device=cpu", *QUICK, "name=a", "device.batch_size=2"])
    assert "a batch of 2" in capsys.readouterr().out
    found = json.loads((empty_folder / "runs/a/summary.json").read_text())
    assert found["key"] == SMALL.key() and found["latency"] == found["batch_latency"]["median"] / 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "model is missing; give model=..."),
        (["model=efficientnet_b99"], "model=efficientnet_b99: no file, and no published network; allowed: FILE.yaml"),
        (["model=nowhere.yaml"], "nowhere.yaml"),
        (["model=efficientnet_b0", "device=moon"], "device=moon: there is no such device"),
        (["model=efficientnet_b0", "device=none"], "device=none measures nothing; allowed: here, cpu, cuda"),
        (
            ["model=efficientnet_b0", "device._target_=builtins.object"],
            "device=builtins.object: it has no method costs",
        ),
        (["model=efficientnet_b0", "device=cpu", "device.batch_size=0"], "batch_size=0"),
        (["model=efficientnet_b0", "device=cpu", "device.resolution=0"], "resolution=0"),
        (["model=efficientnet_b0", "device=cpu", "device.seconds=0"], "seconds=0"),
        (["model=efficientnet_b0", "device=cpu", "device.channels_last=3"], "channels_last=3"),
        (["model=efficientnet_b0", "name=../x"], "name=../x"),
        (["model=efficientnet_b0", "threads=2"], "unknown option 'threads'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(empty_folder: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert says in str(caught.value) and not list(empty_folder.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_one_line() -> None:
    with pytest.raises(InputError, match="there is no CUDA device here"):
        main(["model=efficientnet_b0", "device=cuda"])
