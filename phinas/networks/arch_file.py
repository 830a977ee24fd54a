"""An `Arch` as a YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from phinas.files.atomic_file import write_atomically
from phinas.files.origin import origin_comment
from phinas.files.yaml_file import read_yaml
from phinas.networks.arch import Arch


def read_arch(path: str | os.PathLike[str]) -> Arch:
    """The network in the file; InputError `path: what is wrong` in one line."""
    return read_yaml(path, Arch.from_dict)


def write_arch(arch: Arch, path: str | os.PathLike[str], origin: Mapping[str, Any] | None = None) -> None:
    """Write `arch` so that a reader sees the whole old file or the whole new one, also after a crash.

    origin  what it was made from, for people and for `phinas.files.origin.read_origin`; it stands in comments.
    """
    text = origin_comment(origin or {}) + yaml.safe_dump(arch.to_dict(), sort_keys=False)
    write_atomically(Path(path), text)
