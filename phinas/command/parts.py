"""Parts: the objects that the groups of a configuration describe, each by the `_target_` that makes it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf.errors import OmegaConfBaseException

from phinas.command.groups import CONFIG_FOLDER, options
from phinas.files.errors import InputError, one_line
from phinas.files.moved import moved_hint
from phinas.files.yaml_file import safe_yaml

OBJECT = "_object_"  # in the settings of a group: what is known of an object that Python handed over


def construct(config: Mapping[str, Any], name: str, **arguments: Any) -> Any:
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
        raise InputError(f"{name}: {one_line(error)}{_moved(error)}") from None
    except InstantiationException as error:
        cause: BaseException | None = error
        while isinstance(cause, InstantiationException):  # once more for each level of nesting
            cause = cause.__cause__
        if cause is None or isinstance(cause, (ValueError, ImportError)):
            said = f"{one_line(cause or error)}{_moved(cause or error)}"
            raise InputError(said if said.startswith(f"{name}.") else f"{name}: {said}") from None
        if isinstance(cause, TypeError) and "argument" in str(cause):  # a setting that the target does not take
            raise InputError(f"{name}: {one_line(cause)}") from None
        raise cause from None


def check_inert(settings: Mapping[str, Any], path: Path, trust: Any) -> None:
    """InputError where settings of groups, which were read from a file, would run code that nobody chose to run.

    A file may come from anywhere. What its `_target_` names is run where `conf/` has it for one of these groups, or the
    user named it in `trust`, one dotted path or several. Interpolations, which could make another of it, are refused.
    """
    for group, part in settings.items():
        if isinstance(part, Mapping) and OBJECT in part:
            raise InputError(f"{path}: {group} was an object that Python handed over; call phinas.search(...) again")
    trusted = trust if isinstance(trust, (list, tuple)) else [trust]
    files = [file for group in settings for file in (CONFIG_FOLDER / group).glob("*.yaml")]
    ours = {target for file in files for target in _targets_in(file)}
    for name, value in _leaves(settings):
        if isinstance(value, str) and "${" in value:
            raise InputError(f"{path}: {name} is to be computed; what a run writes are values")
        if name.endswith("_target_") and value not in ours and value not in trusted:
            raise InputError(
                f"{path}: {name}={value} is code that is not ours; if you know it, let the file run it by trust={value}"
            )


def _targets_in(file: Path) -> list[Any]:
    targets = [value for name, value in _leaves(safe_yaml(file.read_text())) if name.endswith("_target_")]
    return [value for value in targets if value != "???"]


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
    targets = {}
    for name in options(group):
        target = safe_yaml((CONFIG_FOLDER / group / f"{name}.yaml").read_text()).get("_target_")
        if target in (None, "???"):  # the user's own
            continue
        try:
            targets[name] = get_object(str(target))
        except (ImportError, ValueError):  # an extra that is not installed
            continue
    return targets


def _moved(error: BaseException) -> str:
    """What to say more where a plug-in imports modules of ours by the names that they had in earlier releases."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError) and cause.name is not None and (said := moved_hint(cause.name)):
            return f"; {said}"
        cause = cause.__cause__ or cause.__context__
    return ""
