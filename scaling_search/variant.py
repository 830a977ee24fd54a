"""The variant of the baseline that is scaled, for small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.scale import scale


@dataclass(frozen=True)
class Variant:
    """How the network is changed before anything is scaled, so that it suits small images; None: not at all.

    resolution   side of its input, pixels: what the baseline is trained at, and where scaling starts.
    stem_stride  of its first convolution; networks for 224 pixels stride 32-fold, which leaves little of small images.
    width        of all of its channels.
    """

    resolution: int | None = None
    stem_stride: int | None = None
    width: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("resolution", self.resolution), ("stem_stride", self.stem_stride)):
            if value is not None:
                check_whole(f"variant.{name}", value)
        if self.width is not None:
            check_number("variant.width", self.width, above=0)

    def of(self, arch: Arch) -> Arch:
        """The variant of `arch`."""
        arch = scale(arch, width=self.width or 1.0, resolution=self.resolution)
        return replace(arch, stem=replace(arch.stem, stride=self.stem_stride or arch.stem.stride))


def variant_text(settings: Mapping[str, Any] | None) -> str:
    """What a variant changes, to stand behind the baseline's name: ` with width=0.5`; empty where it is none."""
    changed = [f"{name}={value}" for name, value in (settings or {}).items() if value is not None]
    return f" with {', '.join(changed)}" if changed else ""


def read_variant(settings: Mapping[str, Any]) -> Variant:
    """The variant that a configuration describes. Raises InputError naming the setting that is wrong."""
    allowed = tuple(vars(Variant()))
    if unknown := sorted(set(settings) - set(allowed)):
        raise InputError(f"variant has no {unknown[0]}; it has {', '.join(allowed)}")
    return Variant(**settings)
