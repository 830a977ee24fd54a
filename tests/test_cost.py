"""Cost: the published figures to the last digit, and agreement with what the built modules really compute."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from phinas.networks.arch import ACTIVATIONS, BLOCKS, SKIPS, Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.cost import Cost, cost
from phinas.networks.network import build_network, cost_of, count
from phinas.networks.reference import EFFICIENTNET_B0, MOBILENET_V2, NAMES, RESNET_50, efficientnet, reference
from phinas.networks.scale import scale
from tests.conftest import every_network

# macs, params of an independent counter: conv + FC multiply-adds with squeeze-excitation, no biases. The params of
# EfficientNet, MobileNetV2 and ResNet are those of torchvision.
GOLDEN = {
    "efficientnet_b0": (385_814_752, 5_288_548),
    "efficientnet_b1": (686_802_832, 7_794_184),
    "efficientnet_b2": (993_561_872, 9_109_994),
    "efficientnet_b3": (1_827_141_392, 12_233_232),
    "efficientnet_b4": (4_393_771_024, 19_341_616),
    "efficientnet_b5": (10_266_384_752, 30_389_784),
    "efficientnet_b6": (19_067_593_536, 43_040_704),
    "efficientnet_b7": (37_745_884_192, 66_347_960),
    "mobilenet_v2": (300_774_272, 3_504_872),
    "resnet50": (4_089_184_256, 25_557_032),
    # the figures below were counted here first, and agree with all the digits that are published
    "efficientnet_b8": (62_597_461_568, 87_413_142),
    "efficientnet_l2": (475_703_653_280, 480_309_308),
    "mnasnet_a1": (311_579_072, 3_887_038),
    "mnasnet_b1": (314_415_872, 4_383_312),
    "mobilenet_v1": (568_740_352, 4_231_976),
    "resnet152": (11_513_626_624, 60_192_808),
}

# millions, of the same counter
ACTIVATIONS_M = {
    "b0": 6.74, "b1": 10.87, "b2": 13.82, "b3": 23.81, "b4": 49.46,
    "b5": 98.82, "b6": 167.34, "b7": 289.87, "b8": 442.80, "l2": 1707.13,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_macs_and_params_of_the_published_networks(name: str) -> None:
    counted = cost(reference(name))
    assert (counted.macs, counted.params) == GOLDEN[name]


def test_activations_of_the_published_networks() -> None:
    assert {name: round(cost(efficientnet(name)).activations / 1e6, 2) for name in ACTIVATIONS_M} == ACTIVATIONS_M
    assert round(cost(RESNET_50).activations / 1e6, 1) == 11.1


def counted_on_meta(arch: Arch) -> Cost:
    return count(lambda: build(arch), (arch.in_channels, arch.resolution, arch.resolution))


@pytest.mark.parametrize("name", every_network("efficientnet_b8", "efficientnet_l2"))
def test_the_built_module_costs_what_the_arithmetic_says(name: str) -> None:
    """At small sides, too, where kernels are wider than the last maps."""
    for arch in (reference(name), replace(reference(name), resolution=32), replace(reference(name), resolution=17)):
        assert counted_on_meta(arch) == cost(arch)


def random_arch(rng: random.Random) -> Arch:
    """Any network at all."""

    def stage() -> Stage:
        block = rng.choice(BLOCKS)
        return Stage(
            block,
            kernel=rng.choice((1, 3, 5, 7)),
            stride=rng.choice((1, 2)),
            channels=rng.randint(1, 24),
            repeats=rng.randint(1, 2),
            expand=rng.choice((0.1, 0.25, 0.5, 1, 1.5, 3, 6)) if block in ("mbconv", "bottleneck") else 1,
            se_ratio=0 if block == "bottleneck" else rng.choice((0, 0.04, 0.25, 1)),
            skip=rng.choice(SKIPS),
        )

    return Arch(
        stem=Stem(rng.randint(1, 16), rng.choice((1, 3, 7)), rng.choice((1, 2, 3)), rng.random() < 0.3),
        stages=tuple(stage() for _ in range(rng.randint(1, 3))),
        head_channels=rng.choice((0, 1, 30)),
        activation=rng.choice(ACTIVATIONS),
        resolution=rng.randint(16, 64),
        classes=rng.randint(1, 20),
        in_channels=rng.randint(1, 4),
    )


def counted_by_hooks(arch: Arch) -> Cost:
    """A second counter, several times as fast as torch's: weights per output element times output elements."""
    macs = activations = 0

    def add(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal macs, activations
        macs += output.numel() * module.weight[0].numel()
        activations += output.numel() if isinstance(module, nn.Conv2d) else 0

    with torch.device("meta"), torch.inference_mode():
        net = build(arch).eval()
        params = sum(p.numel() for p in net.parameters())
        for module in list(net.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(add)
            for name in ("norm", "activation"):  # they cost nothing here, and most of the time
                if hasattr(module, name):
                    setattr(module, name, nn.Identity())
        net(torch.empty(1, arch.in_channels, arch.resolution, arch.resolution))
    return Cost(macs, params, activations)


@pytest.mark.slow
def test_any_module_costs_what_the_arithmetic_says() -> None:
    rng = random.Random(0)
    for number in range(200):
        arch = random_arch(rng)
        assert cost(arch) == counted_by_hooks(arch), arch
        if number < 10:
            assert cost(arch) == counted_on_meta(arch), arch


@pytest.mark.parametrize("arch", [EFFICIENTNET_B0, MOBILENET_V2, RESNET_50])
def test_cost_rises_with_each_dimension(arch: Arch) -> None:
    base = cost(arch)
    for factors in ({"depth": 1.5}, {"width": 1.5}):
        larger = cost(scale(arch, **factors))
        assert larger.macs > base.macs and larger.params > base.params and larger.activations > base.activations
    larger = cost(scale(arch, resolution=320))
    assert larger.macs > base.macs and larger.params == base.params and larger.activations > base.activations


def test_the_cost_of_a_tiny_network_by_hand() -> None:
    arch = Arch(
        stem=Stem(channels=2, kernel=3, stride=2),
        stages=(Stage("mbconv", 3, 2, channels=4, repeats=1, expand=2, se_ratio=0.5, skip="none"),),
        head_channels=0,
        resolution=5,
        classes=3,
        in_channels=1,
    )
    # stem 5 -> 3: 18 weights; expand 8, depthwise 3 -> 2: 36, squeeze 4 -> 1 -> 4: 8 and 5 biases, project 16; FC 12
    assert cost(arch).macs == 18 * 9 + 8 * 9 + 36 * 4 + 8 + 16 * 4 + 12
    assert cost(arch).params == (18 + 4) + (8 + 8) + (36 + 8) + (8 + 5) + (16 + 8) + (12 + 3)
    assert cost(arch).activations == 2 * 9 + 4 * 9 + 4 * 4 + 4 * 4


class Custom:
    """A network of a user's own, with nothing but the two things it must have."""

    def key(self) -> str:
        return "custom"

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


class CustomSmall(Custom):
    input_shape = (3, 32, 32)


class CustomCost(Custom):
    def cost(self) -> Cost:
        return Cost(1, 2, 3)


def test_custom_networks_are_counted_on_the_meta_device_unless_they_count_themselves() -> None:
    assert cost_of(EFFICIENTNET_B0) == cost(EFFICIENTNET_B0)
    assert cost_of(Custom()) == Cost(216 * 224 * 224 + 80, 216 + 8 + 80 + 10, 8 * 224 * 224)
    assert cost_of(CustomSmall()) == Cost(216 * 32 * 32 + 80, 216 + 8 + 80 + 10, 8 * 32 * 32)
    assert cost_of(CustomCost()) == Cost(1, 2, 3)
    assert len(build_network(Custom())) == 4


def test_networks_are_described_and_counted_without_torch() -> None:
    modules = "arch, arch_file, cost, network, reference, scale"
    use = "network.cost_of(reference.RESNET_50); sys.exit('torch' in sys.modules)"
    code = f"import sys; from phinas.networks import {modules}; {use}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_smaller_stem_stride_costs_more() -> None:
    assert cost(replace(EFFICIENTNET_B0, stem=Stem(32, stride=1))).macs > 3.9 * cost(EFFICIENTNET_B0).macs
