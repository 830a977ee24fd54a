"""The picture of class activation maps, like figure 7 of arXiv 1905.11946: a row per image, a column per network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from phinas.pages.style import GREEN, INK, MUTED, RED, styled

_COLORS = matplotlib.colormaps["turbo"]
_CELL, _GAP, _TOP, _BELOW, _BOTTOM = 1.6, 0.17, 0.5, 0.36, 0.4  # inches
_LETTERS = 24  # of a title or a label
_LEAST_SIDE = 224  # pixels of a cell; smaller images are drawn as squares of whole pixels


@dataclass(frozen=True, eq=False)
class Cell:
    """One image as one network sees it.

    image        uint8 [side, side, c]: what it looks at.
    heat         float [side', side'] from 0 to 1, side' a whole multiple of the image's; None: the image alone.
    label        what stands below it, and `right` whether that is so: None where nobody knows.
    """

    image: NDArray[np.uint8]
    heat: NDArray[np.float32] | None
    label: str
    right: bool | None = None


def shown_side(side: int) -> int:
    """Pixels at which an image of `side` is drawn, and its map: a whole multiple."""
    return side * math.ceil(_LEAST_SIDE / side)


def cam_figure(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Cell]]) -> Figure:
    """A figure with a column for each (title, what stands below it), and in each row a cell for each column."""
    width = _GAP + len(columns) * (_CELL + _GAP)
    height = _TOP + len(rows) * (_CELL + _BELOW) + _BOTTOM
    with styled((width, height)) as figure:
        figure.set_layout_engine("none")  # all sizes are known

        def axes_at(left: float, bottom: float, wide: float, high: float) -> Axes:
            return figure.add_axes((left / width, bottom / height, wide / width, high / height))

        for row, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                left = _GAP + column * (_CELL + _GAP)
                _draw(axes_at(left, height - _TOP - _CELL - row * (_CELL + _BELOW), _CELL, _CELL), cell)
        for axes, (title, below) in zip(figure.axes, columns, strict=False):
            axes.set_title(_short(title), loc="center", fontsize=10, pad=18 if any(b for _, b in columns) else 6)
            axes.annotate(below, (0.5, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", ha="center",
                          fontsize=8, color=MUTED)  # fmt: skip
        bar = axes_at(width / 2 - _CELL / 2, 0.3, _CELL, 0.06)
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=_COLORS, aspect="auto")
        bar.set_axis_off()
        for place, text, side in ((0, "least ", "right"), (1, " most", "left")):
            bar.annotate(text, (place, 0.5), xycoords="axes fraction", ha=side, va="center", fontsize=8, color=MUTED)
    return figure


def _draw(axes: Axes, cell: Cell) -> None:
    image: NDArray[np.float32] = cell.image.astype(np.float32) / np.float32(255)
    if image.shape[2] == 1:
        image = image.repeat(3, 2)
    if cell.heat is not None:
        image = _warmed(image, cell.heat)
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    color = {None: INK, True: GREEN, False: RED}[cell.right]
    axes.set_xlabel(_short(cell.label), fontsize=8.5, labelpad=4, color=color)


def _short(text: str) -> str:
    """As much of it as fits over a cell."""
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS // 2]}…{text[1 - _LETTERS // 2 :]}"


def _warmed(image: NDArray[np.float32], heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image under its map: grey where the network sees least, in the colours of the map where it sees most."""
    times = len(heat) // len(image)
    image = image.repeat(times, 0).repeat(times, 1)
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    image = 0.5 * image + 0.5 * grey[..., None]
    colors = _COLORS(heat)[..., :3].astype(np.float32)
    strength = (0.25 + 0.45 * heat)[..., None]
    return np.asarray((1 - strength) * image + strength * colors, np.float32)
