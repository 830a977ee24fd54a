"""Weights under other libraries' names: the names themselves, round trips to the bit, and what is wrong with a file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.reference import (
    EFFICIENTNET_B0,
    MNASNET_A1,
    MNASNET_B1,
    MOBILENET_V1,
    MOBILENET_V2,
    RESNET_50,
    RESNET_152,
    efficientnet,
)  # fmt: skip
from phinas.weights.checkpoints import as_ours, load_weights, read_tensors, save_weights, to_timm, to_torchvision

Rename = Callable[[Arch, dict[str, Tensor]], dict[str, Tensor]]
Forward = Callable[[dict[str, Tensor], Tensor], Tensor]

TINY = Arch(
    Stem(8),
    (
        Stage("mbconv", 3, 1, 8, 1, 1, 0.25),
        Stage("mbconv", 5, 2, 12, 2, 6, 0.25),
        Stage("mbconv", 3, 1, 12, 1, 1.5, 0.25),
    ),
    head_channels=16,
    resolution=32,
    classes=7,
    bn_eps=1e-5,
)
MIXED = replace(
    TINY,
    stages=(
        Stage("separable", 3, 1, 12, 2),
        Stage("conv", 3, 2, 12, 1, skip="none"),
        Stage("mbconv", 5, 1, 12, 2, 3),
        Stage("mbconv", 3, 2, 16, 1, 1, 0.25, "none"),
    ),
)
TINY_RESNET = replace(
    RESNET_50,
    stem=Stem(8, kernel=7, pool=True),
    stages=tuple(replace(stage, channels=stage.channels // 32, repeats=2) for stage in RESNET_50.stages),
    classes=7,
)

# --- golden: B0 in torchvision and timm, written down from their tables ---------------------------------------------

# kernel, channels in and out of each stage, layers, expansion: Table 1 of arXiv 1905.11946.
B0 = ((3, 32, 16, 1, 1), (3, 16, 24, 2, 6), (5, 24, 40, 2, 6), (3, 40, 80, 3, 6), (5, 80, 112, 3, 6),
      (5, 112, 192, 4, 6), (3, 192, 320, 1, 6))  # fmt: skip


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for parameter in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{parameter}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def gate(reduce: str, expand: str, channels: int, squeezed: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{reduce}.weight", (squeezed, channels, 1, 1)
    yield f"{reduce}.bias", (squeezed,)
    yield f"{expand}.weight", (channels, squeezed, 1, 1)
    yield f"{expand}.bias", (channels,)


def b0_in_torchvision() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "features.0.0.weight", (32, 3, 3, 3)
    yield from norm("features.0.1", 32)
    for stage, (kernel, first, outputs, layers, expand) in enumerate(B0, start=1):
        for layer in range(layers):
            inputs = outputs if layer else first
            middle, block = expand * inputs, f"features.{stage}.{layer}.block"
            depthwise = int(expand > 1)
            if expand > 1:
                yield f"{block}.0.0.weight", (middle, inputs, 1, 1)
                yield from norm(f"{block}.0.1", middle)
            yield f"{block}.{depthwise}.0.weight", (middle, 1, kernel, kernel)
            yield from norm(f"{block}.{depthwise}.1", middle)
            yield from gate(f"{block}.{depthwise + 1}.fc1", f"{block}.{depthwise + 1}.fc2", middle, inputs // 4)
            yield f"{block}.{depthwise + 2}.0.weight", (outputs, middle, 1, 1)
            yield from norm(f"{block}.{depthwise + 2}.1", outputs)
    yield "features.8.0.weight", (1280, 320, 1, 1)
    yield from norm("features.8.1", 1280)
    yield "classifier.1.weight", (1000, 1280)
    yield "classifier.1.bias", (1000,)


def b0_in_timm() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv_stem.weight", (32, 3, 3, 3)
    yield from norm("bn1", 32)
    for stage, (kernel, first, outputs, layers, expand) in enumerate(B0):
        for layer in range(layers):
            inputs = outputs if layer else first
            middle, block = expand * inputs, f"blocks.{stage}.{layer}"
            if expand > 1:
                yield f"{block}.conv_pw.weight", (middle, inputs, 1, 1)
                yield from norm(f"{block}.bn1", middle)
                yield f"{block}.conv_dw.weight", (middle, 1, kernel, kernel)
                yield from norm(f"{block}.bn2", middle)
                yield from gate(f"{block}.se.conv_reduce", f"{block}.se.conv_expand", middle, inputs // 4)
                yield f"{block}.conv_pwl.weight", (outputs, middle, 1, 1)
                yield from norm(f"{block}.bn3", outputs)
            else:
                yield f"{block}.conv_dw.weight", (middle, 1, kernel, kernel)
                yield from norm(f"{block}.bn1", middle)
                yield from gate(f"{block}.se.conv_reduce", f"{block}.se.conv_expand", middle, inputs // 4)
                yield f"{block}.conv_pw.weight", (outputs, middle, 1, 1)
                yield from norm(f"{block}.bn2", outputs)
    yield "conv_head.weight", (1280, 320, 1, 1)
    yield from norm("bn2", 1280)
    yield "classifier.weight", (1000, 1280)
    yield "classifier.bias", (1000,)


def shapes(state: dict[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in state.items()]


def meta_state(arch: Arch) -> dict[str, Tensor]:
    with torch.device("meta"):
        return build(arch).state_dict()


def test_b0_has_torchvisions_names_and_shapes_in_their_order() -> None:
    assert shapes(to_torchvision(EFFICIENTNET_B0, meta_state(EFFICIENTNET_B0))) == list(b0_in_torchvision())


def test_b0_has_timms_names_and_shapes() -> None:
    ours, theirs = shapes(to_timm(EFFICIENTNET_B0, meta_state(EFFICIENTNET_B0))), list(b0_in_timm())
    assert sorted(ours) == sorted(theirs) and len(ours) == 360


def test_names_of_resnet_50_and_mobilenet_v2() -> None:
    """Spot checks, from the public listings of their parameters."""
    resnet = dict(shapes(to_torchvision(RESNET_50, meta_state(RESNET_50))))
    assert resnet == dict(shapes(to_timm(RESNET_50, meta_state(RESNET_50)))) and len(resnet) == 320
    for name, shape in {
        "conv1.weight": (64, 3, 7, 7), "bn1.running_var": (64,), "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1), "layer1.0.downsample.1.bias": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3), "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "layer4.2.bn3.weight": (2048,), "fc.weight": (1000, 2048), "fc.bias": (1000,),
    }.items():  # fmt: skip
        assert resnet[name] == shape
    mobilenet = dict(shapes(to_torchvision(MOBILENET_V2, meta_state(MOBILENET_V2))))
    assert len(mobilenet) == 314
    for name, shape in {
        "features.1.conv.0.0.weight": (32, 1, 3, 3), "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,), "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3), "features.2.conv.2.weight": (24, 96, 1, 1),
        "features.17.conv.3.weight": (320,), "features.18.0.weight": (1280, 320, 1, 1),
        "features.18.1.weight": (1280,), "classifier.1.weight": (1000, 1280),
    }.items():  # fmt: skip
        assert mobilenet[name] == shape


# --- meaning: other libraries' networks, written down from their definitions, run on what we give them ---------------


def conv(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    depthwise = weight.shape[1] == 1
    return functional.conv2d(
        x, weight, state.get(f"{name}.bias"), stride, weight.shape[2] // 2, groups=len(weight) if depthwise else 1
    )


def batch_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, variance, scale, shift = (
        state[f"{name}.{one}"][:, None, None] for one in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def squeezed(state: dict[str, Tensor], reduce: str, expand: str, x: Tensor) -> Tensor:
    means = x.mean((2, 3), keepdim=True)
    return x * conv(state, expand, functional.silu(conv(state, reduce, means))).sigmoid()


def in_torchvision(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet: conv, norm, activation as `.0`, `.1`; the gate third from last, its layers fc1 and fc2."""

    def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return functional.silu(batch_norm(state, f"{name}.1", conv(state, f"{name}.0", x, stride)))

    x = layer("features.0", x, 2)
    for number, stage in enumerate(TINY.stages, start=1):
        for repeat in range(stage.repeats):
            block, y, stride = f"features.{number}.{repeat}.block", x, stage.stride if repeat == 0 else 1
            index = 0
            if stage.expand != 1:
                y, index = layer(f"{block}.0", y), 1
            y = layer(f"{block}.{index}", y, stride)
            y = squeezed(state, f"{block}.{index + 1}.fc1", f"{block}.{index + 1}.fc2", y)
            y = batch_norm(state, f"{block}.{index + 2}.1", conv(state, f"{block}.{index + 2}.0", y))
            x = x + y if x.shape == y.shape else y
    x = layer(f"features.{len(TINY.stages) + 1}", x).mean((2, 3))
    return x @ state["classifier.1.weight"].T + state["classifier.1.bias"]


