"""What was begun before the packages had one name goes on: the table of names, and a run of each kind from then."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hydra.utils import get_object

from phinas.__main__ import command_module
from phinas.command.configuration import configuration
from phinas.command.verbs import VERBS
from phinas.files.moved import COMMANDS, MOVED, TARGETS, moved_hint, named_before, renamed
from phinas.files.settings import check_same_settings


@pytest.mark.parametrize(("before", "now"), MOVED.items(), ids=list(MOVED))
def test_every_earlier_name_has_a_module_of_today(before: str, now: str) -> None:
    assert importlib.util.find_spec(now) is not None and before != now


def test_every_command_is_a_verb_and_can_be_run() -> None:
    assert set(COMMANDS.values()) <= {verb.module for verb in VERBS.values()}
    for verb in VERBS.values():
        assert callable(command_module(verb.module).main)


def test_no_two_modules_became_one_so_that_a_hash_over_earlier_names_is_the_same() -> None:
    of_one_release = {before: now for before, now in MOVED.items() if not before.startswith("phinas.")}
    for table in (of_one_release, COMMANDS, TARGETS):
        assert len(set(table.values())) == len(table)


@pytest.mark.parametrize(("before", "now"), TARGETS.items(), ids=list(TARGETS))
def test_every_earlier_target_is_made_by_its_name_of_today(before: str, now: str) -> None:
    assert callable(get_object(now))
    module, _, name = before.rpartition(".")
    assert now == f"{MOVED[module]}.{name}"


def test_what_is_typed_is_the_users_own_where_they_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `training/` with a `data.py` is in many a project, and what is in it is not ours."""
    given, _ = configuration("nas.search", "search", ["evaluator.recipe._target_=training.recipe.Recipe"])
    assert given["evaluator"]["recipe"]["_target_"] == TARGETS["training.recipe.Recipe"]
    theirs = ["reward=custom", "reward._target_=training.data.digits", "space._target_=training.data.Space"]
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    (tmp_path / "training" / "data.py").write_text("def digits(accuracy, cost, target):\n    return accuracy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    given, _ = configuration("nas.search", "search", theirs)
    assert given["reward"]["_target_"] == "training.data.digits" and given["space"]["_target_"] == "training.data.Space"
    path = tmp_path / "settings.json"
    check_same_settings(path, given, given)


def test_targets_and_commands_are_renamed_at_any_depth_and_nothing_else_is() -> None:
    before = {
        "command": "training.transfer",
        "evaluator": {
            "_target_": "nas.evaluators.proxy.Proxy",
            "recipe": {"_target_": "training.recipe.Recipe", "epochs": 2, "note": "training.recipe.Recipe"},
        },
        "recipe.optimizer._target_": "training.rmsprop.TensorFlowRMSProp",
        "list": [{"_target_": "convnets.timing.ThisMachine"}, "convnets.timing.ThisMachine"],
        "space": {"_target_": "my_spaces.training.Space"},
    }
    now = renamed(before)
    assert now["command"] == "phinas.transfer"
    assert now["evaluator"]["recipe"] == {
        "_target_": "phinas.training.short.recipe.Recipe",
        "epochs": 2,
        "note": "training.recipe.Recipe",
    }
    assert now["recipe.optimizer._target_"] == "phinas.training.full.rmsprop.TensorFlowRMSProp"
    assert now["list"] == [{"_target_": "phinas.measure.timing.ThisMachine"}, "convnets.timing.ThisMachine"]
    assert now["space"] == before["space"] and now["evaluator"]["_target_"] == "nas.evaluators.proxy.Proxy"
    assert renamed(now) == now and named_before(now) == before


def test_whoever_imports_an_earlier_name_is_told() -> None:
    assert moved_hint("convnets.arch") == "convnets.arch is now phinas.networks.arch"
    assert "phinas.networks.arch for convnets.arch" in str(moved_hint("convnets"))
    assert moved_hint("numpy") is None and moved_hint("conv") is None
