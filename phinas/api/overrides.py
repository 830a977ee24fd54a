"""Arguments of Python as options of the command line, so that one code reads, checks and refuses both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any

from phinas.files.errors import InputError

_WORDS = ("null", "true", "false", "nan", "inf")  # which would not be text


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """`{"budget": 10, "front": ["macs"]}` as `["budget=10", "front=[macs]"]`; text is quoted where it must be.

    Raises InputError for a value that is none of: None, a truth value, a number, text, a path, or these in lists and
    dicts.
    """
    return [f"{_checked_name(name)}={_text(name, value)}" for name, value in settings.items()]


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
        raise InputError(f"options: {name!r} is no name of an option, such as evaluator.recipe.epochs")
    return name


def _text(name: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, PathLike):
        value = fspath(value)
    if isinstance(value, str):
        return _quoted(value)
    if hasattr(value, "item"):  # a number of numpy's or torch's
        value = value.item()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_checked_name(str(key))}:{_text(name, each)}" for key, each in value.items()) + "}"
    if isinstance(value, Iterable):
        return "[" + ",".join(_text(name, each) for each in value) + "]"
    raise InputError(f"{name}={value!r}: it must be a number, text, a truth value, None, or a list or dict of these")


def _quoted(text: str) -> str:
    """Plain words and paths as they are; others in quotes, where Hydra's grammar reads no number and no `${...}`."""
    if re.fullmatch(r"(\.{0,2}/)?[A-Za-z][\w./-]*", text, re.ASCII) and text.lower() not in _WORDS:
        return text
    # What would end the text, or be computed in it, is escaped, and so is every backslash right before such a place.
    escaped = re.sub(r"(\\*)(\$\{|'|\Z)", lambda place: 2 * place[1] + ("\\" if place[2] else "") + place[2], text)
    return f"'{escaped}'"