def in_timm(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """DepthwiseSeparableConv (dw bn1 se pw bn2) and InvertedResidual (pw bn1 dw bn2 se pwl bn3)."""
    x = functional.silu(batch_norm(state, "bn1", conv(state, "conv_stem", x, 2)))
    for number, stage in enumerate(TINY.stages):
        for repeat in range(stage.repeats):
            block, y, stride = f"blocks.{number}.{repeat}", x, stage.stride if repeat == 0 else 1
            layers = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
            if stage.expand != 1:
                y = functional.silu(batch_norm(state, f"{block}.bn1", conv(state, f"{block}.conv_pw", y)))
                layers = [("conv_dw", "bn2"), ("conv_pwl", "bn3")]
            (depthwise, first), (project, second) = layers
            y = functional.silu(batch_norm(state, f"{block}.{first}", conv(state, f"{block}.{depthwise}", y, stride)))
            y = squeezed(state, f"{block}.se.conv_reduce", f"{block}.se.conv_expand", y)
            y = batch_norm(state, f"{block}.{second}", conv(state, f"{block}.{project}", y))
            x = x + y if x.shape == y.shape else y
    x = functional.silu(batch_norm(state, "bn2", conv(state, "conv_head", x))).mean((2, 3))
    return x @ state["classifier.weight"].T + state["classifier.bias"]


def in_resnet(state: dict[str, Tensor], x: Tensor) -> Tensor:
    x = batch_norm(state, "bn1", conv(state, "conv1", x, 2)).relu()
    x = functional.max_pool2d(x, 3, 2, padding=1)
    for number, stage in enumerate(TINY_RESNET.stages, start=1):
        for repeat in range(stage.repeats):
            block, y, stride = f"layer{number}.{repeat}", x, stage.stride if repeat == 0 else 1
            y = batch_norm(state, f"{block}.bn1", conv(state, f"{block}.conv1", y)).relu()
            y = batch_norm(state, f"{block}.bn2", conv(state, f"{block}.conv2", y, stride)).relu()
            y = batch_norm(state, f"{block}.bn3", conv(state, f"{block}.conv3", y))
            if f"{block}.downsample.0.weight" in state:
                x = conv(state, f"{block}.downsample.0", x, stride)
                x = batch_norm(state, f"{block}.downsample.1", x)
            x = (x + y).relu()
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(("arch", "there", "theirs"), [
    (TINY, to_torchvision, in_torchvision), (TINY, to_timm, in_timm),
    (TINY_RESNET, to_torchvision, in_resnet), (TINY_RESNET, to_timm, in_resnet),
])  # fmt: skip
def test_each_tensor_is_what_its_name_says(arch: Arch, there: Rename, theirs: Forward) -> None:
    """The same logits, from weights of which no two are alike."""
    net = build(arch, seed=0).double().eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in net.state_dict().values():
        if tensor.dim() == 1:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    images = torch.randn(2, 3, 33, 33, generator=generator).double()
    with torch.inference_mode():
        logits = net(images)
        assert torch.allclose(theirs(there(arch, net.state_dict()), images), logits, rtol=1e-9)


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f"b{number}" for number in range(8)])
def test_round_trips_of_the_published_networks_keep_every_shape(name: str) -> None:
    arch = efficientnet(name)
    state = meta_state(arch)
    for there in (to_torchvision, to_timm):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another bn_eps
            back = as_ours(arch, there(arch, state))
        assert shapes(back) == shapes(state)


