"""Where the images come from: scikit-learn's digits, parquet files, or folders of image files.

Each loader returns what a search may see. The test split has a function of its own beside it, which a search never
calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError
from phinas.training.data.dataset import (
    SPLIT_WORDS,
    Dataset,
    Images,
    Moments,
    check_labels,
    check_several_classes,
    draw,
    hold_out,
    split,
)
from phinas.training.data.decode import check_format, decode_all
from phinas.training.data.image_folder import Files, ImageFolder

if TYPE_CHECKING:
    from phinas.training.data.source import Source

__all__ = [
    "Dataset", "Images", "NoTestSplit", "digits", "digits_test", "imagefolder", "imagefolder_streamed",
    "imagefolder_test", "parquet", "parquet_test",
]  # fmt: skip


class NoTestSplit(InputError):
    """The source is there, and has no test images."""


# ------------------------------------------------------------------------------------------------------------- digits


def digits(val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """The 1,797 handwritten digits of 8x8 grey pixels that come with scikit-learn: no file, no download.

    A tenth is the test split (`digits_test`), whatever the seed; `val_fraction` of the rest is held out for scoring.
    """
    _check_split(val_fraction, seed)
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

_MOST_ROWS = 2**28  # of one file, whose labels are 2 GiB then


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

    path          a parquet file, or a folder of them. In a folder, files with the word "train" in their name are
                  trained on, "val" or "validation" is the held-out split, "test" is left alone; where the file's name
                  says none of these, its folders' do; where no name says train, the unnamed ones are trained on.
    image_column  None: "img" or "image", whichever is there.
    resolution    pixels; None: the images' own size, which must be one. Otherwise shorter side resized, centre kept.
    flip          training may mirror the images; false for writing, traffic signs and the like.
    val_fraction  share of each class held out where there are no validation files.
    limit         use this many training images at most, drawn at random: of each class its share, and two or more.
    Class names come from the files' metadata where a hub wrote them. Raises InputError naming the file and row.
    """
    check_format(channels, resolution)
    _check_split(val_fraction, seed, flip, limit)
    files = _parquet_files(path)
    if not files["train"]:
        raise InputError(f"{path}: no training files, only {', '.join(str(f) for f in files['val'] + files['test'])}")
    read = _ParquetReader(image_column, label_column, channels, resolution)
    labels = read.labels(files["train"])
    classes = _class_names(files["train"][0], label_column) or _numbered_classes(labels, str(path))
    check_labels(labels, classes, str(path))
    rest = read(files["train"], labels, draw(labels, limit, seed, str(path)))
    if not files["val"]:
        train, val = hold_out(rest, val_fraction, seed, classes, str(path))
        return Dataset(train, val, classes, flip)
    check_several_classes(rest.labels, str(path))
    val_labels = read.labels(files["val"])
    check_labels(val_labels, classes, str(files["val"][0]))
    val = read(files["val"], val_labels, np.arange(len(val_labels)))
    _check_same_size(rest, val, str(path))
    return Dataset(rest, val, classes, flip, val_given=True)


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
        raise NoTestSplit(f"{path}: no test files; their name or a folder's must hold the word test")
    read = _ParquetReader(image_column, label_column, channels, resolution)
    labels = read.labels(files)
    return read(files, labels, np.arange(len(labels)))


def _parquet_files(path: str) -> dict[str, list[Path]]:
    """Files by split, sorted. A single file is for training, whatever its name."""
    root = _existing(path)
    if root.is_file():
        return {"train": [root], "val": [], "test": []}
    files: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "": []}
    for file in sorted(root.rglob("*.parquet")):
        splits = (_split_of(part) for part in reversed(file.relative_to(root).parts))  # the file, then its folders
        files[next((split for split in splits if split), "")].append(file)
    if not any(files.values()):
        raise InputError(f"{path}: no .parquet files in this folder")
    unnamed = files.pop("")
    files["train"] = files["train"] or unnamed
    return files


def _split_of(name: str) -> str | None:
    """The split that a word of `name` says, numbers and case aside: val for "CIFAR_Val2017.parquet"."""
    words = re.split("[^a-z]+", name.lower())
    return next((split for word, split in reversed(SPLIT_WORDS.items()) if word in words), None)


