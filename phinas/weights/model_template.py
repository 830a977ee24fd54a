"""The text of `model.py`, and itself the `model.py` of a small network that has all there is.

`phinas.weights.standalone` puts the constants, branches and stages of another network in place of these, and leaves
out what that one does not need: lines marked `#: condition` with what stands under them, then all that nothing names.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

RESOLUTION = 32  # side of the images it was made for, pixels
STEM = (3, 8, 3, 2)  # channels of the images, of its output, kernel, stride
HEAD = 32  # channels of the last convolution  #: head
CLASSES = 10
DROPOUT = 0.2  # of the means that the classifier is fed  #: dropout
DROP_CONNECT = 0.2  # rate at which branches are dropped, reached behind the last  #: drops
BN_EPS, BN_MOMENTUM = 0.001, 0.01


def activation() -> nn.Module:
    return nn.SiLU()


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm and, unless `linear`, activation."""
    pad = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, BN_EPS, BN_MOMENTUM)
    layers = OrderedDict[str, nn.Module](conv=conv, norm=norm)
    if not linear:
        layers["activation"] = activation()
    return nn.Sequential(layers)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, squeezed)
        self.activation = activation()
        self.expand = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.expand(self.activation(self.reduce(x.mean((2, 3)))))
        return x * gate.sigmoid()[:, :, None, None]


class PoolShortcut(nn.Module):
    """3x3 average pooling, then `extra` channels of zeros."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return functional.pad(x, (0, 0, 0, 0, 0, self.extra)) if self.extra else x


def drop_samples(x: Tensor, rate: float) -> Tensor:
    """Zero each sample with probability `rate`, divide the others by 1 - rate."""
    survival = 1.0 - rate
    kept = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device)
    return x * (kept.bernoulli_(survival) / survival)


class Block(nn.Module):
    """The branch of a layer, and what comes behind it."""

    def __init__(
        self,
        branch: nn.Module,
        shortcut: nn.Module | None,  #: shortcuts
        drop_connect: float,  #: drops
        after: nn.Module,  #: activated
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut  #: shortcuts
        self.drop_connect = drop_connect  #: drops
        self.after = after  #: activated

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        if self.shortcut is not None:  #: shortcuts
            if self.training and self.drop_connect:  #: drops
                y = drop_samples(y, self.drop_connect)
            y = y + self.shortcut(x)
        y = self.after(y)  #: activated
        return y


class Stage(NamedTuple):
    """Layers of one kind; the first one strides and changes the channels."""

    branch: Callable[..., nn.Sequential]  # makes that of one layer
    kernel: int
    stride: int  # of the first layer; 1 in the others
    channels: int  # that each layer puts out
    layers: int
    expand: float  # how many times wider a branch is in its middle
    se_ratio: float  # squeezed channels / input channels; 0: not squeezed
    skip: str  # what is added to the branch, where shapes allow


def shortcut(stage: Stage, inputs: int, stride: int) -> nn.Module | None:
    """What is added to the branch of a layer."""
    if stage.skip in ("identity", "projection"):  #: same
        if stride == 1 and inputs == stage.channels:
            return nn.Identity()
    if stage.skip == "projection":  #: projection
        return conv_norm(inputs, stage.channels, 1, stride, linear=True)
    if stage.skip == "pool" and stage.channels >= inputs:  #: pool
        return PoolShortcut(stride, stage.channels - inputs)
    return None


def mbconv(stage: Stage, inputs: int, stride: int) -> nn.Sequential:
    """Expand, depthwise convolution, squeeze-excitation, linear projection."""
    outputs, kernel = stage.channels, stage.kernel
    layers = OrderedDict[str, nn.Module]()
    middle = max(1, round(stage.expand * inputs))
    if stage.expand != 1:
        layers["expand"] = conv_norm(inputs, middle, 1)
    layers["depthwise"] = conv_norm(middle, middle, kernel, stride, groups=middle)
    if stage.se_ratio:
        squeezed = max(1, int(stage.se_ratio * inputs))
        layers["squeeze_excite"] = SqueezeExcite(middle, squeezed)
    layers["project"] = conv_norm(middle, outputs, 1, linear=True)
    return nn.Sequential(layers)


def bottleneck(stage: Stage, inputs: int, stride: int) -> nn.Sequential:
    """1x1, k x k with the stride, 1x1 convolution."""
    outputs, kernel = stage.channels, stage.kernel
    layers = OrderedDict[str, nn.Module]()
    middle = max(1, round(stage.expand * outputs))
    layers["reduce"] = conv_norm(inputs, middle, 1)
    layers["conv"] = conv_norm(middle, middle, kernel, stride)
    layers["restore"] = conv_norm(middle, outputs, 1, linear=True)
    return nn.Sequential(layers)


STAGES = (
    # branch, kernel, stride, channels, layers, expand, se_ratio, skip
    Stage(mbconv, 3, 1, 8, 2, 1, 0, "identity"),
    Stage(mbconv, 5, 2, 12, 2, 6, 0.25, "pool"),
    Stage(bottleneck, 3, 2, 16, 2, 0.25, 0, "projection"),
    Stage(mbconv, 3, 1, 12, 1, 3, 0.25, "none"),
)
ACTIVATED = (bottleneck,)  # an activation comes behind the addition  #: activated


class ConvNet(nn.Module):
    """Images [batch, channels, height, width] to logits [batch, classes]."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = conv_norm(*STEM)
        self.stem.add_module("pool", nn.MaxPool2d(3, 2, padding=1))  #: stem pool
        self.stages = nn.Sequential()
        inputs = STEM[1]
        blocks, index = sum(stage.layers for stage in STAGES), 0  #: drops
        for stage in STAGES:
            layers = nn.Sequential()
            for layer in range(stage.layers):
                stride = stage.stride if layer == 0 else 1
                block = Block(
                    stage.branch(stage, inputs, stride),
                    shortcut(stage, inputs, stride),  #: shortcuts
                    DROP_CONNECT * index / blocks,  #: drops
                    activation() if stage.branch in ACTIVATED else nn.Identity(),  #: activated
                )
                layers.append(block)
                inputs = stage.channels
                index += 1  #: drops
            self.stages.append(layers)
        self.head = conv_norm(inputs, HEAD, 1)  #: head
        inputs = HEAD  #: head
        self.dropout = nn.Dropout(DROPOUT)  #: dropout
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.stages(self.stem(images))
        x = self.head(x)  #: head
        x = x.mean((2, 3))
        x = self.dropout(x)  #: dropout
        x = self.classifier(x)
        return x


def build(classes: int = CLASSES) -> ConvNet:
    """The network in training mode, its weights drawn from torch's generator.

    Convolutions: normal, variance 2 / fan_out, a depthwise one's being its kernel.
    Classifier: uniform within 1 / sqrt(classes).
    """
    net = ConvNet(classes)
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
