"""`Loader`: images of one kind in each form in which a command wants them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, ParamSpec, Protocol

from phinas.files.checks import check_flag, check_number, check_whole
from phinas.files.errors import InputError
from phinas.training.data.dataset import Dataset, Images

if TYPE_CHECKING:
    from phinas.training.data.training_data import TrainingData  # with torch, which a search may do without

Settings = ParamSpec("Settings")


class Splits(Protocol):
    """Images at one place, by settings that are checked. Each split is read when it is asked for.

    All raise InputError naming the file and what is wrong with it.
    """

    def dataset(self) -> Dataset:
        """The training images and those held out of them, in memory: what a search may see."""

    def test(self) -> Images | None:
        """The test split, in memory, which a search never asks for; None where there is none."""

    def streamed(self) -> TrainingData | None:
        """All splits, read from disk as a training goes on; None: they are to be read into memory."""


class Loader(Generic[Settings]):
    """What the `_target_` of data names. Called with its settings it gives the `Dataset` that a search may see.

    open  from the settings to the images in all forms.

    A function that returns a Dataset does as well; a training on what it gives has a test split where one is the
    function's own, of the same name with `_test` behind it, or where the Dataset has a validation split of its own.
    """

    def __init__(self, open: Callable[Settings, Splits]) -> None:
        self.open = open
        self.__doc__ = open.__doc__
        self.__signature__ = inspect.signature(open)

    def __call__(self, *arguments: Settings.args, **settings: Settings.kwargs) -> Dataset:
        return self.open(*arguments, **settings).dataset()


def check_settings(val_fraction: float, seed: int, flip: bool = False, limit: int | None = None) -> None:
    """InputError for settings that several loaders have."""
    check_number("data.val_fraction", val_fraction, above=0, below=1)
    check_whole("data.seed", seed, least=0)
    check_flag("data.flip", flip)
    if limit is not None:
        check_whole("data.limit", limit)


def existing(path: str) -> Path:
    """InputError where there is no such file or folder."""
    if not isinstance(path, (str, Path)):
        raise InputError(f"data.path={path}: it must be the name of a file or folder")
    root = Path(path).expanduser()
    if not root.exists():
        raise InputError(f"{path}: no such file or folder")
    return root


def existing_folder(path: str) -> Path:
    """InputError where there is no such folder."""
    root = existing(path)
    if not root.is_dir():
        raise InputError(f"{path}: not a folder; it must hold one folder of images per class")
    return root
