"""What a network costs, counted exactly with integer arithmetic; nothing is built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from phinas.networks.arch import Arch, Stage


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
    layer = _LAYERS[stage.block]
    first = layer(stage, inputs, stage.stride, size)
    if stage.repeats == 1:
        return first
    other = layer(stage, stage.channels, 1, _strided(size, stage.stride))
    return (
        first[0] + (stage.repeats - 1) * other[0],
        first[1] + (stage.repeats - 1) * other[1],
        first[2] + (stage.repeats - 1) * other[2],
    )


# One function per block kind: a layer of `stage` fed `inputs` x `size` x `size`.


def _conv_layer(stage: Stage, inputs: int, stride: int, size: int) -> _Count:
    out = _strided(size, stride)
    return _total(
        _conv(inputs, stage.channels, stage.kernel, out),
        _squeeze_excite(stage, stage.channels, inputs),
        _projection(stage, inputs, stride, out),
    )


def _separable_layer(stage: Stage, inputs: int, stride: int, size: int) -> _Count:
    out = _strided(size, stride)
    return _total(
        _depthwise(inputs, stage.kernel, out),
        _squeeze_excite(stage, inputs, inputs),
        _conv(inputs, stage.channels, 1, out),
        _projection(stage, inputs, stride, out),
    )


def _mbconv_layer(stage: Stage, inputs: int, stride: int, size: int) -> _Count:
    out, middle = _strided(size, stride), stage.middle_channels(inputs)
    return _total(
        _conv(inputs, middle, 1, size) if stage.expand != 1 else _NOTHING,
        _depthwise(middle, stage.kernel, out),
        _squeeze_excite(stage, middle, inputs),
        _conv(middle, stage.channels, 1, out),
        _projection(stage, inputs, stride, out),
    )


def _bottleneck_layer(stage: Stage, inputs: int, stride: int, size: int) -> _Count:
    out, middle = _strided(size, stride), stage.middle_channels(inputs)
    return _total(
        _conv(inputs, middle, 1, size),
        _conv(middle, middle, stage.kernel, out),
        _conv(middle, stage.channels, 1, out),
        _projection(stage, inputs, stride, out),
    )


_LAYERS = {
    "conv": _conv_layer,
    "linear": _conv_layer,  # an activation costs nothing
    "separable": _separable_layer,
    "mbconv": _mbconv_layer,
    "bottleneck": _bottleneck_layer,
}

# The parts of a layer. `size` is the side of what the part puts out.

_NOTHING: _Count = (0, 0, 0)


def _conv(inputs: int, outputs: int, kernel: int, size: int) -> _Count:
    weights, pixels = kernel * kernel * inputs * outputs, size * size
    return weights * pixels, weights + 2 * outputs, outputs * pixels


def _depthwise(channels: int, kernel: int, size: int) -> _Count:
    weights, pixels = kernel * kernel * channels, size * size
    return weights * pixels, weights + 2 * channels, channels * pixels


def _squeeze_excite(stage: Stage, channels: int, inputs: int) -> _Count:
    """Two 1x1 convolutions with bias over `channels` averaged to a single pixel, in a block fed `inputs` channels."""
    squeezed = stage.squeezed_channels(inputs)
    if not squeezed:
        return _NOTHING
    weights = 2 * channels * squeezed
    return weights, weights + squeezed + channels, 0


def _projection(stage: Stage, inputs: int, stride: int, size: int) -> _Count:
    """The shortcut's 1x1 convolution; every other kind of shortcut is free."""
    if stage.skip != "projection" or (stride == 1 and inputs == stage.channels):
        return _NOTHING
    return _conv(inputs, stage.channels, 1, size)


def _total(*parts: _Count) -> _Count:
    macs = params = activations = 0
    for part in parts:
        macs += part[0]
        params += part[1]
        activations += part[2]
    return macs, params, activations


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)
