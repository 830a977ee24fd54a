"""What is written down of an object that Python handed over, so that a run that goes on knows it again."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import os
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from phinas.command.hidden import PACKAGES
from phinas.command.parts import OBJECT

_DEEPEST = 8  # levels of lists and mappings; what is deeper, or holds itself, is not written down
_SCALARS = (bool, int, float, str)


def described(part: Any) -> dict[str, Any]:
    """The object as a configuration holds it: what it is called, what of its values can be written, a hash of its code.

    Of a function, the values are its defaults and the plain ones that it takes from around it: a learning rate in the
    cell above counts. Of an object they are its attributes; private ones may be caches and counters, so only frozen
    dataclasses count of those. The hash is of the source without comments, docstrings and layout, of what is not ours.
    """
    values = dict(_values(part))
    kind = _kind(part)
    return {"_target_": _name(kind), OBJECT: values, **({"_code_": code} if (code := _code(kind)) else {})}


def _kind(part: Any) -> Any:
    """The function or class that stands behind the object."""
    if isinstance(part, functools.partial):
        return _kind(part.func)
    if inspect.ismethod(part):
        return part.__func__
    return part if inspect.isroutine(part) or inspect.isclass(part) else type(part)


def _name(kind: Any) -> str:
    return f"{kind.__module__ or '__main__'}.{kind.__qualname__}"  # what is exec'd has no module


def _values(part: Any) -> Iterator[tuple[str, Any]]:
    """Names and values that tell one object from another of its kind, as far as they can be written."""
    if isinstance(part, functools.partial):
        given = {f"argument {place}": value for place, value in enumerate(part.args)} | part.keywords
        yield from _values(part.func)
        yield from _written_of(given)
    elif inspect.ismethod(part):
        yield from _values(part.__self__)
    elif inspect.isfunction(part):
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(part).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        around = inspect.getclosurevars(part)
        yield from _written_of(defaults)
        yield from _written_of(
            {n: v for n, v in {**around.globals, **around.nonlocals}.items() if _plain(v) is not None}
        )
    elif not inspect.isroutine(part) and not inspect.isclass(part):
        slots = [name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ())]
        attributes = {name: getattr(part, name) for name in slots if hasattr(part, name)} | getattr(
            part, "__dict__", {}
        )
        yield from _written_of({n: v for n, v in attributes.items() if not n.startswith("_") or _frozen(v)})


def _written_of(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        try:
            yield name, _written(value, 0)
        except ValueError:  # not to be written down, not even in part
            continue


def _written(value: Any, depth: int) -> Any:
    """The value as YAML has it; ValueError for what YAML has nothing for."""
    if depth > _DEEPEST:
        raise ValueError
    if value is None or _plain(value) is not None:
        return _plain(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if _frozen(value) and callable(getattr(value, "key", None)):  # a network
        return value.key()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _written(getattr(value, each.name), depth + 1) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _written(each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(each, depth + 1) for each in value]
    if inspect.isroutine(value) or inspect.isclass(value):
        return _name(value)
    raise ValueError


def _plain(value: Any) -> bool | int | float | str | None:
    """A number or a text of Python's own, also of one of numpy's, of torch's or of an enumeration; None of others."""
    if not isinstance(value, _SCALARS) and getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    return next((kind(value) for kind in _SCALARS if isinstance(value, kind)), None)


def _frozen(value: Any) -> bool:
    parameters: Any = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _code(kind: Any) -> str | None:
    """Sixteen hex digits of the source, or where there is none, of the compiled code; None of what is ours or built in.

    A class of a notebook has no source of its own, but its methods have.
    """
    if str(kind.__module__).split(".")[0] in (*PACKAGES, "phinas"):
        return None
    source = _source(kind)
    if source is None and inspect.isclass(kind):
        methods = [getattr(each, "__func__", each) for _, each in sorted(vars(kind).items())]
        sources = [_source(each) or _compiled(each) for each in methods if inspect.isroutine(each)]
        source = "\n".join(filter(None, sources))
    source = source or _compiled(kind)
    return hashlib.sha256(source.encode()).hexdigest()[:16] if source else None


def _source(kind: Any) -> str | None:
    """Without comments, docstrings and layout; as it stands where that is no statement, as of a lambda in a call."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return None
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and len(body) > 1
            and isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
        ):
            if ast.get_docstring(node) is not None:
                del body[0]
    return ast.unparse(tree)


def _compiled(kind: Any) -> str:
    code = getattr(kind, "__code__", None)
    return (
        "" if code is None else repr((code.co_code, [const for const in code.co_consts if isinstance(const, _SCALARS)]))
    )
