"""The kinds of blocks: each is spelled out here alone, and all that reads networks follows.

From its convolutions follow what a block costs, how much memory it takes, its torch module, the names of its weights
and what `model.py` says. The standard library is all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """A convolution with its batch norm and activation in the branch of a block.

    name       of its module, and so of its weights.
    outputs    which channels it puts out: the "inputs" of the block, its "middle", or the stage's "channels".
    spatial    whether it has the stage's kernel; otherwise it is 1x1.
    strided    whether it has the layer's stride.
    depthwise  one filter per channel; it puts out what it is fed.
    linear     without the activation.
    expanding  left out where expand is 1.
    """

    name: str
    outputs: str
    spatial: bool = False
    strided: bool = False
    depthwise: bool = False
    linear: bool = False
    expanding: bool = False


# In a branch, squeeze-excitation of what stands before it, where the stage's se_ratio is above 0; its module's name.
SQUEEZE_EXCITE = "squeeze_excite"


@dataclass(frozen=True)
class Kind:
    """A kind of block: the parts of its branch in their order, each a Conv or SQUEEZE_EXCITE, and its names.

    summary    of the branch, in one line; {} is where squeeze-excitation is named.
    label      in figures, as papers write it; {} is where expand stands.
    outline    in lists of stages, likewise.
    middle_of  what expand multiplies: the block's "inputs" or its "channels"; "" for kinds without a middle.
    activated  whether an activation comes behind the addition of the shortcut.
    timm       timm's names of the convolutions in their order, a text for each number of them that there can be; none
               where timm has no such block.
    """

    branch: tuple[Conv | str, ...]
    summary: str
    label: str
    outline: str
    middle_of: str = ""
    activated: bool = False
    timm: tuple[str, ...] = ()

    @property
    def squeezes(self) -> bool:
        """Whether it can have squeeze-excitation."""
        return SQUEEZE_EXCITE in self.branch


KINDS = {
    # Of VGG, and of the first stages of later networks.
    "conv": Kind(
        (Conv("conv", "channels", spatial=True, strided=True), SQUEEZE_EXCITE),
        summary="Convolution and activation{}",
        label="Conv",
        outline="conv",
        timm=("conv",),
    ),
    # The strided identity of NAS-Bench-Macro.
    "linear": Kind(
        (Conv("conv", "channels", spatial=True, strided=True, linear=True), SQUEEZE_EXCITE),
        summary="Convolution without activation{}",
        label="Linear",
        outline="linear",
    ),
    # MobileNetV1, arXiv 1704.04861.
    "separable": Kind(
        (
            Conv("depthwise", "inputs", spatial=True, strided=True, depthwise=True),
            SQUEEZE_EXCITE,
            Conv("pointwise", "channels"),
        ),
        summary="Depthwise convolution{}, pointwise convolution, activation behind both",
        label="Separable",
        outline="separable",
        timm=("conv_dw conv_pw",),
    ),
    # MobileNetV2, arXiv 1801.04381; with squeeze-excitation MnasNet and EfficientNet.
    "mbconv": Kind(
        (
            Conv("expand", "middle", expanding=True),
            Conv("depthwise", "middle", spatial=True, strided=True, depthwise=True),
            SQUEEZE_EXCITE,
            Conv("project", "channels", linear=True),
        ),
        summary="Expand, depthwise convolution{}, linear projection",
        label="MBConv{}",
        outline="mb{}",
        middle_of="inputs",
        timm=("conv_pw conv_dw conv_pwl", "conv_dw conv_pw"),
    ),
    # ResNet v1.5: arXiv 1512.03385 with the stride in the k x k convolution.
    "bottleneck": Kind(
        (
            Conv("reduce", "middle"),
            Conv("conv", "middle", spatial=True, strided=True),
            Conv("restore", "channels", linear=True),
        ),
        summary="1x1, k x k with the stride, 1x1 convolution{}",
        label="Bottleneck",
        outline="bottleneck",
        middle_of="channels",
        activated=True,
    ),
}


# A part of a branch with its sizes: name, inputs, outputs, kernel, stride, groups, whether it is linear, squeezed.
# Where `squeezed` is above 0 it is squeeze-excitation with so many channels, otherwise a convolution.
# A plain tuple and no class, as a search counts thousands of networks.
Part = tuple[str, int, int, int, int, int, bool, int]


def added(skip: str, inputs: int, channels: int, stride: int) -> str:
    """What a layer from `inputs` to `channels` adds to its branch: identity, projection, pool, or "" for nothing."""
    if skip in ("identity", "projection") and stride == 1 and inputs == channels:
        return "identity"
    return skip if skip == "projection" or (skip == "pool" and channels >= inputs) else ""
