"""Rewards: worked numbers, and the laws that tell them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nas.reward import absolute, mnas_hard, mnas_soft, on_macs, on_targets

CONF = Path(__file__).parents[1] / "conf" / "reward"


@pytest.mark.parametrize(
    ("reward", "cost", "expected"),
    [
        (mnas_soft, 400e6, 0.8),
        (mnas_soft, 800e6, 0.7621),  # 0.8 * 2 ** -0.07
        (mnas_soft, 200e6, 0.8398),
        (mnas_soft, 500e6, 0.7876),  # 25 % over budget loses only 1.6 %
        (mnas_hard, 400e6, 0.8),
        (mnas_hard, 200e6, 0.8),
        (mnas_hard, 500e6, 0.64),
        (mnas_hard, 800e6, 0.4),
        (absolute, 400e6, 0.8),
        (absolute, 800e6, 0.7),
        (absolute, 200e6, 0.75),
    ],
)
def test_worked_numbers(reward: Any, cost: float, expected: float) -> None:
    assert reward(0.8, cost, 400e6) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("reward", [mnas_soft, mnas_hard, absolute])
def test_at_the_target_the_reward_is_the_accuracy_and_accuracy_always_pays(reward: Any) -> None:
    for accuracy in (0.0, 0.3, 1.0):
        assert reward(accuracy, 123e6, 123e6) == accuracy
    for cost in (1, 400_000_000, 10**12):  # integers, as costs are counted
        assert reward(0.8, cost, 400e6) > reward(0.7, cost, 400e6)


def test_settings_change_the_exchange() -> None:
    assert mnas_soft(0.8, 800e6, 400e6, exponent=-1.0) == pytest.approx(0.4)
    assert mnas_hard(0.8, 800e6, 400e6, exponent=-0.07) == pytest.approx(0.7621, abs=5e-5)
    assert absolute(0.8, 800e6, 400e6, beta=-0.3) == pytest.approx(0.5)


def test_on_macs_reads_the_multiply_adds() -> None:
    assert on_macs(mnas_hard, 400e6)(0.8, {"macs": 800e6, "params": 1.0}) == pytest.approx(0.4)


@pytest.mark.parametrize("function", [mnas_soft, mnas_hard, absolute], ids=lambda function: str(function.__name__))
def test_every_file_configures_its_function_with_the_defaults(function: Any) -> None:
    configured = instantiate(OmegaConf.load(CONF / f"{function.__name__}.yaml"))
    assert configured.func is function
    assert configured(0.8, 800e6, 400e6) == function(0.8, 800e6, 400e6)


# Each target doubles what a term asks: macs 800e6 of 400e6, latency 0.02 s of 0.01 s, 500 images/s of 1000.
COSTS = {"macs": 800e6, "params": 5e6, "latency": 0.02, "throughput": 500.0}
TARGETS = {"macs": 400e6, "latency": 0.01, "throughput": 1000.0}


@pytest.mark.parametrize(
    ("reward", "names", "expected"),
    [
        (mnas_soft, ["latency"], 0.7621),
        (mnas_soft, ["throughput"], 0.7621),  # half the images per second is twice the seconds per image
        (mnas_soft, ["macs", "throughput"], 0.7260),  # 0.8 * 2 ** -0.14
        (mnas_soft, ["macs", "latency", "throughput"], 0.6916),  # 0.8 * 2 ** -0.21
        (mnas_hard, ["macs", "latency"], 0.2),
        (absolute, ["macs", "throughput"], 0.6),  # 0.1 off for each
        (absolute, [], 0.8),
    ],
)
def test_several_targets_are_taken_one_after_the_other(reward: Any, names: list[str], expected: float) -> None:
    reward_of = on_targets(reward, {name: TARGETS[name] for name in names})
    assert reward_of(0.8, COSTS) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("reward", [mnas_soft, mnas_hard, absolute])
def test_more_throughput_than_asked_is_never_worse_than_less(reward: Any) -> None:
    reward_of = on_targets(reward, {"throughput": 1000.0})
    assert reward_of(0.8, {"throughput": 1000.0}) == pytest.approx(0.8)
    assert reward_of(0.8, {"throughput": 1250.0}) > reward_of(0.8, {"throughput": 500.0})
