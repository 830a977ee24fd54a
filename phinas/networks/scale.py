"""Compound scaling: a network with more layers, more channels and a larger input (EfficientNet, arXiv 1905.11946)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError
from phinas.networks.arch import Arch

ROUNDINGS = ("official", "nearest")

# Sums and powers of coefficients carry float noise (5 * (1.1 + 0.1) > 6), which ceil would turn into a layer.
_DIGITS = 9


def scale(
    arch: Arch,
    depth: float = 1.0,
    width: float = 1.0,
    resolution: int | None = None,
    rounding: str = "official",
) -> Arch:
    """Multiply the repeats of every stage by `depth` and every channel count (stem, stages, head) by `width`.

    `resolution` is the new side of the input in pixels; None keeps it. A factor of exactly 1 changes nothing, even
    channels that are no multiple of 8. All else, dropout among it, is kept.
    rounding="official": repeats rounded up, as in the EfficientNet code; "nearest": to the nearest, so that the
    realised cost follows the coefficients more closely (arXiv 2103.06877). Channels follow one rule in both.
    Raises InputError for a factor that is not a finite number above 0, a resolution that is no whole number of pixels,
    or an unknown rounding.
    """
    for name, factor in (("depth", depth), ("width", width)):
        check_number(name, factor, above=0)
    if resolution is not None:
        check_whole("resolution", resolution)
    if rounding not in ROUNDINGS:
        raise InputError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    scaled = _with_layers(
        arch,
        tuple(round_repeats(stage.repeats, depth, rounding) for stage in arch.stages),
        tuple(round_channels(stage.channels, width) for stage in arch.stages),
        round_channels(arch.stem.channels, width),
        round_channels(arch.head_channels, width) if arch.head_channels else 0,
    )
    return scaled if resolution in (None, scaled.resolution) else replace(scaled, resolution=resolution)


@lru_cache(maxsize=1 << 12)  # rounding makes the same layers of many factors, as a scaling search tries them
def _with_layers(arch: Arch, repeats: tuple[int, ...], channels: tuple[int, ...], stem: int, head: int) -> Arch:
    stages = zip(arch.stages, repeats, channels, strict=True)
    return replace(
        arch,
        stem=replace(arch.stem, channels=stem),
        stages=tuple(replace(stage, repeats=layers, channels=width) for stage, layers, width in stages),
        head_channels=head,
    )


def round_channels(channels: int, width: float) -> int:
    """`channels * width` to the nearest multiple of 8, at least 8 and at least 90% of the product.

    The rule of MobileNetV2 and of `round_filters` in tensorflow/tpu; width 1 keeps the channels as they are.
    """
    if width == 1:
        return channels
    exact = round(channels * width, _DIGITS)
    rounded = max(8, math.floor((exact + 4) / 8) * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def round_repeats(repeats: int, depth: float, rounding: str = "official") -> int:
    """`repeats * depth` rounded up ("official", as in tensorflow/tpu) or half up, at least 1 ("nearest").

    The product is rounded to 9 digits first.
    """
    exact = round(repeats * depth, _DIGITS)
    return math.ceil(exact) if rounding == "official" else max(1, math.floor(exact + 0.5))
