"""`python -m phinas.generate` as people use it: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matplotlib.figure import Figure

from phinas.files.errors import DoesNotFit, InputError
from phinas.files.origin import file_source, read_origin
from phinas.generate import __main__ as command
from phinas.generate.__main__ import main
from phinas.generate.rules import PRESETS
from phinas.networks.arch import Arch
from phinas.networks.arch_file import read_arch, write_arch
from phinas.networks.build import build
from phinas.networks.compound import Coefficients
from phinas.networks.cost import cost
from phinas.networks.memory import memory
from phinas.networks.named import named, short_name
from phinas.networks.reference import EFFICIENTNET_B0, MOBILENET_V2, efficientnet
from phinas.networks.scaling_file import Scaling, write_scaling
from phinas.weights.export import Exported
from phinas.weights.export import export as really_export
from tests.test_rules import PUBLISHED

pytestmark = pytest.mark.usefixtures("empty_folder")


# A network that is built, measured and exported in a moment.
SMALL = replace(
    EFFICIENTNET_B0,
    stages=EFFICIENTNET_B0.stages[:2],
    stem=replace(EFFICIENTNET_B0.stem, channels=8),
    head_channels=32,
    resolution=32,
    classes=10,
)


@pytest.fixture(autouse=True)
def quick_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test looks at the picture; the others need not wait for it."""
    if request.node.name != "test_the_published_family":
        monkeypatch.setattr(command, "family_figure", lambda family: Figure())


def table(name: str) -> list[dict[str, str]]:
    with (Path("runs") / name / "family.csv").open() as file:
        return list(csv.DictReader(file))


def summary(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path("runs") / name / "summary.json").read_text())
    return content


def scaling_file(folder: Path, **evidence: Any) -> str:
    folder.mkdir(parents=True)
    write_scaling(Scaling(Coefficients(1.3, 1.1, 1.1), 1, "nearest", SMALL, evidence), folder / "scaling.yaml")
    return str(folder / "scaling.yaml")


class Slow:
    """A device of the user's own: so many seconds for each multiplication."""

    def __init__(self, most: float = float("inf")) -> None:
        self.most = most
        self.asked: list[str] = []

    def costs(self, network: Arch) -> dict[str, float]:
        assert network.key() not in self.asked  # nothing is measured twice
        self.asked.append(network.key())
        if cost(network).macs > self.most:
            raise DoesNotFit("too large")
        return {"latency": cost(network).macs / 1e10}


class Stopped:
    """A device whose clock stands still."""

    def costs(self, network: Arch) -> dict[str, float]:
        return {"latency": 0.0}


@pytest.mark.figures
def test_the_published_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phi=[b0,1,2,3,4,5,6,7,8,l2]", "name=all"]) == 0
    rows = table("all")
    assert [row["model"] for row in rows] == [f"efficientnet_{name}" for name in PUBLISHED]
    assert [(int(row["params"]), int(row["macs"])) for row in rows] == list(PUBLISHED.values())
    assert [row["resolution"] for row in rows[:3]] == ["224", "240", "260"]
    assert rows[2]["depth"] == "1.2" and rows[2]["width"] == "1.1" and rows[2]["depth_realised"] == "1.4375"
    for row, name in zip(rows, PUBLISHED, strict=True):
        arch = read_arch(Path("runs/all") / row["file"])
        assert arch == efficientnet(name) and row["key"] == arch.key()
        assert int(row["memory"]) == memory(arch, batch_size=32).total
    printed = capsys.readouterr().out
    assert re.search(r"efficientnet_b2 .* 1\.2 .* 1\.1 .* 260 .* 9\.11M .* 994M .* 2\.58x .* 1\.96x", printed)
    assert "The released table is not the formula" in printed
    assert "1.2, 1.1, 260 px, 994M" in printed and "phi=2: 1.44, 1.21, 296 px, 1.81G" in printed
    assert "written: runs/all/" in printed and "look at it: runs/all/report.html" in printed
    folder = Path("runs/all")
    assert (folder / "family.png").stat().st_size > 10_000 and "efficientnet_b3" in (folder / "report.html").read_text()
    assert yaml.safe_load((folder / "config.yaml").read_text())["provenance"]
    assert "phi=2: 1.44, 1.21, 296 px" in (folder / "README.md").read_text()


def test_without_a_phi_there_are_three_or_all_that_a_rule_which_shrinks_has() -> None:
    main(["scaling=paper", "name=paper"])
    assert [row["model"] for row in table("paper")] == [f"efficientnet_b0_phi{phi}" for phi in (0, 1, 2)]
    main(["scaling=tinynet", "name=tiny"])
    assert [row["model"] for row in table("tiny")] == [*(f"tinynet_{x}" for x in "edcba"), "efficientnet_b0"]


