"""Scaling rules: published networks exactly, the identity at phi=0, costs that never fall, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from phinas.files.errors import InputError
from phinas.files.origin import file_source
from phinas.generate.rules import FORMULA_PHI, PRESETS, Rule, read_rule, shrinking
from phinas.networks.compound import PAPER, Coefficients, compound
from phinas.networks.cost import cost
from phinas.networks.memory import memory
from phinas.networks.reference import EFFICIENTNET_B0, MOBILENET_V1, RESNET_50, efficientnet, reference
from phinas.networks.scaling_file import Scaling, write_scaling

# FACTS: params and MACs, counted by an independent implementation.
PUBLISHED = {
    "b0": (5_288_548, 385_814_752),
    "b1": (7_794_184, 686_802_832),
    "b2": (9_109_994, 993_561_872),
    "b3": (12_233_232, 1_827_141_392),
    "b4": (19_341_616, 4_393_771_024),
    "b5": (30_389_784, 10_266_384_752),
    "b6": (43_040_704, 19_067_593_536),
    "b7": (66_347_960, 37_745_884_192),
    "b8": (87_413_142, 62_597_461_568),
    "l2": (480_309_308, 475_703_653_280),
}
BASELINES = ("efficientnet_b0", "mnasnet_a1", "mobilenet_v1", "mobilenet_v2", "resnet50")
FORMULAS = [name for name, rule in PRESETS.items() if rule.steps is None]


@pytest.mark.parametrize("phi", range(10))
def test_published_networks_are_those_of_the_authors(phi: int) -> None:
    name = list(PUBLISHED)[phi]
    arch = PRESETS["published"].grow(EFFICIENTNET_B0, phi)
    assert arch == efficientnet(name) and (cost(arch).params, cost(arch).macs) == PUBLISHED[name]


def test_published_multipliers_scale_any_baseline() -> None:
    b2 = PRESETS["published"].grow(RESNET_50, 2)
    assert [stage.repeats for stage in b2.stages] == [4, 5, 8, 4]  # 1.2 times 3, 4, 6, 3, rounded up
    assert [stage.channels for stage in b2.stages] == [280, 560, 1128, 2256] and b2.resolution == 260
    assert b2.dropout == 0  # a recipe without dropout stays so
    small = PRESETS["published"].grow(replace(EFFICIENTNET_B0, resolution=32, dropout=0.1), 7)
    assert small.resolution == round(32 * 600 / 224) and small.dropout == 0.4


# As printed in arXiv 2010.14819: MACs and parameters in millions.
@pytest.mark.parametrize(
    ("letter", "macs", "params"), [("a", 339, 6.2), ("b", 202, 3.7), ("c", 100, 2.5), ("d", 52, 2.3), ("e", 24, 2.0)]
)
def test_tinynets_are_those_of_their_paper(letter: str, macs: float, params: float) -> None:
    rule = PRESETS["tinynet"]
    found = cost(rule.grow(EFFICIENTNET_B0, rule.phi(letter)))
    assert found.macs / 1e6 == pytest.approx(macs, rel=0.016) and found.params / 1e6 == pytest.approx(params, abs=0.05)


def test_a_tinynet_keeps_stem_and_head() -> None:
    smallest = PRESETS["tinynet"].grow(EFFICIENTNET_B0, -5)
    assert smallest.stem == EFFICIENTNET_B0.stem and smallest.head_channels == 1280
    assert PRESETS["tinynet"].grow(MOBILENET_V1, -5).head_channels == 0


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("preset", PRESETS)
def test_phi_zero_is_the_baseline(preset: str, baseline: str) -> None:
    odd = replace(reference(baseline), resolution=223)  # no multiple of anything
    assert PRESETS[preset].grow(odd, 0) == odd


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("preset", FORMULAS)
def test_costs_never_fall_as_phi_grows(preset: str, baseline: str) -> None:
    rule = PRESETS[preset]
    before = (0, 0, 0, 0)
    for step in range(-40 if rule.shrinks else 0, 41):
        arch = rule.grow(reference(baseline), step / 10)
        counted = cost(arch)
        now = (counted.macs, counted.params, counted.activations, memory(arch, 8).total)
        assert all(one <= other for one, other in zip(before, now, strict=True)), step
        before = now
    assert now[0] > 8 * cost(reference(baseline)).macs


def test_paper_is_the_formula_with_dropout_from_b0s_to_b7s() -> None:
    rule = PRESETS["paper"]
    assert rule.grow(EFFICIENTNET_B0, 2) == replace(compound(EFFICIENTNET_B0, PAPER, 2), dropout=0.285714286)
    assert [rule.grow(EFFICIENTNET_B0, phi).dropout for phi in (0, 3.5, 7, 14)] == [0.2, 0.35, 0.5, 0.5]
    assert rule.grow(replace(EFFICIENTNET_B0, dropout=0.7), 7).dropout == 0.7


def test_fast_scaling_is_mostly_width_and_doubles_macs_but_not_activations() -> None:
    asked = PRESETS["dwr"].multipliers(4)
    assert (asked.depth, asked.width, asked.resolution) == pytest.approx((16**0.1, 16**0.4, 16**0.05))
    base = cost(EFFICIENTNET_B0)
    for phi in (-2, 3, 4, 5, 6):
        arch = PRESETS["dwr"].grow(EFFICIENTNET_B0, phi)
        assert arch.resolution % 4 == 0 and cost(arch).macs / base.macs == pytest.approx(2**phi, rel=0.5)
    assert cost(arch).activations / base.activations == pytest.approx(2 ** (6 * 0.6), rel=0.05)


def test_shares_of_efficientnet_x() -> None:
    asked = PRESETS["efficientnet_x_gpu"].multipliers(1)
    assert asked.product == pytest.approx(2)
    assert [math.log2(asked.depth), 2 * math.log2(asked.width), 2 * math.log2(asked.resolution)] == pytest.approx(
        [0.38, 0.42, 0.20]
    )


def test_the_published_family_lies_near_the_formula_where_it_is_said_to() -> None:
    table, formula = PRESETS["published"], PRESETS["paper"]
    for step, phi in FORMULA_PHI.items():
        published, near = table.grow(EFFICIENTNET_B0, step), formula.grow(EFFICIENTNET_B0, phi)
        assert near.resolution == pytest.approx(published.resolution, rel=0.04)
        assert formula.multipliers(phi).width == pytest.approx(table.multipliers(step).width, rel=0.05)
        assert cost(near).macs == pytest.approx(cost(published).macs, rel=0.12)


@pytest.mark.parametrize(
    ("preset", "given", "phi"),
    [("published", "b3", 3), ("published", "efficientnet_l2", 9), ("published", "B8", 8), ("tinynet", "tinynet_e", -5),
     ("tinynet", -2, -2), ("tinynet", "b0", 0), ("dwr", -1.5, -1.5), ("paper", 0.5, 0.5)],
)  # fmt: skip
def test_phi_is_a_number_or_the_name_of_a_step(preset: str, given: Any, phi: float) -> None:
    assert PRESETS[preset].phi(given) == phi


def test_phi_without_float_noise() -> None:
    assert str(PRESETS["dwr"].phi(-0.0)) == "0.0" and PRESETS["paper"].phi(0.1 + 0.2) == 0.3


@pytest.mark.parametrize(
    ("preset", "phi", "says"),
    [
        ("paper", -1, "phi=-1: scaling=paper cannot shrink a network; dwr and tinynet can"),
        ("published", -1, "phi=-1: scaling=published cannot shrink a network; dwr and tinynet can"),
        ("efficientnet_x_gpu", -0.1, "cannot shrink"),
        ("published", 0.5, "phi=0.5: scaling=published has the steps 0 to 9, efficientnet_b0, "),
        ("published", "b9", "phi=b9: scaling=published has the steps"),
        ("tinynet", 1, "phi=1: scaling=tinynet has the steps -5 to 0, tinynet_e, "),
        ("tinynet", float("nan"), "phi=nan"),
        ("published", True, "phi=True"),
        ("paper", True, "phi=True: it must be a number"),
        ("paper", "b1", "phi=b1: it must be a number"),
        ("paper", None, "phi=None"),
        ("paper", float("nan"), "phi=nan"),
        ("dwr", -1e6, "phi=-1000000.0: with scaling=dwr, phi goes from -24.9 to 24.9"),
        ("paper", 1e6, "phi=1000000.0: with scaling=paper, phi goes from 0 to 37.8"),
        ("paper", 1e308, "with scaling=paper, phi goes from 0 to 37.8"),
    ],
)
def test_what_a_rule_does_not_have_is_one_line(preset: str, phi: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        PRESETS[preset].grow(EFFICIENTNET_B0, phi)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("end", ["least", "most"])
def test_the_ends_of_a_rule_are_networks(preset: str, end: str) -> None:
    arch = PRESETS[preset].grow(EFFICIENTNET_B0, getattr(PRESETS[preset], end))
    assert cost(arch).macs > 0


def test_what_shrinks() -> None:
    assert shrinking() == ["dwr", "tinynet"]
    for name in shrinking():
        assert cost(PRESETS[name].grow(EFFICIENTNET_B0, -2)).macs < cost(EFFICIENTNET_B0).macs


def scaling_file(folder: Path, constants: Coefficients, **evidence: Any) -> str:
    path = folder / "scaling.yaml"
    write_scaling(Scaling(constants, 1, "nearest", MOBILENET_V1, evidence), path)
    return str(path)


def test_a_scaling_file_scales_by_its_constants_and_knows_its_baseline(tmp_path: Path) -> None:
    about = {"name": "runs/first/best.yaml", "sha256": "abc", "key": "0123"}
    path = scaling_file(tmp_path, Coefficients(1.3, 1.1, 1.1), baseline=about)
    rule = read_rule(path)
    assert (
        rule.grow(EFFICIENTNET_B0, 1).blocks == compound(EFFICIENTNET_B0, Coefficients(1.3, 1, 1), 1, "nearest").blocks
    )
    assert rule.baseline == MOBILENET_V1 and rule.baseline_from == {"name": "runs/first/best.yaml", "sha256": "abc"}
    assert rule.origin == file_source(path) and rule.name == path and not rule.shrinks and rule.steps is None


@pytest.mark.parametrize("evidence", [{}, {"baseline": 3}, {"baseline": {"key": "x"}}])
def test_a_scaling_file_of_somebody_needs_no_evidence(tmp_path: Path, evidence: dict[str, Any]) -> None:
    path = scaling_file(tmp_path, Coefficients(1, 1, 1), **evidence)
    rule = read_rule(path)
    assert rule.baseline_from == {"name": path, "sha256": None}
    assert rule.grow(MOBILENET_V1, rule.most) == MOBILENET_V1  # nothing grows, and nothing overflows


def test_what_is_no_rule_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scaling=nope: no file, and no preset; allowed: published, paper, dwr, "):
        read_rule("nope")
    with pytest.raises(InputError, match="gone.yaml: No such file"):
        read_rule(str(tmp_path / "gone.yaml"))
    path = scaling_file(tmp_path, PAPER)
    content = yaml.safe_load(Path(path).read_text())
    for damaged, says in (
        ("a: [", "not YAML"),
        (yaml.safe_dump({**content, "constants": {"alpha": 0.9, "beta": 1.1, "gamma": 1}}), "alpha=0.9"),
        (yaml.safe_dump({name: value for name, value in content.items() if name != "baseline"}), "has no baseline"),
    ):
        Path(path).write_text(damaged)
        with pytest.raises(InputError) as caught:
            read_rule(path)
        assert path in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_rules_are_values() -> None:
    assert isinstance(read_rule("paper"), Rule) and read_rule("paper") is PRESETS["paper"]
