"""What is trained on, what is held out of it, and what is the test."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import Parameter, signature
from typing import Any

from phinas.files.errors import InputError
from phinas.training.data.dataset import Dataset, Images, hold_out
from phinas.training.data.images import NoTestSplit
from phinas.training.data.source import MemorySource, Source


def takes(target: str, name: str) -> bool:
    """Whether the function at the dotted path `target` has a parameter `name`; InputError if there is no function."""
    return name in _parameters(_found(target))


def source(target: str, settings: Mapping[str, Any], fraction: float, load: Callable[[], Dataset]) -> Source:
    """What is trained on, held out and tested on, of the data whose loader is at the dotted path `target`.

    settings  the loader's.
    fraction  of the training images is held out where nothing else is, as in `with_test`.
    load      calls the loader with its settings.

    Where there is a function `..._streamed` beside the loader, as in `images.py`, it is called with the settings first:
    what it returns is the source, unless that is None. Otherwise all images are read into memory; those of the test
    split too, so that a fault in it shows before days of training, though it is looked at once, at the end.
    """
    if (streamed := _beside(target, "_streamed")) is not None:
        found: Source | None = streamed(**settings)
        if found is not None:
            return found
    data = load()
    return MemorySource(*with_test(data, test_split(target, settings), fraction, int(settings.get("seed", 0))))


def test_split(target: str, settings: Mapping[str, Any]) -> Images | None:
    """The test images that go with the loader at the dotted path `target`, read with the loader's `settings`.

    They are what the function `..._test` beside it returns, as in `images.py`; None where there is none, or its source
    has no test split. Raises InputError as it does.
    """
    read = _beside(target, "_test")
    if read is None:
        return None
    parameters = _parameters(read)
    open_ended = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())
    try:
        images: Images = read(**{name: value for name, value in settings.items() if open_ended or name in parameters})
    except NoTestSplit:
        return None
    return images


def with_test(data: Dataset, test: Images | None, fraction: float, seed: int) -> tuple[Dataset, Images | None]:
    """The data, and the test split if there is one.

    Where there is none, but a validation split of the source's own, that becomes the test, and `fraction` of the
    training images is held out in its place: what a run is chosen and stopped by is never what it is reported by.
    Raises InputError where the test's images are of another size.
    """
    if test is None and data.val_given:
        train, held_out = hold_out(data.train, fraction, seed, data.classes, "the training images")
        return replace(data, train=train, val=held_out, val_given=False), data.val
    if test is not None and test.pixels.shape[1:] != data.train.pixels.shape[1:]:
        sizes = [f"{pixels.shape[2]} x {pixels.shape[1]}" for pixels in (data.train.pixels, test.pixels)]
        raise InputError(f"training images are {sizes[0]} pixels, those of the test {sizes[1]}; set data.resolution")
    return data, test


def _beside(target: str, suffix: str) -> Any | None:
    """What is named like the function at the dotted path `target`, with `suffix`."""
    try:
        return _found(f"{target}{suffix}")
    except InputError:
        return None


def _found(target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{target}: cannot be found ({error})") from None


def _parameters(function: Any) -> Mapping[str, Parameter]:
    return signature(function).parameters
