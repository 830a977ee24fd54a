"""Published networks as values: EfficientNet, MnasNet, MobileNet and ResNet."""

from __future__ import annotations

from dataclasses import replace

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.scale import scale

# Table 1 of arXiv 1905.11946; squeeze-excitation in every block. Constants from tensorflow/tpu.
EFFICIENTNET_B0 = Arch(
    stem=Stem(channels=32),
    stages=(
        Stage("mbconv", kernel=3, stride=1, channels=16, repeats=1, expand=1, se_ratio=0.25),
        Stage("mbconv", kernel=3, stride=2, channels=24, repeats=2, expand=6, se_ratio=0.25),
        Stage("mbconv", kernel=5, stride=2, channels=40, repeats=2, expand=6, se_ratio=0.25),
        Stage("mbconv", kernel=3, stride=2, channels=80, repeats=3, expand=6, se_ratio=0.25),
        Stage("mbconv", kernel=5, stride=1, channels=112, repeats=3, expand=6, se_ratio=0.25),
        Stage("mbconv", kernel=5, stride=2, channels=192, repeats=4, expand=6, se_ratio=0.25),
        Stage("mbconv", kernel=3, stride=1, channels=320, repeats=1, expand=6, se_ratio=0.25),
    ),
    head_channels=1280,
    activation="silu",
    dropout=0.2,
    drop_connect=0.2,
    bn_momentum=0.01,
    bn_eps=1e-3,
)

# Figure 7 of MnasNet (arXiv 1807.11626); squeeze-excitation in three stages. Constants from tensorflow/tpu.
MNASNET_A1 = Arch(
    stem=Stem(channels=32),
    stages=(
        Stage("mbconv", kernel=3, stride=1, channels=16, repeats=1, expand=1, skip="none"),
        Stage("mbconv", kernel=3, stride=2, channels=24, repeats=2, expand=6),
        Stage("mbconv", kernel=5, stride=2, channels=40, repeats=3, expand=3, se_ratio=0.25),
        Stage("mbconv", kernel=3, stride=2, channels=80, repeats=4, expand=6),
        Stage("mbconv", kernel=3, stride=1, channels=112, repeats=2, expand=6, se_ratio=0.25),
        Stage("mbconv", kernel=5, stride=2, channels=160, repeats=3, expand=6, se_ratio=0.25),
        Stage("mbconv", kernel=3, stride=1, channels=320, repeats=1, expand=6),
    ),
    head_channels=1280,
    activation="relu",
    dropout=0.2,
    drop_connect=0.0,
    bn_momentum=0.01,
    bn_eps=1e-3,
)

# The MnasNet search without squeeze-excitation, from tensorflow/tpu.
MNASNET_B1 = replace(
    MNASNET_A1,
    stages=(
        Stage("mbconv", kernel=3, stride=1, channels=16, repeats=1, expand=1, skip="none"),
        Stage("mbconv", kernel=3, stride=2, channels=24, repeats=3, expand=3),
        Stage("mbconv", kernel=5, stride=2, channels=40, repeats=3, expand=3),
        Stage("mbconv", kernel=5, stride=2, channels=80, repeats=3, expand=6),
        Stage("mbconv", kernel=3, stride=1, channels=96, repeats=2, expand=6),
        Stage("mbconv", kernel=5, stride=2, channels=192, repeats=4, expand=6),
        Stage("mbconv", kernel=3, stride=1, channels=320, repeats=1, expand=6, skip="none"),
    ),
)

# Table 1 of arXiv 1704.04861, its layers grouped by channels so that depth scaling has stages to repeat.
MOBILENET_V1 = Arch(
    stem=Stem(channels=32),
    stages=(
        Stage("separable", kernel=3, stride=1, channels=64, repeats=1, skip="none"),
        Stage("separable", kernel=3, stride=2, channels=128, repeats=2, skip="none"),
        Stage("separable", kernel=3, stride=2, channels=256, repeats=2, skip="none"),
        Stage("separable", kernel=3, stride=2, channels=512, repeats=6, skip="none"),
        Stage("separable", kernel=3, stride=2, channels=1024, repeats=2, skip="none"),
    ),
    head_channels=0,
    activation="relu",
    dropout=0.0,
    drop_connect=0.0,
    bn_momentum=0.1,
    bn_eps=1e-5,
)

# Table 2 of arXiv 1801.04381.
MOBILENET_V2 = Arch(
    stem=Stem(channels=32),
    stages=(
        Stage("mbconv", kernel=3, stride=1, channels=16, repeats=1, expand=1),
        Stage("mbconv", kernel=3, stride=2, channels=24, repeats=2, expand=6),
        Stage("mbconv", kernel=3, stride=2, channels=32, repeats=3, expand=6),
        Stage("mbconv", kernel=3, stride=2, channels=64, repeats=4, expand=6),
        Stage("mbconv", kernel=3, stride=1, channels=96, repeats=3, expand=6),
        Stage("mbconv", kernel=3, stride=2, channels=160, repeats=3, expand=6),
        Stage("mbconv", kernel=3, stride=1, channels=320, repeats=1, expand=6),
    ),
    head_channels=1280,
    activation="relu6",
    dropout=0.2,
    drop_connect=0.0,
    bn_momentum=0.1,
    bn_eps=1e-5,
)


def _resnet(repeats: tuple[int, int, int, int]) -> Arch:
    """Table 1 of arXiv 1512.03385 with the stride in the 3x3 convolution ("v1.5"), which the paper's 4.1B counts."""
    return Arch(
        stem=Stem(channels=64, kernel=7, pool=True),
        stages=tuple(
            Stage("bottleneck", kernel=3, stride=stride, channels=channels, repeats=n, expand=0.25, skip="projection")
            for stride, channels, n in zip((1, 2, 2, 2), (256, 512, 1024, 2048), repeats, strict=True)
        ),
        head_channels=0,
        activation="relu",
        dropout=0.0,
        drop_connect=0.0,
        bn_momentum=0.1,
        bn_eps=1e-5,
    )


RESNET_50 = _resnet((3, 4, 6, 3))
RESNET_152 = _resnet((3, 8, 36, 3))

# width, depth, resolution, dropout: `efficientnet_params` in tensorflow/tpu. They follow no formula exactly.
EFFICIENTNETS = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "b8": (2.2, 3.6, 672, 0.5),
    "l2": (4.3, 5.3, 800, 0.5),
}

_OTHERS = {
    "mnasnet_a1": MNASNET_A1,
    "mnasnet_b1": MNASNET_B1,
    "mobilenet_v1": MOBILENET_V1,
    "mobilenet_v2": MOBILENET_V2,
    "resnet50": RESNET_50,
    "resnet152": RESNET_152,
}

NAMES = (*(f"efficientnet_{name}" for name in EFFICIENTNETS), *_OTHERS)


def efficientnet(name: str) -> Arch:
    """The published EfficientNet `name`, "b0" to "b8" or "l2"; InputError lists them."""
    if name not in EFFICIENTNETS:
        raise InputError(f"no EfficientNet {name!r}; allowed: {', '.join(EFFICIENTNETS)}")
    width, depth, resolution, dropout = EFFICIENTNETS[name]
    return replace(scale(EFFICIENTNET_B0, depth, width, resolution), dropout=dropout)


def reference(name: str) -> Arch:
    """The network that command lines call `name` (one of `NAMES`); InputError lists them."""
    if name not in NAMES:
        raise InputError(f"no reference network {name!r}; allowed: {', '.join(NAMES)}")
    return _OTHERS[name] if name in _OTHERS else efficientnet(name.removeprefix("efficientnet_"))
