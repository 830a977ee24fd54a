"""A figure that a notebook shows, and that a file can hold."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes a moment to load
    from matplotlib.figure import Figure

WIDTH = 1200  # pixels


@dataclass(frozen=True, eq=False)
class Picture:
    """A PNG; a notebook shows it where it is the last value of a cell."""

    png: bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to the file. Raises CannotWrite."""
        from phinas.files.atomic_file import write_atomically

        write_atomically(Path(path), self.png)

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return f"<picture, PNG of {len(self.png):,} bytes; .save('FILE.png')>"


def picture_of(figure: Figure) -> Picture:
    """A figure of ours, drawn."""
    from phinas.pages.style import png

    drawn = io.BytesIO()
    png(figure, drawn, WIDTH)
    return Picture(drawn.getvalue())
