"""A folder with one folder of image files per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError
from phinas.training.data.dataset import Dataset, Images, Moments
from phinas.training.data.decode import check_format, decode_all
from phinas.training.data.image_files import ClassFolders, Files
from phinas.training.data.loader import check_settings, existing_folder
from phinas.training.data.validation_split import check_same_size, check_several_classes, draw, hold_out, split

if TYPE_CHECKING:
    from phinas.training.data.streamed import StreamedData


@dataclass(frozen=True)
class ImageFolder:
    """One folder per class, image files in them at any depth: path/CLASS/... or path/train/CLASS/...

    Where there is path/train, path/val (or path/validation) is the held-out split and path/test the test split, if they
    are there; otherwise `val_fraction` of each class is held out, and no class may be named like a split. Other files
    than images are skipped.
    resolution, channels, flip, limit as in `Parquet`.
    mean, std  of each channel from 0 to 255, to centre and scale by; None: the training images'.
    stream     read from disk as a training goes on; None: where the images would take more than a quarter of the
               memory, or differ in size and no `resolution` makes them alike, as far as a sample of them tells.
    loaders    processes that read them then, as `StreamedData` has it.
    Raises InputError naming the file or folder.
    """

    path: str
    resolution: int | None = None
    channels: int = 3
    flip: bool = True
    val_fraction: float = 0.2
    limit: int | None = None
    seed: int = 0
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    stream: bool | None = None
    loaders: int | None = None

    def __post_init__(self) -> None:
        check_format(self.channels, self.resolution)
        check_settings(self.val_fraction, self.seed, self.flip, self.limit)
        if self.stream is not None and not isinstance(self.stream, bool):
            raise InputError(f"data.stream={self.stream}: it must be true, false or null")
        if self.loaders is not None:
            check_whole("data.loaders", self.loaders, least=0)
        if (self.mean is None) != (self.std is None):
            raise InputError(f"data.mean={self.mean} and data.std={self.std}: give both, or neither")
        self._moments()  # says what is wrong with them
        self._folder()

    def dataset(self) -> Dataset:
        """All images in memory; `stream` may not be true."""
        if self.stream:
            raise InputError("data.stream=true: this command holds all images in memory; leave it out")
        folder = self._folder()
        where = str(folder.train_folder)
        rest, val_files = self._read(self._drawn(folder)), folder.val()
        if val_files is None:
            train, val = hold_out(rest, self.val_fraction, self.seed, folder.classes, where)
        else:
            check_several_classes(rest.labels, where)
            train, val = rest, self._read(val_files)
            check_same_size(train, val, str(folder.root))
        return Dataset(train, val, folder.classes, self.flip, val_files is not None, self._moments())

    def test(self) -> Images | None:
        """Those in path/test, with the classes of path/train, if there are any."""
        files = self._folder().test()
        return None if files is None else self._read(files)

    def streamed(self) -> StreamedData | None:
        """All splits, read from disk as a training goes on; None: they should be in memory.

        Splits are as in `load_for_training.with_test`.
        """
        from phinas.training.data.streamed import (  # with torch, which a search may do without
            StreamedData,
            too_much_for_memory,
        )

        if self.stream is False:
            return None
        folder = ClassFolders(self._folder().root.absolute())  # processes may start in another place
        where = str(folder.train_folder)
        train, val, test = self._drawn(folder), folder.val(), folder.test()
        splits = [files for files in (train, val, test) if files]
        if self.stream is None and not too_much_for_memory(splits, self.channels, self.resolution):
            return None
        if val is not None and test is not None:
            check_several_classes(train.labels, where)
        else:
            rest, held_out = split(train.labels, self.val_fraction, self.seed, folder.classes, where)
            train, val, test = train[rest], train[held_out], test or val
        return StreamedData(
            folder.classes, self.channels, self.flip, train, val, test, self.resolution, self.loaders, self._moments()
        )

    def _folder(self) -> ClassFolders:
        return ClassFolders(existing_folder(self.path))

    def _moments(self) -> Moments | None:
        """Mean and standard deviation, where they are given."""
        if self.mean is None or self.std is None:
            return None
        return self._per_channel("data.mean", self.mean, 0.0), self._per_channel("data.std", self.std, 1.0)

    def _per_channel(self, name: str, values: Sequence[float], least: float) -> NDArray[np.float32]:
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or len(values) != self.channels:
            raise InputError(f"{name}={values}: it must be {self.channels} numbers from 0 to 255 in brackets")
        return np.array([check_number(name, value, least=least, below=256) for value in values], np.float32)

    def _drawn(self, folder: ClassFolders) -> Files:
        """The training files, as many as `limit` says; some of them may be held out."""
        files = folder.train()
        return files[draw(files.labels, self.limit, self.seed, str(folder.train_folder))]

    def _read(self, files: Files) -> Images:
        sources = ((Path(path), path) for path in files.paths)
        return Images(decode_all(sources, len(files), self.channels, self.resolution), files.labels)
