"""Which image files a folder holds, of which split and class; no image is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phinas.files.errors import InputError
from phinas.training.data.validation_split import SPLIT_WORDS

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True, eq=False)
class Files:
    """Image files, class by class and sorted by their paths in each.

    folder  what they are all in, at any depth.
    names   their paths in it.
    labels  int64 [n], each an index into the classes.
    """

    folder: str
    names: Sequence[str]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: NDArray[np.int64]) -> Files:
        return Files(self.folder, [self.names[i] for i in index], self.labels[index])

    def __add__(self, other: Files) -> Files:
        """These, and behind them others of the same folder."""
        return Files(self.folder, [*self.names, *other.names], np.concatenate([self.labels, other.labels]))

    def path(self, index: int) -> str:
        return f"{self.folder}{os.sep}{self.names[index]}"

    @property
    def paths(self) -> Iterator[str]:
        return (self.path(index) for index in range(len(self)))


@dataclass(frozen=True)
class ClassFolders:
    """One folder per class, with image files in them at any depth: root/CLASS/..., or root/train/CLASS/...

    Beside root/train, root/val (or validation, or valid) and root/test are splits, of the same classes. Other files
    than images are skipped. Raises InputError, naming the folder, where there is no class, a class has no images, or a
    split has other classes than the training images.
    """

    root: Path

    @property
    def train_folder(self) -> Path:
        return self.root / "train" if (self.root / "train").is_dir() else self.root

    @property
    def classes(self) -> tuple[str, ...]:
        """Sorted. A class may not be named like a split where there is no root/train."""
        classes = _class_folders(self.train_folder)
        for name in classes if self.train_folder == self.root else ():
            if name.lower() in SPLIT_WORDS:
                raise InputError(
                    f"{self.root / name}: a split, and no class; name the folder of the training images train"
                )
        return classes

    def train(self) -> Files:
        return self._files(self.train_folder)

    def val(self) -> Files | None:
        return self._split("val", "validation", "valid")

    def test(self) -> Files | None:
        return self._split("test")

    def _split(self, *names: str) -> Files | None:
        if self.train_folder == self.root:
            return None
        return next((self._files(self.root / name) for name in names if (self.root / name).is_dir()), None)

    def _files(self, folder: Path) -> Files:
        classes = self.classes
        for unknown in sorted(set(_class_folders(folder)) - set(classes)):
            raise InputError(f"{folder / unknown}: no such class in the training split ({', '.join(classes)})")
        names: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            relative = str((folder / name).relative_to(self.root))
            files = sorted(_images(folder / name, relative), key=lambda path: path.split(os.sep))
            if not files:
                raise InputError(f"{folder / name}: no images ({', '.join(SUFFIXES)})")
            names += files
            labels += [label] * len(files)
        return Files(str(self.root), names, np.array(labels, np.int64))


def files_hash(splits: Sequence[Files], reading: str) -> str:
    """Sixteen hex digits of the files' paths in their folders and of their labels: which images these are.

    Nothing of what is in them, so that a run goes on when a file that could not be read has been mended.
    reading  how they are read, in words.
    """
    digest = hashlib.sha256(reading.encode())
    for files in splits:
        digest.update("\0".join(files.names).encode(errors="surrogateescape"))
        digest.update(files.labels.tobytes())
    return digest.hexdigest()[:16]


def _class_folders(folder: Path) -> tuple[str, ...]:
    try:
        classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    if not classes:
        raise InputError(f"{folder}: no class folders in it")
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode(errors="backslashreplace").decode()
            raise InputError(f"{folder}/{shown}: the name of a class must be UTF-8 text") from None
    return classes


def _images(folder: Path, name: str) -> Iterator[str]:
    """Paths of the images below the folder, whose own path is `name`; links to folders in it are left alone."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{name}{os.sep}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from _images(folder / entry.name, path)
                elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    yield path
    except FileNotFoundError:
        return  # a class that a split does not have
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
