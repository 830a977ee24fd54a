"""The ranking of candidates obeys its laws, and what it states as probable is as frequent as it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import t

from phinas.files.errors import InputError
from scaling_search.ranking import LEVEL, Ranking, _posterior, _probability_best, rank

NOISE = 0.01


def study(count: int, seeds: int | Sequence[int], ratio: float, seed: int = 0) -> tuple[np.ndarray, list[list[float]]]:
    """True accuracies of `count` candidates that differ by `ratio` times the noise, and what was observed of them."""
    rng = np.random.default_rng(seed)
    true = 0.8 + NOISE * ratio * rng.normal(size=count)
    each = [seeds] * count if isinstance(seeds, int) else seeds
    return true, [(one + NOISE * rng.normal(size=n)).tolist() for one, n in zip(true, each, strict=True)]


def columns(ranking: Ranking) -> dict[str, tuple[float | None, ...]]:
    names = ("mean", "sd", "expected", "low", "high", "probability_best")
    return {name: getattr(ranking, name) for name in names}


def numbers(values: Sequence[float | None]) -> np.ndarray:
    assert None not in values
    return np.array(values, dtype=float)


def same(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    """Equal but for rounding, None where the other has None."""
    return np.allclose(np.array(one, dtype=float), np.array(other, dtype=float), rtol=1e-9, atol=1e-12, equal_nan=True)


UNEVEN = (3, 1, 0, 5, 2, 3, 1, 4)


def test_the_order_of_candidates_is_of_no_consequence() -> None:
    _, accuracies = study(len(UNEVEN), UNEVEN, 1.0)
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    one, other = rank(accuracies), rank([accuracies[place] for place in order])
    for name, values in columns(one).items():
        assert same(columns(other)[name], [values[place] for place in order]), name
    assert [order[place] for place in other.contenders] == list(one.contenders)
    assert (other.within, other.between) == pytest.approx((one.within, one.between))


def test_the_order_of_seeds_is_of_no_consequence_and_an_answer_repeats_to_the_bit() -> None:
    _, accuracies = study(len(UNEVEN), UNEVEN, 1.0)
    assert rank(accuracies) == rank([one[::-1] for one in accuracies]) == rank(accuracies)


@pytest.mark.parametrize(("shift", "scale"), [(-0.5, 1.0), (0.0, 100.0), (3.0, 0.01)])
def test_units_are_of_no_consequence(shift: float, scale: float) -> None:
    _, accuracies = study(len(UNEVEN), UNEVEN, 1.0)
    one = rank(accuracies)
    other = rank([[shift + scale * accuracy for accuracy in candidate] for candidate in accuracies])
    for name in ("mean", "expected", "low", "high"):
        moved = [None if value is None else shift + scale * value for value in getattr(one, name)]
        assert same(getattr(other, name), moved), name
    assert same(other.probability_best, one.probability_best)
    assert other.within == pytest.approx(scale * (one.within or 0))
    assert other.between == pytest.approx(scale * (one.between or 0))
    assert other.contenders == one.contenders


@pytest.mark.parametrize("count", [1, 2, 12, 110])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 1000.0])
def test_probabilities_sum_to_one_and_contenders_are_the_fewest_that_reach_the_level(count: int, ratio: float) -> None:
    ranking = rank(study(count, 3, ratio)[1])
    probability = numbers(ranking.probability_best)
    assert probability.sum() == pytest.approx(1)
    assert (probability >= 0).all()
    kept = probability[list(ranking.contenders)]
    assert kept.tolist() == sorted(probability, reverse=True)[: len(kept)]
    assert kept.sum() >= LEVEL - 1e-6
    assert kept[:-1].sum() < LEVEL
    assert (numbers(ranking.low) < numbers(ranking.expected)).all()
    assert (numbers(ranking.expected) < numbers(ranking.high)).all()


def test_equal_candidates_are_equally_probable() -> None:
    _, accuracies = study(6, 3, 1.0)
    twice = rank([*accuracies, *accuracies])
    for name, values in columns(twice).items():
        assert values[:6] == pytest.approx(values[6:]), name
    alike = rank([[0.81, 0.79, 0.80]] * 20)
    assert alike.probability_best == pytest.approx([0.05] * 20)
    assert len(alike.contenders) == 19  # of 20 with 0.05 each


def test_probabilities_are_how_often_each_is_the_greatest_of_what_is_drawn() -> None:
    seeds = np.array([1.0, 5.0, 3.0, 3.0, 1.0, 2.0])
    posterior = _posterior(np.array([0.9, 0.4, 0.0, 1.1, -2.0, -0.3]), seeds, degrees=9)
    rng, count = np.random.default_rng(0), 300
    drawn = posterior.centre + posterior.spread * rng.normal(size=(count, *posterior.centre.shape))
    wins = np.bincount(drawn.argmax(2).ravel(), minlength=len(seeds)) / (count * len(posterior.centre))
    # 5 standard deviations of the count
    assert _probability_best(posterior.centre, posterior.spread) == pytest.approx(wins, abs=5 * 0.5 / 307_200**0.5)


def test_the_only_candidate_has_the_interval_of_student() -> None:
    accuracies = [0.91, 0.93, 0.92, 0.95]
    ranking = rank([accuracies])
    low, high = t.interval(0.95, 3, np.mean(accuracies), np.std(accuracies, ddof=1) / 2)
    assert ranking.expected == pytest.approx([np.mean(accuracies)])
    assert (ranking.low[0], ranking.high[0]) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert (ranking.probability_best, ranking.contenders, ranking.between) == ((1.0,), (0,), None)
    assert ranking.verdict(["one"]) == "one is the only candidate with an accuracy"


def test_candidates_far_apart_have_their_means_and_the_interval_of_the_pooled_noise() -> None:
    _, accuracies = study(30, 3, 1000.0)
    ranking = rank(accuracies)
    reach = t.ppf(0.975, 60) * (ranking.within or 0) / 3**0.5
    assert ranking.expected == pytest.approx(ranking.mean, abs=0.01 * NOISE)
    assert numbers(ranking.high) - numbers(ranking.low) == pytest.approx(2 * reach, rel=0.05)
    assert ranking.between == pytest.approx(np.std(numbers(ranking.mean), ddof=1), rel=0.05)


def test_a_clear_winner_is_one() -> None:
    _, accuracies = study(12, 3, 0.5)
    accuracies[4] = [0.9, 0.91, 0.905]
    ranking = rank(accuracies)
    assert numbers(ranking.probability_best)[4] > 0.999
    assert ranking.contenders == (4,)
    labels = [f"c{number}" for number in range(12)]
    assert ranking.verdict(labels) == "c4 is the best of 12 with probability more than 0.99"


def test_of_noise_alone_nobody_comes_out_the_winner() -> None:
    labels = [f"c{number}" for number in range(12)]
    highest = []
    for seed in range(50):
        ranking = rank(study(12, 3, 0.0, seed)[1])
        highest.append(numbers(ranking.probability_best).max())
        assert len(ranking.contenders) > 1
        assert ranking.verdict(labels).startswith(f"the data cannot tell {len(ranking.contenders)} of 12 candidates")
    assert np.mean(highest) < 0.3
    assert max(highest) < 0.9


def test_estimates_are_drawn_together_by_the_noise_those_of_few_seeds_the_most() -> None:
    _, accuracies = study(12, 3, 1.0)
    loud = rank([(np.mean(one) + 3 * (np.array(one) - np.mean(one))).tolist() for one in accuracies])
    quiet = rank([(np.mean(one) + 0.1 * (np.array(one) - np.mean(one))).tolist() for one in accuracies])
    means, (some, most) = numbers(quiet.mean), (numbers(quiet.expected), numbers(loud.expected))
    assert np.ptp(most) < 0.8 * np.ptp(some) < 0.8 * np.ptp(means)
    assert (np.argsort(most) == np.argsort(means)).all()

    lucky = rank([*accuracies, [0.83], [0.83] * 4])
    one, three, mean = lucky.expected[12], lucky.expected[13], lucky.mean[13]
    assert one is not None and three is not None and mean is not None and one < three < mean


def test_two_candidates_are_enough_to_say_how_far_candidates_differ() -> None:
    """Under a flat prior on tau, as in the book, its posterior would have no end."""
    ranking = rank([[0.80, 0.81, 0.82], [0.80, 0.81, 0.82]])
    assert ranking.within == pytest.approx(0.01)
    assert 0 < (ranking.between or 0) < 0.01
    assert ranking.probability_best == pytest.approx((0.5, 0.5))


def test_more_seeds_tell_more() -> None:
    true, _ = study(12, 1, 2.0)
    rng = np.random.default_rng(5)
    all_seeds = true[:, None] + NOISE * rng.normal(size=(12, 40))
    few, many = rank(all_seeds[:, :3].tolist()), rank(all_seeds.tolist())
    assert (numbers(many.high) - numbers(many.low) < 0.5 * (numbers(few.high) - numbers(few.low))).all()
    assert len(many.contenders) <= len(few.contenders)
    assert numbers(many.expected) == pytest.approx(true, abs=4 * NOISE / 40**0.5)
    assert many.within == pytest.approx(NOISE, rel=0.1)

    uneven = rank([one[:n] for one, n in zip(all_seeds.tolist(), [1, 2, 3, 4, 5, 10] * 2, strict=True)])
    widths = (numbers(uneven.high) - numbers(uneven.low)).reshape(2, 6).mean(0)
    assert (np.diff(widths) < 0).all()


def test_without_a_second_seed_the_noise_is_unknown() -> None:
    ranking = rank([[0.8], [0.9], [], [0.7]])
    assert ranking.mean == (0.8, 0.9, None, 0.7)
    assert set(ranking.expected + ranking.low + ranking.high + ranking.probability_best + ranking.sd) == {None}
    assert (ranking.within, ranking.between) == (None, None)
    assert ranking.contenders == (1, 0, 3)
    verdict = ranking.verdict(["a", "b", "c", "d"])
    assert verdict == (
        "the noise between seeds is unknown, so any of 3 candidates may be the best (b came out highest): "
        "ask for seeds=3"
    )


def test_a_tie_of_two_seeds_does_not_make_an_evaluator_without_noise() -> None:
    # Two of 360 images: 0.9722 twice is no wonder.
    tied = rank([[0.9722, 0.9722], [0.9694], [0.9667]])
    assert tied.within is None
    assert tied.sd == (0.0, None, None)
    assert tied.contenders == (0, 1, 2)


def test_without_noise_the_highest_is_the_best_and_equals_share() -> None:
    labels = ["a", "b", "c", "d"]
    table = rank([[0.1] * 3, [0.3] * 3, [], [0.2]])
    assert table.probability_best == (0.0, 1.0, None, 0.0)
    assert table.expected == table.low == table.high == table.mean == (0.1, 0.3, None, 0.2)
    assert (table.within, table.contenders) == (0.0, (1,))
    assert table.between == pytest.approx(0.1)
    assert table.verdict(labels) == "b is the best of 3: seeds make no difference"
    shared = rank([[0.3] * 3, [0.1] * 3, [0.3], [0.2]])
    assert shared.probability_best == (0.5, 0.0, 0.5, 0.0)
    assert shared.verdict(labels) == (
        "the data cannot tell 2 of 4 candidates apart (probability to be the best): a (0.50), c (0.50); "
        "seeds make no difference"
    )


def test_hardly_any_noise_is_like_none() -> None:
    ranking = rank([[0.5, 0.5 + 1e-15, 0.5], [0.4, 0.4, 0.4], [0.45, 0.45, 0.45]])
    assert ranking.probability_best == pytest.approx([1.0, 0.0, 0.0])
    assert ranking.expected == pytest.approx([0.5, 0.4, 0.45])


def test_without_a_result_there_is_no_best() -> None:
    for nothing in (rank([]), rank([[], []])):
        assert nothing.contenders == ()
        assert nothing.verdict(["a", "b"]) == "no candidate has an accuracy"


def test_a_candidate_without_an_accuracy_changes_nothing_for_the_others() -> None:
    _, accuracies = study(5, 3, 1.0)
    with_gap, without = rank([*accuracies[:2], [], *accuracies[2:]]), rank(accuracies)
    for name, values in columns(with_gap).items():
        assert values[2] is None
        assert values[:2] + values[3:] == columns(without)[name]


def test_a_verdict_names_the_first_few() -> None:
    verdict = rank([[0.81, 0.79, 0.80]] * 20).verdict([f"c{number}" for number in range(20)])
    assert verdict == (
        "the data cannot tell 19 of 20 candidates apart (probability to be the best): "
        "c0 (0.05), c1 (0.05), c2 (0.05), c3 (0.05), c4 (0.05) and 14 more; more seeds tell more"
    )


def test_an_accuracy_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="candidate 1 has the accuracy nan: accuracies are finite numbers"):
        rank([[0.5], [0.4, float("nan")]])


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, (1, 2, 3, 4, 5, 3, 2, 1, 3, 3, 2, 1)], ids=["three", "uneven"])
def test_what_is_stated_as_probable_is_as_frequent(seeds: int | Sequence[int]) -> None:
    """With ratios as the prior has them, coverage is exact whatever mu and sigma: they are location and scale."""
    rng, studies = np.random.default_rng(0), 400
    held, covered, stated, right, off = [], [], [], [], []
    for number, ratio in enumerate(np.abs(rng.standard_cauchy(studies))):
        true, accuracies = study(12, seeds, float(ratio), seed=number)
        ranking = rank(accuracies)
        best, first = int(true.argmax()), ranking.contenders[0]
        held.append(best in ranking.contenders)
        covered.append(np.mean((numbers(ranking.low) <= true) & (true <= numbers(ranking.high))))
        stated.append(numbers(ranking.probability_best)[first])
        right.append(first == best)
        off.append((numbers(ranking.expected)[first] - true[first]) / NOISE)
    # Within 2 to 4 standard errors of 400 studies. A set of whole candidates holds more than it has to.
    assert np.mean(held) > 0.95
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert np.mean(stated) == pytest.approx(np.mean(right), abs=0.06)
    assert np.mean(off) == pytest.approx(0, abs=0.1)


@pytest.mark.slow
def test_the_figures_of_the_module() -> None:
    """What its docstring says of the highest mean, and of itself: where candidates differ as much as seeds do."""
    figures = []
    for number in range(200):
        true, accuracies = study(12, 3, 1.0, seed=number)
        ranking = rank(accuracies)
        first = int(numbers(ranking.mean).argmax())
        assert first == ranking.contenders[0]  # the same candidate, with as many seeds each
        figures.append(
            {
                "highest mean is the best": first == true.argmax(),
                "its mean is too high by": (numbers(ranking.mean)[first] - true[first]) / NOISE,
                "expected is too high by": (numbers(ranking.expected)[first] - true[first]) / NOISE,
                "probability stated": numbers(ranking.probability_best)[first],
                "contenders": len(ranking.contenders),
                "contenders hold the best": int(true.argmax()) in ranking.contenders,
                "covered": np.mean((numbers(ranking.low) <= true) & (true <= numbers(ranking.high))),
            }
        )
    assert {name: float(np.mean([one[name] for one in figures])) for name in figures[0]} == pytest.approx(
        {
            "highest mean is the best": 0.56,
            "its mean is too high by": 0.45,
            "expected is too high by": -0.13,
            "probability stated": 0.52,
            "contenders": 5.5,
            "contenders hold the best": 0.975,
            "covered": 0.925,
        },
        rel=0.02,
        abs=0.005,
    )
