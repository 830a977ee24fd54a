"""What a device model is: it knows more costs of a network than arithmetic does, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from phinas.networks.network import Network


class DeviceModel(Protocol):
    """Gives costs such as "latency" (seconds per image) or "throughput" (images per second).

    It works in the command's own process, is asked once for each network, and need not give the same twice. One that
    takes longer than some milliseconds for that has the class attribute `measures = True`: it is asked less then.
    """

    def costs(self, network: Network) -> Mapping[str, float]:
        """Costs by name, the same names for every network, all of them numbers above 0.

        Those whose name begins with "throughput" are better when higher, all others when lower; "macs", "params" and
        "activations" are counted already. Raises DoesNotFit, of phinas.files.errors, for a network that it cannot run.
        """
        ...


class NoDevice:
    """Gives nothing: what is counted is all that is known."""

    def costs(self, network: Network) -> Mapping[str, float]:
        """None at all."""
        return {}
