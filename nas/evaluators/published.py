"""What evaluators on published results share: finding the file, and the noise of a real training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phinas.files.errors import InputError


def published_file(setting: str, path: str | Path | None, name: str, address: str) -> Path:
    """`path` if something is there; InputError saying where the project publishes `name` otherwise."""
    if path is None or path == "":  # Path("") is the current folder
        raise InputError(f"{setting} is missing; {name} is published at {address}")
    path = Path(path)
    if not path.exists():
        raise InputError(f"{setting}={path}: no such file; {name} is published at {address}")
    return path


def with_noise(accuracy: float, points: float, seed: int) -> float:
    """`accuracy` plus Gaussian noise of standard deviation `points` / 100, drawn from `seed` alone; within [0, 1]."""
    if points:
        accuracy += points / 100 * float(np.random.default_rng(seed).standard_normal())
    return min(max(accuracy, 0.0), 1.0)