@pytest.mark.parametrize(("arch", "layouts"), [
    (TINY, (to_torchvision, to_timm)), (MIXED, (to_timm,)), (TINY_RESNET, (to_torchvision, to_timm)),
    (replace(MNASNET_A1, resolution=32, bn_eps=1e-5), (to_timm,)),
    (replace(MNASNET_B1, resolution=32, bn_eps=1e-5), (to_timm,)),
    (replace(MOBILENET_V2, resolution=32), (to_torchvision, to_timm)),
])  # fmt: skip
def test_round_trips_are_exact(arch: Arch, layouts: tuple[Rename, ...]) -> None:
    state = build(arch, seed=0).state_dict()
    for there in layouts:
        theirs = there(arch, state)
        assert not set(theirs) & set(state) - {"classifier.weight", "classifier.bias"}
        assert len(theirs) == len(state) and sum(t.numel() for t in theirs.values()) == sum(
            t.numel() for t in state.values()
        )
        back = as_ours(arch, theirs)
        assert list(back) == list(state) and all(torch.equal(back[name], state[name]) for name in state)


def test_networks_without_counterpart_are_refused() -> None:
    pool = replace(TINY, stages=(*TINY.stages[:2], replace(TINY.stages[2], skip="pool")))
    kept = replace(TINY, stages=(*TINY.stages[:2], replace(TINY.stages[2], skip="none")))
    for arch, there, message in (
        (MOBILENET_V1, to_torchvision, "have a head and no pooling"),
        (MNASNET_A1, to_torchvision, "torchvision's are of mbconv throughout"),
        (MNASNET_B1, to_torchvision, "without and relu6"),
        (pool, to_timm, r"timm has no network like it: stages\[2\].skip is 'pool'"),
        (kept, to_torchvision, r"stages\[2\].skip is 'none'"),
        (replace(TINY, head_channels=0), to_timm, "have a head"),
        (replace(RESNET_50, head_channels=64), to_timm, "no head"),
        (replace(TINY, stages=(Stage("linear", 3, 1, 8, 1),)), to_timm, "linear blocks"),
        (replace(TINY, stages=(Stage("conv", 3, 1, 8, 1, 1, 0.25),)), to_timm, "squeeze-excitation"),
    ):
        with pytest.raises(InputError, match=message):
            there(arch, meta_state(arch))


