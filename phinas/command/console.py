"""What a command says to its user: on the terminal, or in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from phinas.files.errors import CannotWrite, RunFailed

# In a notebook too it is plain lines: rich would make a block of HTML of each.
CONSOLE = Console(highlight=False, force_jupyter=False)


def say(text: str) -> None:
    """Text as it is, without markup, its lines as long as they are."""
    CONSOLE.print(text, markup=False, soft_wrap=True)


@contextmanager
def saying_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Whatever ends a run too soon, be it a full disk, says what is kept of it, and how to go on."""
    try:
        yield
    except (CannotWrite, RunFailed) as error:
        error.kept = kept()
        raise
