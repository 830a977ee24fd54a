"""The front door of Python: what the commands do, as functions, with the same settings, checks and files."""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

import phinas
from nas import report
from nas import search as command
from nas.controllers.random import Random
from nas.evaluators.synthetic import Synthetic
from phinas import InputError, RunFailed
from phinas.api.described import described
from phinas.api.overrides import overrides_of
from phinas.command.groups import CONFIG_FOLDER
from phinas.engines.evaluator import EvaluationFailed, Measurement
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.cost import cost
from phinas.networks.network import Network
from phinas.networks.reference import EFFICIENTNET_B0
from search_spaces.efficientnet import EfficientNet
from tests.conftest import contents

pytestmark = pytest.mark.usefixtures("empty_folder")
TINY = Arch(Stem(8), (Stage("mbconv", 3, 2, channels=8, repeats=1, expand=2),), head_channels=16, resolution=16)


class NeedsWidth(EfficientNet):
    def __init__(self, width: int) -> None:
        super().__init__()


def larger_is_better(network: Network) -> float:
    assert isinstance(network, Arch)
    return min(1.0, cost(network).macs / 1e9)


def quick(**settings: Any) -> phinas.SearchResult:
    """A search that takes no time."""
    settings = {"space": "efficientnet", "evaluate": larger_is_better, "engine": "inline", "budget": 6} | settings
    return phinas.search(**settings)


# ----------------------------------------------------------------------------------------------------------- searching


def test_a_search_is_that_of_the_command_to_the_byte() -> None:
    found = phinas.search(
        space="efficientnet",
        evaluate="synthetic",
        engine="inline",
        budget=8,
        seed=3,
        name="python",
        limits={"params": 9e6},
        options={"evaluator.noise": 0.1},
    )
    typed = "space=efficientnet evaluator=synthetic engine=inline budget=8 seed=3 limits.params=9e6 evaluator.noise=0.1"
    assert command.main([*typed.split(), "name=typed"]) == 0
    assert Path("runs/python/journal.jsonl").read_bytes() == Path("runs/typed/journal.jsonl").read_bytes()
    summaries = [json.loads(Path(f"runs/{name}/summary.json").read_text()) for name in ("python", "typed")]
    assert [summary.pop("seconds") > 0 for summary in summaries] == [True, True]
    assert summaries[0] == summaries[1]
    best = found.best
    assert (
        best is not None and best.key == summaries[0]["best"]["key"] and best.reward == summaries[0]["best"]["reward"]
    )


def test_what_is_found_is_there_as_values_tables_and_pictures() -> None:
    found = quick(name="a")
    assert found.folder == Path("runs/a").resolve() and len(found.trials) == 6
    best = found.best
    assert best is not None and isinstance(best.network, Arch)
    assert best.reward == found.trials.reward.max() and best.accuracy == larger_is_better(best.network)
    assert best.costs["macs"] == cost(best.network).macs and best.choices["block1.kernel"] in (3, 5)
    macs = [candidate.costs["macs"] for candidate in found.front]
    assert macs == sorted(macs) and [candidate.accuracy for candidate in found.front] == sorted(
        candidate.accuracy for candidate in found.front
    )
    for picture in (found.overview, found.pareto(), found.rewards):
        assert picture._repr_png_().startswith(b"\x89PNG")
    found.overview.save("a.png")
    assert Path("a.png").read_bytes() == found.overview.png
    assert "data:image/png;base64," in found._repr_html_() and "<search a: 6 evaluations" in repr(found)
    logits = best.module()(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 1000)


def test_the_same_name_goes_on_and_another_function_is_another_search() -> None:
    first = quick(name="a", budget=4)
    more = quick(name="a", budget=7)
    assert len(more.trials) == 7 and list(more.trials.key[:4]) == list(first.trials.key)
    journal = Path("runs/a/journal.jsonl").read_bytes()

    def others(network: Network) -> float:
        return 0.5

    with pytest.raises(InputError, match=r"was started with evaluator\._code_=.* \(now .*others\)"):
        quick(name="a", budget=9, evaluate=others)
    assert Path("runs/a/journal.jsonl").read_bytes() == journal


def test_closures_and_seeds_and_failures() -> None:
    seen: list[int] = []

    def accuracy(network: Network, seed: int) -> float:
        seen.append(seed)
        if len(seen) == 2:
            raise EvaluationFailed("it diverged")
        return 0.25

    found = quick(evaluate=accuracy, budget=3, name="a")
    assert len(set(seen)) == 3 and found.summary["failures"] == 1
    assert list(found.trials.error.dropna()) == ["it diverged"]
    assert quick(evaluate=lambda network: 1, budget=2, name="b").trials.accuracy.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="returned None; an accuracy is a fraction"):
        quick(evaluate=lambda network: None, name="c")
    with pytest.raises(RunFailed, match="the last 2 evaluations all failed: 2 x no"):

        def fails(network: Network) -> float:
            raise EvaluationFailed("no")

        quick(evaluate=fails, name="d", options={"give_up_after": 2})


