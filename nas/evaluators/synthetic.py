"""An evaluator that trains nothing: made-up accuracies, at once. For trying engines, clusters and controllers."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator

from phinas.engines.evaluator import Measurement
from phinas.files.checks import check_number, check_whole
from phinas.networks.network import Network, cost_of


class Synthetic:
    """Accuracy rises with the logarithm of the MACs and with the epochs, plus a part drawn from the network's key."""

    def __init__(self, epochs: int = 1, seconds: float = 0.0, noise: float = 0.05) -> None:
        """`seconds` are slept in each of `epochs` steps; `noise` is the size of the network's own part, a fraction.

        Raises InputError where a setting is out of range.
        """
        check_whole("evaluator.epochs", epochs)
        check_number("evaluator.seconds", seconds, least=0)
        check_number("evaluator.noise", noise, least=0, below=0.25)  # accuracies stay below 1
        self.epochs = epochs
        self.seconds = seconds
        self.noise = noise

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield one measurement an epoch; the seed plays no part."""
        luck = int.from_bytes(hashlib.sha256(network.key().encode()).digest()[:4], "big") / 2**32
        size = 1 / (1 + math.exp(-(math.log10(cost_of(network).macs + 1) - 8)))  # 0.5 at 100M MACs, towards 1 above
        for epoch in range(1, self.epochs + 1):
            if self.seconds:
                time.sleep(self.seconds)
            accuracy = 0.75 * size * (1 - 0.5 ** (4 * epoch / self.epochs)) + self.noise * luck
            yield Measurement(accuracy, final=epoch == self.epochs)
