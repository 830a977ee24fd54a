"""Datasets: deterministic stratified splits, round trips of files, and one-line errors that name the culprit."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from phinas.files.errors import InputError
from phinas.training.data.decode import MAX_PIXELS, decode
from phinas.training.data.images import (
    Dataset,
    Images,
    digits,
    imagefolder,
    parquet,
)
from tests.conftest import ROOT

CIFAR = ROOT.parent / "shared" / "data" / "cifar10"


def picture(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", format: str = "PNG") -> bytes:
    """An encoded image whose pixels are all `value`."""
    colour: Any = value if mode in ("L", "P", "I;16") else (value,) * len(mode)
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, format)
    return stream.getvalue()


def write_parquet(path: Path, images: list[Any], labels: Any, metadata: dict[str, str] | None = None) -> Path:
    """As dataset hubs do: a struct of bytes and path, and the label."""
    column = [None if image is None else {"bytes": image, "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(column, kind), "label": labels})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def two_classes(path: Path) -> Path:
    """A file with two images of each of two classes."""
    return write_parquet(path, [picture(0)] * 4, [0, 1] * 2)


def write_folder(root: Path, counts: dict[str, int], value: int = 100) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(picture(value + i))
    return root


def rows(images: Images) -> list[bytes]:
    return [image.tobytes() for image in images.pixels]


# ------------------------------------------------------------------------------------------------------------- splits


def test_digits_splits_are_disjoint_stratified_and_complete() -> None:
    test = digits.open().test()
    for seed in (0, 1):  # the 1,797 digits are distinct images, so equal bytes would mean one image in two splits
        data = digits(seed=seed)
        assert len({*rows(data.train), *rows(data.val), *rows(test)}) == 1797
    data = digits(val_fraction=0.2)
    assert (len(data.train), len(data.val), len(test)) == (1294, 324, 179)
    assert data.train.pixels.shape[1:] == (8, 8, 1) and data.train.pixels.max() == 255
    shares = np.bincount(data.val.labels) / np.bincount(np.concatenate([data.train.labels, data.val.labels]))
    np.testing.assert_allclose(shares, 0.2, atol=0.005)
    assert not data.flip


def test_splits_depend_on_the_seed_alone() -> None:
    first, again, other = digits(seed=0), digits(seed=0), digits(seed=1)
    assert rows(first.val) == rows(again.val) and rows(first.train) == rows(again.train)
    assert rows(first.val) != rows(other.val)


def test_statistics_come_from_the_training_images() -> None:
    random = np.random.default_rng(0)
    images = [Images(random.integers(0, 256, (9, 4, 5, 3), np.uint8), np.arange(9) % 2) for _ in range(2)]
    data = Dataset(images[0], images[1], ("a", "b"))
    np.testing.assert_allclose(data.mean, images[0].pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, images[0].pixels.std((0, 1, 2)), rtol=1e-6)
    black = Images(np.zeros((2, 4, 4, 1), np.uint8), np.arange(2))
    assert Dataset(black, black, ("a", "b")).std.tolist() == [1.0]  # nothing to divide by
    assert pickle.loads(pickle.dumps(data)).mean.tolist() == data.mean.tolist()


OF_EVERY_LOADER = [
    {"val_fraction": 0.0}, {"val_fraction": 1.0}, {"val_fraction": -0.5}, {"val_fraction": float("nan")},
    {"val_fraction": "x"}, {"val_fraction": True}, {"seed": "x"}, {"seed": -1}, {"seed": 0.5},
]  # fmt: skip
OF_FILES = [
    {"path": 5}, {"resolution": "x"}, {"resolution": 16.0}, {"resolution": 0}, {"resolution": 5000},
    {"channels": [3]}, {"channels": 2}, {"channels": True}, {"flip": "no"},
    {"limit": "x"}, {"limit": 2.5}, {"limit": 0},
]  # fmt: skip


@pytest.mark.parametrize(
    ("load", "setting"),
    [(digits, setting) for setting in OF_EVERY_LOADER]
    + [(load, setting) for load in (parquet, imagefolder) for setting in OF_EVERY_LOADER + OF_FILES],
)
def test_a_bad_setting_is_named(tmp_path: Path, load: Callable[..., Dataset], setting: dict[str, Any]) -> None:
    """Nothing else is: the images are sound, and read by their defaults."""
    two_classes(tmp_path / "train.parquet")
    write_folder(tmp_path, {"ant": 2, "bee": 2})
    settings: dict[str, Any] = {} if load is digits else {"path": str(tmp_path)}
    load(**settings)
    name, value = next(iter(setting.items()))
    with pytest.raises(InputError) as error:
        load(**{**settings, **setting})
    assert str(error.value).startswith(f"data.{name}={value}: it must be ") and "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------ parquet


def test_parquet_round_trip_with_class_names(tmp_path: Path) -> None:
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    images = [picture(i) for i in range(20)]
    write_parquet(tmp_path / "train.parquet", images, [i % 2 for i in range(20)], {"huggingface": json.dumps(names)})
    data = parquet(str(tmp_path), val_fraction=0.3)
    assert data.classes == ("cat", "dog") and data.flip
    assert (len(data.train), len(data.val)) == (14, 6)
    for images_ in (data.train, data.val):  # each picture is one value, and its label that value's parity
        assert (images_.pixels == images_.pixels[:, :1, :1, :1]).all()
        assert (images_.pixels[:, 0, 0, 0] % 2 == images_.labels).all()
    assert sorted([*data.train.pixels[:, 0, 0, 0], *data.val.pixels[:, 0, 0, 0]]) == list(range(20))


def test_parquet_folders_keep_the_published_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", [picture(1), picture(2)], [0, 1])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [picture(3), picture(4)], [0, 1])
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", [picture(5)], [1])
    # Were a search to load the test split, it would stumble over this file.
    (tmp_path / "data" / "test-00000-of-00001.parquet").write_bytes(b"not parquet")
    data = parquet(str(tmp_path))
    assert data.train.pixels[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert data.val.pixels[:, 0, 0, 0].tolist() == [5]
    with pytest.raises(InputError, match="test-00000.*cannot be read as parquet"):
        parquet.open(str(tmp_path)).test()
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [picture(9)], [0])
    assert parquet.open(str(tmp_path), val_fraction=0.5).test().pixels[:, 0, 0, 0].tolist() == [9]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("cifar10_train.parquet", "cifar10_test.parquet"),
        ("default/partial-train/0000.parquet", "default/partial-test/0000.parquet"),
        ("Train-0.parquet", "Test-0.parquet"),
        ("train2017.parquet", "val2017.parquet"),
        ("test-of-time/train.parquet", "test-of-time/test.parquet"),  # the file's name before its folder's
        ("training/0.parquet", "testing/0.parquet"),
    ],
)
def test_files_of_other_splits_are_not_trained_on(tmp_path: Path, train: str, test: str) -> None:
    write_parquet(tmp_path / train, [picture(1)] * 4, [0, 1] * 2)
    write_parquet(tmp_path / test, [picture(9)] * 4, [0, 1] * 2)
    assert parquet(str(tmp_path)).train.pixels.max() == 1
    if "val" not in test:
        assert parquet.open(str(tmp_path)).test().pixels.min() == 9


def test_a_limit_keeps_valid_data_valid(tmp_path: Path) -> None:
    labels = [0] * 40 + [1] * 20 + [7] * 2  # 8 classes by number, of which some have no image
    file = write_parquet(tmp_path / "train.parquet", [picture(0)] * 62, labels)
    for seed in range(5):
        data = parquet(str(file), limit=6, seed=seed)
        counts = np.bincount(np.concatenate([data.train.labels, data.val.labels]))
        assert counts[[0, 1, 7]].tolist() == [2, 2, 2] and len(data.classes) == 8
    data = parquet(str(file), limit=31)
    counts = np.bincount(np.concatenate([data.train.labels, data.val.labels]))
    assert counts.sum() == 31 and counts[7] == 2 and abs(counts[0] - 2 * counts[1]) <= 2
    with pytest.raises(InputError, match="data.limit=5: two images of each class in .* are 6"):
        parquet(str(file), limit=5)
    folder = write_folder(tmp_path / "folder", {"ant": 20, "bee": 2})
    for seed in range(5):
        data = imagefolder(str(folder), limit=4, seed=seed)
        assert sorted([*data.train.labels, *data.val.labels]) == [0, 0, 1, 1]
    with pytest.raises(InputError, match="data.limit=3: two images"):
        imagefolder(str(folder), limit=3)


def test_a_limit_draws_the_same_images_again(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "0000.parquet", [picture(i) for i in range(40)], [i % 2 for i in range(40)])
    first, again = (parquet(str(file), limit=10, val_fraction=0.5) for _ in range(2))
    assert len(first.train) + len(first.val) == 10
    assert rows(first.train) == rows(again.train)


@pytest.mark.parametrize(
    ("write", "settings", "message"),
    [
        (lambda f: None, {}, "no such file or folder"),
        (lambda f: f.mkdir(), {}, "no .parquet files"),
        (lambda f: f.write_bytes(b"PAR1 but not really"), {}, "cannot be read as parquet"),
        (lambda f: two_classes(f), {"image_column": "x"}, "columns are image, label"),
        (lambda f: two_classes(f), {"label_column": "y"}, "columns are image, label"),
        (lambda f: two_classes(f), {"image_column": "label"}, "encoded images"),
        (lambda f: write_parquet(f, [picture(0)] * 4, ["a", "b"] * 2), {}, "labels must be integers"),
        (lambda f: write_parquet(f, [picture(0)] * 4, [0.0, 1.5] * 2), {}, "labels must be integers"),
        (lambda f: write_parquet(f, [picture(0)] * 4, [1, 1, 1, 1]), {}, "one class"),
        (lambda f: write_parquet(f, [picture(0)] * 4, [0, -1, 0, -1]), {}, "label -1 is out of range"),
        (lambda f: write_parquet(f, [picture(0)] * 4, [0, 10**12] * 2), {}, "label 1000000000000 is out of range"),
        (lambda f: write_parquet(f, [picture(0)] * 3, [0, 0, 1]), {}, "class '1' has one image"),
        (lambda f: write_parquet(f, [], pa.array([], pa.int64())), {}, "no rows"),
        (lambda f: write_parquet(f, [picture(0), b"GIF89a", *[picture(0)] * 2], [0, 1] * 2), {}, "row 1: not a read"),
        (lambda f: write_parquet(f, [picture(0), None, *[picture(0)] * 2], [0, 1] * 2), {}, "row 1: the image is miss"),
        (lambda f: write_parquet(f, [picture(0)] * 4, [0, 1, None, 1]), {}, "row 2: the label is missing"),
        (lambda f: write_parquet(f, [picture(0), picture(0, (9, 8))] * 2, [0, 1] * 2), {}, "9 x 8.*set resolution"),
    ],
)
def test_parquet_errors_are_one_line(
    tmp_path: Path, write: Callable[[Path], Any], settings: dict[str, Any], message: str
) -> None:
    file = tmp_path / "train.parquet"
    write(file)
    with pytest.raises(InputError, match=message) as error:
        parquet(str(file), **settings)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.skipif(not CIFAR.exists(), reason=f"no CIFAR-10 at {CIFAR}")
def test_parquet_reads_cifar_10_as_published() -> None:
    data = parquet(str(CIFAR), limit=500)
    assert data.classes[3] == "cat" and len(data.classes) == 10
    assert len(data.train) + len(data.val) == 500 and abs(len(data.train) - 400) <= 5  # each class is rounded
    assert data.train.pixels.shape[1:] == (32, 32, 3)
    assert 100 < data.train.pixels.mean() < 140  # about 121 for all of CIFAR-10


# -------------------------------------------------------------------------------------------------------- imagefolder


def test_imagefolder_without_splits_holds_some_out(tmp_path: Path) -> None:
    write_folder(tmp_path, {"ant": 10, "bee": 20})
    (tmp_path / "ant" / "notes.txt").write_text("skipped")
    (tmp_path / ".cache").mkdir()
    data = imagefolder(str(tmp_path), val_fraction=0.2)
    assert data.classes == ("ant", "bee")
    assert np.bincount(data.train.labels).tolist() == [8, 16] and np.bincount(data.val.labels).tolist() == [2, 4]


def test_imagefolder_keeps_the_given_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"ant": 3, "bee": 2})
    write_folder(tmp_path / "val", {"ant": 1, "bee": 1}, value=200)
    write_folder(tmp_path / "test", {"ant": 1, "bee": 2}, value=250)
    data, test = imagefolder(str(tmp_path)), imagefolder.open(str(tmp_path)).test()
    assert len(data.train) == 5 and data.val.pixels[:, 0, 0, 0].tolist() == [200, 200]
    assert test.labels.tolist() == [0, 1, 1] and data.train.pixels.max() < 200
    (tmp_path / "val" / "wasp").mkdir()
    with pytest.raises(InputError, match="wasp: no such class.*ant, bee"):
        imagefolder(str(tmp_path))


@pytest.mark.parametrize("name", ["training", "Train", "val", "valid", "Validation", "test"])
def test_a_split_is_no_class(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, {"ant": 3, name: 3})
    with pytest.raises(InputError, match=f"{name}: a split, and no class"):
        imagefolder(str(tmp_path))


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "no class folders"), ({"ant": 3}, "one class"), ({"ant": 3, "bee": 0}, "bee: no images"), (None, "no such")],
)
def test_imagefolder_errors(tmp_path: Path, counts: dict[str, int] | None, message: str) -> None:
    root = tmp_path / "images"
    if counts is not None:
        root.mkdir()
        write_folder(root, counts)
    with pytest.raises(InputError, match=message):
        imagefolder(str(root))


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"ant": 3, "bee": 3})
    whole = (tmp_path / "bee" / "1.png").read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:30] + b"\0" * 20):
        (tmp_path / "bee" / "1.png").write_bytes(broken)
        with pytest.raises(InputError, match=r"bee/1\.png: not a readable image"):
            imagefolder(str(tmp_path))


# ------------------------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_stated_channels(mode: str, channels: int) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode).save(stream, "TIFF")
    pixels = decode(stream.getvalue(), "x", channels, None)
    assert pixels.shape == (5, 6, channels) and (pixels == 255).all()


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8080, np.uint16)).save(stream, "PNG")
    assert (decode(stream.getvalue(), "x", 1, None) == 0x80).all()


def test_resizing_takes_the_centre_square() -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200
    stream = io.BytesIO()
    Image.fromarray(wide).save(stream, "PNG")
    square = decode(stream.getvalue(), "x", 3, 4)
    assert square.shape == (4, 4, 3) and (square[:, 1:3] == 200).all()


def test_a_decompression_bomb_is_an_error_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    for width in (side, 4 * side):  # above our bound, and above the one at which Pillow itself refuses
        stream = io.BytesIO()
        Image.new("1", (width, side)).save(stream, "PNG")
        assert len(stream.getvalue()) < 100_000
        with pytest.raises(InputError, match="bomb.png.*pixels"):
            decode(stream.getvalue(), "bomb.png", 3, 32)
