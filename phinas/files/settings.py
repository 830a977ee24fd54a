"""Settings of a run: what must agree before results of two runs of a command are counted together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phinas.files.errors import InputError
from phinas.files.moved import renamed


def check_same_settings(path: Path, found: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """InputError listing every setting in which what was `found` in the file and what is `given` now differ.

    Or that the file is another command's: those that share a kind of file have their name in the setting `command`.
    """
    found, given = renamed(found), renamed(given)
    if found.get("command") != given.get("command"):
        raise InputError(f"{path} is of {found.get('command', 'another command')}; give another name=")
    if new := [name for name in given if name not in found]:
        raise InputError(
            f"{path} was written by an earlier release, which knew no {', '.join(new)}; give another name="
        )
    before, now = flatten(found), flatten(json.loads(json.dumps(given)))
    differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if differing:
        shown = ", ".join(f"{name}={before.get(name)} (now {now.get(name)})" for name in differing)
        raise InputError(f"{path} was started with {shown}; give another name= or the same settings")


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names: `{"recipe": {"lr": 1}}` as `{"recipe.lr": 1}`."""
    if not isinstance(settings, Mapping):
        return {prefix: settings}
    leaves: dict[str, Any] = {}
    for name, value in settings.items():
        leaves |= flatten(value, f"{prefix}.{name}" if prefix else name)
    return leaves
