"""Measurements side by side: as rows of a table, as a picture, and as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from phinas.measure.timing import Timing
from phinas.networks.cost import Cost
from phinas.pages.page import drawing, render
from phinas.pages.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, styled

_COLORS = {"eager": MUTED, "folded": BLUE, "compiled": ORANGE, "onnx": GREEN}
_MILLISECONDS = 1e3


@dataclass(frozen=True)
class Measured:
    """One model in one form.

    model       as it was asked for.
    backend     the form.
    timings     by batch size; where there is none, `errors` says why.
    difference  the largest difference of its outputs from the exact ones, which the plain network gives in float64,
                as a share of the largest of those; None where they were not compared.
    of_plain    the same of the plain network in float32.
    """

    model: str
    key: str
    cost: Cost
    resolution: int
    backend: str
    timings: Mapping[int, Timing]
    errors: Mapping[int, str] = field(default_factory=dict)
    difference: float | None = None
    of_plain: float | None = None

    @property
    def title(self) -> str:
        """Model and form, for people."""
        return f"{short_name(self.model)} {self.backend}"


def short_name(model: str) -> str:
    """A network's name in a table: `NAME/best` for the file `runs/NAME/best.yaml`."""
    path = Path(model)
    return "/".join([*path.parent.parts[-1:], path.stem]) if path.suffix in (".yaml", ".yml") else model


def milliseconds(seconds: float) -> str:
    """`0.812`, `18.2`, `1,240`: three digits at least, without the unit."""
    value = seconds * _MILLISECONDS
    return f"{value:,.{max(2 - math.floor(math.log10(value)), 0)}f}" if value > 0 else "0"


def quartiles_text(timing: Timing) -> str:
    """`18.2 (17.9 to 18.8)`, in milliseconds."""
    return f"{milliseconds(timing.median)} ({milliseconds(timing.lower)} to {milliseconds(timing.upper)})"


def ratio_text(timing: Timing) -> str:
    """How it compares with the first network that was timed with it: `2.21x as fast`, `5.70x as long`."""
    ratio = timing.ratio.median
    if timing.ratio.lower == timing.ratio.upper == 1:
        return "1"
    return f"{ratio:.2f}x as long" if ratio >= 1 else f"{1 / ratio:.2f}x as fast"


def rate_text(timing: Timing, batch_size: int) -> str:
    """Images per second: `54.9`, `1,240`."""
    rate = batch_size / timing.median
    return f"{rate:,.{0 if rate >= 99.95 else 1}f}"


def measured_figure(found: Sequence[Measured], batches: Sequence[int]) -> Figure:
    """Medians with their quartiles, a row for each model and form, a panel for each batch size."""
    with styled((3.4 + 4.6 * len(batches), 1.25 + 0.34 * len(found))) as figure:
        figure.set_facecolor(PAPER)
        panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
        for axes, batch in zip(panels, batches, strict=True):
            _panel(axes, found, batch)
        panels[0].set_yticks(range(len(found)), [measurement.title for measurement in found])
    return figure


def _panel(axes: Axes, measurements: Sequence[Measured], batch: int) -> None:
    known = [measurement.timings[batch] for measurement in measurements if batch in measurement.timings]
    low = min((timing.lower for timing in known), default=1e-3) * _MILLISECONDS
    high = max((timing.upper for timing in known), default=1e-3) * _MILLISECONDS
    logarithmic = high > 3 * low
    if logarithmic:
        axes.set_xscale("log")
        few = high < 30 * low
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if few else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.75)  # room for the words at the right
    else:
        axes.set_xlim(0, high * 1.7)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    for row, measurement in enumerate(measurements):
        timing, color = measurement.timings.get(batch), _COLORS.get(measurement.backend, INK)
        if timing is None:
            axes.annotate(measurement.errors.get(batch, "not measured"), (0.02, row),
                          xycoords=("axes fraction", "data"), va="center", color=MUTED, fontsize=8.5)  # fmt: skip
            continue
        lower, median, upper = (_MILLISECONDS * value for value in (timing.lower, timing.median, timing.upper))
        if not logarithmic:  # a bar says something where it starts from zero
            axes.barh(row, median, height=0.5, color=color, alpha=0.25, linewidth=0)
        axes.plot([lower, upper], [row, row], color=color, linewidth=2.2, solid_capstyle="butt", zorder=3)
        axes.plot([median], [row], "o", color=color, markersize=5.5, zorder=4)
        text = f"{milliseconds(timing.median)} ms" if batch == 1 else f"{rate_text(timing, batch)} images/s"
        against = ratio_text(timing)
        axes.annotate(
            text if against == "1" else f"{text}  ·  {against}", (upper, row), xytext=(8, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=INK, annotation_clip=False,
            path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
        )  # fmt: skip
    axes.set_ylim(len(measurements) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("One image" if batch == 1 else f"A batch of {batch}")
    axes.set_xlabel("milliseconds" + (", logarithmic" if logarithmic else ""))


def report(
    name: str,
    found: Sequence[Measured],
    batches: Sequence[int],
    about: Mapping[str, Any],
    notes: Sequence[str],
    config_text: str,
) -> str:
    """The whole report as one page that asks for no other file.

    about  how it was measured: kind, threads, dtype, channels_last, machine (name -> text).
    notes  what is to be known before figures are quoted.
    """
    return render(
        Path(__file__).with_name("report.html"),
        name,
        [],
        config_text,
        about=about,
        notes=notes,
        first=found[0].title,
        several=len(found) > 1,
        picture=drawing(measured_figure(found, batches), "latency of each model and form"),
        batches=batches,
        compared=any(measurement.difference is not None for measurement in found),
        memory=any(timing.memory is not None for measurement in found for timing in measurement.timings.values()),
        rows=[_row(measurement, batches, before) for measurement, before in zip(found, [None, *found], strict=False)],
    )


def _row(measurement: Measured, batches: Sequence[int], before: Measured | None) -> dict[str, Any]:
    cells = []
    for batch in batches:
        timing = measurement.timings.get(batch)
        if timing is None:
            cells.append({"error": measurement.errors.get(batch, "not measured")})
            continue
        ratio = timing.ratio
        cells.append(
            {
                "error": "",
                "time": quartiles_text(timing),
                "rate": rate_text(timing, batch),
                "ratio": f"{ratio.median:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})",
                "passes": f"{timing.passes:,}",
                "memory": "–" if timing.memory is None else f"{timing.memory / 2**20:,.0f} MiB",
            }
        )
    return {
        "model": short_name(measurement.model),
        "first": before is None or before.model != measurement.model,
        "backend": measurement.backend,
        "params": f"{measurement.cost.params / 1e6:.2f}M",
        "macs": f"{measurement.cost.macs / 1e6:,.0f}M",
        "pixels": measurement.resolution,
        "cells": cells,
        "difference": "–" if measurement.difference is None else f"{measurement.difference:.1e}",
        "of_plain": "–" if measurement.of_plain is None else f"{measurement.of_plain:.1e}",
    }
