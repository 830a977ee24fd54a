"""How many threads torch computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MOST_THREADS = 1024  # more than any machine has cores; of many more the system lets none start, and the process dies


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Torch uses `count` threads within, and as many as before afterwards; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
