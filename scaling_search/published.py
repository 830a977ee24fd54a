"""What the EfficientNet paper prints of scaled networks beside what they cost here, and the command that lists both.

`python -m scaling_search.published` prints Tables 3 and 7 and the coefficients of Figures 3 and 4 of arXiv 1905.11946
as Markdown. `docs/paper_scaling.md` holds the same tables and says what is to be made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from phinas.command.run import run
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0, MOBILENET_V1, MOBILENET_V2, RESNET_50, reference
from phinas.networks.scale import round_channels, scale

# The verdicts on a printed figure.
YES = "yes"
CUT = "if cut"  # to one decimal instead of rounded
OTHER_SIDES = "at other sides"  # of the input than the factor says
NO = "no"

SIDES = (
    288,
    291,
    299,
    300,
)  # pixels that "1.3" of 224 may mean: a multiple of 32, 291.2, Figure 4's, EfficientNet-B3's

_TENTH = 10**8  # multiply-adds in the last printed digit

USAGE = """usage: python -m scaling_search.published

Prints Tables 3 and 7 and the coefficients of Figures 3 and 4 of the EfficientNet paper as Markdown, with the
multiply-adds of the networks that they name, counted here, beside the paper's."""


@dataclass(frozen=True)
class Row:
    """A row of Table 3 or Table 7 as it is printed, and the network that its factors make of the baseline here.

    baseline    its name in `phinas.networks.reference`.
    depth, width, resolution
                the printed factors; of the two compound rows with none, those of the other two (`assumed`).
    printed     "FLOPS" in billions, to one decimal: multiply-adds.
    top1        ImageNet accuracy, %.
    remark      what is to be said about a figure that is not ours.
    """

    baseline: str
    method: str
    depth: float
    width: float
    resolution: float
    printed: float
    top1: float
    assumed: bool = False
    remark: str = ""

    @property
    def side(self) -> int:
        """Of the input by the factor, to the nearest pixel: 1.3 of 224 is 291."""
        return round(reference(self.baseline).resolution * self.resolution)

    @property
    def network(self) -> Arch:
        return self.at(self.side)

    def at(self, side: int) -> Arch:
        """The network with an input of another side, pixels."""
        return scale(reference(self.baseline), self.depth, self.width, side)

    @property
    def macs(self) -> int:
        return cost(self.network).macs

    @property
    def nominal(self) -> float:
        """How many times the baseline it costs by the formula, depth * width^2 * resolution^2."""
        return self.depth * self.width**2 * self.resolution**2

    @property
    def realised(self) -> float:
        """How many times the baseline it costs."""
        return self.macs / cost(reference(self.baseline)).macs

    @property
    def fitting_sides(self) -> tuple[int, ...]:
        """The sides from the baseline's to twice that, at which the figure rounds to the printed one."""
        original = reference(self.baseline).resolution
        return tuple(side for side in range(original, 2 * original + 1) if rounds_to(self.printed, self.at(side)))

    @property
    def verdict(self) -> str:
        """Whether the printed figure is that of the network: `YES`, `CUT`, `OTHER_SIDES` (compound only) or `NO`."""
        if rounds_to(self.printed, self.network):
            return YES
        if self.macs // _TENTH == round(10 * self.printed):
            return CUT
        return OTHER_SIDES if self.method == "compound" and self.fitting_sides else NO


@dataclass(frozen=True)
class NearFit:
    """Another reading of a row, and its network: whether it costs what is printed is a guide, and no proof."""

    row: Row
    reading: str
    network: Arch


