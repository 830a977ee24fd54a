"""An `Arch` as a YAML file."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from convnets.arch import Arch
from convnets.atomic_file import write_atomically
from convnets.errors import InputError


def read_arch(path: str | os.PathLike[str]) -> Arch:
    """The network in the file; InputError `path: what is wrong` in one line."""
    try:
        return Arch.from_dict(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def write_arch(arch: Arch, path: str | os.PathLike[str]) -> None:
    """Write `arch` so that a reader sees the whole old file or the whole new one, also after a crash."""
    write_atomically(Path(path), yaml.safe_dump(arch.to_dict(), sort_keys=False))
