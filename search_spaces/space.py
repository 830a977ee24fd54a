"""A search space is named discrete decisions and a `decode`; whatever else a search needs is derived from them here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from phinas.files.errors import InputError
from phinas.networks.network import Network

Picks = tuple[int, ...]  # the genotype: one index into the choices of each decision


class Infeasible(ValueError):
    """Raised by `decode`: these choices describe no network. A search skips them; it is not an error of anybody's."""


@dataclass(frozen=True)
class Decision:
    """One discrete choice. `choices` are hashable and distinct (1, 1.0 and True are one value), at least one.

    Raises ValueError naming the decision and the choice that is wrong.
    """

    name: str
    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a decision's name must be a non-empty string, got {self.name!r}")
        if isinstance(self.choices, (str, bytes)) or not isinstance(self.choices, Sequence):
            raise ValueError(f"decision {self.name!r}: choices must be a tuple of values, got {self.choices!r}")
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            raise ValueError(f"decision {self.name!r} has no choices; it needs at least one")
        seen = set()
        for choice in self.choices:
            try:
                repeated = choice in seen
                seen.add(choice)
            except TypeError:
                raise ValueError(f"decision {self.name!r}: choice {choice!r} is not hashable") from None
            if repeated:
                raise ValueError(f"decision {self.name!r}: choice {choice!r} occurs twice")


class Space(Protocol):
    """All that a user writes. A space may also offer `encode(network) -> Picks`, used instead of the general one."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What is decided, in a fixed order; names are distinct."""

    def decode(self, choices: Mapping[str, Any]) -> Network:
        """The network that these choices (decision name -> chosen value) describe; the same one every time.

        Raises Infeasible where they describe none.
        """


def check_decisions(decisions: Sequence[Decision]) -> None:
    """Raise ValueError unless there is at least one decision, each is a `Decision`, and no name occurs twice."""
    if not decisions:
        raise ValueError("a space needs at least one decision")
    seen: set[str] = set()
    for position, decision in enumerate(decisions):
        if not isinstance(decision, Decision):
            raise ValueError(f"decisions[{position}] must be a Decision, got {type(decision).__name__}")
        if decision.name in seen:
            raise ValueError(f"decision name {decision.name!r} occurs twice")
        seen.add(decision.name)


def check_picks(decisions: Sequence[Decision], picks: Sequence[int]) -> None:
    """Raise ValueError unless `picks` holds one index in range for each decision; the message names the culprit."""
    if len(picks) != len(decisions):
        raise ValueError(f"picks has {len(picks)} entries, the space has {len(decisions)} decisions")
    for position, (decision, pick) in enumerate(zip(decisions, picks, strict=True)):
        if type(pick) is not int and (isinstance(pick, bool) or not isinstance(pick, Integral)):  # the first is quick
            raise ValueError(f"picks[{position}] must be a whole number, got {pick!r}")
        if not 0 <= pick < len(decision.choices):
            raise ValueError(
                f"picks[{position}] = {pick}: decision {decision.name!r} has {len(decision.choices)} choices, from 0"
            )


def choices_of(decisions: Sequence[Decision], picks: Sequence[int]) -> dict[str, Any]:
    """Decision name -> chosen value. Raises ValueError where `picks` does not fit the decisions."""
    check_picks(decisions, picks)
    return {decision.name: decision.choices[pick] for decision, pick in zip(decisions, picks, strict=True)}


def decode(space: Space, picks: Sequence[int]) -> Network:
    """The network at `picks`. Raises ValueError for picks that do not fit, Infeasible where there is no network."""
    return space.decode(choices_of(space.decisions, picks))


def size(decisions: Sequence[Decision]) -> int:
    """The number of picks: the product of the numbers of choices. Different picks may describe one network."""
    return math.prod(len(decision.choices) for decision in decisions)


def sample(decisions: Sequence[Decision], rng: np.random.Generator) -> Picks:
    """One uniformly random choice for every decision; it may be infeasible."""
    return tuple(rng.integers([len(decision.choices) for decision in decisions]).tolist())


def sample_feasible(space: Space, rng: np.random.Generator, attempts: int = 1000) -> Picks:
    """The first random picks that decode to a network. Raises Infeasible after `attempts` that did not."""
    for _ in range(attempts):
        picks = sample(space.decisions, rng)
        try:
            decode(space, picks)
        except Infeasible:
            continue
        return picks
    raise Infeasible(f"no feasible network among {attempts} random samples")


