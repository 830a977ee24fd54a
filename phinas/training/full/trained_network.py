"""A trained network as it is kept: its weights and its description, each with what it takes to use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from phinas.files.origin import file_source
from phinas.networks.arch import Arch
from phinas.networks.arch_file import write_arch
from phinas.weights.checkpoints import save_weights

WEIGHTS = "weights.safetensors"
NETWORK = "model.yaml"


def save_network(folder: Path, arch: Arch, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, str]:
    """Write both into the folder, and return the weights' origin.

    about  what goes with them: mean and standard deviation of the pixels, the names of the classes, ...
    """
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    save_weights(state, folder / WEIGHTS, texts)
    source = file_source(folder / WEIGHTS)
    write_arch(arch, folder / NETWORK, {**about, "weights": {**source, "file": WEIGHTS}})
    return source
