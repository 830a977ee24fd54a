"""Tables 3 and 7 of EfficientNet: the MACs of every row to the last digit, those that agree and those that do not."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0, efficientnet
from phinas.networks.scale import scale
from scaling_search.published import (
    CUT,
    FIGURE_3,
    FIGURE_4,
    NEAR_FITS,
    NO,
    OTHER_SIDES,
    TABLE_3,
    TABLE_7,
    YES,
    Row,
    figure_3_network,
    main,
    rounds_to,
    row_of,
    tables,
)
from tests.conftest import ROOT

FACTS = ROOT.parent / "shared" / "facts"
needs_facts = pytest.mark.skipif(not FACTS.exists(), reason="the paper's tables as CSV are not here")

ROWS = (*TABLE_3, *TABLE_7)
BASELINES = {"MobileNetV1": "mobilenet_v1", "MobileNetV2": "mobilenet_v2", "ResNet-50": "resnet50"}


def name(row: Row) -> str:
    return f"{row.baseline}-{row.method}"


# Multiply-adds at the side that the factor says, and the verdict. Whatever changes them is a change of the counter or
# of the rules of scaling.
GOLDEN = {
    ("mobilenet_v1", "baseline"): (568_740_352, YES),
    ("mobilenet_v1", "width"): (2_216_465_408, YES),
    ("mobilenet_v1", "resolution"): (2_271_889_408, CUT),
    ("mobilenet_v1", "compound"): (2_469_723_976, NO),
    ("mobilenet_v2", "baseline"): (300_774_272, YES),
    ("mobilenet_v2", "depth"): (1_219_587_776, YES),
    ("mobilenet_v2", "width"): (1_137_428_224, YES),
    ("mobilenet_v2", "resolution"): (1_199_257_088, YES),
    ("mobilenet_v2", "compound"): (1_442_045_088, OTHER_SIDES),
    ("resnet50", "baseline"): (4_089_184_256, YES),
    ("resnet50", "depth"): (14_570_749_952, NO),
    ("resnet50", "width"): (16_116_613_120, NO),
    ("resnet50", "resolution"): (16_350_593_024, YES),
    ("resnet50", "compound"): (15_861_640_344, NO),
    ("efficientnet_b0", "baseline"): (385_814_752, YES),
    ("efficientnet_b0", "depth"): (1_575_132_640, NO),
    ("efficientnet_b0", "width"): (1_449_958_848, NO),
    ("efficientnet_b0", "resolution"): (1_537_537_408, NO),
    ("efficientnet_b0", "compound"): (1_800_091_280, YES),
}


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_the_macs_and_the_verdict_of_every_row(row: Row) -> None:
    assert (row.macs, row.verdict) == GOLDEN[row.baseline, row.method]


@pytest.mark.parametrize("row", [row for row in ROWS if GOLDEN[row.baseline, row.method][1] == YES], ids=name)
def test_rows_that_reproduce_agree_to_the_rounding_of_the_printed_figure(row: Row) -> None:
    assert abs(row.macs / 1e9 - row.printed) <= 0.05


@pytest.mark.parametrize("row", [row for row in ROWS if GOLDEN[row.baseline, row.method][1] == NO], ids=name)
def test_rows_that_do_not_reproduce_are_really_off(row: Row) -> None:
    assert abs(row.macs / 1e9 - row.printed) > 0.1  # by more than a digit, whether it was rounded, cut or raised


def test_how_many_rows_the_page_says_reproduce() -> None:
    assert Counter(row.verdict for row in ROWS) == {YES: 10, CUT: 1, OTHER_SIDES: 1, NO: 7}


def test_what_the_page_says_of_the_rows_that_are_off() -> None:
    """Sides up to twice the baseline's are looked at, and MACs grow with the side."""
    fitting = {row.baseline: row.fitting_sides for row in ROWS if row.method == "compound"}
    assert fitting["mobilenet_v1"] == fitting["resnet50"] == ()
    assert fitting["mobilenet_v2"] == tuple(range(277, 289))
    assert fitting["efficientnet_b0"] == tuple(range(289, 305))
    assert cost(row_of("mobilenet_v2", "compound").at(288)).macs == 1_284_428_256
    swapped = [row_of("resnet50", "depth").macs / 14.7e9, row_of("resnet50", "width").macs / 16.2e9]
    assert [round(ratio, 3) for ratio in swapped] == [0.991, 0.995]
    compound = row_of("efficientnet_b0", "compound").macs
    rivals = [row_of("efficientnet_b0", method).macs / compound for method in ("depth", "resolution", "width")]
    assert [round(1 - ratio, 2) for ratio in rivals] == [0.12, 0.15, 0.19]
    above_four = {cost(scale(EFFICIENTNET_B0, depth=4 + step / 100)).macs for step in range(1, 51)}
    assert {round(macs / 1e9, 1) for macs in above_four} == {1.8}
    assert round(cost(scale(EFFICIENTNET_B0, depth=4.51)).macs / 1e9, 1) == 1.9


