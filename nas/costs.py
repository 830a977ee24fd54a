"""The costs of a network by name: which are counted, which way is better, and what is within limits."""

from __future__ import annotations

from collections.abc import Mapping

COUNTED = ("macs", "params", "activations")  # by arithmetic, always known; the others come from a device


def higher_is_better(name: str) -> bool:
    """True of a throughput, whatever follows in its name; every other cost is better when lower."""
    return name.startswith("throughput")


def to_minimise(name: str, value: float) -> float:
    """The cost as a number that is better when lower: a throughput as seconds per image."""
    return 1.0 / value if higher_is_better(name) else value


def within(costs: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    """Whether no cost is beyond its limit; that of a throughput is the least that is allowed."""
    return all(to_minimise(name, costs[name]) <= to_minimise(name, limit) for name, limit in limits.items())
