"""From the settings of `data` to what a training learns from, is chosen by, and is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from inspect import Parameter, signature
from typing import Any

from phinas.command.parts import construct
from phinas.files.dotted_path import located
from phinas.files.errors import InputError
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.in_memory import InMemoryData
from phinas.training.data.loader import Loader
from phinas.training.data.training_data import TrainingData
from phinas.training.data.validation_split import hold_out


def takes(target: str, name: str) -> bool:
    """Whether the loader at the dotted path `target` has a setting `name`; InputError if there is no loader."""
    return name in signature(located(target)).parameters


def load_for_training(name: str, settings: Mapping[str, Any], fraction: float) -> TrainingData:
    """What is trained on, held out and tested on.

    settings  the loader's, with its `_target_`; messages call them `name`.
    fraction  of the training images is held out where nothing else is, as in `with_test`.

    Where the images are not streamed, those of the test split are read into memory at once too, so that a fault in it
    shows before days of training, though it is looked at once, at the end.
    """
    target = str(settings["_target_"])
    loader = located(target)
    if isinstance(loader, Loader):
        splits = construct({name: {**settings, "_target_": f"{target}.open"}}, name)
        streamed: TrainingData | None = splits.streamed()
        if streamed is not None:
            return streamed
        data, test = splits.dataset(), splits.test()
    else:
        data, test = construct({name: settings}, name), _test_beside(target, settings)
    return InMemoryData(*with_test(data, test, fraction, int(settings.get("seed", 0))))


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


def _test_beside(target: str, settings: Mapping[str, Any]) -> Images | None:
    """What `..._test` gives of the settings that it takes, where a function of the user's own has one beside it."""
    try:
        read = located(f"{target}_test")
    except InputError:
        return None
    parameters = signature(read).parameters
    takes_all = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    options = {name: value for name, value in settings.items() if name != "_target_"}
    images: Images | None = read(**{name: value for name, value in options.items() if takes_all or name in parameters})
    return images
