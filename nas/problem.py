"""The search problem: a space, and what is known of each of its networks before it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache

from convnets.network import Network, cost_of
from search_spaces.space import Infeasible, Picks, Space, decode


class SearchProblem:
    """What a controller may know of a space: its decisions, the identity of a network, and its known costs."""

    def __init__(self, space: Space, refuse_above: float | None = None) -> None:
        """`refuse_above` is a number of MACs; networks that cost more are never proposed. None refuses nothing."""
        self.decisions = space.decisions
        self.space = space
        self.refuse_above = refuse_above
        # Controllers look at a candidate's key and cost several times; decoding it once is enough.
        self._known = lru_cache(maxsize=1 << 16)(self._look_at)

    def network(self, picks: Picks) -> Network:
        """The network that `picks` stands for."""
        return decode(self.space, picks)

    def key(self, picks: Picks) -> str | None:
        """Identity of the network; None when the picks describe none, or one that is refused for its cost."""
        return self._known(tuple(picks))[0]

    def cost(self, picks: Picks) -> Mapping[str, float]:
        """Costs known before evaluation: `macs`, `params`, `activations`."""
        return self._known(tuple(picks))[1]

    def _look_at(self, picks: Picks) -> tuple[str | None, Mapping[str, float]]:
        try:
            network = self.network(picks)
        except Infeasible:
            return None, {}
        costs = asdict(cost_of(network))
        refused = self.refuse_above is not None and costs["macs"] > self.refuse_above
        return (None if refused else network.key()), costs
