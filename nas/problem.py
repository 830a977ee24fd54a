"""The search problem: a space, and what is known of each of its networks before it is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial

from convnets.errors import InputError
from convnets.network import Network, cost_of
from nas.journal import Entry
from nas.reward import RewardOf
from search_spaces.space import Infeasible, Picks, Space, decode


class SearchProblem:
    """What a controller may know of a space: its decisions, the identity of a network, and its known costs."""

    def __init__(
        self, space: Space, reward_of: RewardOf, refuse_above: float | None = None, front: Sequence[str] = ()
    ) -> None:
        """`refuse_above` is a number of MACs; networks that cost more are never proposed. None refuses nothing.

        `front` names the costs that are traded against accuracy, if the search is for a Pareto front.
        """
        self.decisions = space.decisions
        self.space = space
        self.reward_of = reward_of
        self.refuse_above = refuse_above
        self.front = tuple(front)
        # Controllers ask for the same few thousand candidates again and again; counting a network that has no cost() of
        # its own means building it.
        self._network = lru_cache(maxsize=1 << 10)(partial(decode, space))
        self._key = lru_cache(maxsize=1 << 16)(self._find_key)
        self._cost = lru_cache(maxsize=1 << 16)(self._count)

    def network(self, picks: Picks) -> Network:
        """The network that `picks` stands for."""
        return self._network(tuple(picks))

    def key(self, picks: Picks) -> str | None:
        """Identity of the network; None when the picks describe none, or one that is refused for its cost."""
        return self._key(tuple(picks))

    def cost(self, picks: Picks) -> Mapping[str, int]:
        """Costs known before evaluation: `macs`, `params`, `activations`."""
        return self._cost(tuple(picks))

    def reward(self, picks: Picks, accuracy: float) -> float:
        """The reward of the network, if its accuracy is `accuracy`."""
        return self.reward_of(accuracy, self.cost(picks))

    def check(self, entries: Iterable[Entry]) -> None:
        """InputError for a journal's entry that is another network in this space: the space's code has changed."""
        for entry in entries:
            try:
                key = self.network(entry.picks).key()
            except ValueError:  # picks that do not fit, or that are infeasible now
                key = None
            if key != entry.key:
                raise InputError(
                    f"evaluation {entry.number} of the journal is another network in this space now; "
                    "the space was changed since: give another name="
                )

    def _find_key(self, picks: Picks) -> str | None:
        try:
            network = self.network(picks)
        except Infeasible:
            return None
        refused = self.refuse_above is not None and self.cost(picks)["macs"] > self.refuse_above
        return None if refused else network.key()

    def _count(self, picks: Picks) -> Mapping[str, int]:
        return {name: int(value) for name, value in vars(cost_of(self.network(picks))).items()}
