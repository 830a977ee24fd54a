"""The noise between seeds: its size, pooled over networks, and what it leaves of a difference between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, variance

from scipy.special import stdtrit

from phinas.files.errors import InputError

NOISELESS = 3  # repeats without any difference that show there is no noise; fewer may be a tie: accuracies are counts


def pooled_deviation(accuracies: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """The standard deviation between seeds of one network, and its degrees of freedom.

    `accuracies` are of one network each, over its seeds, of which any number may be missing. All are taken to be
    equally noisy: two or three seeds of one network tell too little of its own noise. None where no network has two
    seeds, or where they tie and are fewer than `NOISELESS` repeats. 0.0 is exact: of a table, say.
    """
    repeated = [seeds for seeds in accuracies if len(seeds) > 1]
    degrees = sum(len(seeds) - 1 for seeds in repeated)
    squares = sum((len(seeds) - 1) * variance(map(float, seeds)) for seeds in repeated)  # exact: 0.0 for equal values
    if not degrees or (not squares and degrees < NOISELESS):
        return None, degrees
    return float((squares / degrees) ** 0.5), degrees


def difference(
    a: Sequence[float], b: Sequence[float], within: float, degrees: int, level: float = 0.95
) -> tuple[float, float, float]:
    """By how much the expected accuracy of `a` is above that of `b`: the estimate, and the ends of its interval.

    `a` and `b` are accuracies over seeds, one is enough; `within` and `degrees` come from `pooled_deviation`, of these
    two or of more networks. Student's interval: it holds the true difference in `level` of all cases, where the two
    were not picked for their accuracies.
    Raises InputError where there is nothing to compare.
    """
    for name, accuracies in (("a", a), ("b", b)):
        if not len(accuracies):
            raise InputError(f"{name} has no accuracy: a difference needs at least one on either side")
    if degrees < 1:
        raise InputError(f"degrees is {degrees}: the noise is known from a network with two seeds at least")
    estimate = mean(map(float, a)) - mean(map(float, b))
    reach = float(stdtrit(degrees, 0.5 + level / 2)) * within * (1 / len(a) + 1 / len(b)) ** 0.5
    return estimate, estimate - reach, estimate + reach
