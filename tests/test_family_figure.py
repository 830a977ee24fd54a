"""The picture and the page of a family: every network is in them, at what it costs, beside the paper's figures."""

from __future__ import annotations

import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from phinas.files.bytes import bytes_text
from phinas.generate.family import Family, Member, member_name
from phinas.generate.figure import convnets, family_figure, short_names
from phinas.generate.report import PICTURE_WIDTH, family_report
from phinas.generate.rules import read_rule
from phinas.networks.cost import cost
from phinas.networks.memory import memory
from phinas.networks.reference import EFFICIENTNET_B0, MOBILENET_V2, RESNET_50, RESNET_152, efficientnet
from phinas.pages.style import png, svg


def family_of(rule_name: str, phis: list[float], **other: Any) -> Family:
    rule, settings = read_rule(rule_name), {"batch_size": 8, "mode": "train", "dtype": "float32"} | other
    memory_of: dict[str, Any] = {**settings, "optimiser": "rmsprop", "ema": True}
    archs = [rule.grow(EFFICIENTNET_B0, phi) for phi in phis]
    members = [
        Member(
            member_name(rule, EFFICIENTNET_B0, "efficientnet_b0", phi), phi, arch, cost(arch), memory(arch, **memory_of)
        )
        for phi, arch in zip(phis, archs, strict=True)
    ]
    return Family(rule, EFFICIENTNET_B0, "efficientnet_b0", tuple(members), memory_of)


FAMILIES = [
    family_of("published", [0]),
    family_of("published", list(range(10))),
    family_of("paper", [0, 0.5, 1], mode="infer", batch_size=1),
    family_of("dwr", [-2, 0, 2], dtype="bfloat16"),
    family_of("tinynet", [-5, -3, 0]),
]


def report_of(family: Family, figure: Figure | None = None, **other: Any) -> str:
    given: dict[str, Any] = {
        "made_from": {"scaling": {"name": family.rule.name, "sha256": "ab" * 32}, "baseline": {"name": "a<b"}},
        "notes": ["a note"],
        "exports": {},
        "command": "python -m phinas.generate",
        "config_text": "seed: 0",
    }
    return family_report("mine", family, figure or family_figure(family), **(given | other))


def texts(figure: Figure) -> set[str]:
    return {line for axes in figure.axes for text in axes.texts for line in text.get_text().split("\n")}


def line(figure: Figure, panel: int) -> np.ndarray[Any, Any]:
    """Places [N, 2] of the family's marks in a panel."""
    return np.asarray(figure.axes[panel].lines[-1].get_xydata())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.rule.name}-{len(family.members)}")
def test_the_line_goes_through_every_network_by_phi(family: Family) -> None:
    figure = family_figure(replace(family, members=family.members[::-1]))
    costs = [(one.cost.params, one.memory.total, one.cost.macs) for one in family.members]
    assert np.array_equal(line(figure, 0), [(params, macs) for params, _, macs in costs])
    assert np.array_equal(line(figure, 1), [(size, macs) for _, size, macs in costs])
    for axes in figure.axes:
        assert axes.get_xscale() == axes.get_yscale() == "log"
        others = np.asarray(axes.collections[0].get_offsets())
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for places in (others, np.asarray(axes.lines[-1].get_xydata())):
            assert (places > (left, low)).all() and (places < (right, high)).all()
    assert set(short_names([one.name for one in family.members])) <= texts(figure)


@pytest.mark.parametrize("family", FAMILIES[:3], ids=lambda family: f"{family.rule.name}-{len(family.members)}")
def test_no_label_lies_on_another(family: Family) -> None:
    figure = family_figure(family)
    png(figure, io.BytesIO(), PICTURE_WIDTH)
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines that lead to them
        for number, box in enumerate(boxes):
            for other in boxes[:number]:
                shared_width = min(box.x1, other.x1) - max(box.x0, other.x0)
                shared_height = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(shared_width, shared_height) < 4  # pixels


def test_the_papers_figures_are_those_of_table_2() -> None:
    known = {point.name: (point.x, point.macs) for point in convnets()}
    assert len(known) == 23 and "GPipe" not in known  # whose multiply-adds are not printed
    assert known["ResNet-50"] == (26e6, 4.1e9) and known["SENet"] == (146e6, 42e9)
    assert known["EfficientNet-B7"] == (66e6, 37e9)
    for name, arch in (("ResNet-50", RESNET_50), ("ResNet-152", RESNET_152), ("EfficientNet-B0", efficientnet("b0"))):
        assert known[name] == pytest.approx((cost(arch).params, cost(arch).macs), rel=0.06)
    shown = texts(family_figure(FAMILIES[0]))
    assert {name for name in known if not name.startswith("EfficientNet")} <= shown


