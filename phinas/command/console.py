"""What a command says to its user: on the terminal, or in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from phinas.files.errors import CannotWrite, RunFailed

# A notebook gets plain lines, as a log does: it would keep every state of a bar, and a block of HTML for each line.
_LOOKS: dict[str, Any] = {"highlight": False, "force_jupyter": False}
_LOOKS |= {"force_terminal": False} if "ipykernel" in sys.modules else {}
CONSOLE = Console(**_LOOKS)


def say(text: str) -> None:
    """Text as it is, without markup, its lines as long as they are."""
    CONSOLE.print(text, markup=False, soft_wrap=True)


def show_wide(table: Table, columns: int) -> None:
    """A table, folded where a terminal is too narrow for it, and as wide as it needs where there is none."""
    (CONSOLE if CONSOLE.is_terminal else Console(**_LOOKS, width=columns, quiet=CONSOLE.quiet)).print(table)


@contextmanager
def saying_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Whatever ends a run too soon, be it a full disk, says what is kept of it, and how to go on."""
    try:
        yield
    except (CannotWrite, RunFailed) as error:
        error.kept = kept()
        raise
