"""A command called from Python: its options as they would be typed, and the objects that were handed over."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phinas.api.described import described
from phinas.api.overrides import overrides_of
from phinas.command.console import CONSOLE
from phinas.command.groups import options as choices
from phinas.command.run_folder import RUNS, run_folder
from phinas.command.verbs import Call
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.arch_file import write_arch

_NOT_FROM_PYTHON = ("experiment", "dry_run")  # several searches, and no result: of the command line alone


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
    function: str,
    settings: Mapping[str, Any],
    groups: Mapping[str, Any],
    options: Mapping[str, Any] | None,
    objects: Collection[str] = (),
) -> Options:
    """The options of a call of `phinas.FUNCTION`.

    settings  options by their names.
    groups    by group: the name of a choice of ours, the dotted path of a class or function, or an object.
    options   any others by their dotted names, as on the command line.
    objects   the groups that may be objects.
    Raises InputError for what is given twice, or is none of these.
    """
    more = dict(mapping("options", options))
    chosen, parts = dict[str, Any](), dict[str, Any]()
    for group, choice in groups.items():
        if isinstance(choice, str):
            chosen[f"{group}._target_" if "." in choice else group] = choice
        elif group in objects:
            parts[group] = choice
        else:
            raise InputError(f"{group}={choice!r}: it must be the name of one, of {', '.join(choices(group))}")
    for name in map(str, more):
        if name in {**settings, **groups}:
            raise InputError(f"options: {name} is an argument of phinas.{function} itself; give it there alone")
        if name.split(".")[0] in parts:
            raise InputError(f"options: {name}: {name.split('.')[0]} is an object here, and has its settings")
        if name.split(".")[0] in _NOT_FROM_PYTHON:
            raise InputError(f"options: {name} is for the command line alone")
    return Options(Call(function, overrides_of({**settings, **chosen, **more})), parts)


def mapping(option: str, given: Any) -> Mapping[str, Any]:
    """What was given for an argument that is a mapping by name; nothing for None. InputError for anything else."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InputError(f"{option}={given!r}: it must be a mapping of names to values")
    return given


def alone(given: Any) -> bool:
    """Whether it is one value and no list of them: text, a number, also one of numpy's."""
    return isinstance(given, str) or not hasattr(given, "__iter__") or getattr(given, "shape", None) == ()


def listed(given: Any) -> list[Any]:
    """Several values as a list; one alone as a list of one."""
    return [given] if alone(given) else list(given)


def made(group: str, part: Any) -> Any:
    """An object as it is; a class is called without arguments. Raises InputError where it needs some."""
    if not inspect.isclass(part):
        return part
    try:
        return part()
    except TypeError as error:
        raise InputError(f"{group}={part.__name__}: {error}; give an object of it") from None


def network_option(option: str, network: Any) -> str | None:
    """A network as options name one: a published network or a file as it is; for an `Arch` a file is written.

    A result, and a run's folder, stand for the network that was found or trained there. Raises InputError for anything
    else.
    """
    from phinas.api.search import Candidate

    if network is None:
        return None
    if isinstance(network, Candidate):
        network = network.network
    if isinstance(network, Arch):
        file = RUNS / ".networks" / f"{network.key()}.yaml"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_arch(network, file)
        return str(file)
    place = folder_of(network)
    if place is None:
        raise InputError(f"{option}={network!r}: it must be an Arch, a name, a file, or what a search found")
    if not Path(place).is_dir():
        return place
    files = [name for name in ("best.yaml", "model.yaml") if (Path(place) / name).is_file()]
    if not files:
        raise InputError(f"{option}={place}: no network was found or trained there; name the file of one")
    return str(Path(place) / files[0])


def folder_of(result: Any) -> str | None:
    """The path of a result's folder, from the working folder where it lies below; text and paths as they are."""
    from phinas.api.generate import Family
    from phinas.api.grid import GridResult
    from phinas.api.search import SearchResult
    from phinas.api.train import Training

    if isinstance(result, (Family, GridResult, SearchResult, Training)):
        place = os.path.relpath(result.folder)
        return str(result.folder) if place.startswith(os.pardir) else place
    return os.fspath(result) if isinstance(result, (str, os.PathLike)) else None


def named_run(name: str | None) -> str:
    """The name of the run; where none is given, a timestamp that no run has yet."""
    if name is not None:
        return run_folder(name).name
    stamp = run_folder(None).name
    taken = (f"{stamp}-{count}" for count in range(2, 10_000))
    return stamp if not (RUNS / stamp).exists() else next(each for each in taken if not (RUNS / each).exists())


@contextmanager
def speaking(progress: bool) -> Iterator[None]:
    """What the command says stays unsaid unless there is to be `progress`."""
    before, CONSOLE.quiet = CONSOLE.quiet, not progress
    try:
        yield
    finally:
        CONSOLE.quiet = before
