"""Where a training computes, and in which precision."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The first CUDA device if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device, bfloat16: bool | None = None) -> torch.autocast:
    """bfloat16 where it is wanted, on CUDA devices where nobody said; float32 on others."""
    wanted = where.type == "cuda" if bfloat16 is None else bfloat16
    return torch.autocast(where.type, torch.bfloat16, enabled=wanted)
