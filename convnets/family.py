"""A family: the networks that a rule makes of a baseline, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass

from convnets.arch import Arch
from convnets.cost import Cost
from convnets.memory import Memory


@dataclass(frozen=True)
class Member:
    """One network of a family.

    name     of its files: `efficientnet_b1`, `tinynet_a`, or the baseline's with phi, as `first_phi0.5`.
    memory   bytes at the batch size, mode and number format that the family was asked for.
    latency  seconds of one image, where it was measured.
    """

    name: str
    phi: float
    arch: Arch
    cost: Cost
    memory: Memory
    latency: float | None = None
