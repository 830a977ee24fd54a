"""The front of every command: Hydra configuration in, one line and an exit code out when something is wrong."""

from __future__ import annotations

import argparse
import difflib
import errno
import functools
import inspect
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from convnets.errors import CannotWrite, InputError, RunFailed
from convnets.yaml_file import read_yaml, safe_yaml

CONFIG_FOLDER = Path(__file__).parent
logging.getLogger("hydra").setLevel(logging.CRITICAL)  # it would print errors that we report in one line
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(command: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Run a command on this process's arguments and exit: 0 done, 1 failed, 2 bad input, 130 interrupted.

    Bad input, a full disk and an engine that gave way are one line on standard error; what is unexpected keeps its
    traceback.
    """
    if os.getcwd() not in sys.path:  # people's own spaces and evaluators live where they type the command
        sys.path.insert(0, os.getcwd())
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler that ends a job is as polite as Ctrl-C
    try:
        sys.exit(command(sys.argv[1:]) or 0)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except (CannotWrite, RunFailed) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # of a path that was typed
            print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
            sys.exit(2)
        if error.errno not in _FULL:
            raise
        # Of a file that a library writes, or of the log to which standard output goes.
        print(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def configuration(
    command: str, name: str, arguments: Sequence[str], open_ended: Sequence[str] = ()
) -> tuple[DictConfig, dict[str, str]]:
    """The configuration `conf/NAME.yaml` with the command line's overrides, and the choice made in each group.

    `arguments` are Hydra overrides, and `--config-dir FOLDER` for YAML files of the user's own. `open_ended` are keys
    under which names that the defaults do not know may be set: `targets.NAME=...` without Hydra's `+`.
    Raises InputError naming the option that is unknown, malformed or missing, with what is allowed.
    """
    defaults = (CONFIG_FOLDER / f"{name}.yaml").read_text()
    parser = argparse.ArgumentParser(
        prog=f"python -m {command}", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Options are key=value pairs over these defaults:\n\n{defaults}",
        epilog=_groups(), usage="%(prog)s [--config-dir FOLDER] [key=value ...]",
    )  # fmt: skip
    parser.add_argument("--config-dir", type=Path, help="folder with YAML files of your own, one subfolder a group")
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    parser.error = _refuse  # type: ignore[method-assign]
    _check_text(arguments)
    given = parser.parse_intermixed_args(arguments)
    overrides = _open_custom_groups([_as_text(override) for override in given.overrides])
    overrides = [f"++{text}" if text.startswith(tuple(f"{key}." for key in open_ended)) else text for text in overrides]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        try:
            _check_keys(name, overrides)
            if given.config_dir is not None:
                overrides.append(_search_path(given.config_dir))
            config = compose(name, overrides=overrides, return_hydra_config=True)
            choices = {group: str(choice) for group, choice in config.hydra.runtime.choices.items() if choice}
            with open_dict(config):
                del config["hydra"]
            missing = sorted(OmegaConf.missing_keys(config))
            if missing:
                raise InputError(f"{missing[0]} is missing; give {missing[0]}=...")
            OmegaConf.resolve(config)
        except MissingConfigException as error:
            raise InputError(_unknown_option(error)) from None
        except InputError:
            raise
        except UnicodeDecodeError as error:
            for file in sorted((given.config_dir or CONFIG_FOLDER).rglob("*.yaml")):
                read_yaml(file, lambda content: content)  # says which it is
            raise InputError(one_line(error)) from None
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            raise InputError(_unknown_setting(name, overrides, error) or one_line(error)) from None
    for group in set(_GROUPS) - set(_SETTINGS):
        if group in config and not (OmegaConf.is_dict(config[group]) and "_target_" in config[group]):
            raise InputError(f"{group}={choices.get(group)}: its YAML has no _target_")
    for group in choices:
        if choices[group] == "custom":  # the user's own, known by its dotted path
            choices[group] = str(config[group]["_target_"])
    return config, choices


def construct(config: DictConfig, name: str, **arguments: Any) -> Any:
    """Construct the object that the group `name` describes; with `_partial_: true`, a function waiting for the rest.

    Raises InputError when its `_target_` cannot be found, or when it does not accept one of its settings.
    """
    settings = config[name]
    try:
        if not settings.get("_partial_"):
            return instantiate(settings, **arguments)
        # Hydra's own partial checks its target anew at every call, ~1 ms each; a reward is called a million times.
        bound = {str(key): value for key, value in settings.items() if key not in ("_target_", "_partial_")}
        target = get_object(settings["_target_"])
        waiting = functools.partial(target, **instantiate(bound, **arguments))
        inspect.signature(target).bind_partial(**waiting.keywords)
        return waiting
    except (ImportError, TypeError, OmegaConfBaseException) as error:
        raise InputError(f"{name}: {one_line(error)}") from None
    except InstantiationException as error:
        cause: BaseException | None = error
        while isinstance(cause, InstantiationException):  # once more for each level of nesting
            cause = cause.__cause__
        if cause is None or isinstance(cause, (ValueError, ImportError)):
            said = one_line(cause or error)
            raise InputError(said if said.startswith(f"{name}.") else f"{name}: {said}") from None
        if isinstance(cause, TypeError) and "argument" in str(cause):  # a setting that the target does not take
            raise InputError(f"{name}: {one_line(cause)}") from None
        raise cause from None


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as dicts, lists and scalars, which may travel inward."""
    content: Any = OmegaConf.to_container(config, resolve=True)
    return dict(content)


def check_inert(settings: Mapping[str, Any], path: Path, trust: Any) -> None:
    """InputError where settings of groups, which were read from a file, would run code that nobody chose to run.

    A file may come from anywhere. What its `_target_` names is run where `conf/` has it for one of these groups, or the
    user named it in `trust`, one dotted path or several. Interpolations, which could make another of it, are refused.
    """
    trusted = trust if isinstance(trust, (list, tuple)) else [trust]
    ours = {one for group in settings for file in (CONFIG_FOLDER / group).glob("*.yaml") for one in _targets_in(file)}
    for name, value in _leaves(settings):
        if isinstance(value, str) and "${" in value:
            raise InputError(f"{path}: {name} is to be computed; what a run writes are values")
        if name.endswith("_target_") and value not in ours and value not in trusted:
            raise InputError(
                f"{path}: {name}={value} is code that is not ours; if you know it, let the file run it by trust={value}"
            )


def _targets_in(file: Path) -> list[Any]:
    found = [value for name, value in _leaves(safe_yaml(file.read_text())) if name.endswith("_target_")]
    return [value for value in found if value != "???"]


def _leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, with its dotted name."""
    if isinstance(content, Mapping):
        items: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    else:
        yield name, content
        return
    for key, value in items:
        yield from _leaves(value, f"{name}.{key}" if name else str(key))


def targets_of(group: str) -> dict[str, Any]:
    """Name -> class or function, for each choice in the group that can be imported here."""
    found = {}
    for name in _options(group):
        target = OmegaConf.select(OmegaConf.load(CONFIG_FOLDER / group / f"{name}.yaml"), "_target_")
        if target is None:  # `???`: the user's own
            continue
        try:
            found[name] = get_object(str(target))
        except (ImportError, ValueError):  # an extra that is not installed
            continue
    return found


def one_line(error: BaseException | str) -> str:
    """A message of several lines, as Hydra's are, as one."""
    return " ".join(str(error).split())


def _open_custom_groups(overrides: Sequence[str]) -> list[str]:
    """`space._target_=my.Space space.width=2` replaces the whole group: the default's settings are not the user's."""
    custom = {override.split("._target_=")[0] for override in overrides if "._target_=" in override}
    custom = {name for name in custom if (CONFIG_FOLDER / name / "custom.yaml").exists()}
    opened = [f"{name}=custom" for name in sorted(custom)]
    for override in overrides:
        group = override.split("=")[0].split(".")[0]
        opened.append(f"++{override}" if group in custom and "." in override.split("=")[0] else override)
    return opened


def _check_keys(name: str, overrides: Sequence[str]) -> None:
    """InputError for an override of a top-level key that does not exist, with the nearest that does."""
    allowed = _keys(name)
    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            raise InputError(f"{text.removeprefix('++')}: not an option of the form key=value") from None
        key = str(override.key_or_group).split(".")[0].split("@")[0]
        if override.is_delete() or key == "hydra":
            raise InputError(f"{text}: options can be set, not deleted, and Hydra's own are not for setting")
        named = isinstance(override.value(), str) or (key in _SETTINGS and override.value() is None)
        if override.key_or_group in _GROUPS and not named:
            raise InputError(f"{text}: it must name one {key} of {', '.join(_options(key))}")
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"unknown option {key!r}; {hint}allowed: {', '.join(allowed)}")


