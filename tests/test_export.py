"""Exports: checked when written, and equal to ours in an interpreter that cannot import this project."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import sysconfig
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0, RESNET_50
from phinas.weights import export as module_under_test
from phinas.weights.export import ABOUT, FORMS, TOLERANCE, check_forms, export
from search_spaces.mnasnet import MnasNet
from search_spaces.space import decode, sample

TINY = Arch(
    Stem(8),
    (Stage("mbconv", 3, 1, 8, 1, 1, 0.25), Stage("mbconv", 5, 2, 12, 2, 6, 0.25, "pool")),
    head_channels=16,
    resolution=20,
    classes=5,
)
ABOUT_IT = {"scaling": "runs/a/scaling.yaml", "scaling_sha256": "ab" * 32}


def pictures(arch: Arch, count: int, seed: int) -> Tensor:
    """Images with something coarse in them, which tells one from another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, arch.in_channels, 3, 3, generator=generator)
    fine = torch.randn(count, arch.in_channels, arch.resolution, arch.resolution, generator=generator)
    return nn.functional.interpolate(coarse, fine.shape[2:], mode="bilinear") + 0.2 * fine


def trained(arch: Arch) -> nn.Module:
    """As after training: no bias is 0, no norm the identity, and statistics are those of images."""
    net = build(replace(arch, bn_momentum=0.9, drop_connect=0.0), seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
        elif isinstance(module, nn.Linear):
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
    with torch.no_grad():
        net(pictures(arch, 8, seed=3))
    return net


def test_the_forms_are_written_checked_and_described(tmp_path: Path) -> None:
    exported = export(TINY, trained(TINY), tmp_path / "a" / "tiny", "tiny", ("pt2", "onnx", "pytorch"), ABOUT_IT)
    assert [one.form for one in exported] == list(FORMS)
    folder = tmp_path / "a" / "tiny"
    names = ["model.py", "weights.safetensors", "model.onnx", "model.pt2"]
    assert [one.file for one in exported] == [folder / name for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    for one in exported:
        content = one.file.read_bytes()
        assert (one.bytes, one.sha256) == (len(content), sha256(content).hexdigest())
        assert one.difference <= (0 if one.form in ("pytorch", "weights") else TOLERANCE)


def test_where_it_came_from_stands_in_every_file(tmp_path: Path) -> None:
    export(TINY, trained(TINY), tmp_path, "tiny", FORMS, ABOUT_IT)
    about = {"name": "tiny", "arch": TINY.key(), **ABOUT_IT}
    with safetensors.safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert json.loads(file.metadata()["about"]) == about
    assert {one.key: one.value for one in onnx.load(tmp_path / "model.onnx").metadata_props} == about
    extra = {ABOUT: ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert not program.module()(pictures(TINY, 1, seed=2)).requires_grad  # nobody asked for gradients
    assert json.loads(extra[ABOUT]) == about
    text = (tmp_path / "model.py").read_text()
    assert all(value in text for value in about.values())


def test_the_weights_are_ours_and_the_module_is_left_alone(tmp_path: Path) -> None:
    net = trained(TINY).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    export(TINY, net, tmp_path, "tiny", ("weights", "onnx"), {})
    written = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert net.training and set(written) == set(before)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) and torch.equal(written[name], before[name])


def test_a_network_in_half_precision_is_exported_in_single(tmp_path: Path) -> None:
    (weights,) = export(TINY, trained(TINY).bfloat16(), tmp_path, "tiny", ("weights",), {})
    dtypes = {tensor.dtype for tensor in safetensors.torch.load_file(weights.file).values()}
    assert dtypes == {torch.float32, torch.int64}


def test_a_file_that_differs_is_an_error_and_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(TINY, trained(TINY), tmp_path, "tiny", ("pytorch",), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    written = module_under_test.standalone
    monkeypatch.setattr(
        module_under_test, "standalone", lambda *given: written(*given).replace("silu", "relu").replace("SiLU", "ReLU")
    )
    with pytest.raises(RuntimeError, match="^model.py of tiny differs from its network: by "):
        export(TINY, trained(TINY), tmp_path, "tiny", ("pytorch",), {"other": "text"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_that_cannot_be_checked_are_refused(tmp_path: Path) -> None:
    net = build(TINY, seed=0)
    net.classifier.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="^tiny: its weights give logits that are not finite"):
        export(TINY, net, tmp_path, "tiny", ("weights",), {})
    assert not list(tmp_path.iterdir())


def test_forms_are_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_forms([]) == ()
    assert check_forms(["pytorch"]) == ("pytorch", "weights")
    assert check_forms(["pt2", "weights"]) == ("weights", "pt2")
    with pytest.raises(InputError, match="^export=tflite: allowed: pytorch, weights, onnx, pt2$"):
        check_forms(["onnx", "tflite"])
    there = importlib.import_module

    def without_runtime(name: str) -> ModuleType:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return there(name)

    monkeypatch.setattr("importlib.import_module", without_runtime)
    with pytest.raises(
        InputError, match=r"^onnxruntime cannot be imported \(.*\); install the extra: .*phinas\[onnx\]"
    ):
        export(TINY, trained(TINY), tmp_path / "new", "tiny", ("pytorch", "onnx"), {})
    assert not list(tmp_path.iterdir())


# --- elsewhere -------------------------------------------------------------------------------------------------------

# Run as `python -I -S`: without the project's folder, and without the .pth files that would find it.
ELSEWHERE = """
import sys
sys.path[:0] = SITE
for project in ("phinas", "search_spaces", "nas"):
    try:
        __import__(project)
    except ImportError:
        continue
    raise SystemExit(f"{project} can be imported")

import json, torch, onnxruntime
from safetensors.torch import load_file

torch.set_num_threads(THREADS)
seen = load_file("seen.safetensors")
images, logits = seen["images"].clone(), seen["logits"]
sys.path.insert(0, ".")
from model import build

net = build()
net.load_state_dict(load_file("weights.safetensors"))
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
program = torch.export.load("model.pt2").module()
with torch.inference_mode():
    found = {
        "model.py": net.eval()(images),
        "model.onnx": torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]),
        "model.pt2": program(images),
    }
    assert program(images[:1]).shape == logits[:1].shape  # any batch size
    session.run(None, {session.get_inputs()[0].name: images[:1].numpy()})
differences = {name: float((one - logits).abs().max() / logits.abs().max()) for name, one in found.items()}
print(json.dumps({**differences, "equal": torch.equal(found["model.py"], logits)}))
"""


def searched() -> Arch:
    space = MnasNet(resolution=64, classes=100)
    arch = decode(space, sample(space.decisions, np.random.default_rng(0)))
    assert isinstance(arch, Arch)
    return arch


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arch"), [
    ("efficientnet_b0", EFFICIENTNET_B0),
    ("searched", searched()),
    ("resnet50", replace(RESNET_50, resolution=64)),
])  # fmt: skip
def test_the_forms_are_ours_where_this_project_cannot_be_imported(name: str, arch: Arch, tmp_path: Path) -> None:
    net = trained(arch)
    export(arch, net, tmp_path, name, FORMS, ABOUT_IT)
    images = pictures(arch, 3, seed=2)
    with torch.inference_mode():
        logits = net.eval()(images)
    # Far from what rounding could bring about: the images tell apart.
    assert (logits[0] - logits[1]).abs().max() > 100 * TOLERANCE * logits.abs().max()
    safetensors.torch.save_file({"images": images, "logits": logits}, tmp_path / "seen.safetensors")
    site = sorted({sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]})
    program = ELSEWHERE.replace("SITE", repr(site)).replace("THREADS", str(torch.get_num_threads()))
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    assert found.pop("equal") and found.pop("model.py") == 0
    assert max(found.values()) <= TOLERANCE
