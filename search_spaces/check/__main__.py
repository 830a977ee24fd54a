"""`python -m search_spaces.check my_pkg.MySpace`: hold a space to the laws, and show what it contains.

Options are key=value: target_flops=400e6 (multiply-adds, to see how much of the space lies near), samples=200,
build=20 (networks that are built to compare costs), seed=0, and space.NAME=VALUE for arguments of the space.
`mnasnet` and `efficientnet` name the shipped spaces. Exit code: 0 all laws hold, 1 a law is broken, 2 bad input.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from phinas.command.run import run
from phinas.files.errors import InputError
from phinas.files.moved import moved_hint
from phinas.pages.cost_text import macs_text
from search_spaces.space import Space
from search_spaces.testing import QUANTILES, Profile, examine, profile

SHIPPED = {
    "mnasnet": "search_spaces.mnasnet.MnasNet",
    "efficientnet": "search_spaces.efficientnet.EfficientNet",
}


def main(arguments: Sequence[str]) -> int:
    """Check the space that `arguments` name and print the findings; the exit code. Raises InputError."""
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(__doc__)
        return 0 if arguments else 2
    target: float | None = None
    samples, build, seed = 200, 20, 0
    settings: dict[str, Any] = {}
    for argument in arguments[1:]:
        name, equals, value = argument.partition("=")
        if not equals:
            raise InputError(f"{argument!r} is no option; options are key=value")
        if name.startswith("space."):
            settings[name.removeprefix("space.")] = _parse_yaml(name, value)
        elif name == "target_flops":
            target = _number(name, value)
        elif name == "samples":
            samples = _count(name, value, least=1)
        elif name == "build":
            build = _count(name, value, least=1)
        elif name == "seed":
            seed = _count(name, value, least=0)
        else:
            raise InputError(f"unknown option {name!r}; allowed: target_flops, samples, build, seed, space.NAME")
    path = SHIPPED.get(arguments[0], arguments[0])
    space = construct(path, settings)
    print(path)
    findings = examine(space, samples, seed, build)
    for finding in findings:
        print(f"{'pass' if finding.passed else 'FAIL'}  {finding.law}: {finding.detail}", flush=True)
    passed = all(finding.passed for finding in findings)
    if passed:
        print("\n".join(describe(profile(space, samples, target, seed))))
    else:
        print(f"{sum(not finding.passed for finding in findings)} of {len(findings)} laws are broken")
    return 0 if passed else 1


def construct(path: str, settings: dict[str, Any]) -> Space:
    """The space at the dotted `path`, constructed with `settings`. Raises InputError for whatever is in the way."""
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        raise InputError(f"{path!r}: give a dotted path such as my_pkg.MySpace, or one of {', '.join(SHIPPED)}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        moved = moved_hint(error.name) if isinstance(error, ImportError) and error.name else None
        more = f"; {moved}" if moved else ""
        raise InputError(f"cannot import {module_name}: {type(error).__name__}: {error}{more}") from None
    kind: Callable[..., Space] | None = getattr(module, class_name, None)
    if not callable(kind):
        raise InputError(f"{module_name} has no class {class_name!r}")
    try:
        space = kind(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot construct {path}: {error}") from None
    if not hasattr(space, "decisions") or not callable(getattr(space, "decode", None)):
        raise InputError(f"{path} is no search space: it needs `decisions` and `decode(choices)`")
    return space


def describe(found: Profile) -> list[str]:
    """The profile as lines for people."""
    lines = [
        f"{found.size:,} combinations; of {found.samples} random samples {found.feasible} are feasible "
        f"({found.feasible / found.samples:.0%}), {found.distinct} of them distinct",
        f"{'quantile':>10}  {'cost':>28}  {'parameters':>12}",
    ]
    for quantile, macs, params in zip(QUANTILES, found.macs, found.params, strict=True):
        lines.append(f"{quantile:>10.0%}  {macs_text(macs):>28}  {params:>12,}")
    if found.target is not None and found.near_target is not None:
        lines.append(f"{found.near_target:.0%} of the samples lie within 25% of {macs_text(found.target)}")
    return lines


def _parse_yaml(name: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"{name}={value}: not a YAML value") from None


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a number above 0, got {value!r}")
    return number


def _count(name: str, value: str, least: int) -> int:
    if not value.isdecimal() or int(value) < least:
        raise InputError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return int(value)


if __name__ == "__main__":
    run(main)
