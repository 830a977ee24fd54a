"""Parquet files of images, as dataset hubs publish them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phinas.files.errors import InputError, one_line
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.decode import check_format, decode_all
from phinas.training.data.loader import check_settings, existing
from phinas.training.data.validation_split import (
    SPLIT_WORDS,
    check_labels,
    check_same_size,
    check_several_classes,
    draw,
    hold_out,
)

_MOST_ROWS = 2**28  # of one file, whose labels are 2 GiB then


@dataclass(frozen=True)
class Parquet:
    """Images as dataset hubs publish them: a column of encoded bytes (or a struct with `bytes`), one of integer labels.

    path          a parquet file, or a folder of them. In a folder, files with the word "train" in their name are
                  trained on, "val" or "validation" is the held-out split, "test" the test split; where the file's name
                  says none of these, its folders' do; where no name says train, the unnamed ones are trained on.
    image_column  None: "img" or "image", whichever is there.
    resolution    pixels; None: the images' own size, which must be one. Otherwise shorter side resized, centre kept.
    flip          training may mirror the images; false for writing, traffic signs and the like.
    val_fraction  share of each class held out where there are no validation files.
    limit         use this many training images at most, drawn at random: of each class its share, and two or more.
    Class names come from the files' metadata where a hub wrote them. Raises InputError naming the file and row.
    """

    path: str
    image_column: str | None = None
    label_column: str = "label"
    resolution: int | None = None
    channels: int = 3
    flip: bool = True
    val_fraction: float = 0.2
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_format(self.channels, self.resolution)
        check_settings(self.val_fraction, self.seed, self.flip, self.limit)

    def dataset(self) -> Dataset:
        files, where = _parquet_files(self.path), str(self.path)
        if not files["train"]:
            raise InputError(
                f"{where}: no training files, only {', '.join(str(f) for f in files['val'] + files['test'])}"
            )
        read = self._reader()
        labels = read.labels(files["train"])
        classes = _class_names(files["train"][0], self.label_column) or _numbered_classes(labels, where)
        check_labels(labels, classes, where)
        rest = read(files["train"], labels, draw(labels, self.limit, self.seed, where))
        if not files["val"]:
            train, val = hold_out(rest, self.val_fraction, self.seed, classes, where)
            return Dataset(train, val, classes, self.flip)
        check_several_classes(rest.labels, where)
        val_labels = read.labels(files["val"])
        check_labels(val_labels, classes, str(files["val"][0]))
        val = read(files["val"], val_labels, np.arange(len(val_labels)))
        check_same_size(rest, val, where)
        return Dataset(rest, val, classes, self.flip, val_given=True)

    def test(self) -> Images | None:
        """The test files of the folder, if there are any."""
        files = _parquet_files(self.path)["test"]
        if not files:
            return None
        read = self._reader()
        labels = read.labels(files)
        return read(files, labels, np.arange(len(labels)))

    def streamed(self) -> None:
        """None: rows of a parquet file cannot be read in any order."""

    def _reader(self) -> _ParquetReader:
        return _ParquetReader(self.image_column, self.label_column, self.channels, self.resolution)


def _parquet_files(path: str) -> dict[str, list[Path]]:
    """Files by split, sorted. A single file is for training, whatever its name."""
    root = existing(path)
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
            raise InputError(f"{file}: cannot be read as parquet ({one_line(error)})") from None
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
            raise InputError(f"{file}: cannot be read as parquet ({one_line(error)})") from None

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
        raise InputError(f"{file}: cannot be read as parquet ({one_line(error)})") from None


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
