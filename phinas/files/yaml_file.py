"""YAML that somebody else may have written: values alone, no objects, and no more of them than there are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from phinas.files.errors import InputError

Value = TypeVar("Value")
MAX_VALUES = 1_000_000  # of one file, counted where aliases put them: 9 lines can stand for 9^9 values


def safe_yaml(text: str) -> Any:
    """The content of a YAML document: mappings, lists and scalars; nothing in it is constructed or run.

    Raises yaml.YAMLError for what is no YAML, holds objects, a key twice, or more than MAX_VALUES values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
        return loader.construct_document(node)
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # `!!int many`, a day without a month
        raise yaml.YAMLError(f"a value that is not what its tag says ({error})") from None
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Scalars below the node, each as often as aliases repeat it; infinite for a node within itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(each,) for each in node.value]
        known[id(node)] = 1 + sum(_size(each, known) for pair in pairs for each in pair)
    return known[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    """YAMLError for a key that is there twice: the second would win, in silence."""
    keys = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in keys:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value} is there twice")
            keys.add((key.tag, key.value))


def read_yaml(path: str | os.PathLike[str], value_of: Callable[[Any], Value]) -> Value:
    """What `value_of` makes of the file's content; it raises ValueError for content that is wrong.

    Raises InputError `path: what is wrong` in one line.
    """
    try:
        return value_of(safe_yaml(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise InputError(f"{path}: not YAML of ours: nested too deeply") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