@pytest.mark.slow
def test_the_memory_of_others_is_that_of_the_same_step() -> None:
    for family in FAMILIES[:3]:
        places = np.asarray(family_figure(family).axes[1].collections[0].get_offsets())
        expected = [(memory(arch, **family.memory_of).total, cost(arch).macs) for arch in (RESNET_50, RESNET_152)]
        assert np.array_equal(places, expected)


@pytest.mark.slow
def test_the_published_networks_are_not_compared_with_themselves() -> None:
    def legend(family: Family) -> list[str]:
        return [text.get_text() for text in family_figure(family).legends[0].get_texts()]

    assert "EfficientNets of that table" in legend(FAMILIES[2])
    assert "EfficientNets of that table" not in legend(FAMILIES[0])
    assert "EfficientNets of that table" in legend(replace(FAMILIES[0], baseline=MOBILENET_V2))


def test_a_table_names_what_it_makes_of_its_own_baseline_alone() -> None:
    published = read_rule("published")
    assert member_name(published, replace(EFFICIENTNET_B0, classes=10), "mine", 2) == "efficientnet_b2"
    assert member_name(published, MOBILENET_V2, "efficientnet_b0", 2) == "efficientnet_b0_phi2"
    assert member_name(read_rule("paper"), EFFICIENTNET_B0, "efficientnet_b0", 0.5) == "efficientnet_b0_phi0.5"


def test_sizes_beyond_all_machines_are_drawn() -> None:
    png(family_figure(family_of("paper", [0], batch_size=2**62)), io.BytesIO(), PICTURE_WIDTH)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["efficientnet_b0"], ["efficientnet_b0"]),
        (["efficientnet_b0", "efficientnet_l2"], ["B0", "L2"]),
        (["first_phi0", "first_phi0.5"], ["phi=0", "phi=0.5"]),
        (["efficientnet_b0", "tinynet_a"], ["efficientnet_b0", "tinynet_a"]),
    ],
)
def test_names_are_as_short_as_they_can_be(names: list[str], short: list[str]) -> None:
    assert short_names(names) == short


@pytest.mark.slow
def test_the_picture_is_1200_pixels_wide_and_then_stands_in_a_page() -> None:
    figure, file = family_figure(FAMILIES[2]), io.BytesIO()
    png(figure, file, PICTURE_WIDTH)
    assert int.from_bytes(file.getvalue()[16:20]) == 1200
    assert "Parameters, logarithmic" in svg(figure, "a")


class _Asked(HTMLParser):
    """Collects the files that a page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.asks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.asks += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.rule.name}-{len(family.members)}")
def test_the_page_has_every_network_and_asks_for_no_other_file(family: Family) -> None:
    page = report_of(family)
    reader = _Asked()
    reader.feed(page)
    assert all(asked.startswith(("#", "data:")) for asked in reader.asks)
    for member in family.members:
        train, infer = (memory(member.arch, **{**family.memory_of, "mode": mode}) for mode in ("train", "infer"))
        for text in (member.name, member.arch.key(), bytes_text(train.total), bytes_text(infer.total)):
            assert text in page
        assert all(bytes_text(getattr(train, part)) in page for part in ("weights", "activations", "working"))
    assert "a&lt;b" in page and "a note" in page and "ab" * 32 in page and "To carry away" not in page
    assert ("latency of one image" in page) == (family.members[0].latency is not None)


def test_shares_of_the_memory_fill_the_bar() -> None:
    page = report_of(FAMILIES[1])
    bars = re.findall(r'<div class="stack">(.*?)</div>', page, re.DOTALL)
    assert len(bars) == len(FAMILIES[1].members)
    for bar in bars:
        assert sum(map(float, re.findall(r"width: ([\d.]+)%", bar))) == pytest.approx(100, abs=0.1)


def test_exports_stand_with_what_was_checked() -> None:
    name = FAMILIES[0].members[0].name
    exports = {
        name: [
            SimpleNamespace(form="pytorch", file=Path(f"x/{name}/model.py"), difference=0.0, sha256="c" * 64, bytes=9),
            SimpleNamespace(form="onnx", file=Path(f"x/{name}/model.onnx"), difference=3e-6, sha256="d" * 64, bytes=9),
        ]
    }
    page = html.unescape(report_of(FAMILIES[0], exports=exports))
    assert f"{name}/model.py" in page and "equal, bit for bit" in page and "c" * 64 in page
    assert f"{name}/model.onnx" in page and "3e-06 of the largest logit" in page


def test_measured_latencies_are_told() -> None:
    members = tuple(replace(one, latency=0.0123) for one in FAMILIES[2].members)
    page = report_of(replace(FAMILIES[2], members=members), family_figure(FAMILIES[2]))
    assert "12.3 ms" in page and "latency of one image" in page
