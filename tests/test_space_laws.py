"""The shipped spaces and the examples keep the laws of search_spaces.testing; broken spaces are found out.

PHINAS_NETWORKS=1000 compares the costs of 1,000 networks of each space with what is built (minutes); 8 by default.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.network import build_network, cost_of, count
from phinas.networks.reference import EFFICIENTNET_B0, MNASNET_A1, MNASNET_B1
from search_spaces.efficientnet import EfficientNet
from search_spaces.mnasnet import MnasNet
from search_spaces.nasbench_macro import NasBenchMacro
from search_spaces.space import Decision, Infeasible, decode, encode, sample, sample_feasible, size
from search_spaces.testing import SpaceBroken, check_space, examine, profile

ROOT = Path(__file__).parent.parent
NETWORKS = int(os.environ.get("PHINAS_NETWORKS", "8"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads for small tensors are slower than one, much slower on a busy machine."""
    import torch  # here, as the processes that the laws start import this module and need no torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def example_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The examples, imported from copies outside the repository, as a user would have them."""
    with pytest.MonkeyPatch.context() as patch:
        modules = {}
        for folder, name in (("custom_space", "my_spaces"), ("cell_space", "cells")):
            copy = tmp_path_factory.mktemp("user") / folder
            shutil.copytree(ROOT / "examples" / folder, copy)
            patch.syspath_prepend(copy)
            modules[name] = importlib.import_module(name)
            assert Path(modules[name].__file__).parent == copy
        yield modules
        for name in modules:
            del sys.modules[name]


@pytest.mark.parametrize(
    "space", [MnasNet(), EfficientNet(), NasBenchMacro()], ids=["mnasnet", "efficientnet", "nasbench_macro"]
)
def test_shipped_spaces_keep_the_laws(space: Any) -> None:
    assert all(finding.passed for finding in check_space(space, samples=40, build=2))


@pytest.mark.parametrize("name", ["my_spaces.Tiny", "cells.Cells"])
def test_example_spaces_keep_the_laws(example_modules: dict[str, Any], name: str) -> None:
    module, kind = name.split(".")
    check_space(getattr(example_modules[module], kind)(), samples=40, build=3)


@pytest.mark.parametrize("name", ["mnasnet", "efficientnet", "nasbench_macro", "my_spaces.Tiny"])
def test_cost_is_half_of_the_flop_counter(example_modules: dict[str, Any], name: str) -> None:
    module, _, kind = name.partition(".")
    shipped = {"mnasnet": MnasNet, "efficientnet": EfficientNet, "nasbench_macro": NasBenchMacro}
    space = shipped[name]() if name in shipped else getattr(example_modules[module], kind)()
    for seed in range(NETWORKS):
        network = decode(space, sample_feasible(space, np.random.default_rng((1, seed))))
        assert isinstance(network, Arch)
        shape = (network.in_channels, network.resolution, network.resolution)
        built = count(lambda network=network: build_network(network), shape)
        assert (cost_of(network).macs, cost_of(network).params) == (built.macs, built.params), network


@pytest.mark.parametrize(
    ("space", "network"),
    [
        (MnasNet(), EFFICIENTNET_B0),
        (MnasNet(), MNASNET_A1),
        (MnasNet(), MNASNET_B1),
        (EfficientNet(), EFFICIENTNET_B0),
    ],
    ids=["mnasnet-b0", "mnasnet-a1", "mnasnet-b1", "efficientnet-b0"],
)
def test_published_networks_are_inside(space: Any, network: Arch) -> None:
    assert decode(space, encode(space, network)) == network


def test_the_papers_space_has_432_combinations_per_block_and_lacks_its_winners() -> None:
    paper = MnasNet(filter_multipliers=(0.75, 1.0, 1.25), activations=("relu",))
    for block in (4, 5, 6):  # where filters are large enough for three distinct widths, and there are three depths
        assert size([d for d in paper.decisions if d.name.startswith(f"block{block}.")]) == 432
    assert not any(d.name == "activation" for d in paper.decisions)
    with pytest.raises(ValueError, match="112"):
        encode(paper, MNASNET_A1)