def rounds_to(printed: float, network: Arch) -> bool:
    """Whether the multiply-adds of `network`, in billions to one decimal, are `printed`."""
    return (cost(network).macs + _TENTH // 2) // _TENTH == round(10 * printed)


TABLE_3 = (
    Row("mobilenet_v1", "baseline", 1, 1, 1, 0.6, 70.6),
    Row("mobilenet_v1", "width", 1, 2, 1, 2.2, 74.2),
    Row("mobilenet_v1", "resolution", 1, 1, 2, 2.2, 72.7),
    Row("mobilenet_v1", "compound", 1.4, 1.2, 1.3, 2.3, 75.6, remark="rule unknown"),
    Row("mobilenet_v2", "baseline", 1, 1, 1, 0.3, 72.0),
    Row("mobilenet_v2", "depth", 4, 1, 1, 1.2, 76.8),
    Row("mobilenet_v2", "width", 1, 2, 1, 1.1, 76.4),
    Row("mobilenet_v2", "resolution", 1, 1, 2, 1.2, 74.8),
    Row("mobilenet_v2", "compound", 1.4, 1.2, 1.3, 1.3, 77.4, assumed=True, remark="factors not printed"),
    Row("resnet50", "baseline", 1, 1, 1, 4.1, 76.0),
    Row("resnet50", "depth", 4, 1, 1, 16.2, 78.1, remark="looks swapped with width"),
    Row("resnet50", "width", 1, 2, 1, 14.7, 77.7, remark="looks swapped with depth"),
    Row("resnet50", "resolution", 1, 1, 2, 16.4, 77.5),
    Row("resnet50", "compound", 1.4, 1.2, 1.3, 16.7, 78.8, assumed=True, remark="factors not printed"),
)

TABLE_7 = (
    Row("efficientnet_b0", "baseline", 1, 1, 1, 0.4, 77.3),
    Row("efficientnet_b0", "depth", 4, 1, 1, 1.8, 79.0, remark="fits a depth above 4"),
    Row("efficientnet_b0", "width", 1, 2, 1, 1.8, 78.9, remark="fits width 2.2"),
    Row("efficientnet_b0", "resolution", 1, 1, 2, 1.9, 79.1, remark="fits resolution 2.2"),
    Row("efficientnet_b0", "compound", 1.4, 1.2, 1.3, 1.8, 81.1),
)

# The coefficients that Figure 3 draws of B0, one dimension at a time.
FIGURE_3: dict[str, tuple[float, ...]] = {
    "width": (1.0, 1.4, 1.8, 2.6, 3.8, 5.0),
    "depth": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
    "resolution": (1.0, 1.3, 1.5, 1.7, 1.9, 2.2, 2.5),
}

# Depth, and side of the input in pixels, of the four lines of Figure 4, along which width grows. The caption gives 299
# pixels for r=1.3. The widths carry no label: they are taken to be those of Figure 3.
FIGURE_4: tuple[tuple[float, int], ...] = ((1.0, 224), (1.0, 299), (2.0, 224), (2.0, 299))


def row_of(baseline: str, method: str) -> Row:
    """The row of Table 3 or, for `efficientnet_b0`, of Table 7. Raises KeyError where there is none."""
    return _ROWS[baseline, method]


_ROWS = {(row.baseline, row.method): row for row in (*TABLE_3, *TABLE_7)}


def figure_3_network(dimension: str, coefficient: float) -> Arch:
    """B0 scaled in one dimension, a key of `FIGURE_3`; the side of its input to the nearest pixel."""
    if dimension == "resolution":
        return replace(EFFICIENTNET_B0, resolution=round(EFFICIENTNET_B0.resolution * coefficient))
    if dimension == "depth":
        return scale(EFFICIENTNET_B0, depth=coefficient)
    return scale(EFFICIENTNET_B0, width=coefficient)


def _unrepeated(scaled: Arch, baseline: Arch, positions: Sequence[int]) -> Arch:
    """`scaled` with as many layers as `baseline` in the stages at `positions`."""
    stages = list(scaled.stages)
    for position in positions:
        stages[position] = replace(stages[position], repeats=baseline.stages[position].repeats)
    return replace(scaled, stages=tuple(stages))


def _rounded_inside(side: int, outer_follows: bool) -> Arch:
    """The compound ResNet-50 with the inner channels of its bottlenecks rounded to 8 on their own.

    outer_follows  the outer channels are four times the inner ones; otherwise rounded on their own as well.
    """
    factors = row_of("resnet50", "compound")
    stages = []
    for stage, original in zip(factors.network.stages, RESNET_50.stages, strict=True):
        inner = round_channels(original.channels // 4, factors.width)
        outer = 4 * inner if outer_follows else stage.channels
        stages.append(replace(stage, channels=outer, expand=inner / outer))
    return replace(factors.at(side), stages=tuple(stages))


_WIDER_INSIDE = replace(RESNET_50, stages=tuple(replace(stage, expand=0.5) for stage in RESNET_50.stages))


def _near_fits() -> Iterator[NearFit]:
    v1, v2, r50 = row_of("mobilenet_v1", "compound"), row_of("mobilenet_v2", "compound"), row_of("resnet50", "compound")
    for side in (291, 299):
        network = _unrepeated(v1.at(side), MOBILENET_V1, [0])
        yield NearFit(v1, f"first block not repeated, {side} px", network)
    wide = row_of("mobilenet_v2", "width")
    yield NearFit(wide, "head kept at 1280 channels", replace(wide.network, head_channels=MOBILENET_V2.head_channels))
    yield NearFit(v2, "288 px", v2.at(288))
    yield NearFit(v2, "first and last stage not repeated, 299 px", _unrepeated(v2.at(299), MOBILENET_V2, [0, -1]))
    yield NearFit(row_of("resnet50", "depth"), "the network of the width row", row_of("resnet50", "width").network)
    yield NearFit(row_of("resnet50", "width"), "the network of the depth row", row_of("resnet50", "depth").network)
    yield NearFit(row_of("resnet50", "width"), "inner channels doubled alone (Wide ResNet)", _WIDER_INSIDE)
    for side in (291, 299):
        yield NearFit(r50, f"inner channels rounded on their own, {side} px", _rounded_inside(side, False))
    yield NearFit(r50, "outer channels four times those, 299 px", _rounded_inside(299, True))
    yield NearFit(r50, "304 px", r50.at(304))
    yield NearFit(r50, "305 px", r50.at(305))
    for depth in (4.01, 4.5):
        yield NearFit(row_of("efficientnet_b0", "depth"), f"depth {depth:g}", scale(EFFICIENTNET_B0, depth=depth))
    for width in (2.2, 2.3):
        yield NearFit(row_of("efficientnet_b0", "width"), f"width {width:g}", scale(EFFICIENTNET_B0, width=width))
    yield NearFit(
        row_of("efficientnet_b0", "resolution"), "resolution 2.2, 493 px", replace(EFFICIENTNET_B0, resolution=493)
    )


NEAR_FITS = tuple(_near_fits())


# --- the tables ------------------------------------------------------------------------------------------------------


def tables() -> dict[str, str]:
    """Heading -> Markdown table, in the order in which the command prints them."""
    return {
        "Table 3": _rows_table(TABLE_3),
        "Table 7": _rows_table(TABLE_7),
        "The side of the input": _sides_table(),
        "Other readings": _near_fits_table(),
        "Figure 3": _figure_3_table(),
        "Figure 4": _figure_4_table(),
    }


def _rows_table(rows: Sequence[Row]) -> str:
    heads = (
        "baseline", "scaled in", "depth, width, resolution", "side, px", "top-1, %", "paper, B", "ours, multiply-adds",
        "ours / paper", "nominal", "realised", "reproduces",
    )  # fmt: skip
    return _markdown(heads, (_cells(row) for row in rows), left=(0, 1, 2, 10))


def _cells(row: Row) -> tuple[str, ...]:
    factors = f"{row.depth:g}, {row.width:g}, {row.resolution:g}{' (assumed)' if row.assumed else ''}"
    return (
        _TITLES[row.baseline], row.method, factors, str(row.side), f"{row.top1:.1f}", f"{row.printed:.1f}",
        f"{row.macs:,}", _ratio(row.macs, row.printed), f"{row.nominal:.2f}x", f"{row.realised:.2f}x",
        f"{row.verdict}: {row.remark}" if row.remark else row.verdict,
    )  # fmt: skip


def _sides_table() -> str:
    heads = ("compound row", "paper, B", *(f"{side} px" for side in SIDES), "sides that round to the paper's")
    rows = [row for row in (*TABLE_3, *TABLE_7) if row.method == "compound"]
    return _markdown(heads, (_sides_cells(row) for row in rows), left=(0, 6))


def _sides_cells(row: Row) -> tuple[str, ...]:
    fitting = row.fitting_sides
    return (
        _TITLES[row.baseline], f"{row.printed:.1f}", *(f"{cost(row.at(side)).macs:,}" for side in SIDES),
        f"{fitting[0]} to {fitting[-1]} px" if fitting else "none",
    )  # fmt: skip


def _near_fits_table() -> str:
    heads = ("row", "read as", "paper, B", "ours, multiply-adds", "ours / paper", "rounds to the paper's")
    cells = (
        (
            f"{_TITLES[fit.row.baseline]} {fit.row.method}", fit.reading, f"{fit.row.printed:.1f}",
            f"{cost(fit.network).macs:,}", _ratio(cost(fit.network).macs, fit.row.printed),
            YES if rounds_to(fit.row.printed, fit.network) else NO,
        )
        for fit in NEAR_FITS
    )  # fmt: skip
    return _markdown(heads, cells, left=(0, 1, 5))


def _figure_3_table() -> str:
    heads = ("scaled in", "coefficient", "side, px", "multiply-adds", "nominal", "realised")
    cells = (
        _figure_3_cells(dimension, coefficient)
        for dimension, coefficients in FIGURE_3.items()
        for coefficient in coefficients
    )
    return _markdown(heads, cells, left=(0,))


def _figure_3_cells(dimension: str, coefficient: float) -> tuple[str, ...]:
    network = figure_3_network(dimension, coefficient)
    macs = cost(network).macs
    nominal = coefficient if dimension == "depth" else coefficient**2
    return (
        dimension, f"{coefficient:.1f}", str(network.resolution), f"{macs:,}", f"{nominal:.2f}x",
        f"{macs / cost(EFFICIENTNET_B0).macs:.2f}x",
    )  # fmt: skip


def _figure_4_table() -> str:
    heads = ("width", *(f"depth {depth:g}, {side} px" for depth, side in FIGURE_4))
    cells = (
        (f"{width:.1f}", *(f"{cost(scale(EFFICIENTNET_B0, depth, width, side)).macs:,}" for depth, side in FIGURE_4))
        for width in FIGURE_3["width"]
    )
    return _markdown(heads, cells)


def _markdown(heads: Sequence[str], rows: Iterator[tuple[str, ...]], left: Sequence[int] = ()) -> str:
    """A table whose columns are figures, aligned to the right, but for those at `left`."""
    rule = ["---" if position in left else "---:" for position in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def _ratio(macs: int, printed: float) -> str:
    return f"{macs / printed / 1e9:.3f}"


_TITLES = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet-50",
    "efficientnet_b0": "EfficientNet-B0",
}


def main(arguments: Sequence[str]) -> None:
    """Print the tables. Raises InputError for any argument but --help."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return
    if arguments:
        raise InputError(f"unknown option {arguments[0]!r}; this command takes none")
    print("\n\n".join(f"## {heading}\n\n{table}" for heading, table in tables().items()))


if __name__ == "__main__":
    run(main)
