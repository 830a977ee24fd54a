"""Labels beside what they name, none upon another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from phinas.pages.style import PAPER

_SIZE = 8.5  # points
_LINE = 1.35  # heights of the text from one label to the next
_OUTLINE = withStroke(linewidth=2.5, foreground=PAPER)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Labels (height in data, text, colour) at the right edge of the axes, moved apart where they are too close."""
    if not ends:
        return
    low, high = axes.get_ylim()
    inches = _figure(axes).get_figheight() * 0.72  # of the axes, about; the layout is not made yet
    line = _SIZE * _LINE / 72 / inches
    ordered = sorted(ends, key=lambda end: end[0])
    heights = [line * (1 + text.count("\n")) for _, text, _ in ordered]
    centres = [(height - low) / (high - low) for height, _, _ in ordered]
    for _ in range(200):  # neighbours push each other, until none does
        for place in range(len(centres) - 1):
            overlap = (heights[place] + heights[place + 1]) / 2 - (centres[place + 1] - centres[place])
            if overlap > 1e-6:
                centres[place] -= overlap / 2
                centres[place + 1] += overlap / 2
    for (_, text, color), centre in zip(ordered, centres, strict=True):
        axes.annotate(text, (1.015, centre), xycoords="axes fraction", va="center", fontsize=_SIZE, color=color,
                      annotation_clip=False)  # fmt: skip


def label_points(
    axes: Axes, points: Sequence[tuple[float, float, str, str]], crowd: Sequence[tuple[float, float]] = ()
) -> None:
    """Labels (x, y, text, colour) around points of the axes, each where it covers no other label and no other point.

    crowd  places of less importance, (x, y), of which a label covers as few as it can.
    """
    figure = _figure(axes)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()  # makes the layout, so that places on the page are known
    point = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    dots = axes.transData.transform(np.array(crowd).reshape(-1, 2))
    centres = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [Bbox.from_bounds(x - 6 * point, y - 6 * point, 12 * point, 12 * point) for x, y in centres]
    taken += [text.get_window_extent(renderer) for text in axes.texts]  # those at contours
    for number, (x, y, text, color) in enumerate(points):
        others = taken[:number] + taken[number + 1 :]
        least, best, best_box = float("inf"), None, None
        for dx, dy, ha, va in _places():
            far = abs(dx) + abs(dy) > 20
            distant = 60 * far + 2 * (abs(dx) + abs(dy))
            if distant >= least:  # whatever it covers there
                continue
            line = {"arrowstyle": "-", "color": color, "lw": 0.7, "shrinkA": 1, "shrinkB": 5} if far else None
            note = axes.annotate(
                text, (x, y), xytext=(dx, dy), textcoords="offset points", ha=ha, va=va, multialignment=ha,
                fontsize=_SIZE, color=color, annotation_clip=False, path_effects=[_OUTLINE], zorder=7, arrowprops=line,
            )  # fmt: skip
            note.set_in_layout(False)
            note.update_positions(renderer)
            box = Text.get_window_extent(note, renderer)  # without the line that leads to it
            beyond = max(frame.x0 - box.x0, 0.0) + max(box.x1 - frame.x1, 0.0) + max(frame.y0 - box.y0, 0.0)
            beyond += max(box.y1 - frame.y1 - 8 * point, 0.0)  # a point may stand at the upper edge
            inside = (dots > [box.x0, box.y0]).all(1) & (dots < [box.x1, box.y1]).all(1)
            way = np.linspace(centres[number], [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2], 20 if far else 0)
            crossed = sum(other.contains(*place) for other in others for place in way)
            cost = 100 * beyond + 20 * sum(_area(box, other) for other in others) + 400 * crossed
            cost += 40 * inside.sum() + distant
            if cost < least:
                if best is not None:
                    best.remove()
                least, best, best_box = cost, note, box
            else:
                note.remove()
        if best_box is not None:
            taken.append(best_box)


def _places() -> list[tuple[float, float, str, str]]:
    """Offsets in points with alignments, the nearest first."""
    sides = [(dx, dy, "left" if dx > 0 else "right", "center") for dy in (0, 10, -10) for dx in (-10, 10)]
    middle = [(0, 10, "center", "bottom"), (0, -10, "center", "top")]
    far = [
        (dx, dy, "left" if dx > 0 else "right", "center")
        for dy in (14, -14, 28, -28, 42, -42, 56, 70, -56)
        for dx in (14, -14, 40, -40, 70)
    ]
    return [*sides, *middle, *far]


def _figure(axes: Axes) -> Figure:
    """The whole figure, also of axes in a part of it."""
    figure = axes.figure.figure
    assert isinstance(figure, Figure)
    return figure


def _area(box: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(box, other)
    return 0.0 if shared is None else shared.width * shared.height
