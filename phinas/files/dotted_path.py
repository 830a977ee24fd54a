"""From a dotted path, as of configurations and command lines, to what it names."""

from __future__ import annotations

import importlib
from typing import Any

from phinas.files.errors import InputError


def located(path: str, option: str = "") -> Any:
    """The class or function at a dotted path, whose module is imported. InputError where there is none."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{option}{'=' if option else ''}{path}: cannot be found ({error})") from None
