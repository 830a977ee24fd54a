"""Labels beside what they name, none upon another."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nas.figures.style import PAPER

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


def label_points(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Labels (x, y, text, colour) around points of the axes, each where it covers no other label and no other point."""
    figure = _figure(axes)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # makes the layout, so that places on the page are known
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    centres = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [Bbox.from_bounds(x - 6 * scale, y - 6 * scale, 12 * scale, 12 * scale) for x, y in centres]
    for number, (x, y, text, color) in enumerate(points):
        best = None
        for dx, dy, ha, va in _places():
            note = axes.annotate(
                text, (x, y), xytext=(dx, dy), textcoords="offset points", ha=ha, va=va, fontsize=_SIZE, color=color,
                annotation_clip=False, path_effects=[_OUTLINE], zorder=7,
                arrowprops={"arrowstyle": "-", "color": color, "lw": 0.7, "shrinkA": 1, "shrinkB": 5}
                if abs(dx) + abs(dy) > 16 else None,
            )  # fmt: skip
            note.set_in_layout(False)
            note.update_positions(renderer)
            box = Text.get_window_extent(note, renderer)  # without the line that leads to it
            others = taken[:number] + taken[number + 1 :]
            covered = sum(_area(box, other) for other in others)
            outside = max(frame.x0 - box.x0, 0.0) + max(box.x1 - frame.x1, 0.0) + max(frame.y0 - box.y0, 0.0)
            badness = covered + 100 * outside
            if best is None or badness < best[0] - 1e-6:
                if best is not None:
                    best[1].remove()
                best = (badness, note, box)
            else:
                note.remove()
            if badness <= 0:
                break
        if best is not None:
            taken.append(best[2])


def _places() -> list[tuple[float, float, str, str]]:
    """Offsets in points with alignments, the nearest first."""
    near: list[tuple[float, float, str, str]] = [
        (-9, 0, "right", "center"),
        (9, 0, "left", "center"),
        (0, 10, "center", "bottom"),
        (0, -10, "center", "top"),
    ]
    far = [
        (dx, dy, "left" if dx > 0 else "right", "center")
        for dy in (14, -14, 28, -28, 42, -42, 56)
        for dx in (14, -14, 40, -40)
    ]
    return [*near, *far]


def _figure(axes: Axes) -> Figure:
    """The whole figure, also of axes in a part of it."""
    figure = axes.figure.figure
    assert isinstance(figure, Figure)
    return figure


def _area(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else shared.width * shared.height
