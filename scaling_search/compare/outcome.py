"""What a comparison found: accuracies with intervals, and whether compound scaling is told from single dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev, variance

import pandas as pd
from scipy.special import fdtrc, stdtrit

from phinas.files.atomic_file import write_atomically
from phinas.networks.cost import cost
from scaling_search.compare.networks import BASELINE, COMPOUND, METHODS, SINGLE, Point
from scaling_search.noise import difference, pooled_deviation
from scaling_search.study import Evaluation

LEVEL = 0.95
# Three differences are looked at together: each interval is wide enough for all three to hold (Bonferroni).
_EACH = 1 - (1 - LEVEL) / len(SINGLE)
_CHANCE = 0.01  # that any network is taken to be noisier than the others when none is


@dataclass(frozen=True)
class Noise:
    """The standard deviation between seeds, with its degrees of freedom.

    own  of this network alone, which is far noisier than the others; else it is pooled over all those.
    """

    deviation: float
    degrees: int
    own: bool = False


@dataclass(frozen=True)
class Outcome:
    """A network of the comparison, and what is known of it by now.

    accuracies  one a seed that was evaluated, fractions.
    errors      of evaluations that failed.
    noise       between its seeds; None where that is not known.
    """

    point: Point
    accuracies: tuple[float, ...] = ()
    errors: tuple[str, ...] = ()
    noise: Noise | None = None

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def sd(self) -> float | None:
        """Between its own seeds."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def reach(self) -> float | None:
        """How far from the mean its true accuracy over seeds lies at the most, in 95% of all cases; None if unknown."""
        if self.noise is None or not self.accuracies:
            return None
        student = float(stdtrit(self.noise.degrees, 0.5 + LEVEL / 2))
        return float(student * self.noise.deviation / math.sqrt(len(self.accuracies)))

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
    """Each point with what its network came to; points of one network share it."""
    by_network: dict[str, list[Evaluation]] = {point.network.key(): [] for point in points}
    for evaluation in sorted(evaluations, key=lambda evaluation: evaluation.replicate):
        if evaluation.network in by_network:
            by_network[evaluation.network].append(evaluation)
    accuracies = {
        key: tuple(run.accuracy for run in runs if run.accuracy is not None) for key, runs in by_network.items()
    }
    errors = {key: tuple(run.error for run in runs if run.error is not None) for key, runs in by_network.items()}
    noise = noise_of(accuracies)
    keys = [point.network.key() for point in points]
    return [
        Outcome(point, accuracies[key], errors[key], noise.get(key)) for point, key in zip(points, keys, strict=True)
    ]


def noise_of(accuracies: Mapping[str, Sequence[float]]) -> dict[str, Noise]:
    """The noise of each network, of which `accuracies` are over seeds; none where it is not known.

    Two or three seeds of one network tell too little of it, so it is pooled over all. But a network that trains only
    now and then, as very deep ones do, would drown all differences between the others: one that is noisier than the
    rest beyond chance (an F test of its variance, for all networks together) is taken out, and has its own.
    """
    pool, apart = dict(accuracies), dict[str, Noise]()
    while True:
        repeated = [key for key, over_seeds in pool.items() if len(over_seeds) > 1]
        noisiest = max(repeated, key=lambda key: variance(pool[key]), default=None)
        rest, degrees = pooled_deviation([over_seeds for key, over_seeds in pool.items() if key != noisiest])
        if noisiest is None or not rest:
            break
        own, own_degrees = variance(pool[noisiest]), len(pool[noisiest]) - 1
        if fdtrc(own_degrees, degrees, own / rest**2) * len(accuracies) > _CHANCE:
            break
        apart[noisiest] = Noise(own**0.5, own_degrees, own=True)
        del pool[noisiest]
    within, degrees = pooled_deviation(list(pool.values()))
    pooled = {} if within is None else dict.fromkeys(pool, Noise(within, degrees))
    return pooled | apart


