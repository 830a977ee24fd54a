"""Rewards: how accuracy and cost become the one number that a search maximises.

Each takes the accuracy as a fraction, and a cost and its target in the same unit (multiply-adds, seconds, bytes);
the target is greater than 0. All of them equal the accuracy at cost = target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nas.costs import to_minimise

RewardOf = Callable[[float, Mapping[str, float]], float]  # (accuracy, costs of the network) -> reward


def mnas_soft(accuracy: float, cost: float, target: float, exponent: float = -0.07) -> float:
    """accuracy * (cost / target) ** exponent: the target is a rate of exchange, not a limit.

    MnasNet (Tan et al., arXiv 1807.11626), equation 2 with alpha = beta = exponent; EfficientNet (arXiv 1905.11946)
    searched with it. -0.07 comes from "twice the latency buys 5 % relative accuracy".
    Accuracy 0.8 earns 0.8 at the target, 0.7621 at twice the target and 0.8398 at half of it.
    """
    return accuracy * math.pow(cost / target, exponent)


def mnas_hard(accuracy: float, cost: float, target: float, exponent: float = -1.0) -> float:
    """accuracy within the target; accuracy * (cost / target) ** exponent beyond it.

    MnasNet (Tan et al., arXiv 1807.11626), equation 2 with alpha = 0 and beta = exponent.
    Accuracy 0.8 earns 0.8 at the target and at half of it, 0.64 at 1.25 times the target and 0.4 at twice.
    """
    return accuracy * math.pow(max(cost / target, 1.0), exponent)


def absolute(accuracy: float, cost: float, target: float, beta: float = -0.10) -> float:
    """accuracy + beta * |cost / target - 1|: pulls towards the target from both sides.

    TuNAS (Bender et al., arXiv 2008.06120): unlike the soft product, it lands on the target without a
    search over its coefficient.
    Accuracy 0.8 earns 0.8 at the target, 0.7 at twice the target and 0.75 at half of it.
    """
    return accuracy + beta * abs(cost / target - 1.0)


def on_targets(reward: Callable[[float, float, float], float], targets: Mapping[str, float]) -> RewardOf:
    """`reward` against each of `targets` (cost name -> target) in turn, as a function of (accuracy, costs) in a search.

    What one target leaves of the accuracy goes on to the next: a product of terms for `mnas_soft` and `mnas_hard`, a
    sum of penalties for `absolute`. A throughput and its target are handed on as seconds per image, so that less is
    better for every reward. Without targets the reward is the accuracy.
    Accuracy 0.8 earns 0.7260 under `mnas_soft` at twice the target in MACs and half the target in images per second.
    """
    aims = [(name, to_minimise(name, target)) for name, target in targets.items()]

    def reward_of(accuracy: float, costs: Mapping[str, float]) -> float:
        for name, target in aims:
            accuracy = reward(accuracy, to_minimise(name, costs[name]), target)
        return accuracy

    return reward_of


def on_macs(reward: Callable[[float, float, float], float], target: float) -> RewardOf:
    """`reward` against `target` multiply-adds alone."""
    return on_targets(reward, {"macs": target})
