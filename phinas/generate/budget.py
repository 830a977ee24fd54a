"""The largest network of a rule that meets a budget: equation 2 of EfficientNet (arXiv 1905.11946)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from phinas.files.errors import InputError
from phinas.generate.rules import Rule, shrinking
from phinas.networks.arch import Arch
from phinas.networks.cost import cost

# Measurements that are placed by a line through the two before; later ones halfway, as a line that is none creeps.
_BY_LINE = 6


@dataclass(frozen=True)
class Limit:
    """The most that a network may cost.

    option    as command lines call it, `target_flops`.
    most      in the unit of `value`.
    value     of a network; with `measured`, it takes long, so few networks are asked for.
    text      of a value, for people.
    """

    option: str
    most: float
    value: Callable[[Arch], float]
    text: Callable[[float], str]
    measured: bool = False

    def meets(self, arch: Arch) -> bool:
        return self.value(arch) <= self.most

    def __str__(self) -> str:
        return f"{self.option} of {self.text(self.most)}"


@dataclass(frozen=True)
class Fit:
    """What meets a budget.

    phi      the largest that meets every limit.
    beyond   the next larger phi that the rule has; None for the largest step of a table.
    binding  the limits that the network at `beyond` exceeds, each with its value there.
    """

    phi: float
    beyond: float | None
    binding: tuple[tuple[Limit, float], ...]


def largest(rule: Rule, baseline: Arch, limits: Sequence[Limit], step: float = 0.1) -> Fit:
    """The largest phi, a multiple of `step` or a step of the rule's table, whose network meets all limits.

    What counts is the cost of each network as it is, after rounding. Costs grow with phi, but for what rounding does at
    phi=0 to channels that are no multiples of 8; so both sides of it are searched by themselves. Memory may also dip
    where stages come to differ in channels and a shortcut falls away: a network beyond such a dip is not looked for.
    Raises InputError for limits that nothing meets, and for limits that no network of a formula exceeds.
    """
    phis = sorted(rule.steps) if rule.steps is not None else _grid(rule, step)

    @cache
    def network(phi: float) -> Arch:
        return rule.grow(baseline, phi)

    counted = [limit for limit in limits if not limit.measured]
    measured = [limit for limit in limits if limit.measured]

    def meets(phi: float) -> bool:
        return all(limit.meets(network(phi)) for limit in counted)

    if rule.steps is not None:  # TinyNet-A has fewer MACs than its baseline, and more parameters: ask all
        meeting = [phi for phi in phis if meets(phi)]
    else:
        meeting = [phi for phi in phis[: _count_of_formula(phis, meets)] if phi != 0 or meets(0)]
    for limit in measured:
        meeting = meeting[: _count_by_measuring(meeting, network, limit)]
    if not meeting:
        raise InputError(_impossible(rule, phis, network, limits))
    last = meeting[-1]
    beyond = next((phi for phi in phis if phi > last), None)
    if beyond is None and rule.steps is None:
        asked = " and ".join(str(limit) for limit in limits)
        raise InputError(f"scaling={rule.name} stays within {asked} up to phi={last:g}, the largest it has; give phi=")
    return Fit(last, beyond, () if beyond is None else _exceeded(network(beyond), limits))


def _grid(rule: Rule, step: float) -> list[float]:
    """All multiples of `step` that the rule has, ascending; among them 0."""
    down, up = int(-rule.least / step + 1e-9), int(rule.most / step + 1e-9)
    return [round(number * step, 9) for number in range(-down, up + 1)]


def _count_of_formula(phis: Sequence[float], meets: Callable[[float], bool]) -> int:
    """How many of the phis go up to the largest that meets; 0 where none does."""
    zero = phis.index(0)
    above = _leading(phis[zero + 1 :], meets)
    if above or meets(0):
        return zero + 1 + above
    return zero - _leading(phis[:zero][::-1], lambda phi: not meets(phi))


def _leading(phis: Sequence[float], holds: Callable[[float], bool]) -> int:
    """How many of the first phis it holds for, if it holds for none after the first for which it does not.

    Gallops, then bisects: large networks are not looked at when small ones are meant.
    """
    low, high = 0, 1
    while high <= len(phis) and holds(phis[high - 1]):
        low, high = high, 2 * high
    high = min(high, len(phis) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(phis[middle - 1]) else (low, middle)
    return low


def _count_by_measuring(phis: Sequence[float], network: Callable[[float], Arch], limit: Limit) -> int:
    """How many of the phis go up to the largest that meets a limit which is measured; 0 where none does.

    Starts at the baseline, or at what is nearest to it, and goes where the limit would be if the value were a straight
    line in MACs. So hardly anything far beyond the limit is measured; what is found and the next network both are.
    """
    low, high = 0, len(phis) + 1  # the first `low` meet it, those from `high` on do not
    number = next((place for place, phi in enumerate(phis, start=1) if phi >= 0), len(phis))
    points = [(0.0, 0.0)]  # MACs, value
    while high - low > 1:
        arch = network(phis[number - 1])
        macs, value = cost(arch).macs, limit.value(arch)
        low, high = (number, high) if value <= limit.most else (low, number)
        points.append((macs, value))
        guess = (low + high) // 2
        if high > len(phis) or len(points) <= _BY_LINE:  # far up, nothing is known to be too much
            guess = _within(phis, network, _aim(points[-2:], limit.most))
        number = min(max(guess, low + 1), high - 1)
    return low


def _within(phis: Sequence[float], network: Callable[[float], Arch], macs: float) -> int:
    """How many of the phis have networks of at most so many MACs."""
    return _leading(phis, lambda phi: cost(network(phi)).macs <= macs)


def _aim(points: Sequence[tuple[float, float]], most: float) -> float:
    """The MACs at which the line through two points (MACs, value) reaches `most`.

    No more than twice of what they would be in proportion to the second point: a short line, noisy, may point far up.
    Just in proportion where the line does not rise.
    """
    (before, value_before), (macs, value) = points
    in_proportion = macs * most / value
    rise = (value - value_before) * (macs - before)
    if not 0 < rise < math.inf:
        return in_proportion
    return min(macs + (most - value) * (macs - before) ** 2 / rise, 2 * in_proportion)


def _exceeded(arch: Arch, limits: Sequence[Limit]) -> tuple[tuple[Limit, float], ...]:
    """The limits that the network does not meet; nothing is measured for a network that is known to exceed another."""
    counted = [limit for limit in limits if not limit.measured and not limit.meets(arch)]
    exceeded = counted or [limit for limit in limits if limit.measured and not limit.meets(arch)]
    return tuple((limit, limit.value(arch)) for limit in exceeded)


def _impossible(rule: Rule, phis: Sequence[float], network: Callable[[float], Arch], limits: Sequence[Limit]) -> str:
    """What the smallest networks need, of each limit that none of them meets; and who has smaller ones."""
    reasons = []
    for limit in limits:
        # The smallest network alone is measured, and a table's rows all counted.
        asked = phis if rule.steps is not None and not limit.measured else sorted({phis[0], min(phis, key=abs)})
        least, phi = min((limit.value(network(phi)), phi) for phi in asked)
        if least > limit.most:
            reasons.append(
                f"{limit}: the smallest network of scaling={rule.name}, phi={phi:g}, needs {limit.text(least)}"
            )
    if not reasons:
        return f"scaling={rule.name} has no network that meets {' and '.join(map(str, limits))} at once"
    others = [name for name in shrinking() if name != rule.name]
    hint = (
        "give a smaller baseline=" if rule.name == "dwr" else f"scaling={' or scaling='.join(others)} has smaller ones"
    )
    return f"{'; '.join(reasons)}; {hint}"
