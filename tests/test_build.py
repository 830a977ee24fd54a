"""The built modules: shapes, shortcuts, drop-connect, initialisers, norms, gradients and export."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from phinas.networks.arch import ACTIVATIONS, BLOCKS, SKIPS, Arch, Stage, Stem
from phinas.networks.blocks import Block, PoolShortcut, SqueezeExcite, drop_samples
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0, MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_50, efficientnet


def small(stage: Stage, **fields: object) -> Arch:
    return Arch(Stem(8), (stage,), head_channels=16, resolution=20, classes=5, **fields)  # type: ignore[arg-type]


def only_block(stage: Stage) -> Block:
    block = build(small(stage)).stages[0][0]
    assert isinstance(block, Block)
    return block


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("skip", SKIPS)
def test_every_block_and_skip_runs_forward_and_backward(block: str, skip: str) -> None:
    for kernel, stride, channels in ((3, 1, 8), (5, 2, 12), (3, 2, 4)):
        se_ratio = 0 if block == "bottleneck" else 0.25
        expand = {"mbconv": 3, "bottleneck": 0.5}.get(block, 1)
        net = build(small(Stage(block, kernel, stride, channels, 2, expand, se_ratio, skip)))
        images = torch.randn(2, 3, 20, 20)
        assert net.stem(images).shape == (2, 8, 10, 10)
        side = math.ceil(10 / stride)
        assert net.stages(net.stem(images)).shape == (2, channels, side, side)
        logits = net(images)
        assert logits.shape == (2, 5)
        logits.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("arch", [EFFICIENTNET_B0, MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_50])
def test_the_published_networks_run_at_any_size(arch: Arch) -> None:
    net = build(replace(arch, classes=10)).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        assert net(torch.randn(1, 3, 33, 47)).shape == (1, 10)


def test_b0_is_laid_out_as_its_table_says() -> None:
    with torch.device("meta"):
        net = build(EFFICIENTNET_B0).eval()
        x = net.stem(torch.empty(1, 3, 224, 224))
    shapes = [tuple(x.shape[1:3])]
    for stage in net.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:3]))
    expected = [(32, 112), (16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7), (320, 7)]
    assert shapes == expected
    first, last = net.stages[0][0], net.stages[6][0]
    assert list(dict(first.branch.named_children())) == ["depthwise", "squeeze_excite", "project"]
    assert list(dict(last.branch.named_children())) == ["expand", "depthwise", "squeeze_excite", "project"]
    assert last.branch.squeeze_excite.reduce.out_features == 192 // 4
    assert not hasattr(last.branch.project, "activation")


def test_activations() -> None:
    for name, kind in zip(ACTIVATIONS, (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish), strict=True):
        net = build(small(Stage("mbconv", 3, 1, 8, 1, 6, 0.25), activation=name))
        assert isinstance(net.stem.activation, kind)
        assert isinstance(net.stages[0][0].branch.squeeze_excite.activation, kind)
        assert net.stem.activation.inplace == name.startswith("relu")


@pytest.mark.parametrize(
    ("skip", "stride", "channels", "shortcut"),
    [
        ("identity", 1, 8, nn.Identity),
        ("identity", 2, 8, None),
        ("identity", 1, 9, None),
        ("pool", 1, 8, PoolShortcut),
        ("pool", 2, 12, PoolShortcut),
        ("pool", 2, 7, None),
        ("projection", 1, 8, nn.Identity),
        ("projection", 2, 8, nn.Sequential),
        ("projection", 1, 7, nn.Sequential),
        ("none", 1, 8, None),
    ],
)
def test_shortcuts(skip: str, stride: int, channels: int, shortcut: type[nn.Module] | None) -> None:
    block = only_block(Stage("mbconv", 3, stride, channels, 1, 3, 0, skip))
    assert type(block.shortcut) is (shortcut or type(None))


def test_the_pool_shortcut_averages_and_adds_empty_channels() -> None:
    x = torch.ones(1, 2, 5, 5)
    y = PoolShortcut(stride=2, extra=1)(x)
    assert y.shape == (1, 3, 3, 3)
    assert torch.equal(y[:, :2], torch.ones(1, 2, 3, 3)) and not y[:, 2].any()


def test_a_block_adds_its_shortcut_and_a_bottleneck_then_activates() -> None:
    x = torch.randn(2, 8, 6, 6)
    linear = only_block(Stage("mbconv", 3, 1, 8, 1, 3)).eval()
    assert torch.allclose(linear(x), linear.branch(x) + x)
    rectified = build(small(Stage("bottleneck", 3, 1, 8, 1), activation="relu")).stages[0][0].eval()
    assert torch.allclose(rectified(x), (rectified.branch(x) + x).relu())


def test_squeeze_excitation_gates_channels_by_their_means() -> None:
    gate = SqueezeExcite(EFFICIENTNET_B0, channels=4, squeezed=2)
    x = torch.randn(3, 4, 5, 5)
    hidden = nn.functional.silu(x.mean((2, 3)) @ gate.reduce.weight.T + gate.reduce.bias)
    expected = torch.sigmoid(hidden @ gate.expand.weight.T + gate.expand.bias)
    assert torch.allclose(gate(x), x * expected.reshape(3, 4, 1, 1), atol=1e-6)


@pytest.mark.parametrize("arch", [EFFICIENTNET_B0, RESNET_50])
def test_the_layers_are_stock_pytorch(arch: Arch) -> None:
    """So that every tool which counts, traces, converts or quantises networks knows them."""
    with torch.device("meta"):
        leaves = [module for module in build(arch).modules() if not list(module.children())]
    assert {type(leaf).__module__.split(".")[0] for leaf in leaves} == {"torch"}


def test_drop_connect_rises_linearly_over_the_blocks() -> None:
    """Rate 0.2 * index / blocks: the first drops nothing, the last of B0 0.1875; blocks without a skip never drop."""
    with torch.device("meta"):
        for name, blocks in (("b0", 16), ("b3", 26)):
            every = [block for stage in build(efficientnet(name)).stages for block in stage]
            assert len(every) == blocks
            for index, block in enumerate(every):
                assert block.drop_connect == (0.2 * index / blocks if block.shortcut is not None else 0)
        always = replace(EFFICIENTNET_B0, stages=tuple(replace(s, skip="projection") for s in EFFICIENTNET_B0.stages))
        every = [block for stage in build(always).stages for block in stage]
        assert (every[0].drop_connect, every[-1].drop_connect) == (0, 0.1875)


def test_drop_connect_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    y = drop_samples(torch.ones(4000, 2, 3, 1), 0.25)
    per_sample = y.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert per_sample[:, 0].unique().tolist() == pytest.approx([0, 4 / 3])
    # 4000 draws: the kept share has a standard deviation of 0.007; five of them
    assert abs((per_sample[:, 0] > 0).double().mean().item() - 0.75) < 0.035
    block = Block(nn.Identity(), nn.Identity(), drop_connect=0.5)
    x = torch.ones(64, 1, 1, 1)
    assert set(block(x).flatten().tolist()) == {1.0, 3.0}
    assert torch.equal(block.eval()(x), 2 * x)


def test_initialisers() -> None:
    """Normal with variance 2 / fan_out, a depthwise kernel's fan_out k * k; the classifier uniform; biases zero."""
    torch.manual_seed(0)
    net = build(EFFICIENTNET_B0)

    def off(weight: Tensor, std: float) -> float:
        """The difference from `std` in standard errors of an estimate from that many weights."""
        return abs(weight.std().item() / std - 1) * math.sqrt(2 * weight.numel())

    block = net.stages[5][1].branch
    assert off(net.stem.conv.weight, math.sqrt(2 / (9 * 32))) < 5
    assert off(block.expand.conv.weight, math.sqrt(2 / 1152)) < 5
    assert off(block.depthwise.conv.weight, math.sqrt(2 / 25)) < 5
    assert off(block.squeeze_excite.reduce.weight, math.sqrt(2 / 48)) < 5
    assert off(block.squeeze_excite.expand.weight, math.sqrt(2 / 1152)) < 5
    assert off(block.project.conv.weight, math.sqrt(2 / 192)) < 5
    assert off(net.head.conv.weight, math.sqrt(2 / 1280)) < 5
    bound = 1 / math.sqrt(1000)
    assert 0.999 * bound < net.classifier.weight.abs().max().item() <= bound
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name


@pytest.mark.parametrize(("arch", "momentum", "eps"), [(EFFICIENTNET_B0, 0.01, 1e-3), (RESNET_50, 0.1, 1e-5)])
def test_norms_have_the_constants_of_the_arch(arch: Arch, momentum: float, eps: float) -> None:
    with torch.device("meta"):
        norms = [m for m in build(arch).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((norm.momentum, norm.eps) == (momentum, eps) for norm in norms)


def test_the_weights_come_from_torchs_global_generator() -> None:
    arch = small(Stage("mbconv", 3, 1, 8, 1, 6, 0.25))
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([p.detach().flatten() for p in build(arch).parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_a_module_exports_with_a_free_batch_size() -> None:
    net = build(small(Stage("mbconv", 5, 2, 12, 2, 6, 0.25, "pool"))).eval()
    images = torch.randn(2, 3, 20, 20)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(net, (images,), dynamic_shapes=({0: batch},)).module()
    more = torch.randn(5, 3, 20, 20)
    assert torch.allclose(exported(more), net(more), atol=1e-6)


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    arch = small(Stage("mbconv", 3, 1, 8, 1, 6, 0.25))
    state = torch.get_rng_state()
    one, same, other = (build(arch, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
