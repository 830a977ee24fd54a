"""A command called from Python: its options as they would be typed, and the objects that were handed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from phinas.api.described import described
from phinas.api.overrides import overrides_of
from phinas.command.console import CONSOLE
from phinas.command.run_folder import RUNS, run_folder
from phinas.command.verbs import Call
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.arch_file import write_arch


@dataclass(frozen=True)
class Options:
    """What a function was called with.

    typed   options of the command line.
    parts   objects by their group, which are not constructed; the settings describe them.
    """

    typed: Call
    parts: Mapping[str, Any] = field(default_factory=dict)

    def describe(self, given: dict[str, Any], names: dict[str, str]) -> None:
        """Write into the settings, and into the names of what was chosen, what the objects of each group are."""
        for group, part in self.parts.items():
            given[group] = described(part)
            names[group] = str(given[group]["_target_"]).removeprefix("__main__.")


def options_of(
    function: str, settings: Mapping[str, Any], groups: Mapping[str, Any], options: Mapping[str, Any] | None
) -> Options:
    """The options of a call of `phinas.FUNCTION`.

    settings  options by their names.
    groups    by group: the name of a choice of ours, the dotted path of a class or function, or an object.
    options   any others by their dotted names, as on the command line.
    Raises InputError for one that is given twice.
    """
    chosen, parts = dict[str, Any](), dict[str, Any]()
    for group, choice in groups.items():
        if not isinstance(choice, str):
            parts[group] = choice
        else:
            chosen[f"{group}._target_" if "." in choice else group] = choice
    more = dict(options or {})
    if twice := sorted({**settings, **groups}.keys() & more.keys()):
        raise InputError(f"options: {twice[0]} is an argument of phinas.{function} itself; give it there alone")
    if useless := sorted(name for name in more if name.split(".")[0] in parts):
        raise InputError(f"options: {useless[0]}: {useless[0].split('.')[0]} is an object here, and has its settings")
    return Options(Call(function, overrides_of({**settings, **chosen, **more})), parts)


def network_option(option: str, network: Any) -> str | None:
    """A network as options name one: a published network or a file as it is; for an `Arch` a file is written.

    A run folder stands for the network that was found, made or trained in it. Raises InputError for anything else.
    """
    if network is None or isinstance(network, str):
        return network
    folder = getattr(network, "folder", network)
    if isinstance(folder, PathLike):
        path = Path(fspath(folder))
        files = [path / name for name in ("best.yaml", "model.yaml") if (path / name).is_file()]
        return str(files[0]) if files else str(path)
    network = getattr(network, "network", network)
    if not isinstance(network, Arch):
        raise InputError(f"{option}={network!r}: it must be an Arch, a name, a file, or what a search found")
    file = RUNS / ".networks" / f"{network.key()}.yaml"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_arch(network, file)
    return str(file)


def named_run(name: str | None) -> str:
    """The name of the run; a timestamp where none is given, as the command line has it."""
    return run_folder(name).name


@contextmanager
def speaking(progress: bool) -> Iterator[None]:
    """What the command says stays unsaid unless there is to be `progress`."""
    before, CONSOLE.quiet = CONSOLE.quiet, not progress
    try:
        yield
    finally:
        CONSOLE.quiet = before
