"""`--help`, and the reference of all options: both are read from the comments in `conf/`, beside the defaults."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from phinas.command.groups import CONFIG_FOLDER, SETTINGS, options
from phinas.command.verbs import command_line
from phinas.files.errors import InputError

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w-]+):(?: +(?P<value>[^#\s].*?))?(?: *#+ ?(?P<comment>.*))?$")
_COMMENT = re.compile(r"^(?P<indent> *)#+ ?(?P<comment>.*)$")
_UNSAID = ("_target_", "_partial_", "defaults")


@dataclass(frozen=True)
class Option:
    """An option with its default as it is written, "" where there are options below it; and what it is, in words."""

    name: str
    default: str
    about: str

    @property
    def required(self) -> bool:
        return self.default == "???"


@dataclass(frozen=True)
class Documented:
    """What a YAML file of `conf/` says about itself, and its options in their order, by their dotted names."""

    about: str
    options: tuple[Option, ...]


def documented(text: str) -> Documented:
    """Read the options and the comments of a YAML file that is written as those in `conf/` are.

    A comment stands behind its option, goes on in lines of comments that begin further right than the option, or
    stands before it; the lines before the first option are about the file.
    """
    about: list[str] = []
    before: list[str] = []
    entries: list[list[str]] = []  # name, default, comment
    above: list[tuple[int, str]] = []  # indent and key of the mappings around
    skipped: int | None = None  # indent of an option whose lines below are not options
    for line in text.splitlines():
        comment = _COMMENT.match(line)
        indent = len(line) - len(line.lstrip())
        if comment:
            if not line.startswith("# @package"):
                _place(comment["comment"], about, before, entries if skipped is None else [], indent, above)
            continue
        if not line.strip() or (skipped is not None and indent > skipped):
            continue
        skipped = None
        option = _LINE.match(line)
        if option is None:
            continue
        while above and above[-1][0] >= indent:
            above.pop()
        name = ".".join([*(key for _, key in above), option["key"]])
        value = option["value"] or ""
        above.append((indent, option["key"]))
        if option["key"] in _UNSAID or value in ("|-", "|", ">", ">-"):
            skipped = indent
            before.clear()
            continue
        entries.append([name, value, " ".join([*before, *filter(None, [option["comment"]])])])
        before.clear()
    return Documented(" ".join(about), tuple(Option(*each) for each in entries))


def _place(
    comment: str, about: list[str], before: list[str], entries: list[list[str]], indent: int, above: Sequence[object]
) -> None:
    """Put a line that is a comment and no more where it belongs."""
    if not above:
        about.append(comment)
    elif entries and indent >= 8:  # below the comment of the option before
        entries[-1][2] = f"{entries[-1][2]} {comment}".strip()
    else:
        before.append(comment)


def defaults_of(name: str) -> dict[str, str | None]:
    """The groups of the command whose defaults are `conf/NAME.yaml`, each with its choice."""
    listed = yaml.safe_load((CONFIG_FOLDER / f"{name}.yaml").read_text()).get("defaults", [])
    chosen: dict[str, str | None] = {}
    for each in listed:
        if isinstance(each, Mapping):
            chosen |= {str(group): None if choice is None else str(choice) for group, choice in each.items()}
    return chosen


def documented_choice(group: str, choice: str, folder: Path = CONFIG_FOLDER) -> Documented:
    """One choice of a group, its options by their names on command lines; with those that it has from another."""
    text = (folder / group / f"{choice}.yaml").read_text()
    own = documented(text)
    inherited: dict[str, Option] = {}
    for other in yaml.safe_load(text).get("defaults", []):
        if isinstance(other, str) and other != "_self_":
            where = folder if (folder / group / f"{other}.yaml").exists() else CONFIG_FOLDER
            inherited = {option.name: option for option in documented_choice(group, other, where).options}
    for option in own.options:
        name = f"{group}.{option.name}"
        before = inherited.get(name)
        inherited[name] = Option(name, option.default, option.about or (before.about if before else ""))
    return Documented(own.about, tuple(inherited.values()))


def help_of(command: str, name: str, arguments: Sequence[str], own_folder: Path | None = None) -> str:
    """What `--help` prints: the options of the command, and those of the groups as `arguments` choose them.

    own_folder  with YAML files of the user's own.
    """
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    own = documented((CONFIG_FOLDER / f"{name}.yaml").read_text())
    lines = [f"usage: {command_line(command, [])} [--config-dir FOLDER] [key=value ...]", ""]
    lines += [*textwrap.wrap(own.about, width), ""] if own.about else []
    lines += ["options, with their defaults:", *_table(own.options, width)]
    typed = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    for group, default in defaults_of(name).items():
        custom = f"{group}._target_" in typed
        choice = "custom" if custom else typed.get(group, default)
        theirs = sorted(file.stem for file in (own_folder / group).glob("*.yaml")) if own_folder else []
        if choice not in (*options(group), *theirs, "null", None):
            allowed = ", ".join([*options(group), *theirs])
            raise InputError(f"{group}={choice}: there is no such {group}; allowed: {allowed}")
        choice = None if choice == "null" else choice
        lines += ["", f"{group}={choice or 'null'}    one of: {', '.join([*options(group), *theirs])}"]
        if choice is not None and group not in SETTINGS:
            chosen = documented_choice(group, choice, own_folder if choice in theirs and own_folder else CONFIG_FOLDER)
            lines += textwrap.wrap(chosen.about, width, initial_indent="  ", subsequent_indent="  ")
            lines += _table([option for option in chosen.options if option.default != "${data}"], width)
    more = "--config-dir FOLDER has YAML files of your own, one subfolder a group."
    if example := _example(name):
        more = f"Another choice of a group has options of its own: {example} --help shows them. {more}"
    return "\n".join([*lines, "", *textwrap.wrap(more, width)])


def _example(name: str) -> str:
    for group, default in defaults_of(name).items():
        if others := [choice for choice in options(group) if choice not in (default, "custom")]:
            return f"{group}={others[-1]}"
    return ""


def _table(options_of_it: Sequence[Option], width: int) -> list[str]:
    return [line for option in options_of_it for line in _lines(option, width)]


def _lines(option: Option, width: int) -> Iterator[str]:
    default = "..." if option.required else option.default
    left = f"  {option.name}={default}" if default else f"  {option.name}."
    column = 30
    about = textwrap.wrap(option.about, max(width - column, 30)) or [""]
    if len(left) >= column - 1:
        yield left
    else:
        yield f"{left:<{column}}{about.pop(0)}".rstrip()
    for line in about:
        if line:
            yield " " * column + line