def mutate(decisions: Sequence[Decision], picks: Sequence[int], rng: np.random.Generator) -> Picks:
    """Change exactly one decision: uniform over those with several choices, then uniform over its *other* choices.

    `picks` are taken to fit the decisions: they were decoded before. Raises ValueError where nothing can change.
    """
    count = 1
    while count == 1:  # drawing again is uniform over the rest, and quicker than a list of those with several choices
        position = int(rng.random() * len(decisions))  # five times as quick as rng.integers
        count = len(decisions[position].choices)
        if count == 1 and all(len(decision.choices) == 1 for decision in decisions):
            raise ValueError("nothing to mutate: every decision has a single choice")
    changed = (picks[position] + 1 + int(rng.random() * (count - 1))) % count
    return (*picks[:position], changed, *picks[position + 1 :])


def crossover(first: Sequence[int], second: Sequence[int], rng: np.random.Generator) -> Picks:
    """Uniform crossover: each decision comes from either parent with equal chance. Raises ValueError on lengths."""
    if len(first) != len(second):
        raise ValueError(f"parents have {len(first)} and {len(second)} entries; they must come from one space")
    from_first = rng.random(len(first)) < 0.5
    return tuple(int(a) if take else int(b) for a, b, take in zip(first, second, from_first, strict=True))


def one_hot(decisions: Sequence[Decision], picks: Sequence[int]) -> npt.NDArray[np.float32]:
    """Zeros and ones, shape (sum of the numbers of choices,): the choices of each decision side by side, in order."""
    check_picks(decisions, picks)
    counts = [len(decision.choices) for decision in decisions]
    starts = np.cumsum([0, *counts[:-1]])
    encoded = np.zeros(sum(counts), dtype=np.float32)
    encoded[starts + np.asarray(picks)] = 1.0
    return encoded


# --- encode: the inverse of decode, for every space ------------------------------------------------------------------

RANDOM_STARTS = 8
EXHAUSTIVE = 2_048  # spaces up to this size are searched to the end, so that their "not in the space" is a proof
DECODE_BUDGET = 30_000  # decodes before encode gives up: a few seconds for a space such as mnasnet
ABSENT = "absent"

Distance = tuple[float, float]  # leaves that differ, and by how much: compared in this order


def encode(space: Space, network: Network) -> Picks:
    """Picks that decode to a network with the same `key()`.

    The network is any value that is a dataclass or has `to_dict()`; it is compared leaf by leaf
    (`stages[3].channels`). Coordinate descent keeps, for one decision after the other, the choice whose network
    differs from the wanted one in the fewest leaves, ties going to the smaller numeric gap. Where decisions act
    jointly this can stop short; then every choice that mends a wrong leaf at the expense of others is held while
    the others descend again, then random starts are tried, and a small space is searched to its end.

    Raises InputError naming the leaves in which the nearest network found still differs.
    """
    own = getattr(space, "encode", None)
    if own is not None:
        picks = tuple(int(pick) for pick in own(network))
        if decode(space, picks).key() != network.key():
            raise InputError(f"{type(space).__name__}.encode returned picks of another network")
        return picks
    search = _Inverse(space, network)
    picks, distance = search.run()
    if distance[0] == 0 and decode(space, picks).key() == network.key():
        return picks
    raise InputError(f"not in the space: {search.shortfall(picks)}")