def test_the_formula_is_set_beside_the_published_network_it_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    main(["scaling=paper", "phi=[0.5,0.7,1]", "name=a"])
    printed = capsys.readouterr().out
    assert "B1: 1.1, 1, 240 px, 687M" in printed and "B2: 1.2, 1.1, 260 px, 994M" in printed
    main(["scaling=dwr", "phi=1", "name=b"])
    assert "published" not in capsys.readouterr().out


def test_from_a_scaling_file_with_its_own_baseline_and_hashes_up_the_chain() -> None:
    about = {"name": "runs/first/best.yaml", "sha256": "f" * 64}
    path = scaling_file(Path("runs/second"), baseline=about)
    main([f"scaling={path}", "phi=[0,0.5]", "name=third"])
    assert [row["model"] for row in table("third")] == ["first_phi0", "first_phi0.5"]
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    made_from = summary("third")["made_from"]
    assert made_from["scaling"] == {"name": path, "file": path, "sha256": digest}
    assert made_from["baseline"] == {**about, "key": SMALL.key()}
    written = Path("runs/third/first_phi0.5.yaml")
    assert read_origin(written) == {"made_by": "phinas.generate", "model": "first_phi0.5", "phi": 0.5, **made_from}
    assert read_arch("runs/third/first_phi0.yaml") == SMALL and digest in Path("runs/third/README.md").read_text()


def test_constants_on_a_network_they_were_not_found_for(capsys: pytest.CaptureFixture[str]) -> None:
    path = scaling_file(Path("runs/second"))
    write_arch(MOBILENET_V2, "mine.yaml")
    main([f"scaling={path}", "baseline=mine.yaml", "phi=1", "name=a"])
    assert "were found for another network" in capsys.readouterr().out
    assert summary("a")["made_from"]["baseline"] == {
        "name": "mine.yaml", "key": MOBILENET_V2.key(), **file_source("mine.yaml"),
    }  # fmt: skip
    main([f"scaling={path}", "classes=7", "phi=1", "name=b"])
    assert "another network" not in capsys.readouterr().out
    assert read_arch("runs/b/second_phi1.yaml").classes == 7


def test_a_budget_of_flops_is_met_and_the_next_step_exceeds_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["scaling=paper", "baseline=efficientnet_b0", "target_flops=1e9", "name=a"])
    found = summary("a")
    assert found["budget"]["phi"] == 1.0 and found["budget"]["next_phi"] == 1.1
    assert found["members"][0]["macs"] <= 1e9 < found["budget"]["binding"]["target_flops"]
    assert cost(PRESETS["paper"].grow(EFFICIENTNET_B0, 1.1)).macs == found["budget"]["binding"]["target_flops"]
    printed = capsys.readouterr().out
    assert "efficientnet_b0_phi1 is the largest within target_flops of 1,000,000,000 MACs (2.00 GFLOPs): " in printed
    assert "target_flops binds: phi=1.1 has 1,042,442,064 MACs (2.08 GFLOPs)" in printed


def test_a_budget_of_training_memory() -> None:
    main(["scaling=dwr", "target_memory=2GiB", "mode=train", "batch_size=32", "name=a"])
    found = summary("a")["budget"]
    below, above = (PRESETS["dwr"].grow(EFFICIENTNET_B0, found[name]) for name in ("phi", "next_phi"))
    assert memory(below, 32).total <= 2 * 2**30 < memory(above, 32).total
    assert found["next_phi"] == pytest.approx(found["phi"] + 0.1)
    main(["scaling=paper", "target_memory=2GiB", "mode=infer", "batch_size=32", "dtype=bfloat16", "name=b"])
    assert summary("b")["budget"]["phi"] > 4


def test_a_budget_of_latency_on_a_device_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    slow = "device._target_=tests.test_generate_command.Slow"
    main(["scaling=paper", "target_latency=0.1", slow, "name=a"])
    found = summary("a")
    assert found["members"][0]["macs"] <= 1e9 and found["members"][0]["latency"] <= 0.1
    assert found["budget"]["binding"]["target_latency"] == pytest.approx(0.1042442064)
    assert re.search(r"1,042M MACs \(2.08 GFLOPs\), \d+ blocks, \d+ px: 104 ms", capsys.readouterr().out)
    main(["phi=[0,1,2]", "measure=true", slow, "device.most=7e8", "name=b"])
    assert [row["latency"] for row in table("b")] == ["0.0385814752", "0.0686802832", ""]
    assert "does not fit" in capsys.readouterr().out