# --- files -----------------------------------------------------------------------------------------------------------


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_files_of_every_kind_load(tmp_path: Path) -> None:
    net = build(TINY, seed=0)
    state = net.state_dict()
    theirs = to_timm(TINY, state)
    save_weights(theirs, tmp_path / "timm.safetensors", {"name": "tiny"})
    without_counters = {name: t for name, t in theirs.items() if not name.endswith("num_batches_tracked")}
    for path in (
        tmp_path / "timm.safetensors",
        saved(state, tmp_path / "ours.pt"),
        saved(to_torchvision(TINY, state), tmp_path / "torchvision.pth"),
        saved({"epoch": 3, "state_dict": theirs}, tmp_path / "wrapped.pth"),
        saved({"model": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "parallel.pt"),
        saved({f"_orig_mod.module.{name}": t for name, t in state.items()}, tmp_path / "compiled.pt"),
        saved(without_counters, tmp_path / "old.bin"),
    ):
        loaded = load_weights(path, TINY)
        assert list(loaded) == list(state), path
        assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == state[name].dtype for name in state)
        build(TINY).load_state_dict(loaded)


def test_save_weights_keeps_tensors_and_metadata(tmp_path: Path) -> None:
    state = build(TINY, seed=0).to(memory_format=torch.channels_last).state_dict()  # type: ignore[call-overload]
    save_weights(state, tmp_path / "w.safetensors", {"name": "tiny", "scaling": "published"})
    with safetensors.safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert json.loads(file.metadata()["about"]) == {"name": "tiny", "scaling": "published"}
    written = (tmp_path / "w.safetensors").read_bytes()
    save_weights(state, tmp_path / "w.safetensors", {"name": "tiny", "scaling": "published"})
    assert (tmp_path / "w.safetensors").read_bytes() == written
    read = read_tensors(tmp_path / "w.safetensors")
    assert set(read) == set(state) and all(torch.equal(read[name], state[name]) for name in state)


