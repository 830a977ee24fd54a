"""Docstrings that explain names in two columns, as ours do, become lists where the site shows them."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROW = re.compile(r"^(?P<names>\w+(?:, ?\w+)*)(?: {2,}| (?=\S))(?P<text>.*)$")
_COLUMN = re.compile(r"^\w+(?:, ?\w+)* {2,}\S")


class Columns(Extension):
    """Rewrites each docstring as it is read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_lists(obj.docstring.value)


def as_lists(text: str) -> str:
    """Lines of a name, two blanks or more, and what it is, as items of a list; indented lines below go on with them.

    A block begins at such a line and ends at an empty line, or at one that begins at the margin and is no such row.
    A name as long as its column has one blank behind it, and is known by standing within the block.
    """
    lines: list[str] = []
    within = False
    for line in text.splitlines():
        starts = _COLUMN.match(line) is not None
        row = _ROW.match(line) if starts or (within and _named(line)) else None
        if row:
            if not within:
                lines.append("")
            names = ", ".join(f"`{name.strip()}`" for name in row["names"].split(","))
            lines.append(f"- {names}: {row['text'].strip()}")
        elif within and line.startswith(" "):
            lines.append(f"    {line.strip()}")
        elif within:
            if line.strip():
                lines.append("")
            lines.append(line)
        else:
            lines.append(line)
        within = bool(row) or (within and line.startswith(" "))
    return "\n".join(lines)


def _named(line: str) -> bool:
    """Whether the line begins with a name in our style, such as `head_channels`, and not with a sentence."""
    return re.match(r"^[a-z]+_\w+ \S", line) is not None
