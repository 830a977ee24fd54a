"""Parts of every scatter: its points, the room they get, and what stands around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patheffects import withStroke

from nas.journal import Entry
from phinas.pages.style import BLUE, MUTED, PAPER


def dots(
    axes: Axes, x: Sequence[float], y: Sequence[float], label: str, rasterised: bool, hollow: bool = False
) -> None:
    """Points, smaller and fainter the more there are; `rasterised` draws them as one image."""
    if not x:
        return
    crowd = float(np.clip(np.log10(len(x) / 50) / 3, 0, 1))  # 0 for up to 50 points, 1 for 50,000
    size, alpha = 30 - 25 * crowd, 0.85 - 0.55 * crowd
    axes.scatter(
        np.asarray(x), np.asarray(y), s=size, label=label,  # arrays: of lists, matplotlib masks one value at a time
        linewidths=1.0 if hollow else 0.0, zorder=2 if hollow else 2.1,
        facecolors="none" if hollow else [to_rgba(BLUE, alpha)], edgecolors=[to_rgba(BLUE, min(1.0, alpha + 0.1))],
        rasterized=rasterised,
    ).set_in_layout(False)  # fmt: skip  # all lie within the axes, and measuring each takes seconds for 100,000


def frame(axes: Axes, complete: Sequence[float], stopped: Sequence[float], fractions: bool = False) -> None:
    """Vertical limits that give the room to where the good ones are; says how many points lie below the frame."""
    values = np.array([*complete, *stopped])
    if not len(values):
        axes.set_ylim(0, 1)
        return
    top, floor = float(values.max()), float(values.min())
    middle = float(np.quantile(values, 0.25))
    floor = max(floor, top - 3.5 * (top - middle)) if top > middle else floor
    room = 0.07 * (top - floor) or 0.05 * abs(top) or 0.05
    bottom, ceiling = floor - 1.5 * room, top + 1.5 * room
    axes.set_ylim(*((max(bottom, 0.0), min(ceiling, 1.0)) if fractions else (bottom, ceiling)))
    below = int((values < axes.get_ylim()[0]).sum())
    if below:
        axes.annotate(
            f"↓ {below:,} more below", (0.99, 0.07), xycoords="axes fraction", ha="right", fontsize=8.5, color=MUTED,
            path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
        )  # fmt: skip


def say_nothing_yet(axes: Axes, entries: Sequence[Entry]) -> None:
    failed = sum(entry.accuracy is None for entry in entries)
    text = "every evaluation failed" if entries and failed == len(entries) else "no evaluation has run to the end yet"
    axes.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=MUTED, fontsize=11,
                  path_effects=[withStroke(linewidth=5, foreground=PAPER)])  # fmt: skip
