"""Compound scaling: its identity, its shares, and `scaling.yaml`, which carries it from a search to its users."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from phinas.files.errors import InputError
from phinas.networks.compound import PAPER, Coefficients, compound
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0, NAMES, reference
from phinas.networks.scale import ROUNDINGS, scale
from phinas.networks.scaling_file import Scaling, read_scaling, write_scaling


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_phi_zero_is_the_identity(name: str, rounding: str) -> None:
    assert compound(reference(name), PAPER, 0, rounding) == reference(name)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_one_step_of_the_paper_is_b1s_depth_and_width_at_258_pixels(rounding: str) -> None:
    scaled = compound(EFFICIENTNET_B0, PAPER, 1, rounding)
    assert scaled == scale(EFFICIENTNET_B0, depth=1.2, width=1.1, resolution=258, rounding=rounding)


def test_nothing_shrinks_from_step_to_step() -> None:
    costs = [cost(compound(EFFICIENTNET_B0, PAPER, phi / 4)).macs for phi in range(25)]
    assert costs == sorted(costs) and costs[-1] > 30 * costs[0]


def test_constants_of_one_leave_their_dimension_alone() -> None:
    deeper = compound(EFFICIENTNET_B0, Coefficients(2, 1, 1), 1)
    assert deeper == scale(EFFICIENTNET_B0, depth=2)
    larger = compound(EFFICIENTNET_B0, Coefficients(1, 1, 1.4), 1)
    assert larger == replace(EFFICIENTNET_B0, resolution=314)


def test_the_papers_shares() -> None:
    assert PAPER.product == pytest.approx(1.92027)
    assert [round(share, 2) for share in PAPER.shares] == [0.28, 0.29, 0.43]
    assert str(PAPER) == "(1.2, 1.1, 1.15)"


def test_shares_sum_to_one_and_give_the_constants_back() -> None:
    draws = random.Random(0)
    for _ in range(200):
        depth = draws.random()
        width = (1 - depth) * draws.random()
        product = 1 + 3 * draws.random()
        made = Coefficients.of_shares(depth, width, product)
        assert made.product == pytest.approx(product)
        assert made.shares == pytest.approx((depth, width, 1 - depth - width))
        assert sum(made.shares) == pytest.approx(1)
        again = Coefficients.of_shares(*made.shares[:2], made.product)
        assert vars(again) == pytest.approx(vars(made))


def test_the_corners_of_the_shares_are_single_dimensions() -> None:
    assert vars(Coefficients.of_shares(1, 0)) == {"alpha": 2, "beta": 1, "gamma": 1}
    assert vars(Coefficients.of_shares(0, 1)) == pytest.approx({"alpha": 1, "beta": 2**0.5, "gamma": 1})
    assert vars(Coefficients.of_shares(0, 0)) == pytest.approx({"alpha": 1, "beta": 1, "gamma": 2**0.5})


@pytest.mark.parametrize(
    ("constants", "culprit"),
    [((0.9, 1, 1), "alpha=0.9"), ((1, 0.99, 1), "beta=0.99"), ((1, 1, -1), "gamma=-1"), ((1, 1, "x"), "gamma=x"),
     ((float("nan"), 1, 1), "alpha=nan"), ((1, True, 1), "beta=True")],
)  # fmt: skip
def test_constants_below_one_are_named(constants: tuple[Any, Any, Any], culprit: str) -> None:
    with pytest.raises(InputError, match=f"^{culprit}: it must be a number 1 or more$"):
        Coefficients(*constants)


SCALING = Scaling(PAPER, 1.0, "nearest", EFFICIENTNET_B0, {"seeds": 3, "verdict": "höher", "top": [{"accuracy": None}]})


def test_a_scaling_file_round_trips(tmp_path: Path) -> None:
    write_scaling(SCALING, tmp_path / "scaling.yaml")
    assert read_scaling(tmp_path / "scaling.yaml") == SCALING


def test_evidence_may_be_missing(tmp_path: Path) -> None:
    write_scaling(SCALING, tmp_path / "scaling.yaml")
    content = yaml.safe_load((tmp_path / "scaling.yaml").read_text())
    del content["evidence"]
    (tmp_path / "scaling.yaml").write_text(yaml.safe_dump(content))
    assert read_scaling(tmp_path / "scaling.yaml") == replace(SCALING, evidence={})


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        *folders, last = path
        for folder in folders:
            content = content[folder]
        content[last] = to

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("constants"), "it has no constants"),
        (lambda content: content.pop("phi"), "it has no phi"),
        (lambda content: content.pop("rounding"), "it has no rounding"),
        (lambda content: content.pop("baseline"), "it has no baseline"),
        (_set("constants", to=[1.2, 1.1, 1.15]), "constants must be alpha, beta and gamma"),
        (_set("constants", "delta", to=1), "constants must be alpha, beta and gamma"),
        (_set("constants", "beta", to=0.5), "beta=0.5: it must be a number 1 or more"),
        (_set("constants", "beta", to="wide"), "beta=wide: it must be a number 1 or more"),
        (_set("phi", to="many"), "phi=many: it must be a number above 0"),
        (_set("phi", to=0), "phi=0: it must be a number above 0"),
        (_set("phi", to=None), "phi=None: it must be a number above 0"),
        (_set("rounding", to="up"), "rounding=up: it must be one of official, nearest"),
        (_set("rounding", to=["official"]), "rounding=['official']: it must be one of official, nearest"),
        (_set("evidence", to="none at all"), "evidence=none at all: it must be a mapping"),
        (_set("baseline", to="efficientnet_b0"), "mapping"),
        (_set("baseline", to=None), "None"),
        (_set("baseline", "stages", to=[]), "stage"),
        (_set("baseline", "stem", "channels", to=-3), "channels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_wrong_content_is_one_line(tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str) -> None:
    path = tmp_path / "scaling.yaml"
    write_scaling(SCALING, path)
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    _refused(path, says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no mapping"),
        (b"- 1", "no mapping"),
        (b"constants: [1,", "not YAML"),
        (b"{[1]: 2}", "not YAML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"constants: 2020-13-45", "month"),
    ],
)
def test_what_is_no_yaml_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "scaling.yaml"
    path.write_bytes(content)
    _refused(path, says)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    _refused(tmp_path / "none.yaml", "No such file")
    _refused(tmp_path, "Is a directory")


def _refused(path: Path, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_scaling(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and says in message and "\n" not in message
