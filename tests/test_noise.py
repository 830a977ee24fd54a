"""The noise between seeds, and the interval of a difference between two networks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from phinas.files.errors import InputError
from scaling_search.noise import difference, pooled_deviation


def test_worked_deviations() -> None:
    # Squares 2 and 8 over 1 + 2 degrees; one seed alone, or none, tells nothing.
    within, degrees = pooled_deviation([[1.0, 3.0], [0.0, 2.0, 4.0], [7.0], []])
    assert (within, degrees) == (pytest.approx((10 / 3) ** 0.5), 3)
    assert pooled_deviation([[0.8], [0.9], []]) == pooled_deviation([]) == (None, 0)


def test_three_ties_are_no_noise_and_fewer_are_luck() -> None:
    assert pooled_deviation([[0.1] * 3, [0.7] * 2]) == (0.0, 3)
    assert pooled_deviation([[0.1] * 3, [0.7]]) == (None, 2)


def test_the_difference_is_that_of_students_test() -> None:
    a, b = [0.91, 0.93, 0.92, 0.95], [0.90, 0.89, 0.93]
    within, degrees = pooled_deviation([a, b])
    assert within is not None
    reference = ttest_ind(a, b).confidence_interval(0.95)
    estimate, low, high = difference(a, b, within, degrees)
    assert estimate == pytest.approx(np.mean(a) - np.mean(b))
    assert (low, high) == pytest.approx((reference.low, reference.high))
    assert difference(b, a, within, degrees) == pytest.approx((-estimate, -high, -low))


def test_the_interval_holds_the_difference_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(2000):
        networks = [(0.8 + 0.02 * number + 0.01 * rng.normal(size=n)).tolist() for number, n in enumerate((2, 3, 1))]
        within, degrees = pooled_deviation(networks)
        assert within is not None
        _, low, high = difference(networks[2], networks[0], within, degrees)
        held.append(low <= 0.04 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)  # 3 standard errors


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InputError, match="b has no accuracy"):
        difference([0.5], [], 0.01, 3)
    with pytest.raises(InputError, match="degrees is 0"):
        difference([0.5], [0.4], 0.01, 0)