def test_sizes() -> None:
    assert size(EfficientNet().decisions) == (3 * 2 * 3 * 2) ** 6 * (3 * 2 * 4 * 2) == 104_485_552_128
    widths = {d.name: d.choices for d in MnasNet().decisions if d.name.endswith(".filters")}
    assert widths["block1.filters"] == (16, 24)
    assert widths["block3.filters"] == (24, 32, 40)
    assert widths["block5.filters"] == (72, 96, 112, 120)
    layers = {d.name: d.choices for d in MnasNet().decisions if d.name.endswith(".layers")}
    assert layers["block1.layers"] == layers["block7.layers"] == (1, 2)
    assert layers["block4.layers"] == (3, 4, 5)
    assert size(MnasNet().decisions) == 48**7 * (2 * 2 * 3 * 3 * 4 * 4 * 4) * (2 * 2 * 3**5) * 2


def test_settings_reach_the_network() -> None:
    space = MnasNet(resolution=32, classes=10, activations=["relu6"], drop_connect=0.1, operations=["mbconv4"])
    network = decode(space, sample(space.decisions, np.random.default_rng(0)))
    assert isinstance(network, Arch)
    assert (network.resolution, network.classes, network.activation) == (32, 10, "relu6")
    assert network.drop_connect == 0.1
    assert {stage.expand for stage in network.stages} == {4.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 0}, "resolution must be a whole number"),
        ({"activations": ["tanh"]}, "activations must be among relu, relu6, silu, hardswish, got 'tanh'"),
        ({"activations": "silu"}, "activations must be a list"),
        ({"operations": ["mbconv1"]}, "operations must be among conv, sepconv, mbconv2"),
        ({"kernels": [4]}, "kernel must be odd"),
        ({"skips": []}, "skips must be a list of one or more"),
        ({"skips": ["maybe"]}, "skip must be one of"),
        ({"kernels": 3}, "kernels must be a list of one or more values, got 3"),
        ({"kernels": ["a"]}, "kernel must be a whole number"),
        ({"se_ratios": ["a"]}, "se_ratio must be a finite number"),
        ({"operations": [["conv"]]}, "operations must be among"),
        ({"filter_multipliers": [0]}, "filter_multipliers=0: it must be a number above 0"),
        ({"filter_multipliers": ["a"]}, "filter_multipliers=a: it must be a number above 0"),
        ({"filter_multipliers": [float("inf")]}, "filter_multipliers=inf: it must be a number"),
        ({"layer_offsets": ["x"]}, "layer_offsets must be whole numbers, got 'x'"),
        ({"layer_offsets": [0.5]}, "layer_offsets must be whole numbers, got 0.5"),
        ({"dropout": "x"}, "dropout must be a finite number"),
        ({"classes": "x"}, "classes must be a whole number"),
        ({"layer_offsets": [-1]}, "layer_offsets leave block 1 no layer"),
        ({"drop_connect": 1.5}, "drop_connect must lie in"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        MnasNet(**settings)
    assert message in str(caught.value)


def test_profile() -> None:
    found = profile(EfficientNet(), samples=50, target=400e6)
    assert (found.samples, found.feasible, found.distinct) == (50, 50, 50)
    assert list(found.macs) == sorted(found.macs) and len(found.macs) == len(found.params) == 7
    assert found.near_target is not None and 0.2 < found.near_target < 0.9


def test_cell_evaluator_learns(example_modules: dict[str, Any]) -> None:
    cells = example_modules["cells"]
    cell = decode(cells.Cells(), (3, 0, 0, 1, 1, 0))
    with pytest.raises(Infeasible):
        decode(cells.Cells(), (3, 3, 3, 0, 0, 0))
    measured = list(cells.DigitsAccuracy(epochs=2)(cell, seed=0))
    assert [m.final for m in measured] == [False, True]
    assert measured[-1].accuracy > 0.5
    assert measured == list(cells.DigitsAccuracy(epochs=2)(cell, seed=0))


def test_example_yaml_matches_its_code(example_modules: dict[str, Any]) -> None:
    for file in sorted((ROOT / "examples").glob("*_space/my_conf/*/*.yaml")):
        settings = yaml.safe_load(file.read_text())
        module, _, kind = settings.pop("_target_").partition(".")
        getattr(example_modules[module], kind)(**settings)


# --- broken spaces ---------------------------------------------------------------------------------------------------


class Sound:
    """The space that the broken ones below spoil."""

    decisions = (Decision("width", (8, 16)), Decision("kernel", (3, 5)), Decision("repeats", (1, 2)))

    def decode(self, choices: Mapping[str, Any]) -> Any:
        stage = Stage("mbconv", kernel=choices["kernel"], stride=2, channels=8, repeats=1)
        arch = Arch(Stem(8), (stage,), head_channels=0, resolution=8, classes=2)
        return Wrapped(arch, choices["width"], choices["repeats"])


class Wrapped:
    """A network with an identity of its own."""

    input_shape = (3, 8, 8)

    def __init__(self, arch: Arch, width: int, repeats: int) -> None:
        self.arch, self.width, self.repeats = arch, width, repeats

    def to_dict(self) -> dict[str, Any]:
        return {"arch": self.arch.to_dict(), "width": self.width, "repeats": self.repeats}

    def key(self) -> str:
        return f"{self.arch.key()}-{self.width}-{self.repeats}"

    def build(self) -> Any:
        return build_network(self.arch)


class RandomDecode(Sound):
    def decode(self, choices: Mapping[str, Any]) -> Any:
        return super().decode({**choices, "width": random.random()})


class HashedKey(Sound):
    class Net(Wrapped):
        def key(self) -> str:
            return str(hash(f"{self.arch.key()}-{self.width}-{self.repeats}"))

    def decode(self, choices: Mapping[str, Any]) -> Any:
        network = super().decode(choices)
        return self.Net(network.arch, network.width, network.repeats)


class WrongCost(Sound):
    class Net(Wrapped):
        def cost(self) -> Any:
            return cost_of(EFFICIENTNET_B0)

    def decode(self, choices: Mapping[str, Any]) -> Any:
        network = super().decode(choices)
        return self.Net(network.arch, network.width, network.repeats)


class Crashing(Sound):
    def decode(self, choices: Mapping[str, Any]) -> Any:
        if choices["width"] == 16:
            raise KeyError("widht")
        return super().decode(choices)


class Unpicklable(Sound):
    def __init__(self) -> None:
        self.helper = lambda: None


class Nowhere(Sound):
    def decode(self, choices: Mapping[str, Any]) -> Any:
        raise Infeasible("never")


class NoKey(Sound):
    def decode(self, choices: Mapping[str, Any]) -> Any:
        return choices["width"]


class WrongLogits(Sound):
    class Net(Wrapped):
        def build(self) -> Any:
            return build_network(self.arch).stem

    def decode(self, choices: Mapping[str, Any]) -> Any:
        network = super().decode(choices)
        return self.Net(network.arch, network.width, network.repeats)


class Twice(Sound):
    decisions = (*Sound.decisions, Decision("width", (3, 5)))


def test_a_sound_space_passes() -> None:
    assert len(check_space(Sound(), samples=20, build=2)) == 11


@pytest.mark.parametrize(
    ("kind", "law", "detail"),
    [
        (RandomDecode, "decode is deterministic", "when decoded again"),
        (HashedKey, "keys agree between processes", "in another process"),
        (WrongCost, "cost is what is built", "cost() says 385,814,752 macs, the module has"),
        (Crashing, "samples decode", "KeyError: 'widht' (test_space_laws.py:"),
        (Unpicklable, "values pickle", "lambda"),
        (Nowhere, "samples decode", "none of 20 random samples is feasible"),
        (NoKey, "samples decode", "which has no key()"),
        (WrongLogits, "networks run", "logits have shape"),
        (Twice, "decisions are sound", "decision name 'width' occurs twice"),
    ],
)
def test_a_broken_law_is_named(kind: type[Any], law: str, detail: str) -> None:
    findings = {finding.law: finding for finding in examine(kind(), samples=20, build=2)}
    assert not findings[law].passed
    assert detail in findings[law].detail


def test_a_process_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_spaces.testing.TIMEOUT", 0.01)
    findings = {finding.law: finding for finding in examine(Sound(), samples=20, build=2)}
    assert findings["keys agree between processes"].detail == "another process gave no keys within 0.01 seconds"


def test_check_space_lists_what_is_broken() -> None:
    with pytest.raises(SpaceBroken, match=r"Twice breaks 1 of 1 laws\ndecisions are sound: decision name 'width'"):
        check_space(Twice())
