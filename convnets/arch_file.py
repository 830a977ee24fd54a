"""An `Arch` as a YAML file."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from convnets.arch import Arch
from convnets.atomic_file import write_atomically
from convnets.yaml_file import read_yaml


def read_arch(path: str | os.PathLike[str]) -> Arch:
    """The network in the file; InputError `path: what is wrong` in one line."""
    return read_yaml(path, Arch.from_dict)


def write_arch(arch: Arch, path: str | os.PathLike[str]) -> None:
    """Write `arch` so that a reader sees the whole old file or the whole new one, also after a crash."""
    write_atomically(Path(path), yaml.safe_dump(arch.to_dict(), sort_keys=False))