def contrasts(found: Sequence[Outcome]) -> list[Contrast]:
    """Compound scaling against each single dimension, level by level, as far as accuracies are known.

    The three intervals of a level hold all three true differences at once in 95% of all cases, so that the best of the
    three may be picked by its accuracy.
    """
    known = {(outcome.point.level, outcome.point.line): outcome for outcome in found if outcome.accuracies}
    found_contrasts = []
    for (level, method), single in known.items():
        ours = known.get((level, COMPOUND))
        if method not in SINGLE or ours is None:
            continue
        estimate = (ours.mean or 0.0) - (single.mean or 0.0)
        reach = _reach(ours, single)
        ends = (None, None) if reach is None else (estimate - reach, estimate + reach)
        found_contrasts.append(Contrast(level, method, estimate, *ends))
    return found_contrasts


def _reach(first: Outcome, other: Outcome) -> float | None:
    """Half of the interval of the difference between two: Student's, or Welch's where their noise differs."""
    if first.point.network == other.point.network:
        return 0.0
    if first.noise is None or other.noise is None:
        return None
    if first.noise == other.noise:
        _, low, high = difference(first.accuracies, other.accuracies, first.noise.deviation, first.noise.degrees, _EACH)
        return (high - low) / 2
    parts = [each.noise.deviation**2 / len(each.accuracies) for each in (first, other) if each.noise is not None]
    squares = parts[0] ** 2 / first.noise.degrees + parts[1] ** 2 / other.noise.degrees
    return float(stdtrit(sum(parts) ** 2 / squares, 0.5 + _EACH / 2)) * math.sqrt(sum(parts))


def verdicts(found: Sequence[Outcome]) -> list[str]:
    """What the data say of compound scaling against the best single dimension, a line for each level."""
    lines = []
    all_contrasts = contrasts(found)
    for level in sorted({row.point.level for row in found if row.point.line in METHODS}):
        here = {row.point.line: row for row in found if row.point.level == level and row.mean is not None}
        singles = [contrast for contrast in all_contrasts if contrast.level == level]
        if not singles:
            lines.append(f"at {level:.3g}x: not known yet")
            continue
        best = min(singles, key=lambda contrast: contrast.estimate)
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
        beaten = [contrast.method for contrast in singles if contrast.told and contrast.estimate > 0]
        also = f"; above {' and '.join(beaten)} all the same" if beaten else ""
        return f"not told apart{also}"
    few = "" if len(singles) == len(SINGLE) else f" of the {len(singles)} known"
    return f"compound scaling is better{few}" if best.estimate > 0 else f"compound scaling is worse{few}"


def accuracy_text(one: Outcome) -> str:
    """The mean, and the standard deviation between seeds where there are several: `0.8120 ± 0.0043`."""
    return f"{one.mean or 0.0:.4f}" + (f" ± {one.sd:.4f}" if one.sd is not None else "")


def write_comparison(path: Path, found: Sequence[Outcome]) -> None:
    """`comparison.csv`: one row for each network of each line, as Tables 3 and 7 of the paper have them."""
    whole = next(outcome.point.macs for outcome in found if outcome.point.line == BASELINE)
    contrast_of = {(contrast.level, contrast.method): contrast for contrast in contrasts(found)}
    rows = []
    for outcome in found:
        point = outcome.point
        against = contrast_of.get((point.level, point.line))
        rows.append(
            {
                "line": point.line, "factor": point.factor, "level": point.level,
                "depth": round(point.depth, 4), "width": round(point.width, 4),
                "resolution": round(point.resolution, 4), "layers": point.network.blocks,
                "side": point.network.resolution, "trim": round(point.candidate.trim, 4),
                "macs": point.macs, "ratio": round(point.macs / whole, 4), "params": cost(point.network).params,
                "accuracy_mean": outcome.mean, "accuracy_sd": outcome.sd, "seeds": len(outcome.accuracies),
                "reach": outcome.reach, "own_noise": outcome.noise is not None and outcome.noise.own,
                "compound_minus_this": against.estimate if against else None,
                "low": against.low if against else None, "high": against.high if against else None,
                "accuracies": " ".join(f"{accuracy:.6f}" for accuracy in outcome.accuracies),
                "failed": len(outcome.errors), "network": point.network.key(),
            }
        )  # fmt: skip
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
