"""A YAML file that holds a value of ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from convnets.errors import InputError

Value = TypeVar("Value")


def read_yaml(path: str | os.PathLike[str], value_of: Callable[[Any], Value]) -> Value:
    """What `value_of` makes of the file's content; it raises ValueError for content that is wrong.

    Raises InputError `path: what is wrong` in one line.
    """
    try:
        return value_of(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
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
