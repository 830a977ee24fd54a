"""The layers that networks are made of; feature maps are [batch, channels, height, width]."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from phinas.networks.arch import Arch, Stage
from phinas.networks.kinds import added

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hardswish": nn.Hardswish}


def activation(arch: Arch) -> nn.Module:
    """A fresh activation of the network's kind.

    ReLU and ReLU6 overwrite their input, which no layer before them keeps. ReLU's gradient needs the output alone; for
    ReLU6's, autograd copies the input first, so that in training nothing is saved, and at inference a map.
    """
    kind = _ACTIVATIONS[arch.activation]
    return kind(inplace=kind in (nn.ReLU, nn.ReLU6))


def conv_norm(
    arch: Arch,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm and, unless `linear`, activation; side n becomes ceil(n / stride).

    Dense (groups=1) or depthwise (groups=inputs=outputs). Padding is k // 2 on each side. TensorFlow's SAME gives the
    same sizes, but where the stride is 2 it puts the odd pixel on the other side: weights ported from there need it.
    """
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        norm=nn.BatchNorm2d(outputs, eps=arch.bn_eps, momentum=arch.bn_momentum),
    )
    if not linear:
        layers["activation"] = activation(arch)
    return nn.Sequential(layers)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means (arXiv 1709.01507).

    Written with linear layers, as in its paper: the 1x1 convolutions of other implementations hold the same weights
    and take two to three times as long on the CPU.
    """

    def __init__(self, arch: Arch, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, squeezed)
        self.activation = activation(arch)
        self.expand = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.expand(self.activation(self.reduce(x.mean((2, 3)))))
        return x * gate.sigmoid()[:, :, None, None]


class PoolShortcut(nn.Module):
    """3x3 average pooling, then `extra` channels of zeros: a shortcut without weights (option A of arXiv 1512.03385).

    Padding is left out of the averages, so that the border is no darker than the rest.
    """

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(x)
        return functional.pad(pooled, (0, 0, 0, 0, 0, self.extra)) if self.extra else pooled


class Block(nn.Module):
    """`after(drop_connect(branch(x)) + shortcut(x))`; without a shortcut `after(branch(x))`."""

    def __init__(
        self,
        branch: nn.Module,
        shortcut: nn.Module | None,
        drop_connect: float = 0.0,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.drop_connect = drop_connect if shortcut is not None else 0.0
        self.after = after if after is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        if self.shortcut is not None:
            if self.training and self.drop_connect:
                y = drop_samples(y, self.drop_connect)
            y = y + self.shortcut(x)
        return self.after(y)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"drop_connect={self.drop_connect:g}"


def drop_samples(x: Tensor, rate: float) -> Tensor:
    """Zero each sample with probability `rate`, divide the others by 1 - rate (stochastic depth, arXiv 1603.09382)."""
    survival = 1.0 - rate
    mask = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(survival)
    return x * (mask / survival)


def shortcut(arch: Arch, stage: Stage, inputs: int, stride: int) -> nn.Module | None:
    """What is added to the branch of a block fed `inputs` channels; None where the stage's skip allows nothing."""
    match added(stage.skip, inputs, stage.channels, stride):
        case "identity":
            return nn.Identity()
        case "projection":
            return conv_norm(arch, inputs, stage.channels, 1, stride, linear=True)
        case "pool":
            return PoolShortcut(stride, stage.channels - inputs)
    return None


def branch(arch: Arch, stage: Stage, inputs: int, stride: int) -> nn.Sequential:
    """The branch of a layer of `stage` fed `inputs` channels: its kind's parts under their names."""
    layers = OrderedDict[str, nn.Module]()
    for name, fed, outputs, kernel, step, groups, linear, squeezed in stage.branch(inputs, stride):
        if squeezed:
            layers[name] = SqueezeExcite(arch, fed, squeezed)
        else:
            layers[name] = conv_norm(arch, fed, outputs, kernel, step, groups, linear)
    return nn.Sequential(layers)
