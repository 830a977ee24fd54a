"""`phinas VERB [options]`: every command under one name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from phinas import __version__
from phinas.command.run import run
from phinas.command.verbs import VERBS
from phinas.files.errors import InputError

USAGE = "usage: phinas VERB [options]    phinas VERB --help    phinas --version"


def main() -> NoReturn:
    """The console script: runs the command of this process's arguments, and exits as it does."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        print(usage())
        sys.exit(0)
    if arguments[:1] in (["-V"], ["--version"]):
        print(f"phinas {__version__}")
        sys.exit(0)
    if not arguments:
        print(usage(), file=sys.stderr)
        sys.exit(2)
    run(_command, arguments)


def usage() -> str:
    """One line a verb."""
    width = max(map(len, VERBS)) + 2
    return "\n".join([USAGE, "", *(f"  {name:<{width}}{verb.about}" for name, verb in VERBS.items())])


def _command(arguments: Sequence[str]) -> int | None:
    name, *options = arguments
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"phinas {name}: there is no such verb; {hint}allowed: {', '.join(VERBS)}")
    code: int | None = command_module(VERBS[name].module).main(options)
    return code


def command_module(name: str) -> ModuleType:
    """The module that `python -m NAME` runs."""
    spec = importlib.util.find_spec(name)
    folder = spec is not None and spec.submodule_search_locations is not None
    return importlib.import_module(f"{name}.__main__" if folder else name)


if __name__ == "__main__":
    main()
