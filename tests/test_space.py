"""Decisions, sampling, mutation, crossover and encode, on small spaces made to be awkward."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from phinas.files.errors import InputError
from phinas.networks.reference import MOBILENET_V2, RESNET_50
from search_spaces.efficientnet import EfficientNet
from search_spaces.mnasnet import MnasNet
from search_spaces.space import (
    Decision,
    Infeasible,
    check_decisions,
    choices_of,
    crossover,
    decode,
    encode,
    mutate,
    one_hot,
    sample,
    sample_feasible,
    size,
)

DECISIONS = (Decision("a", (1, 2, 3)), Decision("only", ("x",)), Decision("b", (False, True)))


@dataclass(frozen=True)
class Layers:
    """A network value of a user: nothing but a tuple that grows."""

    layers: tuple[tuple[str, int], ...]
    total: int = 0

    def key(self) -> str:
        return hashlib.sha256(repr((self.layers, self.total)).encode()).hexdigest()[:16]

    def build(self) -> Any:
        raise NotImplementedError


class Growing:
    """The depth decides how many of the other decisions count at all."""

    def __init__(self, most: int = 6) -> None:
        per_layer = [
            decision
            for i in range(most)
            for decision in (Decision(f"op{i}", ("conv", "pool", "skip")), Decision(f"width{i}", (8, 16, 24, 32)))
        ]
        self.decisions = (Decision("depth", tuple(range(1, most + 1))), *per_layer)

    def decode(self, choices: Mapping[str, Any]) -> Layers:
        return Layers(tuple((choices[f"op{i}"], choices[f"width{i}"]) for i in range(choices["depth"])))


class Product:
    """Every width is a common factor times its own base: the wrong factor fits most widths, and is a trap."""

    def __init__(self) -> None:
        self.decisions = (
            Decision("factor", (1, 2, 3, 4)),
            *(Decision(f"base{i}", (6, 8, 12, 16, 18, 24, 36, 48)) for i in range(7)),
        )

    def decode(self, choices: Mapping[str, Any]) -> Layers:
        return Layers(tuple(("conv", choices["factor"] * choices[f"base{i}"]) for i in range(7)))


class Opaque:
    """A network that shows nothing but its key; some of the space is infeasible."""

    decisions = (Decision("a", tuple(range(12))), Decision("b", tuple(range(12))))

    @dataclass(frozen=True)
    class Net:
        number: int

        def key(self) -> str:
            return f"{self.number:016x}"

        def to_dict(self) -> dict[str, Any]:
            return {"hidden": self.key()}

        def build(self) -> Any:
            raise NotImplementedError

    def decode(self, choices: Mapping[str, Any]) -> Net:
        if (choices["a"] + choices["b"]) % 3 == 0:
            raise Infeasible("a + b is a multiple of three")
        return self.Net((choices["a"] * 7 + choices["b"] * 29) % 141)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("", (1,), "name must be a non-empty string"),
        ("a", (), "decision 'a' has no choices"),
        ("a", "abc", "choices must be a tuple"),
        ("a", 3, "choices must be a tuple"),
        ("a", (1, 2, 1), "choice 1 occurs twice"),
        ("a", (1, True), "choice True occurs twice"),
        ("a", ([1], [2]), "choice [1] is not hashable"),
    ],
)
def test_a_wrong_decision_is_named(name: str, choices: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Decision(name, choices)
    assert message in str(caught.value)


def test_decision_names_are_distinct() -> None:
    with pytest.raises(ValueError, match="'a' occurs twice"):
        check_decisions((Decision("a", (1,)), Decision("a", (2,))))
    with pytest.raises(ValueError, match="at least one"):
        check_decisions(())


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        ((0, 0), "picks has 2 entries, the space has 3 decisions"),
        ((0, 0, 0, 0), "picks has 4 entries"),
        ((3, 0, 0), "picks[0] = 3: decision 'a' has 3 choices"),
        ((0, 0, -1), "picks[2] = -1"),
        ((0, 0, 1.0), "picks[2] must be a whole number"),
        ((0, 0, True), "picks[2] must be a whole number"),
    ],
)
def test_wrong_picks_are_named(picks: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        choices_of(DECISIONS, picks)
    assert message in str(caught.value)


def test_choices_and_one_hot() -> None:
    assert choices_of(DECISIONS, (2, 0, 1)) == {"a": 3, "only": "x", "b": True}
    assert choices_of(DECISIONS, np.array([2, 0, 1])) == {"a": 3, "only": "x", "b": True}
    assert one_hot(DECISIONS, (2, 0, 1)).tolist() == [0, 0, 1, 1, 0, 1]
    assert size(DECISIONS) == 6


def test_samples_are_uniform_and_repeatable() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(sample(DECISIONS, rng) for _ in range(6000))
    assert len(counts) == 6
    deviation = (6000 * 1 / 6 * 5 / 6) ** 0.5
    assert all(abs(count - 1000) < 6 * deviation for count in counts.values())
    assert sample(DECISIONS, np.random.default_rng((3, 1))) == sample(DECISIONS, np.random.default_rng((3, 1)))
    assert all(type(pick) is int for pick in sample(DECISIONS, rng))  # so that they are JSON


def test_mutation_is_uniform_over_other_values() -> None:
    counts = Counter(mutate(DECISIONS, (0, 0, 0), np.random.default_rng(seed)) for seed in range(4000))
    assert set(counts) == {(1, 0, 0), (2, 0, 0), (0, 0, 1)}  # never the decision with a single choice, never itself
    assert abs(counts[0, 0, 1] - 2000) < 6 * 32  # six standard deviations, as below
    assert abs(counts[1, 0, 0] - 1000) < 6 * 28
    with pytest.raises(ValueError, match="nothing to mutate"):
        mutate((Decision("only", ("x",)),), (0,), np.random.default_rng(0))


@pytest.mark.parametrize("space", [MnasNet(), EfficientNet()], ids=["mnasnet", "efficientnet"])
def test_mutation_and_crossover_over_many_seeds(space: Any) -> None:
    changed: Counter[int] = Counter()
    from_first = 0
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        first, second = sample(space.decisions, rng), sample(space.decisions, rng)
        mutant = mutate(space.decisions, first, rng)
        differing = [i for i, (a, b) in enumerate(zip(first, mutant, strict=True)) if a != b]
        assert len(differing) == 1
        changed.update(differing)
        child = crossover(first, second, rng)
        assert all(gene in parents for gene, *parents in zip(child, first, second, strict=True))
        from_first += sum(c == a for a, b, c in zip(first, second, child, strict=True) if a != b)
    assert len(changed) == len(space.decisions)
    differ = sum(
        a != b
        for seed in range(2000)
        for rng in [np.random.default_rng(seed)]
        for a, b in [*zip(sample(space.decisions, rng), sample(space.decisions, rng), strict=True)]
    )
    assert abs(from_first / differ - 0.5) < 0.02


def test_crossover_needs_one_space() -> None:
    with pytest.raises(ValueError, match="3 and 2 entries"):
        crossover((0, 0, 0), (0, 0), np.random.default_rng(0))


def test_sample_feasible() -> None:
    for seed in range(50):
        decode(Opaque(), sample_feasible(Opaque(), np.random.default_rng(seed)))

    class Empty(Opaque):
        def decode(self, choices: Mapping[str, Any]) -> Opaque.Net:
            raise Infeasible("never")

    with pytest.raises(Infeasible, match="among 7 random samples"):
        sample_feasible(Empty(), np.random.default_rng(0), attempts=7)


@pytest.mark.parametrize("space", [Growing(), Product(), Opaque()], ids=["growing", "product", "opaque"])
def test_encode_on_awkward_spaces(space: Any) -> None:
    for seed in range(30):
        network = decode(space, sample_feasible(space, np.random.default_rng(seed)))
        assert decode(space, encode(space, network)).key() == network.key()


@pytest.mark.parametrize("space", [MnasNet(), EfficientNet()], ids=["mnasnet", "efficientnet"])
def test_encode_finds_the_picks_again(space: Any) -> None:
    seconds = []
    for seed in range(60):
        picks = sample(space.decisions, np.random.default_rng(seed))
        started = time.process_time()
        assert encode(space, decode(space, picks)) == picks  # these spaces have no two picks for one network
        seconds.append(time.process_time() - started)
    assert np.median(seconds) < 0.2


def test_encode_says_what_is_not_in_the_space() -> None:
    space = MnasNet()
    network = decode(space, sample(space.decisions, np.random.default_rng(0)))
    stages = list(network.stages)  # type: ignore[union-attr]
    stages[3] = replace(stages[3], channels=104)
    with pytest.raises(InputError) as caught:
        encode(space, replace(network, stages=tuple(stages)))  # type: ignore[type-var]
    assert str(caught.value) == "not in the space: nearest differs in stages[3].channels (80, wanted 104)"
    with pytest.raises(InputError, match=r"activation .*, wanted relu6\)"):
        encode(space, MOBILENET_V2)
    with pytest.raises(InputError, match=r"stem.channels \(32, wanted 64\).* and \d+ more"):
        encode(space, RESNET_50)
    with pytest.raises(InputError, match=r"type \(Layers, wanted Net\)"):
        encode(Growing(2), Opaque.Net(3))


def test_a_space_may_encode_by_itself() -> None:
    class Own(Opaque):
        def encode(self, network: Opaque.Net) -> tuple[int, ...]:
            return (1, 0)

    assert encode(Own(), Own().decode({"a": 1, "b": 0})) == (1, 0)
    with pytest.raises(InputError, match="Own.encode returned picks of another network"):
        encode(Own(), Opaque.Net(5))
