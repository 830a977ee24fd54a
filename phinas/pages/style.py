"""How every figure looks, and the files that it becomes: a PNG, or an `<svg>` element to stand in a page."""

from __future__ import annotations

import html
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phinas.files.atomic_file import write_atomically

# Okabe and Ito's palette, told apart by colour-blind readers too. Each value occurs once, so that the report can
# exchange it for a colour that suits a dark page.
INK, MUTED, GRID, PAPER = "#1f2328", "#636c76", "#dde2e7", "#ffffff"
BLUE, ORANGE, RED, GREEN, PURPLE = "#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7"

SVG_COLORS = {
    "ink": INK, "muted": MUTED, "grid": GRID, "paper": PAPER,
    "blue": BLUE, "orange": ORANGE, "red": RED, "green": GREEN, "purple": PURPLE,
}  # fmt: skip

RASTERISED_ABOVE = 5_000  # points; beyond it they are drawn as one image instead of one SVG element each

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.titlecolor": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.7, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8.5, "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "figure.constrained_layout.w_pad": 0.08, "figure.constrained_layout.h_pad": 0.06,
    "text.parse_math": False,  # names are the user's, and may have two dollars in them
    "figure.facecolor": "none", "axes.facecolor": "none",
}  # fmt: skip


@contextmanager
def styled(size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of `size` inches, drawn in our style; the process's own settings are as before afterwards."""
    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=size, layout="constrained")


def png(figure: Figure, path: Any, width: int) -> None:
    """Write `figure` as a PNG of `width` pixels to `path`, a file name or a binary file. Raises CannotWrite."""
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=width / figure.get_figwidth())
    if isinstance(path, (str, os.PathLike)):
        write_atomically(Path(path), drawn.getvalue())
    else:
        path.write(drawn.getvalue())


def svg(figure: Figure, label: str) -> str:
    """`figure` as one `<svg>` element to stand in an HTML page, where `label` is read out in place of it.

    Its colours are the page's: `var(--ink)`, `var(--muted)`, ... as named in `SVG_COLORS`. Text stays text. It asks
    for no other file; points that were drawn as an image are inside.
    """
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(drawn, format="svg", dpi=160, metadata={"Date": None})
    text = drawn.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # HTML knows SVG without its namespaces
    # Several figures share the page: their ids must differ.
    prefix = f"f{zlib.crc32(label.encode()):08x}-"
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    for name, color in SVG_COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)
