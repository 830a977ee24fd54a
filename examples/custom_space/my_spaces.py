"""A search space of one's own: three stages of MBConv whose kernels, expansions, channels and repeats are searched."""

from phinas.networks.arch import Arch, Stage, Stem
from search_spaces.space import Decision

SEARCHED = {"kernel": (3, 5), "expand": (2, 4), "channels": (8, 12, 16), "repeats": (1, 2)}


class Tiny:
    def __init__(self, resolution=32, classes=10):
        self.resolution, self.classes = resolution, classes
        self.decisions = tuple(
            Decision(f"stage{i}.{name}", tuple(2**i * c for c in choices) if name == "channels" else choices)
            for i in range(3)
            for name, choices in SEARCHED.items()
        )

    def decode(self, choices):
        stages = tuple(
            Stage("mbconv", stride=2 if i else 1, **{name: choices[f"stage{i}.{name}"] for name in SEARCHED})
            for i in range(3)
        )
        return Arch(Stem(16, stride=1), stages, head_channels=128, resolution=self.resolution, classes=self.classes)