def test_what_was_measured_and_found_stays_when_a_family_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    slow = "device._target_=tests.test_generate_command.Slow"
    asked = ["scaling=paper", "target_latency=0.1", slow, "export=weights", "name=a"]

    def interrupted(*_: Any) -> list[Exported]:
        raise KeyboardInterrupt

    monkeypatch.setattr("phinas.weights.export.export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(asked)
    before = summary("a")
    monkeypatch.setattr("phinas.weights.export.export", lambda *_: [])
    monkeypatch.setattr(Slow, "costs", lambda self, network: pytest.fail("measured again"))
    assert main(asked) == 0
    assert summary("a") == before | {"finished": True}


def test_latency_here() -> None:
    write_arch(SMALL, "small.yaml")
    main(["baseline=small.yaml", "phi=[0,1]", "measure=true", "device=cpu", "device.seconds=0.05", "name=a"])
    assert all(0 < float(row["latency"]) < 10 for row in table("a"))


@pytest.mark.slow
def test_exports_are_in_the_readme_and_load_as_it_says(
    tmp_path: Path, command_environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_arch(SMALL, "small.yaml")
    main(["baseline=small.yaml", "scaling=paper", "phi=0", "export=all", "name=a"])
    assert "pytorch, weights, onnx, pt2 of each" in capsys.readouterr().out
    found = summary("a")["members"][0]["exports"]
    assert [one["form"] for one in found] == ["pytorch", "weights", "onnx", "pt2"]
    for one in found:
        assert file_source(Path("runs/a") / one["file"])["sha256"] == one["sha256"]
    assert summary("a")["made_from"]["weights"] == {"seed": 0}
    assert "- weights: seed `0`" in Path("runs/a/README.md").read_text()
    codes = re.findall(r"```python\n(.*?)```", Path("runs/a/README.md").read_text(), re.DOTALL)
    assert len(codes) == 5
    script = "import numpy, torch\n"
    for code in codes:
        kind = "numpy.ones" if "onnx" in code else "torch.ones"
        script += f"images = {kind}((2, 3, 32, 32), dtype={kind.split('.')[0]}.float32)\n{code}\n"
        script += "" if "logits" in code else "logits = net.eval()(images)\n"
        script += "assert tuple(logits.shape) == (2, 10)\n"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "runs/a", env=command_environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_weights_of_somebody_are_exported(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_arch(SMALL, "small.yaml")
    net = build(SMALL, seed=3)
    torch.save(net.state_dict(), "mine.pt")
    main(["baseline=small.yaml", "phi=0", "export=weights", "weights=mine.pt", "name=a"])
    exported = load_file("runs/a/small_phi0/weights.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in net.state_dict().items())
    assert summary("a")["made_from"]["weights"] == file_source("mine.pt")
    torch.save(build(SMALL, seed=4).state_dict(), "mine.pt")
    with pytest.raises(InputError, match="made_from.weights.sha256="):
        main(["baseline=small.yaml", "phi=0", "export=weights", "weights=mine.pt", "name=a"])
    with pytest.raises(InputError, match="weights=mine.pt: they are for one network that is exported"):
        main(["baseline=small.yaml", "export=weights", "weights=mine.pt", "name=b"])
    with pytest.raises(InputError, match="mine.pt"):
        main(["phi=0", "export=weights", "weights=mine.pt", "name=b"])
    assert not Path("runs/b").exists()


@pytest.mark.slow
def test_a_family_needs_no_torch(tmp_path: Path, command_environment: dict[str, str]) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from phinas.generate.__main__ import main\n"
        "main(['phi=[0,1,2]', 'name=a']); main(['target_memory=4GiB', 'name=b'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=command_environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr


def test_the_same_network_twice_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    main(["scaling=dwr", "phi=[3,3.0001]", "name=a"])
    assert "rounding leaves no difference but for dropout: efficientnet_b0_phi3.0001 is" in capsys.readouterr().out


def test_names_of_files(tmp_path: Path) -> None:
    assert short_name("resnet50") == "resnet50" and short_name("runs/first/best.yaml") == "first"
    assert short_name("a/my net!.yaml") == "my_net" and short_name("...yaml") == "network"
    assert short_name("best.yaml") == tmp_path.name
    assert named("model", "efficientnet_b1") == efficientnet("b1")
    with pytest.raises(InputError, match="^gone.yaml: No such file"):
        named("model", "gone.yaml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scaling=unknown"], "scaling=unknown: no file, and no preset; allowed: published, paper, dwr, "),
        (["scaling=damaged.yaml"], "damaged.yaml: not YAML"),
        (["scaling=deep.yaml"], "deep.yaml: not YAML of ours: nested too deeply"),
        (["baseline=huge.yaml"], "huge.yaml: stages[0]: repeats must be below 2^31"),
        (["baseline=long.yaml"], "a network of 2,000,000,002 blocks: memory is counted for at most 100,000"),
        (["scaling=gone.yaml"], "gone.yaml: No such file"),
        (["baseline=damaged.yaml"], "damaged.yaml: not YAML"),
        (["baseline=unknown"], "baseline=unknown: no file, and no published network; allowed: FILE.yaml, "),
        (["scaling=paper", "phi=-1"], "phi=-1: scaling=paper cannot shrink a network; dwr and tinynet can"),
        (["phi=1.5"], "phi=1.5: scaling=published has the steps 0 to 9, efficientnet_b0"),
        (["scaling=paper", "phi=[0,one]"], "phi=one: it must be a number"),
        (["scaling=paper", "phi=nan"], "phi=nan: it must be a number"),
        (["scaling=paper", "phi=1e6"], "phi=1000000.0: with scaling=paper, phi goes from 0 to 37.8"),
        (["phi=[]"], "phi=[]: give one or more"),
        (["phi=[1,b1]"], "phi=[1, 'b1']: one of them is there twice"),
        (["phi=1", "target_flops=1e9"], "phi=1 and target_flops=1000000000.0: give one of them"),
        (["target_flops=1e6"], "target_flops of 1,000,000 MACs (2.0 MFLOPs): the smallest network of sca"),
        (["target_flops=1e6"], "needs 385,814,752 MACs (0.77 GFLOPs); scaling=dwr or scaling=tinynet has smaller ones"),
        (["target_flops=385814751"], "of 385,814,751 MACs (0.77 GFLOPs): the smallest network of scaling=published"),
        (["target_flops=1e300"], "target_flops=1e+300: it must be a number above 0 and below 1e+18"),
        (["target_params=1" + 400 * "0"], "0: it must be a number above 0 and below 1e+18"),
        (["target_params=1"], "target_params of 1 parameters: the smallest network of scaling=published, "),
        (["target_memory=2GiB"], "target_memory of 2.00 GiB (2,147,483,648 bytes): the smallest network of scaling="),
        (["target_flops=0"], "target_flops=0: it must be a number above 0"),
        (["target_flops=many"], "target_flops=many: it must be a number above 0"),
        (["target_params=-1"], "target_params=-1"),
        (["target_memory=0"], "target_memory=0"),
        (["target_memory=much"], "target_memory=much"),
        (["target_latency=0"], "target_latency=0"),
        (["target_latency=1e9"], "target_latency=1000000000.0: it must be a number above 0 and below 60"),
        (["target_latency=0.1", "device=none"], "device=none does not tell the latency"),
        (["measure=true", "device._target_=builtins.object"], "device=builtins.object: it has no method costs"),
        (["measure=true", "device._target_=tests.test_generate_command.Stopped"], "latency=0.0: it must be a number"),
        (["measure=true", "device=moon"], "device=moon: there is no such device"),
        (["measure=maybe"], "measure=maybe: it must be true or false"),
        (["ema=3"], "ema=3: it must be true or false"),
        (["mode=both"], "mode=both: allowed: train, infer"),
        (["dtype=float7"], "dtype=float7: allowed: float32, bfloat16"),
        (["optimiser=hope"], "optimiser=hope: allowed: sgd"),
        (["batch_size=0"], "batch_size=0"),
        (["classes=0"], "classes=0"),
        (["phi_step=0"], "phi_step=0"),
        (["seed=-1"], "seed=-1"),
        (["export=[onnx,floppy]"], "export=floppy: allowed: pytorch, weights, onnx, pt2"),
        (["weights=w.pt"], "weights=w.pt: they are for one network that is exported"),
        (["weights=w.pt", "export=all", "phi=0"], "w.pt: No such file"),
        (["name=../x"], "name=../x"),
        (["name=taken"], "name=taken: runs/taken holds another command's results; give another"),
        (["scales=paper"], "unknown option 'scales'; did you mean scaling?"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(empty_folder: Path, arguments: list[str], says: str) -> None:
    Path("damaged.yaml").write_text("a: [")
    Path("deep.yaml").write_text(5000 * "[")
    for name, repeats in (("huge", 10**400), ("long", 2 * 10**9)):
        content = SMALL.to_dict()
        content["stages"][0]["repeats"] = repeats
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    Path("runs/taken").mkdir(parents=True)
    Path("runs/taken/notes.txt").touch()
    before = sorted(empty_folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(empty_folder.rglob("*")) == before


@pytest.mark.slow
def test_the_command_exits_with_2_and_one_line(tmp_path: Path, command_environment: dict[str, str]) -> None:
    def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "phinas.generate", *arguments],
            cwd=tmp_path, env=command_environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    refused = run(["scaling=paper", "phi=-1"])
    assert refused.returncode == 2 and refused.stderr.startswith("error: phi=-1") and refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert run(["phi=0", "name=a"]).returncode == 0


def test_an_interrupted_family_goes_on_where_it_was_and_a_finished_one_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export_until(last: int) -> list[str]:
        """The networks that are exported from now on; Ctrl-C comes before the one that is number `last`."""
        names: list[str] = []

        def export(arch: Arch, module: Any, folder: Path, name: str, *rest: Any) -> list[Exported]:
            if len(names) == last:
                raise KeyboardInterrupt
            names.append(name)
            return really_export(arch, module, folder, name, *rest)

        monkeypatch.setattr("phinas.weights.export.export", export)
        return names

    write_arch(SMALL, "small.yaml")
    asked = ["baseline=small.yaml", "scaling=paper", "phi=[0,1]", "export=weights", "name=a"]
    names = export_until(1)
    with pytest.raises(KeyboardInterrupt):
        main(asked)
    assert names == ["small_phi0"]
    printed = capsys.readouterr().out
    assert "stopped; 1 of 2 networks are exported" in printed and "name=a" in printed.split("go on with:")[1]
    found = summary("a")
    assert [len(member["exports"]) for member in found["members"]] == [1, 0] and not found["finished"] and table("a")

    names = export_until(5)
    assert main(asked) == 0 and names == ["small_phi1"] and summary("a")["finished"]
    weights = Path("runs/a/small_phi0/weights.safetensors")
    before = {path: path.read_bytes() for path in Path("runs/a").rglob("*") if path.is_file()}
    assert main(asked) == 0 and names == ["small_phi1"]
    assert {path: path.read_bytes() for path in Path("runs/a").rglob("*") if path.is_file()} == before
    assert "is finished, and of these settings: nothing to do" in capsys.readouterr().out

    with pytest.raises(InputError, match="seed=0 \\(now 1\\)"):
        main([*asked, "seed=1"])
    write_arch(replace(SMALL, resolution=40), "small.yaml")
    with pytest.raises(InputError, match="made_from.baseline.key"):
        main(asked)

    # A file that somebody touched is written again, once the family is not finished for want of its summary's word.
    content = summary("a")
    Path("runs/a/summary.json").write_text(json.dumps(content | {"finished": False}))
    write_arch(SMALL, "small.yaml")
    weights.write_bytes(b"")
    half_written = weights.parent / ".export-killed"
    half_written.mkdir()
    assert main(asked) == 0 and names == ["small_phi1", "small_phi0"] and weights.read_bytes() == before[weights]
    assert not half_written.exists()

    # One that is gone is made again in any case.
    weights.unlink()
    assert main(asked) == 0 and names[2:] == ["small_phi0"] and weights.read_bytes() == before[weights]


def test_weights_that_are_no_numbers_are_refused_before_anything_is_written() -> None:
    write_arch(SMALL, "small.yaml")
    state = build(SMALL, seed=0).state_dict()
    state["classifier.bias"][0] = torch.nan
    torch.save(state, "nan.pt")
    with pytest.raises(InputError, match="weights=nan.pt: classifier.bias holds numbers that are not finite"):
        main(["baseline=small.yaml", "phi=0", "export=weights", "weights=nan.pt", "name=a"])
    assert not Path("runs").exists()


def test_a_folder_in_which_a_killed_run_wrote_nothing_yet_is_free() -> None:
    Path("runs/a").mkdir(parents=True)
    for name in (".lock", ".summary.json.x1y2z3"):
        Path("runs/a", name).touch()
    assert main(["phi=0", "name=a"]) == 0 and summary("a")["finished"]


def test_of_two_processes_on_one_name_the_second_writes_nothing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def and_meanwhile_another(*_: Any) -> None:
        monkeypatch.setattr(command, "_introduce", lambda asked: None)
        main(["phi=0", "name=a"])

    monkeypatch.setattr(command, "_introduce", and_meanwhile_another)
    with pytest.raises(InputError, match=r"was started with phi=0 \(now 1\); give another name="):
        main(["phi=1", "name=a"])
    assert [row["phi"] for row in table("a")] == ["0.0"]
