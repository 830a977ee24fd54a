"""tiny_phi0: a convolutional network for images, in PyTorch alone.

124k MACs (0.25 MFLOPs) and 3,076 parameters at 12 x 12 pixels. Takes images [batch,
1, height, width] of any size, gives logits [batch, 10].

    from model import build
    from safetensors.torch import load_file

    net = build()
    net.load_state_dict(load_file("weights.safetensors"))
    logits = net.eval()(images)

Where it came from:

    scaling_name: paper
    scaling_citation: arXiv 1905.11946, section 4
    baseline_name: tiny.yaml
    baseline_key: cff5f8ce7637339e
    baseline_file: tiny.yaml
    baseline_sha256: 9cb657ba705cedb710da0e542204eb1829a1c6cab70e9b6ad7238351b3aa001a
    weights_seed: 0
    arch: cff5f8ce7637339e
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

RESOLUTION = 12  # side of the images it was made for, pixels


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm and, unless `linear`, activation."""
    layers = OrderedDict(
        conv=nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        ),
        norm=nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01),
    )
    if not linear:
        layers["activation"] = nn.SiLU()
    return nn.Sequential(layers)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, squeezed)
        self.activation = nn.SiLU()
        self.expand = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(self.activation(self.reduce(x.mean((2, 3)))))
        return x * gate.sigmoid()[:, :, None, None]


class Block(nn.Module):
    """`branch` plus its input."""

    def __init__(self, branch: nn.Module, residual: bool) -> None:
        super().__init__()
        self.branch = branch
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.residual:
            y = y + x
        return y


class Stage(NamedTuple):
    """Layers of one kind; the first one strides and changes the channels."""

    kernel: int
    stride: int  # of the first layer; 1 in the others
    channels: int  # that each layer puts out
    layers: int
    expand: int  # middle channels / input channels
    se_ratio: float  # squeezed channels / input channels; 0: not squeezed


def mbconv(stage: Stage, inputs: int, stride: int) -> nn.Sequential:
    """Expand, depthwise convolution, squeeze-excitation, linear projection."""
    middle = stage.expand * inputs
    layers = OrderedDict()
    if stage.expand != 1:
        layers["expand"] = conv_norm(inputs, middle, 1)
    layers["depthwise"] = conv_norm(middle, middle, stage.kernel, stride, groups=middle)
    if stage.se_ratio:
        layers["squeeze_excite"] = SqueezeExcite(middle, int(stage.se_ratio * inputs))
    layers["project"] = conv_norm(middle, stage.channels, 1, linear=True)
    return nn.Sequential(layers)


STAGES = (
    # kernel, stride, channels, layers, expand, se_ratio
    Stage(3, 1, 8, 1, 1, 0.25),
    Stage(3, 2, 16, 2, 2, 0),
)


class TinyPhi0(nn.Module):
    """Images [batch, 1, height, width] to logits [batch, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_norm(1, 8, 3, stride=1)
        self.stages = nn.Sequential()
        inputs = 8
        for stage in STAGES:
            layers = nn.Sequential()
            for layer in range(stage.layers):
                stride = stage.stride if layer == 0 else 1
                branch = mbconv(stage, inputs, stride)
                residual = stride == 1 and inputs == stage.channels
                layers.append(Block(branch, residual))
                inputs = stage.channels
            self.stages.append(layers)
        self.head = conv_norm(inputs, 24, 1)
        self.classifier = nn.Linear(24, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.head(self.stages(self.stem(images)))
        return self.classifier(features.mean((2, 3)))


def build(classes: int = 10) -> TinyPhi0:
    """The network in training mode, its weights drawn from torch's generator.

    Convolutions: normal, variance 2 / fan_out, a depthwise one's being its kernel.
    Classifier: uniform within 1 / sqrt(classes).
    """
    net = TinyPhi0(classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            fan_out //= module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.out_features))
            nn.init.zeros_(module.bias)
    bound = 1 / math.sqrt(classes)
    nn.init.uniform_(net.classifier.weight, -bound, bound)
    return net
