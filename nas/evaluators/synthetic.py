"""An evaluator that trains nothing: made-up accuracies, at once. For trying engines, clusters and controllers."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator

from convnets.network import Network, cost_of
from nas.evaluator import Measurement


class Synthetic:
    """Accuracy rises with the logarithm of the MACs and with the epochs, plus a part drawn from the network's key."""

    def __init__(self, epochs: int = 1, seconds: float = 0.0, noise: float = 0.05) -> None:
        """`seconds` are slept in each of `epochs` steps; `noise` is the size of the network's own part, a fraction.

        Raises ValueError where a setting is out of range.
        """
        if epochs < 1:
            raise ValueError(f"epochs={epochs}: it must be 1 or more")
        if seconds < 0 or not 0 <= noise <= 0.2:
            raise ValueError(f"seconds={seconds} noise={noise}: seconds must be 0 or more, noise in [0, 0.2]")
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