@pytest.mark.slow
@pytest.mark.ray
def test_a_closure_is_sent_to_the_workers_of_ray() -> None:
    offset = 0.125

    def accuracy(network: Network) -> float:
        return offset + larger_is_better(network) / 2

    on_ray = quick(evaluate=accuracy, engine="ray", options={"engine.workers": 1}, name="ray")
    inline = quick(evaluate=accuracy, name="inline")
    assert Path("runs/ray/journal.jsonl").read_bytes() == Path("runs/inline/journal.jsonl").read_bytes()
    assert on_ray.trials.accuracy.equals(inline.trials.accuracy)


def test_objects_of_ones_own_in_every_place() -> None:
    class Device:
        def costs(self, network: Network) -> dict[str, float]:
            return {"joules": larger_is_better(network) + 0.01}

    def frugal(accuracy: float, cost: float, target: float) -> float:
        return accuracy - cost / target

    found = quick(
        space=EfficientNet(resolution=32),
        evaluate=Synthetic(noise=0.1),
        controller=Random,
        reward=frugal,
        device=Device(),
        targets={"joules": 0.5},
        target_flops=None,
        name="a",
    )
    config = yaml.safe_load(Path("runs/a/config.yaml").read_text())
    assert config["space"]["_target_"] == "search_spaces.efficientnet.EfficientNet"
    assert described(EfficientNet(resolution=64)) != config["space"] == described(EfficientNet(resolution=32))
    assert config["evaluator"]["_object_"]["noise"] == 0.1 and config["reward"]["_target_"].endswith("frugal")
    assert found.best is not None and "joules" in found.best.costs


