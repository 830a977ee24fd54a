"""The plan of a scaling search: each set of constants, the network that stands for it, and which are evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.compound import PAPER, Coefficients
from phinas.networks.cost import cost
from scaling_search.candidates import Candidate, at_equal_cost, nominal, spread_out

CONSTRAINTS = ("realised", "nominal")


@dataclass(frozen=True)
class Row:
    """One set of constants.

    nominal    what it costs by the formula, as a multiple of the baseline's MACs.
    formula    what the formula's network really costs, as such a multiple: layers, channels and pixels are whole.
    candidate  the network that stands for it; None where no network has the MACs asked for.
    same_as    the constants whose network it shares: one evaluation answers for both. None for the first of them.
    chosen     whether that network is evaluated.
    """

    coefficients: Coefficients
    nominal: float
    formula: float
    candidate: Candidate | None
    same_as: Coefficients | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Surface:
    """Where candidates lie: the networks that are `phi` steps away from a baseline.

    constraint  realised: their MACs are 2^phi of the baseline's, to a share of `tolerance`, whatever rounding does;
                nominal: the formula's networks, as in the paper, which cost what they cost.
    """

    baseline: Arch
    phi: float
    constraint: str = "realised"
    tolerance: float = 0.05
    rounding: str = "nearest"

    @property
    def macs(self) -> float:
        """What candidates ought to cost."""
        return float(2**self.phi * cost(self.baseline).macs)

    def row(self, coefficients: Coefficients) -> Row:
        """The constants, with their network on this surface."""
        formula = nominal(self.baseline, coefficients, self.phi, self.rounding)
        candidate: Candidate | None = formula
        if self.constraint == "realised":
            candidate = at_equal_cost(self.baseline, coefficients, self.phi, self.macs, self.tolerance, self.rounding)
        ratio = formula.macs / cost(self.baseline).macs
        return Row(coefficients, coefficients.product**self.phi, ratio, candidate)


def plan(surface: Surface, lattice: Sequence[Coefficients], count: int | None) -> list[Row]:
    """All constants of the lattice, `count` of their distinct networks chosen, evenly spread; None chooses all.

    Of constants that share a network the paper's come first, then those whose phi is nearest to the one asked for.
    Raises InputError where no network has the MACs asked for.
    """
    rows = [surface.row(coefficients) for coefficients in lattice]
    first: dict[str, Coefficients] = {}
    for row in sorted(rows, key=_distance):
        if row.candidate is not None:
            first.setdefault(row.candidate.network.key(), row.coefficients)
    if not first:
        raise InputError(
            f"tolerance={surface.tolerance:g}: none of {len(rows)} constants makes a network of "
            f"{surface.macs / 1e6:,.1f}M MACs that closely; give a larger tolerance or another phi or lattice"
        )
    owners = set(first.values())
    in_order = [coefficients for coefficients in lattice if coefficients in owners]
    chosen = set(in_order if count is None else spread_out(in_order, count))
    return [_placed(row, first, chosen) for row in rows]


def _distance(row: Row) -> tuple[bool, float, Coefficients | tuple[float, ...]]:
    away = 0.0 if row.candidate is None else abs(row.candidate.phi - row.candidate.asked_phi)
    return row.coefficients != PAPER, away, (row.coefficients.alpha, row.coefficients.beta, row.coefficients.gamma)


def _placed(row: Row, first: Mapping[str, Coefficients], chosen: set[Coefficients]) -> Row:
    if row.candidate is None:
        return row
    owner = first[row.candidate.network.key()]
    return replace(row, same_as=None if owner == row.coefficients else owner, chosen=owner in chosen)


def explored(surface: Surface, points: Sequence[Coefficients]) -> list[Row]:
    """The rows of constants that a sampler chose, each of which has a network of its own."""
    return [replace(surface.row(coefficients), chosen=True) for coefficients in points]
