"""Checks of single settings: one line that names the setting, what was given, and what is allowed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from phinas.files.errors import InputError


def check_whole(name: str, value: Any, least: int = 1, most: int = 2**63 - 1) -> int:
    """`value` if it is a whole number from `least` to `most`; InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        bounds = f"{least} or more" if most == 2**63 - 1 else f"from {least} to {most}"
        raise InputError(f"{name}={value}: it must be a whole number, {bounds}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """`value` if it is true or false; InputError otherwise."""
    if not isinstance(value, bool):
        raise InputError(f"{name}={value}: it must be true or false")
    return value


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value` if it is one of those; InputError otherwise."""
    choices = tuple(allowed)
    if value not in choices:
        raise InputError(f"{name}={value}: it must be one of {', '.join(choices)}")
    return str(value)


def check_number(
    name: str, value: Any, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> float:
    """`value` as a float if it is finite, > `above`, >= `least` and < `below`; InputError otherwise."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not number or value <= above or value < least or value >= below:
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"{least:g} or more"] if least > -math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        raise InputError(f"{name}={value}: it must be a number{' ' if bounds else ''}{' and '.join(bounds)}")
    return float(value)
