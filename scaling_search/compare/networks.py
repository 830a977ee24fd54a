"""Which networks are compared: one dimension scaled alone, or all three, at equal MACs.

The paper's Figures 3 and 8 and its Tables 3 and 7 scale depth, width or resolution alone and compare that with compound
scaling; its Figure 4 widens four bases of different depth and resolution. There the networks that are compared cost
what the coefficients happen to make them cost (docs/paper_scaling.md). Here all of a level have the same MACs, to a
stated share, and each direction is followed just as far as those reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phinas.files.checks import check_number
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.compound import Coefficients
from phinas.networks.cost import cost
from phinas.networks.scale import scale
from scaling_search.candidates import Candidate, at_equal_cost

BASELINE, COMPOUND = "baseline", "compound"
# One step of each doubles the nominal cost.
SINGLE = {
    "depth": Coefficients(2, 1, 1),
    "width": Coefficients(1, 2**0.5, 1),
    "resolution": Coefficients(1, 1, 2**0.5),
}
METHODS = (*SINGLE, COMPOUND)
BASES = ((1.0, 1.0), (1.0, 1.3), (2.0, 1.0), (2.0, 1.3))  # depth and resolution from which Figure 4 widens

AWAY = 25  # per cent by which a level may be moved to where all methods have a network

_LEAST_REACH = 1.0  # doublings, twice of which are looked at even where less is wanted: channels grow in steps of 8
_CLOSENESS = 1e-3  # to which the least tolerance is found that would do


@dataclass(frozen=True)
class Point:
    """A network in the comparison.

    line     what was scaled: BASELINE, one of METHODS, or `line_of` one of BASES.
    factor   multiple of the baseline's MACs that was asked for; 1 of the baseline itself.
    level    the multiple that all networks of this level were made for; see `points_at_equal_macs`.
    depth, width, resolution
             what became of it: layers of all stages, the sum of the stages' channels, and the side of the input, each
             over the baseline's.
    """

    line: str
    factor: float
    level: float
    candidate: Candidate
    depth: float
    width: float
    resolution: float

    @property
    def network(self) -> Arch:
        return self.candidate.network

    @property
    def macs(self) -> int:
        return self.candidate.macs


def line_of(base: tuple[float, float]) -> str:
    """What the networks are called that widen the base of this depth and resolution; width alone widens (1, 1)."""
    return "width" if base == (1, 1) else f"width, d={base[0]:g} r={base[1]:g}"


LINES = (BASELINE, *METHODS, *(line_of(base) for base in BASES[1:]))


def check_factors(factors: Any) -> tuple[float, ...]:
    """The multiples of the baseline's MACs at which networks are compared, in order; InputError unless all exceed 1."""
    if not isinstance(factors, Sequence) or isinstance(factors, str) or not factors:
        raise InputError(f"factors={factors}: it must be a list of multiples of the baseline's MACs, such as [2,4]")
    multiples = sorted(check_number("factors", factor, above=1, below=1000) for factor in factors)
    if len(set(multiples)) < len(multiples):
        raise InputError(f"factors=[{','.join(f'{factor:g}' for factor in multiples)}]: one of them is there twice")
    return tuple(multiples)


def points_at_equal_macs(
    baseline: Arch, constants: Coefficients, factors: Sequence[float], tolerance: float, rounding: str = "nearest"
) -> list[Point]:
    """The baseline, and for each factor one network of each method at a level that all of them have one of.

    Whole pixels through several strides leave gaps: B0 at half its width makes 1.7 and 2.3 times its MACs of 24 pixels
    from 28 and 29, and resolution alone nothing between. That costs are equal is what matters, not that they are
    twice the baseline's: a level is the multiple nearest to the factor that is one of all methods.
    Raises InputError where constants do not scale anything, where two factors come to one level, and naming method and
    factor where there is no level within AWAY.
    """
    if constants.product == 1:
        raise InputError(f"scaling={constants}: one of the three constants must be above 1")
    points = [_point(BASELINE, 1.0, 1.0, _itself(baseline), baseline)]
    for factor in factors:
        near = [round(factor * (1 + sign * share / 100), 4) for share in range(AWAY + 1) for sign in (1, -1)]
        for level in near:
            by_method = _of_all_methods(baseline, constants, level, tolerance, rounding) if level > 1 else None
            if by_method is not None:
                break
        else:
            raise InputError(_nothing_there(baseline, constants, factor, tolerance, rounding))
        if any(abs(level / point.level - 1) <= tolerance for point in points):
            raise InputError(
                f"factors: for {factor:g} all methods have a network at {level:g} times the baseline's MACs, which is "
                f"another's level within tolerance={tolerance:g}; leave it out"
            )
        points += [_point(method, factor, level, by_method[method], baseline) for method in METHODS]
    return points


