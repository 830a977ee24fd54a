"""Scaling: the identity, the rounding rules, and the costs that Tables 3 and 7 of EfficientNet print."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.cost import cost
from phinas.networks.reference import (
    EFFICIENTNET_B0,
    MOBILENET_V1,
    MOBILENET_V2,
    NAMES,
    RESNET_50,
    efficientnet,
    reference,
)
from phinas.networks.scale import round_channels, round_repeats, scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rounding", ["official", "nearest"])
def test_phi_zero_is_the_identity(name: str, rounding: str) -> None:
    assert scale(reference(name), rounding=rounding) == reference(name)


def test_width_one_keeps_channels_that_are_no_multiple_of_eight() -> None:
    arch = Arch(Stem(13), (Stage("conv", 3, 1, channels=3, repeats=1),), head_channels=101)
    assert scale(arch) == arch
    wider = scale(arch, width=2)
    assert (wider.stem.channels, wider.stages[0].channels, wider.head_channels) == (24, 8, 200)


# GMACs that an independent counter gives for rows of Table 3 and Table 7 of arXiv 1905.11946 (printed: 2.2, 2.2, 1.2,
# 1.1, 1.2, 16.2, 14.7, 16.4; ResNet-50's depth and width rows look swapped in the paper; 1.8, 1.8, 1.9 and 1.8).
TABLES = [
    (MOBILENET_V1, 1, 2, None, 2.216),
    (MOBILENET_V1, 1, 1, 448, 2.272),
    (MOBILENET_V2, 4, 1, None, 1.220),
    (MOBILENET_V2, 1, 2, None, 1.137),
    (MOBILENET_V2, 1, 1, 448, 1.199),
    (RESNET_50, 4, 1, None, 14.571),
    (RESNET_50, 1, 2, None, 16.117),
    (RESNET_50, 1, 1, 448, 16.351),
    (EFFICIENTNET_B0, 4, 1, None, 1.575),
    (EFFICIENTNET_B0, 1, 2, None, 1.450),
    (EFFICIENTNET_B0, 1, 1, 448, 1.538),
    (EFFICIENTNET_B0, 1.4, 1.2, 300, 1.827),
]


@pytest.mark.parametrize(("arch", "depth", "width", "resolution", "gmacs"), TABLES)
def test_single_dimension_scaling_costs_what_the_tables_say(
    arch: Arch, depth: float, width: float, resolution: int | None, gmacs: float
) -> None:
    assert round(cost(scale(arch, depth, width, resolution)).macs / 1e9, 3) == gmacs


def test_compound_scaling_costs() -> None:
    def gmacs(arch: Arch, resolution: int) -> float:
        return round(cost(scale(arch, 1.4, 1.2, resolution)).macs / 1e9, 2)

    assert [gmacs(MOBILENET_V1, r) for r in (288, 291, 299)] == [2.24, 2.47, 2.52]
    assert [gmacs(MOBILENET_V2, r) for r in (288, 291, 299)] == [1.28, 1.44, 1.47]
    # 15.92 and 16.30 where the bottleneck's inner channels are rounded to 8 on their own; ours stay a quarter
    assert [gmacs(RESNET_50, r) for r in (291, 299)] == [15.86, 16.24]
    assert [gmacs(EFFICIENTNET_B0, r) for r in (291, 299, 300)] == [1.80, 1.83, 1.83]


def test_the_paper_doubling_really_costs_2_57_times() -> None:
    """1.2 * 1.1^2 * 1.15^2 is 1.92, but repeats round up: units matter when candidates are compared."""
    doubled = scale(EFFICIENTNET_B0, 1.2, 1.1, 258)
    assert round(cost(doubled).macs / cost(EFFICIENTNET_B0).macs, 2) == 2.57
    gentler = scale(EFFICIENTNET_B0, 1.2, 1.1, 258, rounding="nearest")
    assert cost(EFFICIENTNET_B0).macs < cost(gentler).macs < cost(doubled).macs


def test_float_noise_adds_no_layer() -> None:
    depth = 1.1 + 0.1
    assert 5 * depth > 6
    assert round_repeats(5, depth) == 6
    assert round_repeats(10, 1.1) == 11


def test_repeats() -> None:
    assert [round_repeats(r, 1.2) for r in (1, 2, 3, 4)] == [2, 3, 4, 5]
    assert [round_repeats(r, 1.2, "nearest") for r in (1, 2, 3, 4)] == [1, 2, 4, 5]
    assert [round_repeats(1, d, "nearest") for d in (0.1, 0.5, 1.5, 2.5)] == [1, 1, 2, 3]
    assert round_repeats(1, 0.1) == 1


def test_channels() -> None:
    assert [round_channels(c, 1.1) for c in (16, 32, 1280)] == [16, 32, 1408]
    assert round_channels(32, 0.35) == 16  # 11.2 would fall to 8, more than 10% below
    assert round_channels(3, 0.5) == 8
    assert [round_channels(c, 1.2) for c in (32, 96, 160)] == [40, 112, 192]


def test_the_family_scales_b0() -> None:
    b7 = efficientnet("b7")
    assert b7.stem.channels == 64 and b7.head_channels == 2560 and b7.resolution == 600 and b7.dropout == 0.5
    assert [s.repeats for s in b7.stages] == [4, 7, 7, 10, 10, 13, 4]
    assert [s.channels for s in b7.stages] == [32, 48, 80, 160, 224, 384, 640]
    assert [efficientnet(f"b{i}").blocks for i in range(9)] == [16, 23, 23, 26, 32, 39, 45, 55, 61]
    assert efficientnet("b0") == EFFICIENTNET_B0
    assert replace(b7, resolution=224, dropout=0.2) == scale(EFFICIENTNET_B0, 3.1, 2.0)


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({"depth": 0.0}, "depth=0.0: it must be a number above 0"),
        ({"depth": "x"}, "depth=x: it must be a number above 0"),
        ({"width": float("nan")}, "width=nan: it must be a number above 0"),
        ({"resolution": 0}, "resolution=0: it must be a whole number, 1 or more"),
        ({"resolution": "x"}, "resolution=x: it must be a whole number, 1 or more"),
        ({"resolution": 32.0}, "resolution=32.0: it must be a whole number, 1 or more"),
        ({"rounding": "up"}, "rounding must be one of official, nearest, got 'up'"),
    ],
)
def test_wrong_factors_are_named(arguments: dict[str, object], culprit: str) -> None:
    with pytest.raises(InputError, match=culprit):
        scale(EFFICIENTNET_B0, **arguments)  # type: ignore[arg-type]


def test_an_unknown_reference_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="'efficientnet_b9'.*efficientnet_b0, .*mnasnet_a1, .*resnet152"):
        reference("efficientnet_b9")
    with pytest.raises(InputError, match="'b9'.*b0, b1"):
        efficientnet("b9")