def test_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    half = build(TINY, seed=0).half().state_dict()
    assert load_weights(saved(half, tmp_path / "half.pt"), TINY)["stem.conv.weight"].dtype == torch.float16


class Anything:
    """What a training program may keep beside the weights."""


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    state = build(TINY, seed=0).state_dict()
    good = saved(state, tmp_path / "good.pt").read_bytes()
    save_weights(state, tmp_path / "good.safetensors", {})
    tensors = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "folder.pt").mkdir()
    for name, content in {
        "text.pt": b"hello", "empty.pt": b"", "half.pt": good[: len(good) // 2], "zeros.pt": bytes(1000),
        "text.safetensors": b"hello", "empty.safetensors": b"", "half.safetensors": tensors[: len(tensors) // 2],
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    saved({"args": Anything(), "state_dict": state}, tmp_path / "pickle.pt")
    saved(torch.ones(3), tmp_path / "tensor.pt")
    saved({"epoch": 3}, tmp_path / "number.pt")
    for name, message in {
        "missing.pt": "No such file", "missing.safetensors": "No such file", "folder.pt": "Is a directory",
        "text.pt": "damaged", "empty.pt": "damaged", "half.pt": "damaged", "zeros.pt": "damaged",
        "text.safetensors": "damaged", "empty.safetensors": "damaged", "half.safetensors": "damaged",
        "pickle.pt": "more than tensors", "tensor.pt": "no state dict", "number.pt": "no state dict",
        "model.onnx": "read from .safetensors",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message) as caught:
            load_weights(tmp_path / name, TINY)
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)


def test_what_does_not_fit_is_named() -> None:
    state = build(TINY, seed=0).state_dict()
    renamed = {name.replace("stages.1.1.branch.project", "stages.1.1.branch.other"): t for name, t in state.items()}
    for wrong, arch, message in (
        (state, replace(TINY, classes=9), "^it: 7 classes, the network has 9$"),
        (to_timm(TINY, state), replace(TINY, classes=9), "^it: 7 classes, the network has 9$"),
        (
            state,
            replace(TINY, head_channels=24),
            r"head.conv.weight is \[16, 12, 1, 1\], the network's is \[24, 12, 1, 1\]",
        ),
        (
            renamed,
            TINY,
            r"stages.1.1.branch.project.conv.weight, \S+, ... \(5 in all\) missing and stages.* unexpected",
        ),
        (to_timm(TINY, state), MIXED, "missing"),
        (to_torchvision(TINY, state), MIXED, "names as in torchvision, but torchvision's are of mbconv throughout"),
        (
            {**state, "classifier.weight": torch.ones(())},
            TINY,
            r"classifier.weight is \[\], the network's is \[7, 16\]",
        ),
        ({"a.weight": torch.ones(1)}, TINY, "neither ours, nor torchvision's, nor timm's: a.weight"),
        (to_timm(TINY, state), TINY_RESNET, "missing"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            as_ours(arch, wrong, "it")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("arch", "there", "says"), [
    (EFFICIENTNET_B0, to_torchvision, "torchvision's weights go with bn_eps 1e-05, the network has 0.001"),
    (replace(EFFICIENTNET_B0, bn_eps=1e-5), to_torchvision, ""),
    (efficientnet("b5"), to_torchvision, ""),
    (replace(efficientnet("b6"), bn_eps=1e-5), to_torchvision, "go with bn_eps 0.001, the network has 1e-05"),
    (EFFICIENTNET_B0, to_timm, "its tf_ weights with 0.001 and another padding"),
    (replace(EFFICIENTNET_B0, bn_eps=1e-5), to_timm, ""),
    (RESNET_152, to_timm, ""),
    (MOBILENET_V2, to_torchvision, ""),
])  # fmt: skip
def test_another_constant_in_batch_norms_is_warned_of(arch: Arch, there: Rename, says: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        as_ours(arch, there(arch, meta_state(arch)))
        as_ours(arch, meta_state(arch))
    assert [says in str(one.message) for one in caught] == ([True] if says else [])