def on_bases(
    baseline: Arch, levels: Mapping[float, float], tolerance: float, rounding: str = "nearest"
) -> tuple[list[Point], list[tuple[str, float]]]:
    """Figure 4's networks: each base but the first, which is the baseline, widened to each level, {factor: level}.

    Also line and factor of those that are wanting: the base costs more by itself, or channels jump past the MACs.
    """
    points, wanting = [], []
    whole = cost(baseline).macs
    for base in BASES[1:]:
        depth, resolution = base
        start = _itself(scale(baseline, depth, 1.0, round(resolution * baseline.resolution), rounding))
        for factor, level in levels.items():
            candidate: Candidate | None = None
            if abs(start.macs / (level * whole) - 1) <= tolerance:
                candidate = start
            elif start.macs < level * whole:
                candidate = _along(start.network, SINGLE["width"], level * whole / start.macs, tolerance, rounding)
            if candidate is None:
                wanting.append((line_of(base), factor))
            else:
                points.append(_point(line_of(base), factor, level, candidate, baseline))
    return points, wanting


def _of_all_methods(
    baseline: Arch, constants: Coefficients, level: float, tolerance: float, rounding: str
) -> dict[str, Candidate] | None:
    """By method, the network of that many times the baseline's MACs; None unless all have one."""
    by_method = {}
    for method in reversed(METHODS):  # resolution, which makes the longest jumps, before width and depth
        candidate = _along(baseline, SINGLE.get(method, constants), level, tolerance, rounding)
        if candidate is None:
            return None
        by_method[method] = candidate
    return by_method


def _along(start: Arch, direction: Coefficients, factor: float, tolerance: float, rounding: str) -> Candidate | None:
    """The network in a direction with `factor` times the MACs of `start`, looked for as far as 4 times or more."""
    doublings = max(math.log2(factor), _LEAST_REACH)
    macs = factor * cost(start).macs
    return at_equal_cost(start, direction, doublings / math.log2(direction.product), macs, tolerance, rounding)


def _itself(network: Arch) -> Candidate:
    return Candidate(SINGLE["width"], 0.0, 0.0, network, cost(network).macs, 1.0)


def _point(line: str, factor: float, level: float, candidate: Candidate, baseline: Arch) -> Point:
    network = candidate.network
    return Point(
        line,
        factor,
        level,
        candidate,
        depth=network.blocks / baseline.blocks,
        width=sum(stage.channels for stage in network.stages) / sum(stage.channels for stage in baseline.stages),
        resolution=network.resolution / baseline.resolution,
    )


def _nothing_there(baseline: Arch, constants: Coefficients, factor: float, tolerance: float, rounding: str) -> str:
    """Which method has no network of that many times the MACs, and what its nearest has."""
    for method in reversed(METHODS):
        direction = SINGLE.get(method, constants)
        if _along(baseline, direction, factor, tolerance, rounding) is not None:
            continue
        low, high, nearest = tolerance, 1.0, None
        while high - low > _CLOSENESS:  # the least tolerance that finds one
            middle = (low + high) / 2
            candidate = _along(baseline, direction, factor, middle, rounding)
            nearest = candidate or nearest
            low, high = (low, middle) if candidate else (middle, high)
        there = "none is near" if nearest is None else f"the nearest has {nearest.macs / cost(baseline).macs:.3g} times"
        return (
            f"factors: {method} scaling has no network of {factor:g} times the baseline's MACs within "
            f"tolerance={tolerance:g} ({there}), and no level within {AWAY}% of it suits all methods; "
            "give other factors=, a larger tolerance= or another rounding="
        )
    raise AssertionError("all methods have a network")  # it is asked only where one lacks
