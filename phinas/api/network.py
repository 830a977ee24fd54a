"""What functions of Python take as a network."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # a front door that opens at once
    from phinas.api.search import Candidate, SearchResult
    from phinas.api.train import Training
    from phinas.networks.arch import Arch

# A published network by its name, a YAML file, a run's folder, an `Arch`, or what was found or trained.
AnyNetwork: TypeAlias = "str | PathLike[str] | Arch | Candidate | SearchResult | Training"
