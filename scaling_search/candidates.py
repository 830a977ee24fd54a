"""Candidates of the scaling search: constants on a lattice, and the networks that they make of a baseline.

Equal products are not equal costs. Channels are rounded to 8 and layers to whole ones, so that of all constants with
alpha * beta^2 * gamma^2 ~ 2 some double B0's MACs and some treble them, and a grid over them rewards the luck of
rounding. `at_equal_cost` therefore follows each direction just as far as the compute reaches.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from phinas.files.checks import check_number
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.compound import PAPER, Coefficients, compound
from phinas.networks.cost import cost
from phinas.networks.scale import scale

_STEPS = 120  # places at which a direction is looked at, up to twice as far as was asked
_FURTHEST = 2.0
_DIGITS = 9  # sums of steps carry float noise
_MOST = 100_000  # points of a lattice; a network is looked for at each that is kept, which takes some 20 ms


@dataclass(frozen=True)
class Candidate:
    """A baseline scaled by one set of constants.

    asked_phi  how many steps were asked for.
    phi        how many the network is away from the baseline: those asked for, or as many as its MACs allow.
    macs       of `network`, one image.
    trim       side of its input / (side of the baseline's * gamma^phi): 1, but for rounding, unless it was adjusted.
    """

    coefficients: Coefficients
    asked_phi: float
    phi: float
    network: Arch
    macs: int
    trim: float

    @property
    def adjusted(self) -> bool:
        """Whether it is another network than the constants make at the phi asked for."""
        return self.phi != self.asked_phi or abs(self.trim - 1) * self.network.resolution > 0.51


def lattice(
    step: float = 0.05,
    tolerance: float = 0.1,
    alpha: tuple[float, float] = (1.0, 2.0),
    beta: tuple[float, float] = (1.0, 1.45),
    gamma: tuple[float, float] = (1.0, 1.45),
) -> list[Coefficients]:
    """All constants that are multiples of `step` above 1, within their bounds, with |product - 2| <= tolerance.

    The paper publishes neither; its (1.2, 1.1, 1.15) lies on a lattice of 0.05 and misses 2 by 0.08.
    Raises InputError for a bound below 1 or upside down, for more points than anybody waits for, and where nothing is
    left.
    """
    check_number("lattice.step", step, least=0.001)
    check_number("lattice.tolerance", tolerance, least=0)
    axes = []
    for name, bounds in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
            raise InputError(f"lattice.{name}={bounds}: it must be [lowest,highest]")
        low, high = (check_number(f"lattice.{name}", bound, least=1, below=1000) for bound in bounds)
        if high < low:
            raise InputError(f"lattice.{name}=[{low:g},{high:g}]: the highest is below the lowest")
        first, last = math.ceil(round((low - 1) / step, _DIGITS)), math.floor(round((high - 1) / step, _DIGITS))
        axes.append([round(1 + place * step, _DIGITS) for place in range(first, last + 1)])
    if (points := math.prod(len(axis) for axis in axes)) > _MOST:
        raise InputError(
            f"lattice.step={step:g}: {points:,} points lie within the bounds, more than {_MOST:,}; "
            "give a larger step or narrower bounds"
        )
    constants = [Coefficients(*point) for point in itertools.product(*axes)]
    near = [point for point in constants if round(abs(point.product - 2), _DIGITS) <= tolerance and point.product > 1]
    if not near:
        raise InputError(
            f"lattice.tolerance={tolerance:g}: none of the {len(constants)} constants of the lattice has "
            f"alpha*beta^2*gamma^2 that close to 2; give a larger one, a smaller lattice.step or wider bounds"
        )
    return near


def nominal(baseline: Arch, coefficients: Coefficients, phi: float, rounding: str = "official") -> Candidate:
    """The network of the paper's formula, whatever it costs."""
    network = compound(baseline, coefficients, phi, rounding)
    return Candidate(
        coefficients, phi, phi, network, cost(network).macs, _trim(network.resolution, baseline, coefficients, phi)
    )


def at_equal_cost(
    baseline: Arch,
    coefficients: Coefficients,
    phi: float,
    macs: float,
    tolerance: float = 0.05,
    rounding: str = "official",
    most_trim: float = 0.1,
) -> Candidate | None:
    """The network in the direction of the constants whose MACs are `macs`, to a share of `tolerance`; None if none is.

    The direction is followed (alpha^t, beta^t, gamma^t for growing t) until the MACs are reached. Where layers and
    channels jump past them, the input is made a little smaller or larger, by a share of `most_trim` at the most: of
    all networks within the tolerance the one whose input differs least from gamma^t, of equals that of nearest MACs.
    """
    low, high = math.ceil(macs * (1 - tolerance)), math.floor(macs * (1 + tolerance))
    best: tuple[tuple[int, float], Candidate] | None = None
    for at in _places(phi):
        exact = baseline.resolution * coefficients.gamma**at
        asked, smallest, largest = round(exact), math.ceil(exact * (1 - most_trim)), math.floor(exact * (1 + most_trim))
        layers = scale(baseline, coefficients.alpha**at, coefficients.beta**at, rounding=rounding)
        first, last = _sides(layers, low, high)
        if max(first, smallest) > min(last, largest):
            continue
        side = min(max(asked, first, smallest), last, largest)
        network = replace(layers, resolution=side)
        count = cost(network).macs
        rank = (abs(side - max(1, asked)), abs(count / macs - 1))
        if best is None or rank < best[0]:
            best = rank, Candidate(coefficients, phi, at, network, count, _trim(side, baseline, coefficients, at))
    return best[1] if best else None


def _places(phi: float) -> Iterator[float]:
    """0 < t <= 2 phi, the one that was asked for first so that equals are it."""
    yield phi
    for place in range(1, _STEPS + 1):
        yield _FURTHEST * phi * place / _STEPS


@lru_cache(maxsize=1 << 12)  # many constants, and many places on their way, have the same layers
def _sides(layers: Arch, low: int, high: int) -> tuple[int, int]:
    """The first and last side of the input at which these layers have `low` to `high` MACs; none where first > last."""
    always, by_stride = _macs_by_stride(layers)

    def macs_at(side: int) -> int:
        return always + sum(each * (-(-side // stride)) ** 2 for stride, each in by_stride)

    def first(macs: int) -> int:  # they only grow with the side
        beyond = 1
        while macs_at(beyond) < macs:
            beyond *= 2
        return bisect_left(range(beyond), macs, key=macs_at)

    return max(1, first(low)), first(high + 1) - 1


def _macs_by_stride(layers: Arch) -> tuple[int, list[tuple[int, int]]]:
    """MACs at any side n as (c, [(s, m), ...]): c + the sum of m * ceil(n / s)^2 over the total strides s of layers.

    Each total stride s divides the next, t: at n = t, the layers of stride s have (t / s)^2 pixels, all later ones one.
    """

    def macs_at(side: int) -> int:
        return cost(replace(layers, resolution=side)).macs

    steps = (layers.stem.stride, 2 if layers.stem.pool else 1, *(stage.stride for stage in layers.stages))
    strides = sorted(set(itertools.accumulate(steps, operator.mul)))
    one_pixel = macs_at(1)
    by_stride: list[tuple[int, int]] = []
    for stride, beyond in itertools.pairwise([*strides, 2 * strides[-1]]):
        rest = macs_at(beyond) - one_pixel - sum(each * ((beyond // earlier) ** 2 - 1) for earlier, each in by_stride)
        by_stride.append((stride, rest // ((beyond // stride) ** 2 - 1)))
    return one_pixel - sum(each for _, each in by_stride), by_stride


def _trim(side: int, baseline: Arch, coefficients: Coefficients, phi: float) -> float:
    return float(side / (baseline.resolution * coefficients.gamma**phi))


def spread_out(points: Sequence[Coefficients], count: int) -> list[Coefficients]:
    """`count` of them, spread evenly over the surface: the paper's first if it is there, then always the farthest.

    Distances are between shares of the cost's growth. All of them, in their order, where there are no more.
    """
    if len(points) <= count:
        return list(points)
    shares = np.array([point.shares for point in points])
    first = points.index(PAPER) if PAPER in points else 0
    chosen = [first]
    distances = np.linalg.norm(shares - shares[first], axis=1)
    while len(chosen) < count:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(shares - shares[chosen[-1]], axis=1))
    return [points[place] for place in sorted(chosen)]
