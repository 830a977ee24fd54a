"""What a comparison found: accuracies with intervals, and whether compound scaling is told from single dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
from scipy.special import stdtrit

from convnets.atomic_file import write_atomically
from convnets.cost import cost
from scaling_search.comparison import BASELINE, COMPOUND, METHODS, SINGLE, Point
from scaling_search.noise import difference, pooled_deviation
from scaling_search.study import Evaluation

LEVEL = 0.95
# Three differences are looked at together: each interval is wide enough for all three to hold (Bonferroni).
_EACH = 1 - (1 - LEVEL) / len(SINGLE)


@dataclass(frozen=True)
class Outcome:
    """A network of the comparison, and what is known of it by now.

    accuracies  one a seed that was evaluated, fractions.
    errors      of evaluations that failed.
    reach       its true accuracy over seeds lies this far from the mean at the most, in 95% of all cases; None where
                the noise between seeds is not known.
    """

    point: Point
    accuracies: tuple[float, ...] = ()
    errors: tuple[str, ...] = ()
    reach: float | None = None

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def sd(self) -> float | None:
        """Between its own seeds."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def label(self) -> str:
        """What was scaled by how much, as the paper's figures have it: `d=2.1`, or all three of compound scaling."""
        point = self.point
        parts = {
            "depth": f"d={point.depth:.1f}",
            "width": f"w={point.width:.1f}",
            "resolution": f"r={point.resolution:.1f}",
        }
        if point.line == BASELINE:
            return BASELINE
        if point.line == COMPOUND:
            return " ".join(parts.values())
        return parts.get(point.line, parts["width"])


@dataclass(frozen=True)
class Contrast:
    """By how much compound scaling is above a single dimension at one level, and its interval; None if unknown."""

    level: float
    method: str
    estimate: float
    low: float | None
    high: float | None

    @property
    def told(self) -> bool:
        """Whether the data tell the two apart."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def outcomes(points: Sequence[Point], evaluations: Sequence[Evaluation]) -> list[Outcome]:
    """Each point with what its network came to; points of one network share it.

    The noise is pooled over all networks: two or three seeds of one tell too little of it.
    """
    by_network: dict[str, list[Evaluation]] = {point.network.key(): [] for point in points}
    for one in sorted(evaluations, key=lambda one: one.replicate):
        if one.network in by_network:
            by_network[one.network].append(one)
    accuracies = {
        key: tuple(one.accuracy for one in found if one.accuracy is not None) for key, found in by_network.items()
    }
    within, degrees = pooled_deviation(list(accuracies.values()))
    student = float(stdtrit(degrees, 0.5 + LEVEL / 2)) if degrees else 0.0
    found = []
    for point in points:
        key = point.network.key()
        known = within is not None and accuracies[key]
        found.append(
            Outcome(
                point,
                accuracies[key],
                tuple(one.error for one in by_network[key] if one.error is not None),
                student * (within or 0.0) / len(accuracies[key]) ** 0.5 if known else None,
            )
        )
    return found


def contrasts(found: Sequence[Outcome]) -> list[Contrast]:
    """Compound scaling against each single dimension, level by level, as far as accuracies are known.

    The three intervals of a level hold all three true differences at once in 95% of all cases, so that the best of the
    three may be picked by its accuracy.
    """
    within, degrees = pooled_deviation(list({one.point.network.key(): one.accuracies for one in found}.values()))
    known = {(one.point.level, one.point.line): one for one in found if one.accuracies}
    compared = []
    for (level, method), single in known.items():
        ours = known.get((level, COMPOUND))
        if method not in SINGLE or ours is None:
            continue
        if ours.point.network == single.point.network:
            compared.append(Contrast(level, method, 0.0, 0.0, 0.0))
        elif within is None:
            compared.append(Contrast(level, method, (ours.mean or 0.0) - (single.mean or 0.0), None, None))
        else:
            stated = difference(ours.accuracies, single.accuracies, within, degrees, _EACH)
            compared.append(Contrast(level, method, *stated))
    return compared


def verdicts(found: Sequence[Outcome]) -> list[str]:
    """What the data say of compound scaling against the best single dimension, a line for each level."""
    lines = []
    compared = contrasts(found)
    for level in sorted({one.point.level for one in found if one.point.line in METHODS}):
        here = {one.point.line: one for one in found if one.point.level == level and one.mean is not None}
        singles = [one for one in compared if one.level == level]
        if not singles:
            lines.append(f"at {level:.3g}x: not known yet")
            continue
        best = min(singles, key=lambda one: one.estimate)
        values = f"compound {accuracy_text(here[COMPOUND])}, best single dimension ({best.method}) "
        values += accuracy_text(here[best.method])
        lines.append(f"at {level:.3g}x: {values}: {_told(best, singles)}")
    return lines


def _told(best: Contrast, singles: Sequence[Contrast]) -> str:
    if best.low is None or best.high is None:
        return "whether that is chance is not known with one seed; ask for seeds=3"
    if best.low == best.high == 0:
        return "not told apart: they are the same network, or seeds make no difference"
    if not best.told:
        beaten = [one.method for one in singles if one.told and one.estimate > 0]
        also = f"; above {' and '.join(beaten)} all the same" if beaten else ""
        return f"not told apart{also}"
    few = "" if len(singles) == len(SINGLE) else f" of the {len(singles)} known"
    return f"compound scaling is better{few}" if best.estimate > 0 else f"compound scaling is worse{few}"


def accuracy_text(one: Outcome) -> str:
    """The mean, and the standard deviation between seeds where there are several: `0.8120 ± 0.0043`."""
    return f"{one.mean or 0.0:.4f}" + (f" ± {one.sd:.4f}" if one.sd is not None else "")


def write_comparison(path: Path, found: Sequence[Outcome]) -> None:
    """`comparison.csv`: one row for each network of each line, as Tables 3 and 7 of the paper have them."""
    whole = next(one.point.macs for one in found if one.point.line == BASELINE)
    compared = {(one.level, one.method): one for one in contrasts(found)}
    rows = []
    for one in found:
        point = one.point
        against = compared.get((point.level, point.line))
        rows.append(
            {
                "line": point.line, "factor": point.factor, "level": point.level,
                "depth": round(point.depth, 4), "width": round(point.width, 4),
                "resolution": round(point.resolution, 4), "layers": point.network.blocks,
                "side": point.network.resolution, "trim": round(point.candidate.trim, 4),
                "macs": point.macs, "ratio": round(point.macs / whole, 4), "params": cost(point.network).params,
                "accuracy_mean": one.mean, "accuracy_sd": one.sd, "seeds": len(one.accuracies), "reach": one.reach,
                "compound_minus_this": against.estimate if against else None,
                "low": against.low if against else None, "high": against.high if against else None,
                "accuracies": " ".join(f"{accuracy:.6f}" for accuracy in one.accuracies),
                "failed": len(one.errors), "network": point.network.key(),
            }
        )  # fmt: skip
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
