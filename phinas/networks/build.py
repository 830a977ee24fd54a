"""From an `Arch` to the torch module it describes, freshly initialised."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from phinas.networks.arch import Arch
from phinas.networks.blocks import Block, activation, branch, conv_norm, shortcut
from phinas.networks.kinds import KINDS


class ConvNet(nn.Module):
    """Stem, stages of blocks, head, global average, dropout and classifier.

    Takes images [batch, in_channels, height, width] of any size (the Arch's resolution is what its cost is counted
    at), gives logits [batch, classes]. On CPUs and on GPUs with half precision `.to(memory_format=channels_last)`
    is the fast layout.
    """

    def __init__(self, stem: nn.Module, stages: nn.Module, head: nn.Module, dropout: float, classifier: nn.Linear):
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.head = head
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.stages(self.stem(images)))
        return self.classifier(self.dropout(features.mean((2, 3))))  # type: ignore[no-any-return]


def build(arch: Arch, seed: int | None = None) -> ConvNet:
    """The network `arch` in training mode, its weights drawn from torch's global generator.

    With a `seed`, from a generator of its own: the same weights each time, and the global one is as before afterwards.
    Under `torch.device("meta")` it has shapes but no weights, and costs no memory.
    """
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build(arch)
    stem = conv_norm(arch, arch.in_channels, arch.stem.channels, arch.stem.kernel, arch.stem.stride)
    if arch.stem.pool:
        stem.add_module("pool", nn.MaxPool2d(3, 2, padding=1))
    channels, index, stages = arch.stem.channels, 0, nn.Sequential()
    for stage in arch.stages:
        blocks = nn.Sequential()
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            blocks.append(
                Block(
                    branch(arch, stage, channels, stride),
                    shortcut(arch, stage, channels, stride),
                    # Linear in depth from 0; the divisor is the number of blocks there are, so the last is below
                    # arch.drop_connect (0.1875 of 0.2 in B0), as in tensorflow/tpu.
                    drop_connect=arch.drop_connect * index / arch.blocks,
                    after=activation(arch) if KINDS[stage.block].activated else None,
                )
            )
            channels, index = stage.channels, index + 1
        stages.append(blocks)
    head: nn.Module = conv_norm(arch, channels, arch.head_channels, 1) if arch.head_channels else nn.Identity()
    net = ConvNet(stem, stages, head, arch.dropout, nn.Linear(arch.head_channels or channels, arch.classes))
    if not net.classifier.weight.is_meta:  # there is nothing to draw, and torch would import its compiler for it
        _initialise(net)
    return net


def _initialise(net: ConvNet) -> None:
    """The initialisers of tensorflow/tpu's MnasNet and EfficientNet; batch norms start as the identity already.

    Every convolution, the 1x1 ones of squeeze-excitation too: normal with variance 2 / fan_out. A depthwise one's
    fan_out is k * k there (its kernel is k x k x C x 1), hence the groups. The classifier: uniform within
    1 / sqrt(classes), which is VarianceScaling(1/3, "fan_out", "uniform"). Biases: 0.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.out_features))
            nn.init.zeros_(module.bias)
    bound = 1 / math.sqrt(net.classifier.out_features)
    nn.init.uniform_(net.classifier.weight, -bound, bound)
