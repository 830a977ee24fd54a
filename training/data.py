"""Where the images come from: scikit-learn's digits, parquet files, or folders of image files.

Each loader returns what a search may see. The test split has a function of its own beside it, which a search never
calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnets.errors import InputError
from training.dataset import Dataset, Images, check_labels, check_several_classes, hold_out
from training.decode import check_format, decode_all

__all__ = ["Dataset", "Images", "digits", "digits_test", "imagefolder", "imagefolder_test", "parquet", "parquet_test"]

# ------------------------------------------------------------------------------------------------------------- digits


def digits(val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """The 1,797 handwritten digits of 8x8 grey pixels that come with scikit-learn: no file, no download.

    A tenth is the test split (`digits_test`), whatever the seed; `val_fraction` of the rest is held out for scoring.
    """
    rest, _ = _digits()
    train, val = hold_out(rest, val_fraction, seed, _DIGITS, "digits")
    return Dataset(train, val, _DIGITS)


def digits_test() -> Images:
    """The tenth of the digits that `digits` never returns."""
    return _digits()[1]


_DIGITS = tuple("0123456789")


def _digits() -> tuple[Images, Images]:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # half a second to import

    bunch = load_digits()
    ink = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 0-16 in the file
    return hold_out(Images(ink[..., None], bunch.target.astype(np.int64)), 0.1, 0, _DIGITS, "digits")


# ------------------------------------------------------------------------------------------------------------ parquet

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


def parquet(
    path: str,
    image_column: str | None = None,
    label_column: str = "label",
    resolution: int | None = None,
    channels: int = 3,
    flip: bool = True,
    val_fraction: float = 0.2,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Images as dataset hubs publish them: a column of encoded bytes (or a struct with `bytes`), one of integer labels.

    path          a parquet file, or a folder of them. In a folder, files whose name or folder begins with "train" are
                  trained on, "val" or "validation" is the held-out split, "test" is left alone; where no name says
                  train, all the others are trained on.
    image_column  None: "img" or "image", whichever is there.
    resolution    pixels; None: the images' own size, which must be one. Otherwise shorter side resized, centre kept.
    flip          training may mirror the images; false for writing, traffic signs and the like.
    val_fraction  share of each class held out where there are no validation files.
    limit         use this many training images at most, drawn at random.
    Class names come from the files' metadata where a hub wrote them. Raises InputError naming the file and row.
    """
    check_format(channels, resolution)
    files = _parquet_files(path)
    if not files["train"]:
        raise InputError(f"{path}: no training files, only {', '.join(str(f) for f in files['val'] + files['test'])}")
    read = _ParquetReader(image_column, label_column, channels, resolution)
    rest = read(files["train"], limit, seed)
    classes = _class_names(files["train"][0], label_column) or _numbered_classes(rest.labels, str(path))
    check_labels(rest.labels, classes, str(path))
    if not files["val"]:
        train, val = hold_out(rest, val_fraction, seed, classes, str(path))
        return Dataset(train, val, classes, flip)
    check_several_classes(rest, str(path))
    val = read(files["val"], None, seed)
    check_labels(val.labels, classes, str(files["val"][0]))
    _check_same_size(rest, val, str(path))
    return Dataset(rest, val, classes, flip)


def parquet_test(
    path: str,
    image_column: str | None = None,
    label_column: str = "label",
    resolution: int | None = None,
    channels: int = 3,
    **_: Any,
) -> Images:
    """The test files of a folder that `parquet` reads; takes the same settings, and ignores those of the split."""
    check_format(channels, resolution)
    files = _parquet_files(path)["test"]
    if not files:
        raise InputError(f"{path}: no test files; their name or folder must begin with test")
    return _ParquetReader(image_column, label_column, channels, resolution)(files, None, 0)


