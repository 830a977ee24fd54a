"""The commands: `python -m MODULE`, and the same as `phinas VERB`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Verb:
    """A command: the module that is run, and what it is for in a line."""

    module: str
    about: str


VERBS = {
    "search": Verb("nas.search", "search for a network under a compute budget"),
    "report": Verb("nas.report", "the report of a search again, also while it runs"),
    "proxy_check": Verb("nas.proxy_check", "does a short training rank networks as a longer one does?"),
    "selftest": Verb("nas.selftest", "kills, torn files, full disks: does a search survive on this machine?"),
    "grid": Verb("scaling_search.grid", "search the constants by which a network grows"),
    "compare": Verb("scaling_search.compare", "depth, width or resolution alone against all three"),
    "published": Verb("scaling_search.published", "the paper's tables of scaled networks, counted"),
    "check": Verb("search_spaces.check", "hold a space of your own to the laws, and show what it contains"),
    "generate": Verb("phinas.generate", "a family of networks, or the largest that fits a budget"),
    "measure": Verb("phinas.measure", "latency and throughput here, networks side by side"),
    "train": Verb("phinas.train", "train one network to the end"),
    "transfer": Verb("phinas.transfer", "fine-tune networks on several data sets"),
    "cam": Verb("phinas.cam", "where in images networks see what they name"),
}


class Call(tuple[str, ...]):
    """The options of a command as they would be typed, where Python called it, and the function that was called."""

    function: str

    def __new__(cls, function: str, options: Sequence[str]) -> Call:
        call = super().__new__(cls, options)
        call.function = function
        return call


def command_line(module: str, arguments: Sequence[str], **changes: object) -> str:
    """The command that was typed with `arguments`, with options changed, ready to be typed.

    It is `phinas VERB` where this process is, `python -m MODULE` elsewhere, and a call where Python called.
    """
    if isinstance(arguments, Call):
        changed = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        return f"phinas.{arguments.function}(..., {changed})"
    stays = [argument for argument in arguments if argument.split("=")[0] not in changes]
    options = shlex.join([*stays, *(f"{key}={value}" for key, value in changes.items())])
    return f"{_typed(module)} {options}".rstrip()


def _typed(module: str) -> str:
    verb = next((verb for verb, command in VERBS.items() if command.module == module), None)
    if verb is not None and Path(sys.argv[0]).stem == "phinas":
        return f"phinas {verb}"
    return f"python -m {module}"