class _ParquetReader:
    """Reads columns of parquet files row group by row group, so that the encoded images are never all in memory."""

    def __init__(self, image_column: str | None, label_column: str, channels: int, resolution: int | None) -> None:
        self.image_column = image_column
        self.label_column = label_column
        self.channels = channels
        self.resolution = resolution

    def labels(self, files: list[Path]) -> NDArray[np.int64]:
        """The label of every row of the files, one file behind the other."""
        labels = np.concatenate([self._labels(file) for file in files])
        if not len(labels):
            raise InputError(f"{files[0]}: no rows")
        return labels

    def __call__(self, files: list[Path], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Images:
        """The images of `rows`, ascending and counted over all files, whose labels are `labels`."""
        chosen = np.zeros(len(labels), dtype=bool)
        chosen[rows] = True
        ends = np.cumsum([_open_parquet(file).metadata.num_rows for file in files])

        def encoded() -> Iterator[tuple[bytes | Path, str]]:
            for file, here in zip(files, np.split(chosen, ends[:-1]), strict=True):
                for row, image in self._rows(file, here):
                    yield image, f"{file} row {row}"

        return Images(decode_all(encoded(), len(rows), self.channels, self.resolution), labels[rows])

    def _labels(self, file: Path) -> NDArray[np.int64]:
        import pyarrow as pa  # type: ignore[import-untyped]

        table = _open_parquet(file)
        self._columns(file, table.schema_arrow)
        rows = table.metadata.num_rows
        if rows > _MOST_ROWS:  # equal labels take no room in the file
            raise InputError(f"{file}: {rows:,} rows; a file may have {_MOST_ROWS:,}")
        try:
            column = table.read([self.label_column]).column(0).combine_chunks()
            if column.null_count:
                row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise InputError(f"{file} row {row}: the label is missing")
            labels: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: cannot be read as parquet ({_one_line(error)})") from None
        return labels

    def _rows(self, file: Path, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, bytes]]:
        """(row, encoded image) of the chosen rows."""
        import pyarrow as pa

        table = _open_parquet(file)
        image_column = self._columns(file, table.schema_arrow)
        row = 0
        try:
            for batch in table.iter_batches(batch_size=1024, columns=[image_column]):
                images = batch.column(0)
                if pa.types.is_struct(images.type):
                    images = images.field(images.type.get_field_index("bytes"))
                for image in images:
                    if chosen[row]:
                        if not image.is_valid:
                            raise InputError(f"{file} row {row}: the image is missing")
                        yield row, image.as_py()
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: cannot be read as parquet ({_one_line(error)})") from None

    def _columns(self, file: Path, schema: Any) -> str:
        """The image column's name, once both columns are known to hold what they should."""
        import pyarrow as pa

        there = ", ".join(schema.names)
        wanted = ["img", "image"] if self.image_column is None else [str(self.image_column)]
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
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _numbered_classes(labels: NDArray[np.int64], where: str) -> tuple[str, ...]:
    """From 0 to the largest label, which cannot reasonably exceed the number of images."""
    if labels.max() >= len(labels):
        raise InputError(f"{where}: label {labels.max()} is out of range; for {len(labels)} images it is below that")
    return tuple(str(label) for label in range(labels.max() + 1))


# -------------------------------------------------------------------------------------------------------- imagefolder


def imagefolder(
    path: str,
    resolution: int | None = None,
    channels: int = 3,
    flip: bool = True,
    val_fraction: float = 0.2,
    limit: int | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stream: bool | None = None,
    loaders: int | None = None,
) -> Dataset:
    """One folder per class, image files in them at any depth: path/CLASS/... or path/train/CLASS/...

    Where there is path/train, path/val (or path/validation) is the held-out split if it is there, and path/test is
    left alone; otherwise `val_fraction` of each class is held out, and no class may be named like a split. Other files
    than images are skipped.
    resolution, channels, flip, limit as in `parquet`.
    mean, std        of each channel from 0 to 255, to centre and scale by; None: the training images'.
    stream, loaders  of `imagefolder_streamed`; here all images are read into memory, and `stream` may not be true.
    Raises InputError naming the file or folder.
    """
    folder, given = _checked_folder(
        path, resolution, channels, flip, val_fraction, limit, seed, mean, std, stream, loaders
    )
    if stream:
        raise InputError("data.stream=true: this command holds all images in memory; leave it out")
    files, classes, where = folder.train(), folder.classes, str(folder.train_folder)
    rest = _read(files[draw(files.labels, limit, seed, where)], channels, resolution)
    val_files = folder.val()
    if val_files is None:
        train, val = hold_out(rest, val_fraction, seed, classes, where)
        return Dataset(train, val, classes, flip, moments=given)
    check_several_classes(rest.labels, where)
    val = _read(val_files, channels, resolution)
    _check_same_size(rest, val, str(folder.root))
    return Dataset(rest, val, classes, flip, val_given=True, moments=given)