def test_the_compound_b0_at_300_pixels_is_b3_but_for_its_dropout() -> None:
    row = row_of("efficientnet_b0", "compound")
    assert replace(row.at(300), dropout=0.3) == efficientnet("b3")
    assert cost(row.at(299)).macs == cost(row.at(300)).macs == cost(efficientnet("b3")).macs == 1_827_141_392


# Rounds to the printed figure, or not; multiply-adds.
NEAR = {
    ("mobilenet_v1", "first block not repeated, 291 px"): (2_317_954_056, True),
    ("mobilenet_v1", "first block not repeated, 299 px"): (2_359_588_720, False),
    ("mobilenet_v2", "head kept at 1280 channels"): (1_096_007_424, True),
    ("mobilenet_v2", "288 px"): (1_284_428_256, True),
    ("mobilenet_v2", "first and last stage not repeated, 299 px"): (1_272_772_800, True),
    ("resnet50", "the network of the width row"): (16_116_613_120, False),
    ("resnet50", "the network of the depth row"): (14_570_749_952, False),
    ("resnet50", "inner channels doubled alone (Wide ResNet)"): (11_398_021_120, False),
    ("resnet50", "inner channels rounded on their own, 291 px"): (15_915_451_072, False),
    ("resnet50", "inner channels rounded on their own, 299 px"): (16_301_089_280, False),
    ("resnet50", "outer channels four times those, 299 px"): (16_335_486_144, False),
    ("resnet50", "304 px"): (16_328_901_408, False),
    ("resnet50", "305 px"): (17_234_227_288, False),
    ("efficientnet_b0", "depth 4.01"): (1_758_969_568, True),
    ("efficientnet_b0", "depth 4.5"): (1_830_920_032, True),
    ("efficientnet_b0", "width 2.2"): (1_755_229_104, True),
    ("efficientnet_b0", "width 2.3"): (1_935_591_968, False),
    ("efficientnet_b0", "resolution 2.2, 493 px"): (1_923_109_072, True),
}


def test_the_macs_of_every_other_reading() -> None:
    found = {
        (fit.row.baseline, fit.reading): (cost(fit.network).macs, rounds_to(fit.row.printed, fit.network))
        for fit in NEAR_FITS
    }
    assert found == NEAR


def test_the_nominal_and_the_realised_ratio() -> None:
    compound = {row.baseline: row for row in ROWS if row.method == "compound"}
    assert {round(row.nominal, 2) for row in compound.values()} == {3.41}
    realised = {baseline: round(row.realised, 2) for baseline, row in compound.items()}
    assert realised == {"mobilenet_v1": 4.34, "mobilenet_v2": 4.79, "resnet50": 3.88, "efficientnet_b0": 4.67}
    single = [row for row in ROWS if row.method in ("depth", "width", "resolution")]
    assert {row.nominal for row in single} == {4}
    assert all(row.realised == 1 for row in ROWS if row.method == "baseline")
    blocks = (EFFICIENTNET_B0.blocks, compound["efficientnet_b0"].network.blocks)
    assert blocks == (16, 26)


def test_figure_4_at_width_1_and_5() -> None:
    assert [cost(scale(EFFICIENTNET_B0, depth, 1.0, side)).macs for depth, side in FIGURE_4] == [
        385_814_752,
        729_878_720,
        782_254_048,
        1_487_073_952,
    ]
    assert [cost(scale(EFFICIENTNET_B0, depth, 5.0, side)).macs for depth, side in FIGURE_4] == [
        8_712_367_200,
        16_548_376_000,
        17_858_291_040,
        34_052_877_600,
    ]


