"""Scaling rules: how a baseline becomes a family, by a published table, by a formula, or by a `scaling.yaml`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from phinas.files.checks import check_number
from phinas.files.errors import InputError
from phinas.files.origin import file_source
from phinas.networks.arch import Arch
from phinas.networks.compound import PAPER, Coefficients, compound
from phinas.networks.reference import EFFICIENTNET_B0, EFFICIENTNETS
from phinas.networks.scale import scale
from phinas.networks.scaling_file import read_scaling

BASELINE = "efficientnet_b0"  # what the tables were made for, and what rules without a baseline of their own scale
_SIDE = 224  # pixels of that baseline

# A formula goes no further than this many times the layers, the channels or the side: beyond, nobody builds anything,
# and floats overflow.
_FURTHEST = 1000.0
_MOST_STEPS = 1000.0  # of constants that hardly grow


@dataclass(frozen=True)
class Multipliers:
    """What a rule asks for, before rounding: of the layers, of the channels, and of the side of the input."""

    depth: float
    width: float
    resolution: float

    @property
    def product(self) -> float:
        """What they cost by the formula, depth * width^2 * resolution^2 times the baseline's MACs."""
        return self.depth * self.width**2 * self.resolution**2


@dataclass(frozen=True)
class Rule:
    """A way to scale any baseline by a number phi; phi=0 is the baseline itself.

    name           as command lines call it: a preset, or the path of a `scaling.yaml`.
    scaled         (baseline, phi) -> network, for a phi that the rule has; `grow` checks it.
    multipliers    phi -> what the rule asks for.
    least, most    the phi between which it scales. One whose least is below 0 shrinks networks.
    steps          of a table: phi -> name of the network that it makes of `BASELINE`; None: any phi.
    origin         where the rule is from: a citation, or the file with its hash.
    baseline       the network that a `scaling.yaml` was found for; None: the rule has none of its own.
    baseline_from  what that was called by its search, and the hash of its file: `name`, `sha256`.
    """

    name: str
    scaled: Callable[[Arch, float], Arch]
    multipliers: Callable[[float], Multipliers]
    least: float
    most: float
    steps: Mapping[float, str] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    baseline: Arch | None = None
    baseline_from: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shrinks(self) -> bool:
        return self.least < 0

    def grow(self, arch: Arch, phi: float) -> Arch:
        """`arch` after phi steps. Raises InputError for a phi that the rule does not have."""
        return self.scaled(arch, self.phi(phi))

    def phi(self, value: Any) -> float:
        """`value`, a number or the name of a table's step such as `b2`; InputError says what the rule has."""
        if self.steps is not None:
            return self._step(self.steps, value)
        phi = check_number("phi", value)
        if phi < 0 and not self.shrinks:
            raise InputError(
                f"phi={value}: scaling={self.name} cannot shrink a network; {' and '.join(shrinking())} can"
            )
        if not self.least <= phi <= self.most:
            raise InputError(f"phi={value}: with scaling={self.name}, phi goes from {self.least:g} to {self.most:g}")
        return round(phi, 9) or 0.0  # -0.0 and float noise would have names of their own

    def _step(self, steps: Mapping[float, str], value: Any) -> float:
        for phi, name in steps.items():
            if str(value).lower() in (name, name.rpartition("_")[2]):
                return phi
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and value in steps:
            return float(value)
        if number and value < 0 and not self.shrinks:
            raise InputError(
                f"phi={value}: scaling={self.name} cannot shrink a network; {' and '.join(shrinking())} can"
            )
        has = f"{min(steps):g} to {max(steps):g}, {', '.join(steps.values())}"
        raise InputError(f"phi={value}: scaling={self.name} has the steps {has}")


def read_rule(scaling: str) -> Rule:
    """The preset of this name, or the rule of the `scaling.yaml` at this path.

    Raises InputError for what is neither, and for a file that is damaged.
    """
    if scaling in PRESETS:
        return PRESETS[scaling]
    if os.path.splitext(scaling)[1] in (".yaml", ".yml") or os.path.exists(scaling):
        return _rule_of_file(scaling)
    raise InputError(
        f"scaling={scaling}: no file, and no preset; allowed: {', '.join(PRESETS)}, or the scaling.yaml of a search"
    )


def _rule_of_file(path: str) -> Rule:
    scaling = read_scaling(path)
    told = scaling.evidence.get("baseline")
    told = told if isinstance(told, Mapping) else {}
    return replace(
        _formula(path, scaling.constants, scaling.rounding, file_source(path)),
        baseline=scaling.baseline,
        baseline_from={"name": str(told.get("name") or path), "sha256": told.get("sha256")},
    )


def _formula(name: str, constants: Coefficients, rounding: str, origin: Mapping[str, Any]) -> Rule:
    """Each dimension a power of its own constant (arXiv 1905.11946, equation 3)."""

    def scaled(arch: Arch, phi: float) -> Arch:
        return _with_dropout_of_formula(compound(arch, constants, phi, rounding), phi)

    return Rule(name, scaled, _powers(constants), 0.0, _furthest(constants), origin=origin)