def _parquet_files(path: str) -> dict[str, list[Path]]:
    """Files by split, sorted. A single file is for training, whatever its name."""
    root = _existing(path)
    if root.is_file():
        return {"train": [root], "val": [], "test": []}
    files: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "": []}
    for file in sorted(root.rglob("*.parquet")):
        words = [part.replace("_", "-").replace(".", "-").split("-")[0] for part in file.relative_to(root).parts]
        files[next((_SPLITS[word] for word in words if word in _SPLITS), "")].append(file)
    if not any(files.values()):
        raise InputError(f"{path}: no .parquet files in this folder")
    unnamed = files.pop("")
    files["train"] = files["train"] or unnamed
    return files


class _ParquetReader:
    """Reads columns of parquet files row group by row group, so that the encoded images are never all in memory."""

    def __init__(self, image_column: str | None, label_column: str, channels: int, resolution: int | None) -> None:
        self.image_column = image_column
        self.label_column = label_column
        self.channels = channels
        self.resolution = resolution

    def __call__(self, files: list[Path], limit: int | None, seed: int) -> Images:
        counts = [_open_parquet(file).metadata.num_rows for file in files]
        total = sum(counts)
        if total == 0:
            raise InputError(f"{files[0]}: no rows")
        chosen = np.ones(total, dtype=bool)
        if limit is not None and limit < total:
            if limit < 1:
                raise InputError(f"limit must be 1 or more images, got {limit}")
            chosen[np.random.default_rng(seed).permutation(total)[limit:]] = False
        labels: list[int] = []

        def encoded() -> Iterator[tuple[bytes | Path, str]]:
            for file, here in zip(files, np.split(chosen, np.cumsum(counts)[:-1]), strict=True):
                for row, image, label in self._rows(file, here):
                    labels.append(label)
                    yield image, f"{file} row {row}"

        pixels = decode_all(encoded(), int(chosen.sum()), self.channels, self.resolution)
        return Images(pixels, np.array(labels, np.int64))

    def _rows(self, file: Path, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, bytes, int]]:
        """(row, encoded image, label) of the chosen rows."""
        import pyarrow as pa  # type: ignore[import-untyped]

        table = _open_parquet(file)
        image_column = self._columns(file, table.schema_arrow)
        row = 0
        try:
            for batch in table.iter_batches(batch_size=1024, columns=[image_column, self.label_column]):
                images, labels = batch.column(image_column), batch.column(self.label_column)
                if pa.types.is_struct(images.type):
                    images = images.field(images.type.get_field_index("bytes"))
                for image, label in zip(images, labels, strict=True):
                    if chosen[row]:
                        if not image.is_valid or not label.is_valid:
                            missing = "label" if image.is_valid else "image"
                            raise InputError(f"{file} row {row}: the {missing} is missing")
                        yield row, image.as_py(), label.as_py()
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: cannot be read as parquet ({_one_line(error)})") from None

    def _columns(self, file: Path, schema: Any) -> str:
        """The image column's name, once both columns are known to hold what they should."""
        import pyarrow as pa

        there = ", ".join(schema.names)
        wanted = [self.image_column] if self.image_column is not None else ["img", "image"]
        image_column = next((name for name in wanted if name in schema.names), None)
        if image_column is None:
            raise InputError(f"{file}: no image column {' or '.join(wanted)}; the columns are {there}")
        if self.label_column not in schema.names:
            raise InputError(f"{file}: no label column {self.label_column}; the columns are {there}")
        kind = schema.field(image_column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise InputError(f"{file}: column {image_column} holds {kind}; it must hold encoded images (bytes)")
        kind = schema.field(self.label_column).type
        if not pa.types.is_integer(kind):
            raise InputError(f"{file}: column {self.label_column} holds {kind}; labels must be integers")
        return image_column


def _open_parquet(file: Path) -> Any:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        return ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: cannot be read as parquet ({_one_line(error)})") from None


def _class_names(file: Path, label_column: str) -> tuple[str, ...] | None:
    """The names that a dataset hub wrote into the file's metadata."""
    metadata = _open_parquet(file).schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _numbered_classes(labels: NDArray[np.int64], where: str) -> tuple[str, ...]:
    """From 0 to the largest label, which cannot reasonably exceed the number of images."""
    if labels.max() >= len(labels):
        raise InputError(f"{where}: label {labels.max()} is out of range; for {len(labels)} images it is below that")
    return tuple(str(label) for label in range(labels.max() + 1))


# -------------------------------------------------------------------------------------------------------- imagefolder

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def imagefolder(
    path: str,
    resolution: int | None = None,
    channels: int = 3,
    flip: bool = True,
    val_fraction: float = 0.2,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """One folder per class, image files in them at any depth: path/CLASS/... or path/train/CLASS/...

    Where there is path/train, path/val (or path/validation) is the held-out split if it is there, and path/test is
    left alone; otherwise `val_fraction` of each class is held out. Other files than images are skipped.
    resolution, channels, flip, limit as in `parquet`. Raises InputError naming the file or folder.
    """
    check_format(channels, resolution)
    root = _existing_folder(path)
    train_folder = root / "train" if (root / "train").is_dir() else root
    classes = _class_folders(train_folder)
    rest = _read_folder(train_folder, classes, resolution, channels, limit, seed)
    val_folder = next((root / name for name in ("val", "validation", "valid") if (root / name).is_dir()), None)
    if train_folder == root or val_folder is None:
        train, val = hold_out(rest, val_fraction, seed, classes, str(train_folder))
        return Dataset(train, val, classes, flip)
    check_several_classes(rest, str(train_folder))
    val = _read_folder(val_folder, classes, resolution, channels, None, seed)
    _check_same_size(rest, val, str(root))
    return Dataset(rest, val, classes, flip)


def imagefolder_test(path: str, resolution: int | None = None, channels: int = 3, **_: Any) -> Images:
    """path/test, with the classes of path/train and the settings given to `imagefolder`."""
    check_format(channels, resolution)
    root = _existing_folder(path)
    for name in ("train", "test"):
        if not (root / name).is_dir():
            raise InputError(f"{path}: no folder {name} in it")
    return _read_folder(root / "test", _class_folders(root / "train"), resolution, channels, None, 0)


def _class_folders(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        raise InputError(f"{folder}: no class folders in it")
    return classes


def _read_folder(
    folder: Path, classes: tuple[str, ...], resolution: int | None, channels: int, limit: int | None, seed: int
) -> Images:
    for unknown in sorted(set(_class_folders(folder)) - set(classes)):
        raise InputError(f"{folder / unknown}: no such class in the training split ({', '.join(classes)})")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(f for f in (folder / name).rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
        if not found:
            raise InputError(f"{folder / name}: no images ({', '.join(_SUFFIXES)})")
        files += found
        labels += [label] * len(found)
    chosen = np.arange(len(files))
    if limit is not None and limit < len(files):
        if limit < 1:
            raise InputError(f"limit must be 1 or more images, got {limit}")
        chosen = np.sort(np.random.default_rng(seed).permutation(len(files))[:limit])
    sources = ((files[i], str(files[i])) for i in chosen)
    pixels = decode_all(sources, len(chosen), channels, resolution)
    return Images(pixels, np.array(labels, np.int64)[chosen])


# -------------------------------------------------------------------------------------------------------------- paths


def _existing(path: str) -> Path:
    root = Path(path).expanduser()
    if not root.exists():
        raise InputError(f"{path}: no such file or folder")
    return root


def _existing_folder(path: str) -> Path:
    root = _existing(path)
    if not root.is_dir():
        raise InputError(f"{path}: not a folder; it must hold one folder of images per class")
    return root


def _check_same_size(train: Images, val: Images, where: str) -> None:
    sizes = [f"{images.pixels.shape[2]} x {images.pixels.shape[1]}" for images in (train, val)]
    if sizes[0] != sizes[1]:
        raise InputError(f"{where}: training images are {sizes[0]}, validation {sizes[1]}; set resolution")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
