"""Successive halving: who goes on, and that replaying the curves restores it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nas.halving import Halving
from phinas.files.errors import InputError


def test_rungs_are_powers_of_eta_and_never_the_last_epoch() -> None:
    assert list(Halving(epochs=10, grace=1, eta=3).rungs) == [1, 3, 9]
    assert list(Halving(epochs=9, grace=1, eta=3).rungs) == [1, 3]
    assert list(Halving(epochs=20, grace=2, eta=4).rungs) == [2, 8]
    assert list(Halving(epochs=1).rungs) == []


def test_the_top_third_goes_on() -> None:
    halving = Halving(epochs=9, grace=1, eta=3)
    assert halving.keeps(1, 0.1) and halving.keeps(1, 0.5)  # two values have no top third yet
    assert not halving.keeps(1, 0.4)  # one of three goes on, and 0.5 was better
    assert halving.keeps(1, 0.6)
    assert halving.keeps(1, 0.5)  # of five, two go on; equal to the second best is enough
    assert not halving.keeps(1, 0.2)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_it_cuts_at_the_quantile(eta: int) -> None:
    halving, seen = Halving(epochs=2, grace=1, eta=eta), []
    for value in np.random.default_rng(0).random(200):
        seen.append(value)
        kept = halving.keeps(1, float(value))
        assert kept == (len(seen) < eta or value >= np.quantile(seen, 1 - 1 / eta) - 1e-12)


def test_between_rungs_and_at_the_end_everything_goes_on_and_nothing_is_recorded() -> None:
    halving = Halving(epochs=4, grace=2, eta=2)
    for _ in range(10):
        assert halving.keeps(1, 1.0) and halving.keeps(3, 1.0) and halving.keeps(4, 1.0)
    assert halving.rungs == {2: []}
    for value in (0.9, 0.8):
        halving.keeps(2, value)
    assert halving.keeps(4, 0.0)


def test_replay_restores_the_state_in_any_order() -> None:
    live, curves = Halving(epochs=9, grace=1, eta=2), []
    draws = random.Random(0)
    for _ in range(50):
        curve: list[float] = []
        for epoch in range(1, 10):
            curve.append(draws.random())
            if not live.keeps(epoch, curve[-1]):
                break
        curves.append(curve)
    assert {len(curve) for curve in curves} >= {1, 2, 9}
    for order in (curves, curves[::-1]):
        again = Halving(epochs=9, grace=1, eta=2)
        for curve in order:
            again.replay(curve)
        assert again.rungs == live.rungs


@pytest.mark.parametrize(("settings", "culprit"), [({"grace": 0}, "grace"), ({"eta": 1}, "eta")])
def test_wrong_settings_are_named(settings: dict[str, int], culprit: str) -> None:
    with pytest.raises(InputError, match=culprit):
        Halving(epochs=9, **settings)