def imagefolder_test(path: str, resolution: int | None = None, channels: int = 3, **_: Any) -> Images:
    """path/test, with the classes of path/train and the settings given to `imagefolder`."""
    check_format(channels, resolution)
    folder = ImageFolder(_existing_folder(path))
    for name in ("train", "test"):
        if not (folder.root / name).is_dir():
            raise NoTestSplit(f"{path}: no folder {name} in it")
    files = folder.test()
    assert files is not None
    return _read(files, channels, resolution)


def imagefolder_streamed(
    path: str,
    resolution: int | None = None,
    channels: int = 3,
    flip: bool = True,
    val_fraction: float = 0.2,
    limit: int | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stream: bool | None = None,
    loaders: int | None = None,
) -> Source | None:
    """What `imagefolder` and `imagefolder_test` read, from disk as a training goes on; None: it should be in memory.

    stream   None: where the images would take more than a quarter of the memory, or differ in size and no `resolution`
             makes them alike, as far as a sample of them tells.
    loaders  as `FolderSource` has it.
    Splits are as in `phinas.training.data.splits.with_test`. Raises InputError naming the file or folder.
    """
    from phinas.training.data.stream import (  # with torch, which a search may do without
        FolderSource,
        too_much_for_memory,
    )

    folder, given = _checked_folder(
        path, resolution, channels, flip, val_fraction, limit, seed, mean, std, stream, loaders
    )
    folder = ImageFolder(folder.root.absolute())  # processes may start in another place
    if stream is False:
        return None
    train, val, test = folder.train(), folder.val(), folder.test()
    train, where = train[draw(train.labels, limit, seed, str(folder.train_folder))], str(folder.train_folder)
    if stream is None and not too_much_for_memory([one for one in (train, val, test) if one], channels, resolution):
        return None
    if val is not None and test is not None:
        check_several_classes(train.labels, where)
    else:
        rest, held_out = split(train.labels, val_fraction, seed, folder.classes, where)
        train, val, test = train[rest], train[held_out], test or val
    return FolderSource(folder.classes, channels, flip, train, val, test, resolution, loaders, given)


def _checked_folder(
    path: str,
    resolution: int | None,
    channels: int,
    flip: bool,
    val_fraction: float,
    limit: int | None,
    seed: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    stream: bool | None,
    loaders: int | None,
) -> tuple[ImageFolder, Moments | None]:
    check_format(channels, resolution)
    _check_split(val_fraction, seed, flip, limit)
    if stream is not None and not isinstance(stream, bool):
        raise InputError(f"data.stream={stream}: it must be true, false or null")
    if loaders is not None:
        check_whole("data.loaders", loaders, least=0)
    if (mean is None) != (std is None):
        raise InputError(f"data.mean={mean} and data.std={std}: give both, or neither")
    given = None
    if mean is not None and std is not None:
        given = _per_channel("data.mean", mean, channels, 0.0), _per_channel("data.std", std, channels, 1.0)
    return ImageFolder(_existing_folder(path)), given


def _per_channel(name: str, values: Sequence[float], channels: int, least: float) -> NDArray[np.float32]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or len(values) != channels:
        raise InputError(f"{name}={values}: it must be {channels} numbers from 0 to 255 in brackets")
    return np.array([check_number(name, value, least=least, below=256) for value in values], np.float32)


def _read(files: Files, channels: int, resolution: int | None) -> Images:
    sources = ((Path(path), path) for path in files.paths)
    return Images(decode_all(sources, len(files), channels, resolution), files.labels)


# ------------------------------------------------------------------------------------------------- settings and paths


def _check_split(val_fraction: float, seed: int, flip: bool = False, limit: int | None = None) -> None:
    check_number("data.val_fraction", val_fraction, above=0, below=1)
    check_whole("data.seed", seed, least=0)
    if not isinstance(flip, bool):
        raise InputError(f"data.flip={flip}: it must be true or false")
    if limit is not None:
        check_whole("data.limit", limit)


def _existing(path: str) -> Path:
    if not isinstance(path, (str, Path)):
        raise InputError(f"data.path={path}: it must be the name of a file or folder")
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
