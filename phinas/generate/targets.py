"""The targets of a command line as limits of a budget, and latency as a device tells it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from phinas.files.bytes import bytes_of, bytes_text
from phinas.files.checks import check_number
from phinas.files.errors import DoesNotFit, InputError
from phinas.generate.budget import Limit
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.memory import memory
from phinas.pages.cost_text import cost_text, macs_text

TARGETS = ("target_flops", "target_params", "target_memory", "target_latency")
_MOST = 1e18  # multiply-adds or parameters
_LONGEST = 60.0  # seconds of one image that may be asked for: slower networks are not measured in an afternoon

Latency: TypeAlias = Callable[[Arch], float]


def latency_on(
    device: Any, name: str, tell: Callable[[str], None], measured: Sequence[tuple[Arch, float]] = ()
) -> Latency:
    """Seconds of one image on the device `name`, asked once for each network; infinite for one that does not fit.

    tell  hears of each measurement, in a line; measured: networks that were asked before, with what came of it.
    Raises InputError for a device that does not tell latencies.
    """
    if not callable(getattr(device, "costs", None)):
        raise InputError(f"device={name}: it has no method costs(network)")
    known = {_timed(arch): seconds for arch, seconds in measured}

    def latency(arch: Arch) -> float:
        key = _timed(arch)
        if key not in known:
            try:
                costs = device.costs(arch)
            except DoesNotFit:
                costs = {"latency": math.inf}
            if "latency" not in costs:
                has = f"; it has {', '.join(costs)}" if costs else ""
                raise InputError(f"device={name} does not tell the latency{has}")
            known[key] = float(costs["latency"])
            if not known[key] > 0:
                raise InputError(f"device={name}: latency={known[key]}: it must be a number above 0")
            shape = f"{cost_text('macs', cost(arch).macs)}, {arch.blocks} blocks, {arch.resolution} px"
            tell(f"{shape}: {latency_text(known[key])}")
        return known[key]

    return latency


def _timed(arch: Arch) -> str:
    """The network by what takes time: dropout, which grows with phi, takes none."""
    return replace(arch, dropout=0.0).key()


def latency_text(seconds: float) -> str:
    return "does not fit" if math.isinf(seconds) else cost_text("latency", seconds)


# Limits and what is held against them are told in full: in three digits, what exceeds a limit may look like the limit.


def _macs_text(value: float) -> str:
    return f"{value:,.0f} {macs_text(value).partition(' ')[2]}"


def _params_text(value: float) -> str:
    return f"{value:,.0f} parameters"


def _bytes_text(value: float) -> str:
    return f"{bytes_text(int(value))} ({int(value):,} bytes)"


def read_limits(given: Mapping[str, Any], memory_of: Mapping[str, Any], latency: Latency | None) -> list[Limit]:
    """The limits that the targets among the settings set; `memory_of` are arguments of `phinas.networks.memory.memory`.

    Raises InputError naming the target that is wrong.
    """
    limits = []
    if given["target_flops"] is not None:
        most = check_number("target_flops", given["target_flops"], above=0, below=_MOST)
        limits.append(Limit("target_flops", most, lambda arch: cost(arch).macs, _macs_text))
    if given["target_params"] is not None:
        most = check_number("target_params", given["target_params"], above=0, below=_MOST)
        limits.append(Limit("target_params", most, lambda arch: cost(arch).params, _params_text))
    if given["target_memory"] is not None:
        most = bytes_of(given["target_memory"], "target_memory")
        limits.append(Limit("target_memory", most, lambda arch: memory(arch, **memory_of).total, _bytes_text))
    if given["target_latency"] is not None and latency is not None:
        most = check_number("target_latency", given["target_latency"], above=0, below=_LONGEST)
        limits.append(Limit("target_latency", most, latency, latency_text, measured=True))
    return limits
