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

from phinas.files.errors import InputError
from phinas.measure import __main__ as measure
from phinas.measure.__main__ import main
from phinas.measure.machine import Load
from phinas.measure.timing import ThisMachine
from phinas.networks.arch_file import write_arch
from phinas.networks.reference import EFFICIENTNET_B0

pytestmark = pytest.mark.usefixtures("empty_folder")


SMALL = replace(EFFICIENTNET_B0, stages=EFFICIENTNET_B0.stages[:2], resolution=32)
QUICK = ("device.seconds=0.05", "device.resolution=32")


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
    little, much = (ThisMachine("cpu", seconds=0.2).timing(OnVectors(times)) for times in (1, 400))
    for one in (little, much):
        assert 0 < one.lower <= one.median <= one.upper and one.passes >= 5 and one.memory is None
    assert much.lower > 3 * little.lower


def test_a_steady_network_is_measured_no_longer_than_needed() -> None:
    assert ThisMachine("cpu", spread=1e9, seconds=0.5).timing(SMALL).passes == 20
    assert ThisMachine("cpu", spread=0.0, seconds=0.1).timing(SMALL).passes > 5


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
    assert [one["batch_size"] for one in found["measurements"][0]["timings"]] == [2]


@pytest.mark.slow
@pytest.mark.figures
def test_models_and_forms_side_by_side(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arch(SMALL, empty_folder / "mine.yaml")
    arguments = ["model=[mine.yaml,efficientnet_b0]", "backend=[eager,folded,onnx]", "device=cpu", *QUICK, "name=a"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "as fast" in printed and "a batch of 8" in printed and "do not trust" not in printed
    assert max(len(line) for line in printed.splitlines() if line[:1] in "┏┃└") <= 80
    folder = empty_folder / "runs/a"
    assert sorted(path.name for path in folder.iterdir() if path.suffix) == [
        "config.yaml", "measure.png", "report.html", "summary.json",
    ]  # fmt: skip
    found = json.loads((folder / "summary.json").read_text())
    rows = found["measurements"]
    assert [(one["model"], one["backend"]) for one in rows] == [
        (model, backend) for model in ("mine.yaml", "efficientnet_b0") for backend in ("eager", "folded", "onnx")
    ]
    assert rows[0]["key"] == SMALL.key() and rows[3]["macs"] == 385814752 and found["against"] == "mine eager"
    for one in rows:
        assert not one["errors"] and one["difference"] < 1e-4 and one["resolution"] == 32
        assert [timing["batch_size"] for timing in one["timings"]] == [1, 8]
        for timing in one["timings"]:
            assert timing["lower"] <= timing["median"] <= timing["upper"]
            assert timing["throughput"] == pytest.approx(timing["batch_size"] / timing["median"])
    assert rows[0]["timings"][0]["ratio"] == {"median": 1.0, "lower": 1.0, "upper": 1.0}
    assert rows[3]["timings"][0]["ratio"]["median"] > 1.5  # seven stages are more work than two
    assert {"processor", "torch", "onnxruntime", "cores"} <= set(found["machine"]) and found["load"]["cores"] >= 1
    page = (folder / "report.html").read_text()
    assert "efficientnet_b0" in page and "<svg" in page and 'src="http' not in page


def test_one_form_that_has_no_room_is_a_row_that_says_so(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = measure.prepared

    def prepared(module: nn.Module, backend: str, images: torch.Tensor, *rest: Any) -> Any:
        if backend == "folded" and images.shape[0] == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(module, backend, images, *rest)

    monkeypatch.setattr(measure, "prepared", prepared)
    write_arch(SMALL, empty_folder / "mine.yaml")
    assert main(["model=mine.yaml", "backend=[eager,folded]", "device=cpu", *QUICK, "name=a"]) == 0
    eager, folded = json.loads((empty_folder / "runs/a/summary.json").read_text())["measurements"]
    assert len(eager["timings"]) == 2 and len(folded["timings"]) == 1
    assert folded["errors"] == {"8": "out of memory at batch 8 on cpu"}
    assert "out of memory at batch 8" in (empty_folder / "runs/a/report.html").read_text()
    monkeypatch.setattr(measure, "check_works", lambda asked: None)
    with pytest.raises(InputError, match="model=mine.yaml: out of memory at batch 8 on cpu"):
        main(["model=mine.yaml", "backend=folded", "batch_size=8", "device=cpu", *QUICK, "name=b"])
    assert not (empty_folder / "runs/b").exists()


def test_a_batch_that_no_machine_holds_is_one_line(empty_folder: Path) -> None:
    write_arch(SMALL, empty_folder / "mine.yaml")
    with pytest.raises(InputError, match="model=mine.yaml: out of memory at batch 1000000000000 on cpu"):
        main(["model=mine.yaml", "batch_size=1000000000000", "device=cpu", *QUICK, "name=a"])
    assert not (empty_folder / "runs/a").exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "measure", lambda asked: pytest.fail("it was measured"))
    (empty_folder / "runs").write_text("a file")
    with pytest.raises(InputError, match="name=a: runs is there already, and no folder"):
        main(["model=efficientnet_b0", "device=cpu", *QUICK, "name=a"])


def test_outputs_of_a_large_batch_are_compared_by_a_few(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, plain = [], measure.outputs

    def outputs(network: nn.Module, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(images))
        return plain(network, images, *rest)

    monkeypatch.setattr(measure, "outputs", outputs)
    write_arch(SMALL, empty_folder / "mine.yaml")
    assert main(["model=mine.yaml", "backend=[folded]", "batch_size=20", "device=cpu", *QUICK, "name=a"]) == 0
    (one,) = json.loads((empty_folder / "runs/a/summary.json").read_text())["measurements"]
    assert sizes == [8, 8] and one["difference"] < 1e-5


def test_a_form_that_computes_something_else_is_not_to_be_trusted(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = measure.prepared

    def prepared(*given: Any) -> Any:
        one = plain(*given)
        return replace(one, run=lambda: one.run() * 1.01) if given[1] == "folded" else one

    monkeypatch.setattr(measure, "prepared", prepared)
    write_arch(SMALL, empty_folder / "mine.yaml")
    main(["model=mine.yaml", "backend=[eager,folded]", "batch_size=1", "device=cpu", *QUICK, "name=a"])
    (note,) = (
        note for note in json.loads((empty_folder / "runs/a/summary.json").read_text())["notes"] if "trust it" in note
    )
    assert note.startswith("outputs of mine folded differ from the exact ones by 1.0e-02")
    assert "warning: outputs of mine folded" in capsys.readouterr().out


def test_a_busy_machine_is_said_so(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "watch_load", lambda: lambda: Load(cores=4, others=3.2))
    write_arch(SMALL, empty_folder / "mine.yaml")
    main(["model=mine.yaml", "batch_size=1", "device=cpu", "device.threads=5", *QUICK, "name=a"])
    printed = capsys.readouterr().out
    assert "warning: other processes kept 3.2 of 4 cores busy" in printed
    assert "warning: device.threads=5, but this process may use 4 cores" in printed


@pytest.mark.parametrize("place", ["timed", "write_json", "report"])
def test_an_interruption_leaves_nothing(empty_folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    write_arch(SMALL, empty_folder / "mine.yaml")
    monkeypatch.setattr(measure, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["model=mine.yaml", "batch_size=1", "device=cpu", *QUICK, "name=a"])
    assert not (empty_folder / "runs/a").exists()


def test_a_device_of_the_users_own_tells_its_costs(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "board.py").write_text(
        "class Board:\n    def costs(self, network):\n        return {'energy': float(network.resolution)}\n"
    )
    monkeypatch.syspath_prepend(str(empty_folder))
    assert main(["model=efficientnet_b0", "device._target_=board.Board", "name=a"]) == 0
    found = json.loads((empty_folder / "runs/a/summary.json").read_text())
    assert found["costs"] == {"energy": 224.0} and found["params"] == 5288548 and found["device"] == "board.Board"
    assert main(["model=[efficientnet_b0,efficientnet_b1]", "device._target_=board.Board", "name=b"]) == 0
    found = json.loads((empty_folder / "runs/b/summary.json").read_text())
    assert [one["costs"]["energy"] for one in found["measurements"]] == [224.0, 240.0]
    with pytest.raises(InputError, match="backend=onnx: device=board.Board tells costs itself"):
        main(["model=efficientnet_b0", "device._target_=board.Board", "backend=onnx", "name=c"])


def test_the_target_that_earlier_releases_named_still_measures() -> None:
    assert measure.ThisMachine is ThisMachine


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
        (["model=efficientnet_b0", "device=cpu", "device.backend=fast"], "backend=fast: it must be one of eager"),
        (["model=efficientnet_b0", "device=cpu", "device.dtype=int8"], "dtype=int8: it must be one of float32"),
        (["model=efficientnet_b0", "device=cpu", "device.dtype=float16"], "dtype=float16: it is for CUDA"),
        (["model=efficientnet_b0", "device=cpu", "backend=[eager,fast]"], "backend=fast: it must be one of eager"),
        (["model=efficientnet_b0", "device=cpu", "backend=[]"], "backend=[]: give one or more"),
        (
            ["model=efficientnet_b0", "device=cpu", "backend=[eager,onnx]", "device.dtype=bfloat16"],
            "dtype=bfloat16: backend=onnx computes in float32",
        ),
        (["model=[efficientnet_b0,efficientnet_b0]"], "model: efficientnet_b0 is there twice"),
        (["model=[]"], "model=[]: give one or more"),
        (["model=[efficientnet_b0,nowhere]"], "model=nowhere: no file, and no published network"),
        (["model=efficientnet_b0", "batch_size=0"], "batch_size=0: it must be a whole number"),
        (["model=efficientnet_b0", "batch_size=[1,x]"], "batch_size=x: it must be a whole number"),
        (["model=efficientnet_b0", "seed=-1"], "seed=-1: it must be a whole number, 0 or more"),
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
