"""What a fault is told: where it may write, how often it is to strike, and what searches run on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """
    folder   of this fault's searches; it is there, and empty.
    count    how often to inject it.
    seed     of what is random: which bytes, which moments, which workers.
    ray      options of a search that put it on Ray; None: there is to be no Ray.
    address  of the cluster that `ray` names; None where searches start Ray on this machine.
    show     is told how many were injected so far.
    command  what a search is started by.
    """

    folder: Path
    count: int
    seed: int = 0
    ray: Sequence[str] | None = None
    address: str | None = None
    show: Callable[[int], None] = lambda injected: None
    command: Sequence[str] = (sys.executable, "-m", "nas.search")
