"""Every backend computes what the network does, on the CPU and on CUDA, and says in one line what it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from phinas.files.errors import InputError
from phinas.measure.backends import BACKENDS, on_device, prepare
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0
from tests.test_inference import difference, trained

SMALL = Arch(Stem(8), (Stage("mbconv", 3, 1, 8, 2, 4, 0.25),), head_channels=16, resolution=20, classes=5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_computes_the_same_and_leaves_the_network_as_it_is(backend: str) -> None:
    net = on_device(trained(SMALL), "cpu")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images = torch.randn(3, 3, 20, 20).to(memory_format=torch.channels_last)
    run = prepare(backend, net, torch.zeros_like(images))
    logits = run(images)
    assert not logits.requires_grad
    assert difference(logits, net(images).detach()) < 1e-5
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.slow
def test_networks_compiled_one_after_the_other_stay_compiled() -> None:
    """torch.compile gives up on the ninth network of one code object; each has its own, so two do not meet."""
    from torch._dynamo.utils import counters

    images = torch.randn(1, 3, 8, 8)
    counters.clear()
    for channels in (2, 3):
        stage = Stage("conv", 1, 1, channels, 1)
        prepare("compiled", build(replace(SMALL, stages=(stage,), head_channels=0), seed=0).eval(), images)(images)
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["recompile_limit"]


@pytest.mark.parametrize("backend", ["eager", "folded"])
def test_threads_are_those_asked_for_within_and_as_before_afterwards(backend: str) -> None:
    class Threads(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor(torch.get_num_threads())

    before = torch.get_num_threads()
    run = prepare(backend, Threads().eval(), torch.zeros(1, 3, 8, 8), threads=before + 1)
    assert run(torch.zeros(1, 3, 8, 8)).item() == before + 1
    assert torch.get_num_threads() == before


def test_on_device_moves_type_and_layout() -> None:
    net = build(SMALL, seed=0).eval()
    assert on_device(net, "cpu", "bfloat16") is net
    assert {parameter.dtype for parameter in net.parameters()} == {torch.bfloat16}
    weight = net.get_submodule("stem.conv").weight
    assert isinstance(weight, Tensor) and weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 20, 20, dtype=torch.bfloat16)
    assert prepare("folded", net, images)(images).dtype == torch.bfloat16
    on_device(net, "cpu", channels_last=False)
    weight = net.get_submodule("stem.conv").weight
    assert isinstance(weight, Tensor) and weight.is_contiguous() and weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tpu"}, "kind=tpu: it must be cpu or cuda"),
        ({"kind": "cpu", "dtype": "int8"}, "dtype=int8: it must be one of float32, bfloat16, float16"),
    ],
)
def test_wrong_devices_and_types_are_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        on_device(build(SMALL), **settings)


def test_what_a_backend_cannot_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = build(SMALL, seed=0).eval(), torch.zeros(1, 3, 20, 20)
    with pytest.raises(InputError, match="^backend=tvm: it must be one of eager, folded, compiled, onnx$"):
        prepare("tvm", net, images)
    with pytest.raises(InputError, match="^dtype=bfloat16: backend=onnx computes in float32$"):
        prepare("onnx", net.bfloat16(), images.bfloat16())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="^kind=cuda: there is no CUDA device here$"):
        on_device(net, "cuda")


def test_a_missing_compiler_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(images: Tensor) -> Tensor:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in g++\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr("torch.compile", lambda network, **settings: fail)
    with pytest.raises(InputError, match=r"^backend=compiled: .* \(InvalidCxxCompiler: .* in g\+\+\)$"):
        prepare("compiled", build(SMALL).eval(), torch.zeros(1, 3, 20, 20))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "folded", "compiled"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_on_cuda(backend: str, dtype: str, tolerance: float) -> None:
    """float32 to 1e-3: torch lets cuDNN compute in TF32."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    net = trained(replace(EFFICIENTNET_B0, classes=10))
    images = torch.randn(2, 3, 96, 96)
    reference = net(images).detach()
    moved = on_device(net, "cuda", dtype)
    images = images.to("cuda", next(moved.parameters()).dtype, memory_format=torch.channels_last)
    assert difference(prepare(backend, moved, images)(images).float().cpu(), reference) < tolerance
