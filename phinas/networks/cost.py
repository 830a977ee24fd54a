"""What a network costs, counted exactly with integer arithmetic; nothing is built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from phinas.networks.arch import Arch, Stage
from phinas.networks.kinds import added


@dataclass(frozen=True)
class Cost:
    """Costs of one forward pass of one image.

    macs         multiply-adds of convolutions and fully connected layers, squeeze-excitation included; the paper's
                 "FLOPS". Biases, norms, activations, pooling and additions are not counted.
    params       trainable parameters.
    activations  elements that convolutions on feature maps put out ("acts", after arXiv 2003.13678): stem, blocks,
                 shortcuts and head. The single pixels inside squeeze-excitation and the logits are not counted.
    """

    macs: int
    params: int
    activations: int


_Count = tuple[int, int, int]  # macs, params, activations


def cost(arch: Arch) -> Cost:
    """Count `arch` layer by layer.

    A convolution of stride s turns side n into ceil(n / s), as kernels are odd and padded by k // 2. Each is followed
    by a batch norm (two parameters per channel) instead of a bias, but those of squeeze-excitation have the bias.
    """
    channels, size = arch.stem.channels, _strided(arch.resolution, arch.stem.stride)
    macs, params, activations = _conv(arch.in_channels, channels, arch.stem.kernel, size)
    if arch.stem.pool:
        size = _strided(size, 2)
    for stage in arch.stages:
        of_stage = count_stage(stage, channels, size)
        macs, params, activations = macs + of_stage[0], params + of_stage[1], activations + of_stage[2]
        channels, size = stage.channels, _strided(size, stage.stride)
    if arch.head_channels:
        head = _conv(channels, arch.head_channels, 1, size)
        macs, params, activations = macs + head[0], params + head[1], activations + head[2]
        channels = arch.head_channels
    classifier = channels * arch.classes
    return Cost(macs + classifier, params + classifier + arch.classes, activations)


@lru_cache(maxsize=1 << 14)  # a search counts thousands of networks that are made of the same few stages
def count_stage(stage: Stage, inputs: int, size: int) -> _Count:
    """What the layers of `stage` add, fed `inputs` x `size` x `size`.

    Only the first one strides or changes the channels; the others are identical, so one of them is counted.
    """
    first = _layer(stage, inputs, stage.stride, size)
    if stage.repeats == 1:
        return first
    other = _layer(stage, stage.channels, 1, _strided(size, stage.stride))
    return (
        first[0] + (stage.repeats - 1) * other[0],
        first[1] + (stage.repeats - 1) * other[1],
        first[2] + (stage.repeats - 1) * other[2],
    )


def _layer(stage: Stage, inputs: int, stride: int, size: int) -> _Count:
    """A layer of `stage` fed `inputs` x `size` x `size`: its branch, and the shortcut where that is a convolution."""
    macs = params = activations = 0
    parts = stage.branch(inputs, stride)
    if added(stage.skip, inputs, stage.channels, stride) == "projection":
        parts.append(("shortcut", inputs, stage.channels, 1, 1, 1, True, 0))  # where the branch has strided already
    for _, fed, outputs, kernel, step, groups, _, squeezed in parts:
        if squeezed:  # two 1x1 convolutions with bias over channels averaged to a single pixel
            weights = 2 * fed * squeezed
            macs += weights
            params += weights + squeezed + fed
        else:
            size = -(-size // step)
            weights, pixels = kernel * kernel * fed * outputs // groups, size * size
            macs += weights * pixels
            params += weights + 2 * outputs
            activations += outputs * pixels
    return macs, params, activations


def _conv(inputs: int, outputs: int, kernel: int, size: int) -> _Count:
    """A convolution and its norm; `size` is the side of what it puts out."""
    weights, pixels = kernel * kernel * inputs * outputs, size * size
    return weights * pixels, weights + 2 * outputs, outputs * pixels


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)