def leaves(network: Any) -> dict[str, Any]:
    """The flat description of a network: path -> value, for a dataclass or what `to_dict()` returns, at any depth."""
    flat: dict[str, Any] = {"type": type(network).__name__}
    if is_dataclass(network) or hasattr(network, "to_dict"):
        flat.update(_flatten(network, ""))
    else:
        flat["key"] = network.key()  # opaque: only trial and error can find it
    return flat


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _flatten(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        for position, inner in enumerate(value):
            yield from _flatten(inner, f"{path}[{position}]")
    elif isinstance(value, np.ndarray):
        yield from _flatten(value.tolist(), path)
    elif hasattr(value, "to_dict"):
        yield from _flatten(value.to_dict(), path)
    else:
        yield path, value


def _gap(value: Any, wanted: Any) -> float:
    """How far a differing leaf is from the wanted one: below 1 for numbers of one sign, 1 for other values."""
    if isinstance(value, Real) and isinstance(wanted, Real) and not isinstance(value, bool):
        scale = abs(float(value)) + abs(float(wanted))
        return abs(float(value) - float(wanted)) / scale if math.isfinite(scale) and scale else 1.0
    return 1.0


class _OutOfBudget(Exception):
    """The search for an inverse has decoded as often as it may."""


class _Inverse:
    """The state of one `encode`: what is wanted, what it may still cost, and the best found so far."""

    def __init__(self, space: Space, network: Network) -> None:
        self.space = space
        self.decisions = space.decisions
        self.wanted = leaves(network)
        self.budget = DECODE_BUDGET
        self.best: Picks = (0,) * len(self.decisions)
        self.best_distance: Distance = (math.inf, math.inf)

    def run(self) -> tuple[Picks, Distance]:
        rng = np.random.default_rng(0)  # encode is a function: the same answer for the same question
        try:
            self._from(self.best)
            for _ in range(RANDOM_STARTS):
                if self.best_distance[0] > 0:
                    self._from(sample(self.decisions, rng))
            if self.best_distance[0] > 0 and size(self.decisions) <= EXHAUSTIVE:
                for picks in itertools.product(*(range(len(decision.choices)) for decision in self.decisions)):
                    self._measure(picks)
        except _OutOfBudget:
            pass
        return self.best, self.best_distance

    def shortfall(self, picks: Picks) -> str:
        """Which leaves of the network at `picks` differ from the wanted ones, and how."""
        try:
            of_network = leaves(decode(self.space, picks))
        except Infeasible:
            return "no feasible network found near it"
        differing = [path for path in {**self.wanted, **of_network} if not self._agrees(of_network, path)]
        if not differing:
            return "a network of the same description has another key()"
        shown = [
            f"{path} ({of_network.get(path, ABSENT)}, wanted {self.wanted.get(path, ABSENT)})" for path in differing[:4]
        ]
        more = f" and {len(differing) - len(shown)} more" if len(differing) > len(shown) else ""
        return f"nearest differs in {', '.join(shown)}{more}"

    def _agrees(self, of_network: Mapping[str, Any], path: str) -> bool:
        return path in of_network and path in self.wanted and bool(of_network[path] == self.wanted[path])

    def _measure(self, picks: Picks) -> tuple[Distance, frozenset[str]]:
        """The distance of the network at `picks`, and the wanted leaves it lacks. Remembers the best seen."""
        if self.budget <= 0:
            raise _OutOfBudget
        self.budget -= 1
        choices = {d.name: d.choices[pick] for d, pick in zip(self.decisions, picks, strict=True)}
        try:
            of_network = leaves(self.space.decode(choices))
        except Infeasible:
            return (math.inf, math.inf), frozenset(self.wanted)
        wrong = []
        gap, shared = 0.0, 0
        for path, wanted in self.wanted.items():
            if path not in of_network:
                wrong.append(path)
                gap += 2.0  # a leaf that is there and wrong is nearer than none: layers appear before they are right
                continue
            shared += 1
            value = of_network[path]
            if value != wanted:
                wrong.append(path)
                gap += _gap(value, wanted)
        surplus = len(of_network) - shared
        distance = (float(len(wrong) + surplus), gap + 2.0 * surplus)
        if distance < self.best_distance:
            self.best, self.best_distance = picks, distance
        return distance, frozenset(wrong)

    def _others(self, picks: Picks) -> Iterator[tuple[int, Picks]]:
        """Every picks that differ in one decision, and which one that is."""
        for position, decision in enumerate(self.decisions):
            for pick in range(len(decision.choices)):
                if pick != picks[position]:
                    yield position, (*picks[:position], pick, *picks[position + 1 :])

    def _descend(self, picks: Picks, held: int | None = None) -> tuple[Picks, Distance, frozenset[str]]:
        """Coordinate descent until nothing improves; decision `held` keeps its choice."""
        distance, wrong = self._measure(picks)
        improving = True
        while improving and distance[0] > 0:
            improving = False
            for position, decision in enumerate(self.decisions):
                if position == held:
                    continue
                for pick in range(len(decision.choices)):
                    trial = (*picks[:position], pick, *picks[position + 1 :])
                    if trial == picks:
                        continue
                    trial_distance, trial_wrong = self._measure(trial)
                    if trial_distance < distance:
                        picks, distance, wrong, improving = trial, trial_distance, trial_wrong, True
        return picks, distance, wrong

    def _from(self, start: Picks) -> None:
        """Descend from `start`; where stuck, force each choice that mends a wrong leaf and let the others follow."""
        picks, distance, wrong = self._descend(start)
        stuck = False
        while distance[0] > 0 and not stuck:
            stuck = True
            for position, trial in self._others(picks):
                if wrong <= self._measure(trial)[1]:
                    continue  # mends nothing
                reached, reached_distance, reached_wrong = self._descend(trial, held=position)
                if reached_distance < distance:
                    picks, distance, wrong, stuck = reached, reached_distance, reached_wrong, False
                    break
