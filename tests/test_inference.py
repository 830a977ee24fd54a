"""The inference form: batch norms folded into convolutions, exactly, and nothing else changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from phinas.networks.arch import ACTIVATIONS, BLOCKS, SKIPS, Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0, MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_50
from phinas.weights.inference import folded


def trained(arch: Arch, seed: int = 0) -> nn.Module:
    """As if trained: statistics, scales and shifts of every norm are its own, activations of order 1.

    Images that are drawn afterwards are the same each time.
    """
    torch.manual_seed(seed)
    net = build(arch, seed)
    draw = torch.Generator().manual_seed(seed)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(norm.bias, 0, 0.3, generator=draw)
            norm.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        # Fewer or smaller ones leave norms with hardly any variance, which make rounding grow a hundredfold.
        net.train()(torch.randn(16, arch.in_channels, 64, 64, generator=draw) + 0.5)
    return net.eval()


def difference(logits: Tensor, reference: Tensor) -> float:
    return float((logits - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("arch", [EFFICIENTNET_B0, MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_50])
def test_published_networks_compute_the_same_without_norms(arch: Arch) -> None:
    net = trained(replace(arch, classes=10))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        fast = folded(net)
        assert difference(fast(images), net(images)) < 1e-4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("skip", SKIPS)
def test_every_block_and_skip_folds(block: str, skip: str) -> None:
    stage = Stage(block, 3, 2, 12, 2, {"mbconv": 3, "bottleneck": 0.5}.get(block, 1), skip=skip)
    for activation in ACTIVATIONS:
        net = trained(Arch(Stem(8, pool=True), (stage,), head_channels=0, classes=5, activation=activation))
        images = torch.randn(2, 3, 20, 20)
        assert difference(folded(net)(images), net(images).detach()) < 1e-5


def test_in_float64_folding_is_exact_to_its_rounding() -> None:
    net = trained(replace(EFFICIENTNET_B0, classes=10)).double()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert difference(folded(net)(images), net(images).detach()) < 1e-12


def test_the_network_is_left_as_it_is_and_shares_nothing() -> None:
    net = trained(replace(MOBILENET_V2, classes=10)).train()
    before = copy.deepcopy(net.state_dict())
    fast = folded(net)
    assert net.training and all(parameter.requires_grad for parameter in net.parameters())
    for parameter in fast.parameters():
        parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_structure_and_names_stay_but_for_the_norms() -> None:
    net = build(EFFICIENTNET_B0, seed=0)
    names = [name for name, _ in net.named_modules() if not name.endswith("norm")]
    fast = folded(net)
    assert [name for name, _ in fast.named_modules()] == names
    assert not fast.training and not any(parameter.requires_grad for parameter in fast.parameters())


def test_the_epsilon_is_the_norms_own() -> None:
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.25)
    nn.init.ones_(conv.weight)
    norm.running_var = torch.zeros(1)  # 1 / sqrt(0 + 0.25) = 2
    norm.running_mean = torch.tensor([3.0])
    fused = folded(nn.Sequential(conv, norm))[0]  # type: ignore[index]
    assert (fused.weight.item(), fused.bias.item()) == (2.0, -6.0)


def test_a_bias_a_plain_norm_and_a_norm_elsewhere() -> None:
    net = nn.Sequential(
        nn.BatchNorm2d(3),  # before: cannot be folded where the convolution pads with zeros
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4, affine=False),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, track_running_stats=False),  # its statistics are those of each batch
    )
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(8, 3, 8, 8) * 2 + 1)
    fast = folded(net)
    images = torch.randn(4, 3, 8, 8)
    assert difference(fast(images), net.eval()(images).detach()) < 1e-5
    assert [name for name, _ in fast.named_children()] == ["0", "1", "3", "4"]


def test_layout_dtype_and_random_generator() -> None:
    net = build(EFFICIENTNET_B0, seed=0).to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = torch.get_rng_state()
    fast = folded(net)
    assert torch.equal(state, torch.get_rng_state())
    assert {parameter.dtype for parameter in fast.parameters()} == {torch.bfloat16}
    stem = fast.get_submodule("stem.conv")
    assert isinstance(stem, nn.Conv2d) and stem.weight.is_contiguous(memory_format=torch.channels_last)


class Doubled(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        for layer in self:
            images = 2 * layer(images)
        return images


def shared_activation() -> nn.Module:
    activation = nn.ReLU()
    return nn.Sequential(activation, nn.Conv2d(3, 4, 1), activation, nn.BatchNorm2d(4))


def hooked() -> nn.Module:
    conv = nn.Conv2d(3, 4, 1)
    conv.register_forward_hook(lambda module, given, output: output.relu())
    return nn.Sequential(conv, nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    "make", [shared_activation, hooked, lambda: Doubled(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))]
)  # fmt: skip
def test_where_something_comes_between_nothing_is_folded(make: Callable[[], nn.Module]) -> None:
    net = make()
    with torch.no_grad():
        net(torch.randn(8, 3, 8, 8) * 2 + 1)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(folded(net)(images), net.eval()(images))


def test_layers_in_two_places_fold_with_what_follows_them() -> None:
    conv = nn.Conv2d(3, 3, 1)
    net = nn.Sequential(conv, nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3))
    with torch.no_grad():
        net(torch.randn(8, 3, 8, 8) * 2 + 1)
    fast, images = folded(net), torch.randn(4, 3, 8, 8)
    assert difference(fast(images), net.eval()(images).detach()) < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
