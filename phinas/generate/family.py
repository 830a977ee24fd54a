"""A family: the networks that a rule makes of a baseline, what is known of each, and `family.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phinas.generate.rules import Rule, made_for
from phinas.networks.arch import Arch
from phinas.networks.cost import Cost, cost
from phinas.networks.memory import Memory


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


@dataclass(frozen=True)
class Family:
    """What a rule made of a baseline.

    baseline_name  as its files are called.
    members        by phi, ascending.
    memory_of      the arguments of `phinas.networks.memory.memory` that the members' memory is for.
    """

    rule: Rule
    baseline: Arch
    baseline_name: str
    members: tuple[Member, ...]
    memory_of: Mapping[str, Any]

    def ratio(self, member: Member) -> float:
        """Its MACs over those of the baseline, as they really are."""
        return member.cost.macs / cost(self.baseline).macs

    def nominal(self, member: Member) -> float:
        """What that ratio would be by the formula, before rounding."""
        return self.rule.multipliers(member.phi).product


def member_name(rule: Rule, baseline: Arch, baseline_name: str, phi: float) -> str:
    """What the network at `phi` is called: a table's names are those of what it makes of its own baseline."""
    if rule.steps is not None and made_for(baseline):
        return rule.steps[phi]
    return f"{baseline_name}_phi{phi:.13g}"


def rows(family: Family) -> list[dict[str, Any]]:
    """One row for each member: what `family.csv` holds.

    depth, width      that the rule asks for; blocks, and width_realised, the sum of all stages' channels over the
                      baseline's, are what rounding makes of them.
    macs_nominal      the ratio of MACs by the formula; macs_ratio: as it is.
    memory            bytes, at batch_size, mode and dtype; latency: seconds of one image, where measured.
    """
    baseline = family.baseline
    return [
        {
            "model": member.name,
            "phi": member.phi,
            "depth": round((asked := family.rule.multipliers(member.phi)).depth, 6),
            "width": round(asked.width, 6),
            "resolution": member.arch.resolution,
            "params": member.cost.params,
            "macs": member.cost.macs,
            "activations": member.cost.activations,
            "memory": member.memory.total,
            "latency": member.latency,
            "blocks": member.arch.blocks,
            "depth_realised": round(member.arch.blocks / baseline.blocks, 6),
            "width_realised": round(_channels(member.arch) / _channels(baseline), 6),
            "macs_ratio": round(family.ratio(member), 6),
            "macs_nominal": round(family.nominal(member), 6),
            "batch_size": family.memory_of["batch_size"],
            "mode": family.memory_of["mode"],
            "dtype": family.memory_of["dtype"],
            "key": member.arch.key(),
            "file": f"{member.name}.yaml",
        }
        for member in family.members
    ]


def csv_text(family: Family) -> str:
    """`family.csv`."""
    table = rows(family)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _channels(arch: Arch) -> int:
    return sum(stage.channels for stage in arch.stages)
