"""What is random in a training comes from (seed, its use, epoch, step or image), never from a carried generator.

So any step can be had at any time, and neither the steps before it nor anybody else's random numbers matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# What a training to the end draws, each by its own number: of another number a run could not go on.
ORDER, VIEWS, POLICY, DROPOUT, CROP_OF_IMAGE = range(5)


def seeds(*numbers: int, count: int = 1) -> list[int]:
    """`count` seeds of 64 bits, which no other numbers have."""
    return [int(word) for word in np.random.SeedSequence(numbers).generate_state(count, np.uint64)]


def generator(*numbers: int) -> torch.Generator:
    """On the CPU, seeded by these numbers."""
    return torch.Generator().manual_seed(seeds(*numbers)[0])


@contextmanager
def seeded(seed: int, where: torch.device) -> Iterator[None]:
    """For the block only, torch's global generators seeded, of the CPU and of `where`: layers draw there."""
    on_gpu = where.type == "cuda"
    with torch.random.fork_rng(devices=[where] if on_gpu else []):
        (torch.manual_seed if on_gpu else torch.default_generator.manual_seed)(seed)
        yield
