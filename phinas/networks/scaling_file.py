"""`scaling.yaml`: the constants that a scaling search found, for how sure they are, and what they came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_number
from phinas.files.yaml_file import read_yaml
from phinas.networks.arch import Arch
from phinas.networks.compound import Coefficients
from phinas.networks.scale import ROUNDINGS


@dataclass(frozen=True)
class Scaling:
    """How to scale a baseline.

    constants   alpha, beta, gamma of one step.
    phi         the steps at which they were searched.
    rounding    of layers, as in `phinas.networks.scale`.
    baseline    the network to scale: as it was named, not as it was shrunk for the search.
    evidence    what people should know of how the constants were found: evaluator, seeds, accuracies, contenders,
                hashes of what they came from. For reading, not for computing with.
    """

    constants: Coefficients
    phi: float
    rounding: str
    baseline: Arch
    evidence: Mapping[str, Any]


def write_scaling(scaling: Scaling, path: str | os.PathLike[str]) -> None:
    """Write it so that a reader sees the whole old file or the whole new one, also after a crash."""
    content = {
        "constants": {name: float(value) for name, value in vars(scaling.constants).items()},
        "phi": scaling.phi,
        "rounding": scaling.rounding,
        "evidence": dict(scaling.evidence),
        "baseline": scaling.baseline.to_dict(),
    }
    write_atomically(Path(path), yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_scaling(path: str | os.PathLike[str]) -> Scaling:
    """The scaling in the file; InputError `path: what is wrong` in one line."""
    return read_yaml(path, _scaling)


def _scaling(content: Any) -> Scaling:
    if not isinstance(content, Mapping):
        raise ValueError("it is no mapping of fields")
    for name in ("constants", "phi", "rounding", "baseline"):
        if name not in content:
            raise ValueError(f"it has no {name}")
    constants = content["constants"]
    if not isinstance(constants, Mapping) or set(constants) != {"alpha", "beta", "gamma"}:
        raise ValueError("constants must be alpha, beta and gamma")
    if content["rounding"] not in ROUNDINGS:
        raise ValueError(f"rounding={content['rounding']}: it must be one of {', '.join(ROUNDINGS)}")
    evidence = content.get("evidence", {})
    if not isinstance(evidence, Mapping):
        raise ValueError(f"evidence={evidence}: it must be a mapping")
    return Scaling(
        Coefficients(**constants),
        check_number("phi", content["phi"], above=0),
        content["rounding"],
        Arch.from_dict(content["baseline"]),
        evidence,
    )
