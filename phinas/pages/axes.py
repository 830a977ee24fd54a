"""What stands around a figure's axes: their scale and ticks in the costs' units, and the legend below."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from phinas.pages.cost_text import cost_short, cost_title

_AXES = {
    "macs": "MACs (multiply-adds) of one image",
    "params": "Parameters",
    "activations": "Activations of one image",
    "latency": "Latency of one image, ms",
    "throughput": "Throughput, images/s (better to the right)",
}  # by the name up to its first underscore; ticks are numbers


def cost_axis(axes: Axes, cost: str, values: Sequence[float]) -> None:
    """Logarithmic where the costs span a factor of 3, with ticks as people say them: 200M, 1G, 5 ms."""
    low, high = min(values), max(values)
    if high > 3 * low > 0:
        axes.set_xscale("log")
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        digits = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 12 else (1, 2, 5) if high / low < 300 else (1,)
        axes.xaxis.set_major_locator(FixedLocator([digit * 10.0**decade for decade in decades for digit in digits]))
        axes.xaxis.set_minor_locator(NullLocator())
        room = (high / low) ** 0.05
        axes.set_xlim(low / room, high * room)
    else:
        room = 0.06 * (high - low) or 0.1 * high
        axes.set_xlim(max(low - room, 0.0), high + room)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost_tick(cost, value)))
    kind, _, rest = cost.partition("_")
    label = _AXES.get(kind, cost_title(cost).capitalize()) + (f" ({rest})" if rest and kind in _AXES else "")
    axes.set_xlabel(label + (", logarithmic" if axes.get_xscale() == "log" else ""))


def cost_tick(cost: str, value: float) -> str:
    """`400M`, `1.5M`, `20,000`, `12.5`: without unit, and without zeros at the end of a fraction."""
    text = cost_short(cost, value).split()[0]
    return re.sub(r"\.?0+(?=[kMG]?$)", "", text) if "." in text else text


def legend_below(axes: Axes) -> None:
    entries = len(axes.get_legend_handles_labels()[0])
    legend = axes.figure.legend(loc="outside lower center", ncols=entries if entries <= 4 else 3)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([26])  # also where the dots themselves are tiny