def _fast(share: float = 0.8) -> Rule:
    """Fast compound scaling (arXiv 2103.06877, "dWr"): mostly width, which costs the fewest activations.

    A step doubles the MACs, and multiplies activations, with which the time on GPUs goes, by 1.5; the paper's constants
    by 1.8 (before rounding).

    `share` is that of width in the growth of the MACs; depth and resolution have half of the rest each. Layers are
    rounded to the nearest, the side to multiples of 4, as in pycls. A step down halves.
    """
    rest = (1 - share) / 2
    constants = Coefficients.of_shares(rest, share)

    def scaled(arch: Arch, phi: float) -> Arch:
        if phi == 0:  # a side that is no multiple of 4 stays what it is
            return arch
        asked = _powers(constants)(phi)
        side = max(4, 4 * math.floor(arch.resolution * asked.resolution / 4 + 0.5))
        return _with_dropout_of_formula(scale(arch, asked.depth, asked.width, side, "nearest"), phi)

    most = _furthest(constants)
    return Rule("dwr", scaled, _powers(constants), -most, most, origin={"citation": "arXiv 2103.06877, alpha=0.8"})


def _published() -> Rule:
    """The released EfficientNets, B0 to B8 and L2; of another baseline, what their multipliers make of it."""
    rows = dict(enumerate(EFFICIENTNETS.values()))

    def multipliers(phi: float) -> Multipliers:
        width, depth, side, _ = rows[int(phi)]
        return Multipliers(depth, width, side / _SIDE)

    def scaled(arch: Arch, phi: float) -> Arch:
        added = rows[int(phi)][3] - rows[0][3]
        return _with_dropout(_scaled(arch, multipliers(phi), "official"), added)

    steps = {float(number): f"efficientnet_{name}" for number, name in enumerate(EFFICIENTNETS)}
    origin = {"citation": "efficientnet_params in tensorflow/tpu; arXiv 1905.11946"}
    return Rule("published", scaled, multipliers, 0.0, max(steps), steps, origin=origin)


# depth, width, resolution of arXiv 2010.14819, as timm has them. phi counts down from the baseline.
_TINYNETS = {
    0: (1.0, 1.0, _SIDE),
    -1: (1.2, 1.0, 192),
    -2: (1.1, 0.75, 188),
    -3: (0.85, 0.54, 184),
    -4: (0.695, 0.54, 152),
    -5: (0.6, 0.51, 106),
}


def _tinynet() -> Rule:
    """TinyNet A to E: smaller networks keep more of the side than the formula would, and lose width instead.

    Layers are rounded to the nearest; the stem stays as it is, and the head does not shrink.
    """

    def multipliers(phi: float) -> Multipliers:
        depth, width, side = _TINYNETS[int(phi)]
        return Multipliers(depth, width, side / _SIDE)

    def scaled(arch: Arch, phi: float) -> Arch:
        smaller = _scaled(arch, multipliers(phi), "nearest")
        return replace(smaller, stem=arch.stem, head_channels=max(arch.head_channels, smaller.head_channels))

    names = {0: BASELINE} | {-number: f"tinynet_{letter}" for number, letter in enumerate("abcde", start=1)}
    steps = {float(phi): names[phi] for phi in sorted(_TINYNETS)}
    return Rule("tinynet", scaled, multipliers, min(steps), 0.0, steps, origin={"citation": "arXiv 2010.14819"})


def _scaled(arch: Arch, asked: Multipliers, rounding: str) -> Arch:
    return scale(arch, asked.depth, asked.width, max(1, round(arch.resolution * asked.resolution)), rounding)


def _with_dropout_of_formula(arch: Arch, phi: float) -> Arch:
    """Dropout rises linearly "from 0.2 for EfficientNet-B0 to 0.5 for B7" (arXiv 1905.11946, section 5.2)."""
    return _with_dropout(arch, 0.3 * max(phi, 0) / 7)


def _with_dropout(arch: Arch, added: float) -> Arch:
    """More dropout, up to 0.5; none for a network that has none, as its recipe does without."""
    if not arch.dropout:
        return arch
    # Digits beyond the ninth are float noise, which would give equal networks unequal keys.
    return replace(arch, dropout=max(arch.dropout, min(0.5, round(arch.dropout + added, 9))))


def _powers(constants: Coefficients) -> Callable[[float], Multipliers]:
    return lambda phi: Multipliers(constants.alpha**phi, constants.beta**phi, constants.gamma**phi)


def _furthest(constants: Coefficients) -> float:
    """The largest phi, to one digit, at which nothing has grown more than `_FURTHEST`-fold."""
    growing = [factor for factor in vars(constants).values() if factor > 1]
    steps = min((math.log(_FURTHEST) / math.log(factor) for factor in growing), default=_MOST_STEPS)
    return min(_MOST_STEPS, math.floor(10 * steps) / 10)


# Depth's and width's shares of the growth of the MACs, from efficientnet_x_builder in tensorflow/tpu.
_EFFICIENTNET_X_GPU = Coefficients.of_shares(0.38, 0.42)

PRESETS: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        _published(),
        _formula("paper", PAPER, "official", {"citation": "arXiv 1905.11946, section 4"}),
        _fast(),
        _formula("efficientnet_x_gpu", _EFFICIENTNET_X_GPU, "official", {"citation": "arXiv 2102.05610"}),
        _tinynet(),
    )
}

# The phi at which the paper's formula comes near each published step, by their widths and sides
# (tensorflow/tpu#390). B8 and L2 are not of this family.
FORMULA_PHI: Mapping[float, float] = {0: 0, 1: 0.5, 2: 1, 3: 2, 4: 3.5, 5: 5, 6: 6, 7: 7}


def made_for(arch: Arch) -> bool:
    """Whether `arch` is the network that the tables were made for, however many classes it has."""
    return replace(arch, classes=EFFICIENTNET_B0.classes) == EFFICIENTNET_B0


def shrinking() -> list[str]:
    """The presets that shrink networks."""
    return [name for name, rule in PRESETS.items() if rule.shrinks]
