"""What a command says to its user: on the terminal, or in a log."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from convnets.errors import CannotWrite, RunFailed

CONSOLE = Console(highlight=False)


def say(text: str) -> None:
    """Text as it is, without markup, its lines as long as they are."""
    CONSOLE.print(text, markup=False, soft_wrap=True)


def command_line(module: str, arguments: Sequence[str], **changes: object) -> str:
    """The command that was typed with `arguments`, with options changed, ready to be typed."""
    kept = [argument for argument in arguments if argument.split("=")[0] not in changes]
    return f"python -m {module} {shlex.join([*kept, *(f'{key}={value}' for key, value in changes.items())])}"


@contextmanager
def saying_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Whatever ends a run too soon, be it a full disk, says what is kept of it, and how to go on."""
    try:
        yield
    except (CannotWrite, RunFailed) as error:
        error.kept = kept()
        raise
