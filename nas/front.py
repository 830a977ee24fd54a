"""The Pareto front of a search, accuracy against one cost or several, and how much of the plane it dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nas.costs import higher_is_better, to_minimise
from nas.journal import Entry

RIVALS = 100  # points that all others are compared with before they are compared with one another


def pareto_front(entries: Sequence[Entry], costs: Sequence[str]) -> list[Entry]:
    """The entries that no other beats in one of accuracy and `costs` without being beaten in another.

    Of those evaluated to the end only; entries that tie in everything are all in it. The best in the first cost comes
    first, and of equals in it the best in the second.
    """
    complete = [entry for entry in entries if entry.complete]
    points = _points(complete, costs)
    left = _not_beaten_by_a_few(points)
    complete, points = [complete[row] for row in left], points[left]
    front: list[Entry] = []
    best = np.empty_like(points)  # the front's points, in its first rows
    # In this order a point can be dominated by earlier ones alone.
    for row in np.lexsort((np.arange(len(points)), *points.T[::-1])):
        above = best[: len(front)]
        if not ((above <= points[row]).all(1) & (above < points[row]).any(1)).any():
            best[len(front)] = points[row]
            front.append(complete[row])
    return front


def _not_beaten_by_a_few(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int_]:
    """Rows that those of the best ranks do not beat: a few of 100,000, which can be compared with one another."""
    ranks = points.argsort(axis=0).argsort(axis=0).sum(axis=1)
    left = np.arange(len(points))
    for rival in points[np.argsort(ranks, kind="stable")[:RIVALS]]:
        others = points[left]
        left = left[~((rival <= others).all(1) & (rival < others).any(1))]
    return left


def spread(front: Sequence[Entry], most: int) -> list[Entry]:
    """At most so many members of the front, evenly apart, with its ends."""
    if len(front) <= most:
        return list(front)
    return [front[round(place * (len(front) - 1) / (most - 1))] for place in range(most)]


def reference(entries: Sequence[Entry], costs: Sequence[str], limits: Mapping[str, float]) -> dict[str, float]:
    """Cost -> where its hypervolume begins: the limit where there is one, else the worst evaluated to the end."""
    complete = [entry for entry in entries if entry.complete]
    worst = {}
    for name in costs:
        values = [entry.costs[name] for entry in complete]
        worst[name] = min(values) if higher_is_better(name) else max(values)
    return {name: float(limits[name] if name in limits else worst[name]) for name in costs}


def hypervolume(entries: Sequence[Entry], reference: Mapping[str, float]) -> float:
    """The share of the box between accuracy 1 at no cost and accuracy 0 at the `reference` costs that is dominated.

    A throughput counts as seconds per image. 1 is out of reach; figures compare at the same reference alone.
    Zitzler and Thiele, "Multiobjective evolutionary algorithms", IEEE Trans. Evol. Comput. 3(4), 1999.
    """
    points = _points(pareto_front(entries, tuple(reference)), tuple(reference))
    points[:, -1] += 1  # errors
    points[:, :-1] /= [to_minimise(name, cost) for name, cost in reference.items()]
    return _volume(points[(points < 1).all(1)])


def _points(entries: Sequence[Entry], costs: Sequence[str]) -> npt.NDArray[np.float64]:
    """[n, costs + 1]: the costs and the negated accuracy; all are better when lower."""
    rows = [[*(to_minimise(name, entry.costs[name]) for name in costs), -(entry.accuracy or 0.0)] for entry in entries]
    return np.array(rows, dtype=float).reshape(len(rows), len(costs) + 1)


def _volume(points: npt.NDArray[np.float64]) -> float:
    """What `points`, in [0, 1)^d, dominate of the unit cube: slices along the first axis, each one dimension less."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return 1.0 - float(points.min())
    points = points[np.argsort(points[:, 0], kind="stable")]
    widths = np.diff(points[:, 0], append=1.0)
    if points.shape[1] == 2:
        return float(widths @ (1.0 - np.minimum.accumulate(points[:, 1])))
    total, volume, slice_ = 0.0, 0.0, points[:0, 1:]
    for point, width in zip(points[:, 1:], widths, strict=True):
        if not (slice_ <= point).all(1).any():  # else the slice is that of the points before
            slice_ = np.vstack([slice_[~(point <= slice_).all(1)], point])
            volume = _volume(slice_)
        total += float(width) * volume
    return total
