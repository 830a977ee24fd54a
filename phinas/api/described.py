"""What is written down of an object that Python handed over, so that a run that goes on knows it again."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import os
import textwrap
from collections.abc import Mapping
from typing import Any


def described(part: Any) -> dict[str, Any]:
    """The object as a configuration has one: what it is called as `_target_`, its settings, and a hash of its code.

    The settings are its attributes that are plain values, and a partial's arguments. The hash is of the source without
    comments and layout; it is left out where there is no source, as of what is compiled. What a closure has taken from
    around it is not seen.
    """
    if isinstance(part, functools.partial):
        given = {f"argument {place}": value for place, value in enumerate(part.args)} | part.keywords
        return described(part.func) | _plain(given)
    kind = part if inspect.isroutine(part) or inspect.isclass(part) else type(part)
    settings = _plain(vars(part)) if kind is not part and hasattr(part, "__dict__") else {}
    code = _code(kind)
    name = f"{kind.__module__ or '__main__'}.{kind.__qualname__}"  # what is exec'd has no module
    return {"_target_": name, **settings, **({"code": code} if code else {})}


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can be written down; of private ones, which may be counters and caches, the frozen values alone."""
    plain = {}
    for name, value in attributes.items():
        if name.startswith("_") and not _frozen(value):
            continue
        written, whole = _written(value)
        if whole:
            plain[name] = written
    return plain


def _frozen(value: Any) -> bool:
    parameters: Any = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _written(value: Any) -> tuple[Any, bool]:
    """The value as YAML has it, and whether that is all of it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value, True
    if isinstance(value, os.PathLike):
        return os.fspath(value), True
    if _frozen(value) and callable(getattr(value, "key", None)):  # a network
        return value.key(), True
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _written({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        parts = {str(key): _written(each) for key, each in value.items()}
        return {key: written for key, (written, _) in parts.items()}, all(whole for _, whole in parts.values())
    if isinstance(value, (list, tuple)):
        items = [_written(each) for each in value]
        return [written for written, _ in items], all(whole for _, whole in items)
    if inspect.isroutine(value) or inspect.isclass(value):
        return described(value), True
    return None, False


def _code(kind: Any) -> str | None:
    """Sixteen hex digits of the source; None where there is none to be had."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return None
    try:
        source = ast.unparse(ast.parse(source))
    except SyntaxError:  # a lambda in the middle of an expression
        pass
    return hashlib.sha256(source.encode()).hexdigest()[:16]