@functools.cache  # composing takes a tenth of a second
def _keys(name: str) -> tuple[str, ...]:
    """Top-level keys of the defaults `conf/NAME.yaml`."""
    return tuple(str(key) for key in compose(name))


def _unknown_option(error: MissingConfigException) -> str:
    missing, options = str(error.missing_cfg_file or ""), error.options
    group, _, option = missing.rpartition("/")
    if not options:
        return one_line(error)
    return f"{group}={option}: there is no such {group}; allowed: {', '.join(sorted(options))}"


def _unknown_setting(name: str, overrides: Sequence[str], error: Exception) -> str | None:
    """Of an override `controller.mood=3`: that there is no mood, and what there is; None of any other error."""
    found = re.match(r"Could not override '([\w.]+)'", str(error))
    if found is None or "." not in found[1]:
        return None
    above, _, unknown = found[1].rpartition(".")
    choices = [text for text in overrides if "." not in text.split("=")[0]]
    with_choices = OmegaConf.select(compose(name, overrides=choices), above)
    there = [str(key) for key in with_choices or ()] if OmegaConf.is_dict(with_choices) else []
    return f"{found[1]}: {above} has no {unknown}; it has {', '.join(there)}" if there else None


def _search_path(folder: Path) -> str:
    """The override that lets Hydra look for YAML files in the user's folder too."""
    if not folder.is_dir():
        raise InputError(f"--config-dir {folder}: no such folder")
    quoted = str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.searchpath=['file://{quoted}']"


def _as_text(override: str) -> str:
    """`name=1e3` names a run `1e3`; Hydra's grammar would make a number of it."""
    return re.sub(r"^name=(?!null$)([\w.-]+)$", r"name='\1'", override)


_SETTINGS = ("experiment",)  # groups whose YAML sets options anywhere, and constructs nothing
_GROUPS = sorted(folder.name for folder in CONFIG_FOLDER.iterdir() if any(folder.glob("*.yaml")))


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONFIG_FOLDER / group).glob("*.yaml"))


def _groups() -> str:
    """The choices of every group, for --help."""
    return "\n".join(["groups:", *(f"  {group}={'|'.join(_options(group))}" for group in _GROUPS)])


def _check_text(arguments: Sequence[str]) -> None:
    """InputError for bytes that are no UTF-8, which files and terminals would choke on later."""
    for text in arguments:
        if any("\ud800" <= character <= "\udfff" for character in text):
            shown = text.encode(errors="backslashreplace").decode()
            raise InputError(f"{shown}: not UTF-8 text; options, and the paths that they name, must be")


def _refuse(message: str) -> NoReturn:
    raise InputError(message)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
