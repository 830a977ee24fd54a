"""What was begun before the packages had one name goes on: the table of names, and a run of each kind from then."""

from __future__ import annotations

import importlib

import pytest

from phinas.__main__ import command_module
from phinas.command.verbs import VERBS
from phinas.files.moved import COMMANDS, MOVED, moved_hint, named_before, renamed


@pytest.mark.parametrize(("before", "now"), MOVED.items(), ids=list(MOVED))
def test_every_earlier_name_has_a_module_of_today(before: str, now: str) -> None:
    assert importlib.util.find_spec(now) is not None and before != now


def test_every_command_is_a_verb_and_can_be_run() -> None:
    assert set(COMMANDS.values()) <= {verb.module for verb in VERBS.values()}
    for verb in VERBS.values():
        assert callable(command_module(verb.module).main)


def test_no_two_modules_became_one_so_that_a_hash_over_earlier_names_is_the_same() -> None:
    assert len(set(MOVED.values())) == len(MOVED) and len(set(COMMANDS.values())) == len(COMMANDS)


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
