"""The search problem: a space, and what is known of each of its networks before it is evaluated."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from nas.costs import COUNTED, within
from nas.device import DeviceModel, NoDevice
from nas.journal import Entry
from nas.reward import RewardOf
from phinas.files.errors import DoesNotFit, InputError
from phinas.networks.arch import Arch
from phinas.networks.network import Network, cost_of
from search_spaces.space import Infeasible, Picks, Space, decode, sample

PROBES = 1000  # random picks looked at to learn which costs there are
PATIENCE = 300.0  # seconds of a device's time for the first network that it can run within the limits


class SearchProblem:
    """What a controller may know of a space: its decisions, the identity of a network, and its known costs."""

    def __init__(
        self,
        space: Space,
        reward_of: RewardOf,
        limits: Mapping[str, float] | None = None,
        front: Sequence[str] = (),
        device: DeviceModel | None = None,
    ) -> None:
        """
        limits  networks that cost more are never proposed (less, of a throughput).
        front   the costs that are traded against accuracy, if the search is for a Pareto front.
        device  gives costs besides those that are counted; a network that it cannot run is infeasible.
        """
        self.decisions = space.decisions
        self.space = space
        self.reward_of = reward_of
        self.limits = dict(limits or {})
        self.front = tuple(front)
        self.device = device or NoDevice()
        self._counted_limits = {name: limit for name, limit in self.limits.items() if name in COUNTED}
        # By key, as measuring is dear and another time would give another figure. None: the device cannot run it.
        self._device_costs: dict[str, Mapping[str, float] | None] = {}
        self._device_seconds = 0.0
        self._any_allowed = False
        self._remember()

    def _remember(self) -> None:
        # Controllers ask for the same few thousand candidates again and again; counting a network that has no cost() of
        # its own means building it.
        self._network = lru_cache(maxsize=1 << 10)(partial(decode, self.space))
        self._key = lru_cache(maxsize=1 << 16)(self._find_key)
        self._cost = lru_cache(maxsize=1 << 16)(self._find_cost)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_network", "_key", "_cost")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._remember()

    @cached_property
    def measured(self) -> bool:
        """Whether costs take long to learn: the device measures them, or counting them means building the network."""
        network = self._any_network()
        built = not isinstance(network, Arch) and not hasattr(network, "cost")
        return getattr(self.device, "measures", False) or built

    def network(self, picks: Picks) -> Network:
        """The network that `picks` stands for."""
        return self._network(tuple(picks))

    def key(self, picks: Picks) -> str | None:
        """Identity of the network; None when the picks describe none, or one that is refused for its cost."""
        return self._key(tuple(picks))

    def cost(self, picks: Picks) -> Mapping[str, float]:
        """Costs known before evaluation: `macs`, `params`, `activations`, and those of the device.

        Raises DoesNotFit for a network that the device cannot run; its key is None.
        """
        return self._cost(tuple(picks))

    def reward(self, picks: Picks, accuracy: float) -> float:
        """The reward of the network, if its accuracy is `accuracy`."""
        return self.reward_of(accuracy, self.cost(picks))

    def cost_names(self) -> tuple[str, ...]:
        """Names of the costs that networks have, found out from one of them.

        Raises InputError for a device that gives what is no cost. Counted costs alone where no network is found.
        """
        for seed in range(PROBES):
            try:
                return tuple(self.cost(sample(self.decisions, np.random.default_rng(seed))))
            except (Infeasible, DoesNotFit):
                continue
        return COUNTED

    def recall(self, entries: Iterable[Entry]) -> None:
        """Take the costs of a journal's networks as they were: what was measured once is not measured again.

        InputError for an entry that is another network in this space: the space's code has changed.
        """
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
            self._any_allowed = True
            self._device_costs[key] = {name: cost for name, cost in entry.costs.items() if name not in COUNTED}

    def _any_network(self) -> Network | None:
        for seed in range(PROBES):
            try:
                return self.network(sample(self.decisions, np.random.default_rng(seed)))
            except Infeasible:
                continue
        return None

    def _find_key(self, picks: Picks) -> str | None:
        try:
            network = self.network(picks)
            # What is counted first: a network that it refuses need not be measured.
            if self._counted_limits and not within(_count(network), self._counted_limits):
                return None
            return network.key() if self._device_allows(picks) else None
        except Infeasible:
            return None

    def _device_allows(self, picks: Picks) -> bool:
        """Whether the device can run the network, and within the limits."""
        if isinstance(self.device, NoDevice):
            return True
        try:
            allowed = within(self.cost(picks), self.limits)
        except DoesNotFit:
            allowed = False
        self._any_allowed |= allowed
        if not self._any_allowed and self._device_seconds > PATIENCE:
            limits = ", ".join(f"limits.{name}={limit:g}" for name, limit in self.limits.items())
            raise InputError(
                f"none of the first {len(self._device_costs)} networks that the device was asked about fits it"
                + (f" within {limits}" if limits else "")
            )
        return allowed

    def _find_cost(self, picks: Picks) -> Mapping[str, float]:
        network = self.network(picks)
        return {**_count(network), **self._ask_device(network)}

    def _ask_device(self, network: Network) -> Mapping[str, float]:
        if isinstance(self.device, NoDevice):
            return {}
        key = network.key()
        if key not in self._device_costs:
            start = time.monotonic()
            try:
                self._device_costs[key] = _checked(self.device.costs(network))
            except DoesNotFit:
                self._device_costs[key] = None
            self._device_seconds += time.monotonic() - start
        costs = self._device_costs[key]
        if costs is None:
            raise DoesNotFit(f"the device cannot run network {key}")
        return costs


def _count(network: Network) -> Mapping[str, int]:
    return {name: int(value) for name, value in vars(cost_of(network)).items()}


def _checked(costs: Mapping[str, float]) -> Mapping[str, float]:
    """The costs that a device gave, as plain floats; a plug-in's may be numpy's, which JSON does not know."""
    for name, cost in costs.items():
        if name in COUNTED:
            raise InputError(f"the device gives {name}, which is counted already; its costs need other names")
        if not (math.isfinite(cost) and cost > 0):
            raise InputError(f"the device gives {name}={cost}; a cost is a number above 0")
    return {name: float(cost) for name, cost in costs.items()}
