"""Networks as command lines name them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.arch_file import read_arch
from phinas.networks.reference import NAMES, reference


def named(option: str, text: str) -> Arch:
    """The network that `option=text` names: one of `phinas.networks.reference`, or the YAML file of an `Arch`.

    Raises InputError for what is neither.
    """
    if text in NAMES:
        return reference(text)
    if Path(text).suffix in (".yaml", ".yml") or os.path.exists(text):
        return read_arch(text)
    raise InputError(f"{option}={text}: no file, and no published network; allowed: FILE.yaml, {', '.join(NAMES)}")


def short_name(text: str) -> str:
    """What files made of the network that `text` names are called: `resnet50`, or `first` for runs/first/best.yaml."""
    if text in NAMES:
        return text
    path = Path(text)
    word = path.resolve().parent.name if path.stem in ("best", "model", "scaling") else path.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", word).strip("._-") or "network"