def test_the_page_holds_exactly_the_tables_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "paper_scaling.md").read_text()
    in_page = [line for line in page.splitlines() if line.startswith("|")]
    assert in_page == [line for line in printed.splitlines() if line.startswith("|")]
    for heading, table in tables().items():
        assert f"### {heading}\n\n{table}\n" in page and f"## {heading}\n\n{table}\n" in printed


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--help"], 0), (["name=x"], 2)])
def test_the_command_says_by_its_exit_code_how_it_went(
    arguments: list[str], code: int, command_environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scaling_search.published", *arguments],
        capture_output=True, text=True, check=False, env=command_environment,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr == ("error: unknown option 'name=x'; this command takes none\n" if code else "")


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(InputError, match="unknown option '--fast'; this command takes none"):
        main(["--fast"])


# --- the paper's tables as CSV, with what an independent counter gives ------------------------------------------------


def read(file: str) -> list[dict[str, str]]:
    with (FACTS / file).open() as lines:
        return list(csv.DictReader(lines))


def at_sides(text: str) -> dict[int, str]:
    """Billions by side: "2.24@288 1.827@299-300" is {288: "2.24", 299: "1.827", 300: "1.827"}."""
    found: dict[int, str] = {}
    for billions, first, last in re.findall(r"([\d.]+)@(\d+)(?:-(\d+))?", text):
        found.update(dict.fromkeys(range(int(first), int(last or first) + 1), billions))
    return found


def agrees(network: Arch, billions: str) -> bool:
    digits = len(billions.split(".")[1])
    return f"{cost(network).macs / 1e9:.{digits}f}" == billions


@needs_facts
def test_the_rows_are_those_of_the_csvs() -> None:
    csvs = [("table3_scaling.csv", line, BASELINES[line["base"]]) for line in read("table3_scaling.csv")]
    csvs += [("table7_scaled_b0.csv", line, "efficientnet_b0") for line in read("table7_scaled_b0.csv")]
    assert len(csvs) == len(ROWS)
    for (file, line, baseline), row in zip(csvs, ROWS, strict=True):
        where = f"{file}: {baseline} {line['method']}"
        assert (baseline, line["method"]) == (row.baseline, row.method), where
        assert (float(line["flops_B"]), float(line["top1"])) == (row.printed, row.top1), where
        if line["d"]:
            assert (float(line["d"]), float(line["w"]), float(line["r"])) == (row.depth, row.width, row.resolution)
        assert row.assumed == (not line["d"]), where


@needs_facts
@pytest.mark.parametrize("file", ["table3_scaling.csv", "table7_scaled_b0.csv"])
def test_an_independent_counter_agrees_to_all_the_digits_it_gives(file: str) -> None:
    for line in read(file):
        baseline = BASELINES[line["base"]] if "base" in line else "efficientnet_b0"
        row = row_of(baseline, line["method"])
        counted = line.get("calc_flops_B") or line["calc_flops_B_official_rounding"]
        if "@" not in counted:
            assert agrees(row.network, counted), f"{baseline} {row.method}"
        elif baseline != "resnet50":  # that one rounds ResNet's inner channels to 8 on their own: see below
            figures = at_sides(counted.split("(")[0])
            assert figures
            for side, billions in figures.items():
                assert agrees(row.at(side), billions), f"{baseline} at {side} px"


@needs_facts
def test_the_sources_disagree_on_the_compound_resnet_by_its_inner_channels_alone() -> None:
    (line,) = [
        line for line in read("table3_scaling.csv") if (line["base"], line["method"]) == ("ResNet-50", "compound")
    ]
    theirs = at_sides(line["calc_flops_B"].split("16.34")[0])
    assert theirs == {291: "15.92", 299: "16.30"}
    fits = {fit.reading: fit.network for fit in NEAR_FITS}
    for side, billions in theirs.items():
        assert not agrees(row_of("resnet50", "compound").at(side), billions)
        assert agrees(fits[f"inner channels rounded on their own, {side} px"], billions)
    assert agrees(fits["outer channels four times those, 299 px"], "16.34")


@needs_facts
def test_the_coefficients_of_figures_3_and_4_cost_what_the_csv_says() -> None:
    lines = read_figures()
    dimensions = {"w": "width", "d": "depth", "r": "resolution"}
    third = [(dimensions[line[1]], line[2], line[3]) for line in lines if line[0] == "3"]
    ours = [(dimension, coefficient) for dimension, values in FIGURE_3.items() for coefficient in values]
    assert [(dimension, float(text.split()[0])) for dimension, text, _ in third] == ours
    for dimension, text, billions in third:
        network = figure_3_network(dimension, float(text.split()[0]))
        assert agrees(network, billions), f"{dimension} {text}"
        pixels = re.search(r"\((\d+)px", text)
        assert pixels is None or network.resolution == int(pixels[1])
    fourth = [line for line in lines if line[0] == "4"]
    assert len(fourth) == len(FIGURE_4)
    for (_, label, widths, counted), (depth, side) in zip(fourth, FIGURE_4, strict=True):
        assert f"d={depth:g} " in label and ("299px" in label) == (side == 299)
        assert tuple(float(width) for width in widths.split(";")) == FIGURE_3["width"]
        for width, billions in zip(FIGURE_3["width"], counted.split(";"), strict=True):
            assert agrees(scale(EFFICIENTNET_B0, depth, width, side), billions), f"{label}, width {width}"


def read_figures() -> list[list[str]]:
    with (FACTS / "figure3_4_coeffs.csv").open() as lines:
        return list(csv.reader(lines))[1:]
