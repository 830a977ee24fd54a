"""What a search is for: costs that have a target, a limit, or a place on the front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.costs import COUNTED, higher_is_better
from phinas.files.checks import check_number
from phinas.files.errors import InputError
from phinas.pages.cost_text import cost_text, cost_title


@dataclass(frozen=True)
class Objective:
    """The costs that matter, by name, each in its own unit.

    targets  what the reward weighs accuracy against, in this order.
    limits   networks beyond one are never proposed; that of a throughput is the least that is allowed.
    front    what a search for a Pareto front trades against accuracy; () where the reward alone counts.
    """

    targets: Mapping[str, float]
    limits: Mapping[str, float]
    front: tuple[str, ...] = ()

    @property
    def drawn(self) -> tuple[str, ...]:
        """The costs that reports show: those that are named, the front's first."""
        return tuple(dict.fromkeys([*self.front, *self.targets, *self.limits]))

    def check(self, given: Sequence[str], device: str) -> None:
        """InputError for a cost that is not among `given`, and for a `device` whose costs are all used by nothing."""
        named = {name: f"targets.{name}" for name in self.targets} | {name: f"limits.{name}" for name in self.limits}
        named |= {name: f"front={name}" for name in self.front}
        for name, setting in named.items():
            if name not in given:
                raise InputError(
                    f"{setting}: no network has that cost with device={device}, only {', '.join(given)}; "
                    "device=here (cpu, cuda) measures latency and throughput, device=accel_nasbench predicts them"
                )
        extra = [name for name in given if name not in COUNTED]
        if extra and not set(extra) & set(named):
            raise InputError(
                f"device={device} gives {' and '.join(extra)}, but no target, limit or front uses it; "
                f"give targets.{extra[0]}=..., limits.{extra[0]}=... or front=[{extra[0]}]"
            )

    @property
    def limits_text(self) -> str:
        """`at most 400M MACs (0.80 GFLOPs), at least 900 images/s`."""
        return ", ".join(
            f"{'at least' if higher_is_better(name) else 'at most'} {cost_text(name, limit)}"
            for name, limit in self.limits.items()
        )

    def __str__(self) -> str:
        parts = [f"target {cost_text(name, target)}" for name, target in self.targets.items()]
        parts += [self.limits_text] if self.limits else []
        if self.front:
            parts.append(f"front of accuracy against {' and '.join(map(cost_title, self.front))}")
        return ", ".join(parts)


def read_objective(
    targets: Mapping[str, Any], limits: Mapping[str, Any], front: Any, refuse_above: Any = None
) -> Objective:  # fmt: skip
    """The objective that these settings describe; None is no target and no limit.

    `refuse_above` limits the MACs to so many times their target. Raises InputError naming the setting that is wrong,
    or for an objective of nothing.
    """
    aims = {name: _positive(f"targets.{name}", value) for name, value in _given("targets", targets)}
    bounds = {name: _positive(f"limits.{name}", value) for name, value in _given("limits", limits)}
    if isinstance(front, str) or not isinstance(front, Sequence) or not all(isinstance(name, str) for name in front):
        raise InputError(f"front={front}: it must be a list of costs, such as front=[macs], or empty")
    if len(set(front)) < len(front):
        raise InputError(f"front=[{','.join(front)}] names a cost twice")
    if refuse_above is not None:
        factor = _positive("refuse_above", refuse_above)
        if "macs" not in aims:
            raise InputError(f"refuse_above={factor:g} is times target_flops, and there is none; give limits.macs=...")
        bounds["macs"] = min(bounds.get("macs", float("inf")), factor * aims["macs"])
    if not aims and not bounds and not front:
        raise InputError(
            "target_flops=null, and there is no other target, limit or front; "
            "give target_flops=..., targets.NAME=..., limits.NAME=... or front=[NAME]"
        )
    return Objective(aims, bounds, tuple(front))


def _given(setting: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        raise InputError(f"{setting}={values}: it must name costs, as in {setting}.macs=400e6")
    return ((str(name), value) for name, value in values.items() if value is not None)


def _positive(setting: str, value: Any) -> float:
    return check_number(setting, value, above=0)