def test_nothing_is_said_where_no_progress_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    quick(name="a", progress=False)
    assert capsys.readouterr().out == ""
    quick(name="b")
    assert "[6/6] accuracy" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"budget": -1}, "budget=-1: it must be a whole number, 1 or more"),
        ({"target_flops": "many"}, "target_flops=many: it must be"),
        ({"space": "nowhere"}, "space=nowhere: there is no such space; allowed: custom, efficientnet"),
        ({"space": "nowhere.Space"}, "space: Error loading 'nowhere.Space'"),
        ({"evaluate": 3}, "evaluate=3: it must be a function from a network to its accuracy"),
        ({"options": {"budgets": 3}}, "unknown option 'budgets'; did you mean budget?"),
        ({"options": {"budget": 3}}, "options: budget is an argument of phinas.search itself"),
        ({"options": {"evaluator.noise": 3}}, "evaluator is an object here, and has its settings"),
        ({"options": {"a b": 3}}, "options: 'a b' is no name of an option"),
        ({"options": {"halving.grace": object()}}, "halving.grace=<object object"),
        ({"front": "joules"}, "front=joules"),
        ({"data": object()}, "it must be the name of one, of digits, imagefolder, parquet"),
        ({"engine": object()}, "it must be the name of one, of inline, ray"),
        ({"evaluate": Synthetic}, "it must be a function from a network to its accuracy, or an evaluator"),
        (
            {"evaluate": lambda network, *, seed: 0.5},
            "it must take a network, or a network and a seed, and need",
        ),
        ({"evaluate": lambda a, b, c: 0.5}, "it must take a network, or a network and a seed, and need"),
        ({"evaluate": "nowhere.accuracy"}, "evaluate=nowhere.accuracy: cannot be found"),
        ({"space": NeedsWidth}, "space=NeedsWidth: "),
        ({"controller": None}, "controller=None: it must be a class"),
        ({"targets": [1]}, "targets=[1]: it must be a mapping of names to values"),
        ({"options": {3: 1}}, "options={3: 1}: it must be a mapping of names to values"),
        ({"options": {"experiment": "b0"}}, "options: experiment is for the command line alone"),
        ({"name": "../a"}, "name=../a: a run's name has letters"),
        ({"device": object()}, "it has no method costs(network)"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_mistake_is_one_line_and_nothing_is_written(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        quick(**settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert contents(Path()) == {}


def test_defaults_are_those_of_the_commands() -> None:
    """Here and in `conf/`: the signature shows them, and neither may change alone."""
    functions: dict[str, Callable[..., Any]] = {
        "search": phinas.search, "grid": phinas.grid, "generate": phinas.generate, "train": phinas.train,
    }  # fmt: skip
    renamed = {"evaluate": "evaluator", "weights": "weights"}
    for name, function in functions.items():
        content = yaml.safe_load((CONFIG_FOLDER / f"{name}.yaml").read_text())
        groups = {
            group: choice
            for each in content.pop("defaults")
            if isinstance(each, dict)
            for group, choice in each.items()
        }
        for parameter in inspect.signature(function).parameters.values():
            option = renamed.get(parameter.name, parameter.name)
            if option in ("options", "progress", "targets", "limits", "variant", "model"):
                continue
            default = parameter.default
            wanted = groups.get(option, content.get(option))
            wanted = float(wanted) if isinstance(default, float) else wanted
            assert default == wanted or (default == () and wanted == []), f"phinas.{name}({option}=...)"


WORDS = st.text("abenrtulsif1_./-", max_size=8)
TEXT = (
    WORDS
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.text("a'\\${}\" ,:[]()=~+1", max_size=10)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b_c", "lr"]), inner, max_size=3),
    max_leaves=5,
)


@given(VALUES)
def test_any_value_reaches_the_command_as_it_is(value: Any) -> None:
    (text,) = overrides_of({"option": value})
    parsed = OverridesParser.create().parse_override(text).value()
    assert OmegaConf.to_container(OmegaConf.create({"option": parsed}), resolve=True) == {"option": value}


class Scored:
    """An evaluator of one's own with a value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        yield Measurement(float(self.value))

    def accuracy(self, network: Network) -> float:
        return float(self.value)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, network: Network) -> float:
        return self.value


def closure(value: float) -> Callable[[Network], float]:
    return lambda network: value


def default(value: float) -> Callable[..., float]:
    def accuracy(network: Network, value: float = value) -> float:
        return value

    return accuracy


def with_value(value: Any, network: Network) -> float:
    return float(value)


@pytest.mark.parametrize(
    "make",
    [
        Scored,
        lambda value: Scored(np.float64(value)),
        lambda value: Scored(value).accuracy,
        Slotted,
        closure,
        default,
        lambda value: functools.partial(with_value, value),
        lambda value: functools.partial(with_value, np.float32(value)),
    ],
    ids=["object", "numpy", "method", "slots", "closure", "default", "partial", "numpy in a partial"],
)
def test_another_value_is_another_search(make: Callable[[float], Any]) -> None:
    quick(evaluate=make(0.25), budget=2, name="a")
    before = contents(Path("runs/a"))
    with pytest.raises(InputError, match="was started with evaluator"):
        quick(evaluate=make(0.75), budget=4, name="a")
    assert contents(Path("runs/a")) == before
    assert len(quick(evaluate=make(0.25), budget=4, name="a").trials) == 4


def test_what_no_yaml_holds_is_left_out_and_does_no_harm() -> None:
    itself: list[Any] = []
    itself.append(itself)
    evaluator = Scored(0.5)
    vars(evaluator).update(itself=itself, lock=threading.Lock(), rate=np.float64(0.1), code="mine")
    assert described(evaluator)["_object_"] == {"value": 0.5, "rate": 0.1, "code": "mine"}
    quick(evaluate=evaluator, name="a")
    assert yaml.safe_load(Path("runs/a/config.yaml").read_text())["evaluator"]["_object_"]["rate"] == 0.1


def test_a_class_without_a_source_of_its_own_is_known_by_its_methods() -> None:
    """As in a notebook, where the source of a cell is found for functions alone."""
    hashes = []
    for value in (0.25, 0.75, 0.25):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(f"class E:\n    def __call__(self, network):\n        return {value}\n", names)
        hashes.append(described(names["E"]())["_code_"])
    assert hashes[0] == hashes[2] != hashes[1]


def test_the_report_of_a_search_over_an_object_says_how_it_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    quick(space=EfficientNet(resolution=32), name="a")
    with pytest.raises(InputError, match=r"space was an object that Python handed over; call phinas.search"):
        report.main(["runs/a"])


def test_unnamed_runs_are_runs_of_their_own() -> None:
    folders = {quick(budget=1, seed=seed).folder for seed in range(3)}
    assert len(folders) == 3


def test_a_description_follows_code_and_settings_and_no_comments() -> None:
    def first(network: Network) -> float:
        return 0.5  # a comment

    def second(network: Network) -> float:
        return 0.25

    one, other = described(first), described(second)
    assert one["_target_"].endswith("first") and one["_code_"] != other["_code_"]
    assert described(Synthetic(noise=0.1)) != described(Synthetic(noise=0.2))
    source = "def f(network):\n    return 0.5\n"
    commented = "def f(network):\n    'What.'\n    # why\n    return 0.5  # how\n"
    hashes = []
    for number, text in enumerate((source, commented)):
        Path(f"module{number}.py").write_text(text)
        names: dict[str, Any] = {}
        exec(compile(text, f"module{number}.py", "exec"), names)
        hashes.append(described(names["f"])["_code_"])
    assert hashes[0] == hashes[1]


# ----------------------------------------------------------------------------------------- scaling, making, training


def test_a_network_goes_from_the_search_through_scaling_and_family_to_training() -> None:
    found = quick(space=EfficientNet(resolution=32), name="found")
    scaled = phinas.grid(
        baseline=found,
        evaluate=larger_is_better,
        variant=None,
        candidates=2,
        seeds=1,
        engine="inline",
        name="scaled",
        options={"lattice.step": 0.1, "tolerance": 0.3},
    )
    assert len(scaled.candidates) >= 2 and scaled.constants.alpha >= 1 and "best" in scaled.summary
    assert scaled.picture._repr_png_().startswith(b"\x89PNG") and str(scaled.constants) in repr(scaled)
    family = phinas.generate(scaling=scaled, phi=[0, 1], name="family")
    assert isinstance(family.table, pd.DataFrame) and list(family.networks) == list(family.table.model)
    assert found.best is not None and next(iter(family.networks.values())) == found.best.network
    with pytest.raises(InputError, match="name=None: the family has no such network; it has found_phi0"):
        family.module()
    module = family.module(list(family.networks)[0])
    assert sum(parameter.numel() for parameter in module.parameters()) == found.best.costs["params"]


def test_one_network_of_a_table_as_a_module() -> None:
    family = phinas.generate(phi=0, name="b0")
    assert family.networks == {"efficientnet_b0": EFFICIENTNET_B0}
    assert sum(parameter.numel() for parameter in family.module().parameters()) == 5_288_548
    assert "efficientnet_b0" in family._repr_html_() and family.picture.png.startswith(b"\x89PNG")


def test_a_training_by_value_resumes_and_gives_its_module() -> None:
    trained = phinas.train(TINY, name="a", options={"recipe.epochs": 2, "recipe.recalibrate": 64})
    assert (
        trained.network.classes == 10
        and len(trained.metrics) == 2
        and trained.accuracy == trained.summary["test"]["accuracy"]
    )
    assert not trained.module.training and trained.module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert trained.picture.png.startswith(b"\x89PNG")
    before = contents(Path("runs/a"))
    again = phinas.train(TINY, name="a", options={"recipe.epochs": 2, "recipe.recalibrate": 64})
    assert again.accuracy == trained.accuracy and contents(Path("runs/a")) == before
    tuned = phinas.train(TINY, weights=trained, recipe="finetune", name="b", options={"recipe.epochs": 1})
    assert tuned.summary["model"] == f"runs/.networks/{TINY.key()}.yaml"
    with pytest.raises(RunFailed, match="loss is (nan|inf).*a lower recipe.lr= may help"):
        phinas.train(TINY, name="c", options={"recipe.epochs": 1, "recipe.lr": 1e30})
    with pytest.raises(InputError, match="model=3: it must be an Arch, a name, a file"):
        phinas.train(3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: phinas.grid(data=object()), "it must be the name of one, of digits, imagefolder, parquet"),
        (lambda: phinas.grid(variant=3), "variant=3: it must be a mapping of names to values"),
        (lambda: phinas.grid(options={"dry_run": True}), "options: dry_run is for the command line alone"),
        (lambda: phinas.grid(baseline="nowhere"), "baseline=nowhere: no file, and no published network"),
        (lambda: phinas.generate(device=object()), "it must be the name of one, of accel_nasbench, cpu"),
        (lambda: phinas.generate(scaling="nowhere"), "scaling=nowhere"),
        (lambda: phinas.generate(phi=[]), "phi=[]: give one or more"),
        (lambda: phinas.train("efficientnet_b0", recipe=object()), "it must be the name of one, of efficientnet, fast"),
        (lambda: phinas.train("efficientnet_b0", options={"bogus": 1}), "unknown option 'bogus'"),
        (lambda: phinas.train(Path()), "model=.: no network was found or trained there; name the file of one"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_mistake_in_scaling_making_and_training_is_one_line(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert contents(Path()) == {}


@pytest.mark.slow
def test_a_folder_of_a_run_by_name_or_path_is_its_network() -> None:
    found = quick(space=EfficientNet(resolution=32), name="found")
    for baseline in ("runs/found", Path("runs/found"), found, found.best):
        family = phinas.generate(baseline=baseline, scaling="paper", phi=np.int64(0), progress=False)
        assert found.best is not None and list(family.networks.values()) == [found.best.network]


# ------------------------------------------------------------------------------------------------------------- the door


def test_the_door_opens_without_what_is_behind_it() -> None:
    code = "import sys, phinas; print(phinas.__version__, {'torch', 'ray', 'pandas', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [phinas.__version__, "set()"]


def test_functions_stay_functions_when_the_packages_of_their_names_are_used() -> None:
    from phinas.generate import family
    from phinas.train import report

    assert inspect.isfunction(phinas.generate) and inspect.isfunction(phinas.train)
    assert inspect.ismodule(family) and inspect.ismodule(report)
