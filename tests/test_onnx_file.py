"""ONNX files: what they compute, what is in them, and that ONNX Runtime keeps them in its blocked layout."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from phinas.files.errors import InputError
from phinas.networks.arch import ACTIVATIONS, BLOCKS, SKIPS, Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0, MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_50
from phinas.weights.onnx_file import onnx_runner, write_onnx
from tests.test_inference import difference, trained


@pytest.mark.parametrize("arch", [EFFICIENTNET_B0, MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_50])
def test_published_networks_compute_the_same_for_any_batch(arch: Arch, tmp_path: Path) -> None:
    net = trained(replace(arch, classes=10))
    path = tmp_path / "network.onnx"
    write_onnx(net, torch.randn(1, 3, 65, 96), path)
    run = onnx_runner(path)
    for batch in (1, 5):
        images = torch.randn(batch, 3, 65, 96)
        for laid_out in (images, images.to(memory_format=torch.channels_last)):
            assert difference(run(laid_out), net(images).detach()) < 1e-4


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("skip", SKIPS)
def test_every_block_skip_and_activation(block: str, skip: str, tmp_path: Path) -> None:
    for activation in ACTIVATIONS:
        stages = tuple(
            Stage(block, kernel, 2, channels, 2, {"mbconv": 3, "bottleneck": 0.5}.get(block, 1), se_ratio, skip)
            for kernel, channels, se_ratio in ((3, 12, 0), (5, 20, 0 if block == "bottleneck" else 0.25))
        )
        arch = Arch(Stem(8, pool=True), stages, head_channels=0, in_channels=1, classes=5, activation=activation)
        net = trained(arch)
        images = torch.randn(3, 1, 20, 20)  # the last maps are 2 x 2, then 1 x 1
        write_onnx(net, images, tmp_path / "network.onnx")
        assert difference(onnx_runner(tmp_path / "network.onnx")(images), net(images).detach()) < 1e-5


def test_what_people_find_in_the_file(tmp_path: Path) -> None:
    net = build(EFFICIENTNET_B0, seed=0)
    path = tmp_path / "b0.onnx"
    write_onnx(net, torch.empty(4, 3, 224, 224), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape, images.type) == ("images", ["batch", 3, 224, 224], "tensor(float)")
    assert (logits.name, logits.shape, logits.type) == ("logits", ["batch", 1000], "tensor(float)")
    assert not {"BatchNormalization", "Gemm", "MatMul"} & {node.op_type for node in model.graph.node}
    names = [weight.name for weight in model.graph.initializer]
    assert {"stem.conv.weight", "stages.6.0.branch.project.conv.bias", "classifier.weight"} <= set(names)
    outputs = [output for node in model.graph.node for output in node.output]
    assert len(set(outputs)) == len(outputs) and len(set(names)) == len(names)


def test_onnx_runtime_keeps_maps_in_its_blocked_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else it is slow. Where a processor has no blocked layout, nothing is reordered either.

    Without AVX-512 the blocks are of 8 channels, not 16, and the two gates of 10 channels in B0 do not fill them.
    """
    reordered = 0 if "avx512f" in Path("/proc/cpuinfo").read_text() else 2
    optimised, start = tmp_path / "optimised.onnx", onnxruntime.InferenceSession

    def keep(path: str, options: onnxruntime.SessionOptions, **settings: object) -> onnxruntime.InferenceSession:
        options.optimized_model_filepath = str(optimised)
        return start(path, options, **settings)

    monkeypatch.setattr("onnxruntime.InferenceSession", keep)
    net, images = trained(replace(EFFICIENTNET_B0, classes=10)), torch.randn(1, 3, 64, 64)
    write_onnx(net, images, tmp_path / "b0.onnx")
    for version in (onnxruntime.__version__, "1.24.4"):  # releases before 1.25 have no blocked SiLU
        monkeypatch.setattr("onnxruntime.__version__", version)
        assert difference(onnx_runner(tmp_path / "b0.onnx")(images), net(images).detach()) < 1e-4
        operators = [node.op_type for node in onnx.load(optimised).graph.node]
        assert operators.count("ReorderInput") <= reordered
        assert ("Sigmoid" in operators) != ("QuickGelu" in operators)  # gates' are part of their convolutions


@pytest.mark.slow
def test_from_a_fresh_process_nothing_appears_on_the_terminal(tmp_path: Path) -> None:
    script = (
        "import torch; from phinas.networks.build import build; from phinas.networks.reference import RESNET_50\n"
        "from phinas.weights.onnx_file import write_onnx, onnx_runner\n"
        "images = torch.zeros(2, 3, 64, 64)\n"
        f"write_onnx(build(RESNET_50, seed=0), images, {str(tmp_path / 'net.onnx')!r})\n"
        f"assert onnx_runner({str(tmp_path / 'net.onnx')!r})(images).shape == (2, 1000)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_network_is_left_as_it_is(tmp_path: Path) -> None:
    net = build(MOBILENET_V2, seed=0).to(torch.bfloat16)
    write_onnx(net, torch.empty(1, 3, 32, 32), tmp_path / "net.onnx")
    assert net.training and {parameter.dtype for parameter in net.parameters()} == {torch.bfloat16}


def test_half_precision_is_made_single_before_norms_are_folded(tmp_path: Path) -> None:
    net = trained(replace(MOBILENET_V2, classes=10)).bfloat16()
    images = torch.randn(2, 3, 32, 32)
    write_onnx(net, images, tmp_path / "net.onnx")
    assert difference(onnx_runner(tmp_path / "net.onnx")(images), net.float()(images).detach()) < 1e-4


def test_a_layer_without_a_form_is_named(tmp_path: Path) -> None:
    net = build(MOBILENET_V2, seed=0)
    net.stages[2][0].branch.project = nn.GELU()  # type: ignore[index, union-attr, assignment]
    with pytest.raises(InputError, match=r"^stages\.2\.0\.branch\.project: GELU has no ONNX form"):
        write_onnx(net, torch.empty(1, 3, 32, 32), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ImportError("gone"), RuntimeError("built for\nanother numpy")])
def test_missing_packages_name_the_extra(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(InputError, match=r'^onnx cannot be imported \(.+\); install the extra: .*phinas\[onnx\]"$'):
        write_onnx(build(MOBILENET_V2), torch.empty(1, 3, 32, 32), tmp_path / "net.onnx")
    with pytest.raises(InputError, match="^onnxruntime cannot be imported"):
        onnx_runner(tmp_path / "net.onnx")


def test_other_types_and_devices_are_refused(tmp_path: Path) -> None:
    images = torch.zeros(1, 3, 32, 32)
    write_onnx(build(MOBILENET_V2, seed=0), images, tmp_path / "net.onnx")
    with pytest.raises(InputError, match="^dtype=bfloat16: .*float32"):
        onnx_runner(tmp_path / "net.onnx")(images.bfloat16())
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(InputError, match="CUDAExecutionProvider"):
            onnx_runner(tmp_path / "net.onnx", kind="cuda")
