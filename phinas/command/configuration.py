"""How a command line becomes settings: Hydra's defaults and overrides, and one line where something is wrong."""

from __future__ import annotations

import argparse
import difflib
import functools
import importlib.util
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from phinas.command.groups import CONFIG_FOLDER, GROUPS, SETTINGS, options
from phinas.command.help import help_of
from phinas.files.errors import InputError, one_line
from phinas.files.moved import TARGETS
from phinas.files.yaml_file import read_yaml

logging.getLogger("hydra").setLevel(logging.CRITICAL)  # it would print errors that we report in one line

# Hydra's own groups, for starting jobs that we do not start by it: without them it reads half as many files.
_UNUSED = tuple(
    f"~hydra/{group}"
    for group in ("env", "help", "hydra_help", "hydra_logging", "job_logging", "launcher", "output", "sweeper")
)


def configuration(
    command: str, name: str, arguments: Sequence[str], open_ended: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of `conf/NAME.yaml` with the command line's overrides, and the choice made in each group.

    `arguments` are Hydra overrides, and `--config-dir FOLDER` for YAML files of the user's own. `open_ended` are keys
    under which names that the defaults do not know may be set: `targets.NAME=...` without Hydra's `+`.
    Raises InputError naming the option that is unknown, malformed or missing, with what is allowed.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.error = _refuse  # type: ignore[method-assign]
    _check_text(arguments)
    given = parser.parse_intermixed_args(arguments)
    if given.help:
        print(help_of(command, name, given.overrides, given.config_dir))
        sys.exit(0)
    overrides = _open_custom_groups([_as_text(override) for override in given.overrides])
    overrides = [f"++{text}" if text.startswith(tuple(f"{key}." for key in open_ended)) else text for text in overrides]
    composed = _composed if given.config_dir is None else _composed.__wrapped__  # the user's own files may change
    settings, choices = composed(name, tuple(overrides), given.config_dir)
    for group in set(GROUPS) - set(SETTINGS):
        if group in settings and not (isinstance(settings[group], dict) and "_target_" in settings[group]):
            raise InputError(f"{group}={choices.get(group)}: its YAML has no _target_")
    own = {group: str(settings[group]["_target_"]) for group, choice in choices.items() if choice == "custom"}
    return _today(settings), {**choices, **own}  # the user's own is known by its dotted path


@functools.lru_cache(maxsize=256)  # from Python the same command is called again and again, and it takes 0.2 s
def _composed(name: str, overrides: tuple[str, ...], folder: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What Hydra makes of the defaults and the overrides, and the choice in each group. Raises InputError."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        try:
            _check_keys(name, overrides)
            all_overrides = (*overrides, *_UNUSED) if folder is None else (*overrides, *_UNUSED, _search_path(folder))
            config = compose(name, overrides=list(all_overrides), return_hydra_config=True)
            choices = {group: str(choice) for group, choice in config.hydra.runtime.choices.items() if choice}
            with open_dict(config):
                del config["hydra"]
            missing = sorted(OmegaConf.missing_keys(config))
            if missing:
                raise InputError(f"{missing[0]} is missing; give {missing[0]}=...")
            settings: Any = OmegaConf.to_container(config, resolve=True)
        except MissingConfigException as error:
            raise InputError(_unknown_option(error)) from None
        except InputError:
            raise
        except UnicodeDecodeError as error:
            for file in sorted((folder or CONFIG_FOLDER).rglob("*.yaml")):
                read_yaml(file, lambda content: content)  # says which it is
            raise InputError(one_line(error)) from None
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            raise InputError(_unknown_setting(name, overrides, error) or one_line(error)) from None
    return settings, choices


def _today(settings: Any) -> Any:
    """The settings with our own earlier names by those of today, but for what can be imported: that is the user's."""
    if isinstance(settings, Mapping):
        return {key: _today(value) for key, value in settings.items()} | _target_today(settings)
    return [_today(value) for value in settings] if isinstance(settings, list) else settings


def _target_today(settings: Mapping[str, Any]) -> dict[str, Any]:
    target = settings.get("_target_")
    if target not in TARGETS:
        return {}
    try:
        theirs = importlib.util.find_spec(target.rpartition(".")[0]) is not None
    except ImportError:
        theirs = False
    return {} if theirs else {"_target_": TARGETS[target]}


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
        named = isinstance(override.value(), str) or (key in SETTINGS and override.value() is None)
        if override.key_or_group in GROUPS and not named:
            raise InputError(f"{text}: it must name one {key} of {', '.join(options(key))}")
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"unknown option {key!r}; {hint}allowed: {', '.join(allowed)}")


@functools.cache  # composing takes a tenth of a second
def _keys(name: str) -> tuple[str, ...]:
    """Top-level keys of the defaults `conf/NAME.yaml`."""
    return tuple(str(key) for key in compose(name, overrides=list(_UNUSED)))


def _unknown_option(error: MissingConfigException) -> str:
    missing, options = str(error.missing_cfg_file or ""), error.options
    group, _, option = missing.rpartition("/")
    if not options:
        return one_line(error)
    return f"{group}={option}: there is no such {group}; allowed: {', '.join(sorted(options))}"


def _unknown_setting(name: str, overrides: Sequence[str], error: Exception) -> str | None:
    """Of an override `controller.mood=3`: that there is no mood, and what there is; None of any other error."""
    match = re.match(r"Could not override '([\w.]+)'", str(error))
    if match is None or "." not in match[1]:
        return None
    above, _, unknown = match[1].rpartition(".")
    choices = [text for text in overrides if "." not in text.split("=")[0]]
    with_choices = OmegaConf.select(compose(name, overrides=choices), above)
    there = [str(key) for key in with_choices or ()] if OmegaConf.is_dict(with_choices) else []
    return f"{match[1]}: {above} has no {unknown}; it has {', '.join(there)}" if there else None


def _search_path(folder: Path) -> str:
    """The override that lets Hydra look for YAML files in the user's folder too."""
    if not folder.is_dir():
        raise InputError(f"--config-dir {folder}: no such folder")
    quoted = str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.searchpath=['file://{quoted}']"


def _as_text(override: str) -> str:
    """`name=1e3` names a run `1e3`; Hydra's grammar would make a number of it."""
    return re.sub(r"^name=(?!null$)([\w.-]+)$", r"name='\1'", override)


def _check_text(arguments: Sequence[str]) -> None:
    """InputError for bytes that are no UTF-8, which files and terminals would choke on later."""
    for text in arguments:
        if any("\ud800" <= character <= "\udfff" for character in text):
            shown = text.encode(errors="backslashreplace").decode()
            raise InputError(f"{shown}: not UTF-8 text; options, and the paths that they name, must be")


def _refuse(message: str) -> NoReturn:
    raise InputError(message)
