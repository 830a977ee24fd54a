"""Images read from disk while a network trains: the same batches whoever reads them, and one line for a bad file."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from phinas.files.errors import InputError
from phinas.networks.arch_file import write_arch
from phinas.train.__main__ import main
from phinas.training.augment.crops import cut, random_boxes
from phinas.training.augment.policies import auto_augment
from phinas.training.data import streamed as streaming
from phinas.training.data.batch_plan import BatchPlan
from phinas.training.data.image_folder import ClassFolders
from phinas.training.data.images import imagefolder
from phinas.training.data.in_memory import InMemoryData
from phinas.training.data.load_for_training import load_for_training, with_test
from phinas.training.data.streamed import StreamedData
from phinas.training.data.validation_split import split
from phinas.training.full.checkpoint import listed
from phinas.training.full.recipe import FullRecipe, plain_sgd
from phinas.training.randomness import CROP_OF_IMAGE, generator
from phinas.training.workers.shard import ALONE, Shard
from tests.test_fit import TINY

CPU = torch.device("cpu")
PLAIN = plain_sgd(3, 8, 0.1, translate=0.125, policy=auto_augment(), recalibrate=10, early_side=0.75, early_epochs=0.34)
CROPPED = replace(PLAIN, translate=0.0, crop=True, recalibrate=0, evaluation_crop=0.875)


def picture(random: np.random.Generator, height: int, width: int) -> Image.Image:
    """Smooth, as photographs are."""
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def write(root: Path, splits: tuple[str, ...] = ("train", "test"), height: int = 24, width: int = 32) -> Path:
    """Three classes of ten JPEGs in each split."""
    random = np.random.default_rng(0)
    for split_name in splits:
        for label in "abc":
            folder = root / split_name / label
            folder.mkdir(parents=True)
            for number in range(10):
                picture(random, height, width).save(folder / f"{number}.jpg", quality=95)
    return root


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one size. Nothing is written there, so that all can share it."""
    return write(tmp_path_factory.mktemp("alike"))


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes and modes."""
    root = tmp_path_factory.mktemp("unlike")
    random = np.random.default_rng(0)
    for label in "abc":
        (root / label).mkdir()
        for number, mode in enumerate(("RGB", "L", "P", "RGBA", "CMYK", "1")):
            name = f"{number}.{'jpg' if mode in ('RGB', 'L', 'CMYK') else 'png'}"
            picture(random, 12 + 5 * number, 40 - 3 * number).convert(mode).save(root / label / name)
    return root


def streamed(root: Path, loaders: int = 0, **settings: Any) -> StreamedData:
    found = imagefolder.open(str(root), stream=True, loaders=loaders, **settings).streamed()
    assert isinstance(found, StreamedData)
    return found


def in_memory(root: Path) -> InMemoryData:
    return InMemoryData(*with_test(imagefolder(str(root)), imagefolder.open(str(root)).test(), 0.2, 0))


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# -------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    ("recipe", "loaders", "start"),
    [(replace(PLAIN, recalibrate=0), 1, 0), (CROPPED, 1, 1), (CROPPED, 2, 0)],
    ids=["plain", "cropped", "cropped by two"],
)
def test_who_reads_changes_nothing(unlike: Path, recipe: FullRecipe, loaders: int, start: int) -> None:
    alone = streamed(unlike).batches(recipe, 3, 16, CPU)
    wanted = [alone(step) for step in range(2 * alone.steps)]
    batches = streamed(unlike, loaders).batches(recipe, 3, 16, CPU)
    for step in [*range(start, 2 * alone.steps), *([1] if start else [])]:  # over the epoch's end, and back
        assert equal(batches(step), wanted[step])
    assert not equal(streamed(unlike).batches(recipe, 4, 16, CPU)(0), wanted[0])


def test_without_random_crops_it_is_training_in_memory_to_the_bit(alike: Path) -> None:
    here, there = in_memory(alike), streamed(alike)
    for name in ("classes", "channels", "flip", "size", "train_count", "held_out_count", "test_count"):
        assert getattr(here, name) == getattr(there, name)
    assert here.mean.tolist() == there.mean.tolist() and here.std.tolist() == there.std.tolist()
    ours, theirs = (one.batches(PLAIN, 0, 16, CPU) for one in (there, here))
    assert (ours.steps, ours.size) == (theirs.steps, theirs.size)
    for step in (0, 1, 3, 4, 8):
        assert equal(ours(step), theirs(step))
    assert ours.calibration is not None and theirs.calibration is not None
    assert torch.equal(ours.calibration.pixels, theirs.calibration.pixels)
    for name in ("held_out", "test"):
        parts = zip(getattr(there, name)(CROPPED, 16, CPU), getattr(here, name)(CROPPED, 16, CPU), strict=True)
        assert all(equal(mine, its) for mine, its in parts)


def test_random_crops_are_those_of_memory_and_of_pillow(alike: Path) -> None:
    here, there = in_memory(alike), streamed(alike)
    recipe = replace(CROPPED, policy=None, early_epochs=0.0)
    order = BatchPlan(there.train_count, True, recipe, 5, 16, ALONE).order(1)[:8]
    images = there.batches(recipe, 5, 16, CPU)(0)[0]
    size = torch.tensor([[24, 32]])
    for image, index in zip(images, order.tolist(), strict=True):
        boxes = random_boxes(size, True, generator(5, CROP_OF_IMAGE, 1, index))
        pixels = here.data.train.pixels[index]
        seen = (image.permute(1, 2, 0) * torch.from_numpy(there.std) + torch.from_numpy(there.mean)).round()
        assert torch.equal(cut(torch.from_numpy(pixels)[None], boxes, 16)[0].float(), seen)
        top, left, height, width = (int(one) for one in (boxes.top, boxes.left, boxes.height, boxes.width))
        box = Image.fromarray(pixels).crop((left, top, left + width, top + height))
        by_pillow = np.asarray(box.resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
        if boxes.mirrored:
            by_pillow = by_pillow[:, ::-1]
        assert np.abs(by_pillow - seen.numpy()).max() <= 2


@pytest.mark.parametrize("recipe", [PLAIN, CROPPED], ids=["plain", "cropped"])
def test_shares_together_are_the_whole(alike: Path, recipe: FullRecipe) -> None:
    one = streamed(alike)
    shares = [Shard(rank, 2) for rank in range(2)]
    whole, parts = one.batches(recipe, 0, 16, CPU), [one.batches(recipe, 0, 16, CPU, share) for share in shares]
    for step in (0, 4):
        images, labels = zip(*(part(step) for part in parts), strict=True)
        assert equal((torch.cat(images), torch.cat(labels)), whole(step))
    scored = [torch.cat([label for share in of for _, label in one.held_out(recipe, 16, CPU, share)]) for of in
              ([ALONE], shares)]  # fmt: skip
    assert torch.equal(*scored)


def test_images_of_unequal_sizes_and_every_mode_are_read(unlike: Path) -> None:
    found = streamed(unlike)
    assert found.size is None and found.batches(CROPPED, 0, 16, CPU)(0)[0].shape == (8, 3, 12, 12)
    grey = streamed(unlike, channels=1, resolution=20)
    assert grey.size == (20, 20) and len(grey.mean) == 1
    assert sum(len(labels) for _, labels in grey.held_out(CROPPED, 16, CPU)) == grey.held_out_count == 3
    assert streamed(unlike, mean=[1, 2, 3], std=[4, 5, 6]).mean.tolist() == [1, 2, 3]


def test_it_pickles_and_leaves_random_numbers_alone(alike: Path) -> None:
    found = pickle.loads(pickle.dumps(streamed(alike, 1)))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert equal(found.batches(PLAIN, 0, 16, CPU)(0), streamed(alike).batches(PLAIN, 0, 16, CPU)(0))
    list(found.held_out(PLAIN, 16, CPU))
    assert torch.equal(torch.get_rng_state(), before)


# --------------------------------------------------------------------------------------------------------------- splits


def test_splits_are_disjoint_and_the_test_is_apart(tmp_path: Path) -> None:
    def parts(found: StreamedData) -> list[set[str]]:
        there = (found.train_files, found.held_out_files, found.test_files)
        return [set(files.paths) for files in there if files is not None]

    given = parts(streamed(write(tmp_path / "given", ("train", "val", "test"))))
    assert [len(part) for part in given] == [30, 30, 30] and all("/val/" in path for path in given[1])
    no_test = parts(streamed(write(tmp_path / "val", ("train", "validation")), val_fraction=0.1))
    assert [len(part) for part in no_test] == [27, 3, 30] and all("/validation/" in path for path in no_test[2])
    flat = parts(streamed(write(tmp_path / "flat", ("",)), limit=15))
    assert [len(part) for part in flat] == [12, 3]
    whole = parts(streamed(tmp_path / "given").whole())
    assert whole == [given[0] | given[1], *given[1:]]
    for these in (given, no_test, flat):
        assert len(set().union(*these)) == sum(len(part) for part in these)


@pytest.mark.slow
def test_imagenets_minival_is_as_large_as_the_papers() -> None:
    labels = np.arange(1_281_167) % 10
    rest, held_out = split(labels, 0.02, 0, [str(label) for label in range(10)], "here")
    assert (len(rest), len(held_out)) == (1_281_167 - 25_022, 25_022)
    assert np.ptp(np.bincount(labels[held_out])) <= 2 and not np.intersect1d(rest, held_out).size


def test_the_hash_is_of_names_and_labels_and_of_the_reading(tmp_path: Path) -> None:
    root = write(tmp_path / "here", ("train",))
    before = streamed(root).hash
    assert streamed(root, loaders=1).hash == before and len(before) == 16
    for others in ({"seed": 1}, {"resolution": 16}, {"mean": [1, 2, 3], "std": [1, 2, 3]}):
        assert streamed(root, **others).hash != before
    (tmp_path / "there").mkdir()
    root.rename(tmp_path / "there/here")
    assert streamed(tmp_path / "there/here").hash == before
    image = tmp_path / "there/here/train/a/0.jpg"
    with open(image, "ab") as file:
        file.write(b"\0")
    assert streamed(tmp_path / "there/here").hash == before
    image.rename(image.with_name("00.jpg"))
    assert streamed(tmp_path / "there/here").hash != before


def test_what_is_streamed_unasked(alike: Path, unlike: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(root: Path, **settings: Any) -> type:
        settings = {"_target_": "phinas.training.data.images.imagefolder", "path": str(root), **settings}
        return type(load_for_training("data", settings, 0.2))

    assert found(alike) is InMemoryData and found(alike, stream=True) is StreamedData
    assert found(unlike) is StreamedData and found(unlike, resolution=16) is InMemoryData
    monkeypatch.setattr(streaming, "_MEMORY", 1e-12)
    assert found(alike) is StreamedData and found(alike, stream=False) is InMemoryData
    with pytest.raises(InputError, match="unlike.*pixels, but.*set resolution"):
        found(unlike, stream=False)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_search_does_not_stream(alike: Path) -> None:
    with pytest.raises(InputError, match="data.stream=true: this command holds all images in memory"):
        imagefolder(str(alike), stream=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stream": "yes"}, "data.stream=yes: it must be true, false or null"),
        ({"loaders": -1}, "data.loaders=-1"),
        ({"loaders": True}, "data.loaders=True"),
        ({"mean": [1, 2, 3]}, "data.mean=[1, 2, 3] and data.std=None: give both"),
        ({"mean": [1], "std": [1]}, "data.mean=[1]: it must be 3 numbers"),
        ({"mean": 1, "std": 1}, "data.mean=1: it must be 3 numbers"),
        ({"mean": [1, 2, 3], "std": [1, 2, 0.2]}, "data.std=0.2"),
        ({"mean": [1, 2, 300], "std": [1, 2, 3]}, "data.mean=300"),
        ({"path": "nowhere"}, "nowhere: no such file or folder"),
        ({"val_fraction": 2}, "data.val_fraction=2"),
        ({"resolution": 0}, "data.resolution=0"),
        ({"limit": 2}, "data.limit=2"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(alike: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        imagefolder.open(**{"path": str(alike), "stream": True, **settings}).streamed()
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: [file.unlink() for file in (root / "train/b").iterdir()], "train/b: no images"),
        (lambda root: [file.unlink() for file in list((root / "train/b").iterdir())[1:]], "class 'b' has one image"),
        (lambda root: (root / "test/wasp").mkdir(), "test/wasp: no such class in the training split (a, b, c)"),
        (lambda root: (root / "test/c").rename(root / "c"), "test/c: no images"),
        (lambda root: [(root / "train" / name).rename(root / name) for name in "bc"], "no such class"),
        (lambda root: (root / "train").rename(root / "val"), "a split, and no class"),
    ],
)  # fmt: skip
def test_a_bad_folder_is_named(tmp_path: Path, spoil: Any, said: str) -> None:
    root = write(tmp_path / "images")
    spoil(root)
    with pytest.raises(InputError) as caught:
        streamed(root)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_links_are_followed_to_images_and_classes(alike: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").symlink_to(alike / "train/a")
    for number in range(3):
        (tmp_path / f"b/{number}.jpg").symlink_to(alike / f"train/b/{number}.jpg")
    assert ClassFolders(tmp_path).train().labels.tolist() == [0] * 10 + [1] * 3


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_broken_file_is_one_line_with_its_path(tmp_path: Path, loaders: int) -> None:
    root = write(tmp_path / "images", ("train",))
    broken = root / "train/b/7.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    found = streamed(root, loaders, val_fraction=0.1, mean=[1, 2, 3], std=[1, 2, 3])
    batches = found.batches(replace(CROPPED, batch_size=4), 0, 16, CPU)
    with pytest.raises(InputError) as caught:
        for step in range(2 * batches.steps):
            batches(step)
        list(found.held_out(CROPPED, 16, CPU))
    assert str(caught.value).startswith(f"{broken}: not a readable image") and "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_was_learnt_before_a_broken_file_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "images")
    broken = tmp_path / "images/train/b/7.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-200])
    write_arch(TINY, "tiny.yaml")
    settings = [
        "model=tiny.yaml", "recipe=finetune", "recipe.epochs=2", "recipe.batch_size=2", "recipe.crop=true",
        "recipe.translate=0", "data=imagefolder", "data.path=images", "data.stream=true", "data.loaders=0",
        "data.mean=[1,2,3]", "data.std=[1,2,3]",
    ]  # fmt: skip
    with pytest.raises(InputError) as caught:
        main([*settings, "name=run"])
    assert f"{broken}: not a readable image" in str(caught.value) and "\n" not in str(caught.value)
    step = listed(Path("runs/run/checkpoints"))[-1].step
    assert step > 0 and f"in {step} steps, is saved" in str(caught.value)
    broken.write_bytes(whole)
    assert main([*settings, "name=run", "data.loaders=1"]) == 0
    assert f"going on after step {step}" in capsys.readouterr().out
    assert main([*settings, "name=through"]) == 0
    with pytest.raises(InputError, match="was trained with data_hash=.*data.stream"):
        main([*settings, "name=through", "data.stream=false"])
    one, other = (load_file(f"runs/{name}/weights.safetensors") for name in ("run", "through"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_killed_process_is_one_line(alike: Path) -> None:
    batches = streamed(alike, 1).batches(replace(CROPPED, batch_size=2), 0, 16, CPU)
    batches(0)
    for child in loaders_of(os.getpid()):
        child.kill()
    with pytest.raises(InputError, match="data.loaders=1: a process that reads images was killed"):
        for step in range(1, 100):
            batches(step)


# ----------------------------------------------------------------------------------------------------- no process stays


def loaders_of(parent: int) -> list[psutil.Process]:
    """The processes that read for `parent`: children of the one from which they start."""
    below = [one for child in psutil.Process(parent).children() for one in child.children()]
    return [one for one in below if "forkserver" in " ".join(one.cmdline())]


def gone(there: list[psutil.Process], seconds: float = 15) -> bool:
    return not psutil.wait_procs(there, timeout=seconds)[1]


def test_processes_end_with_what_reads(alike: Path) -> None:
    found = streamed(alike, 2)
    batches = found.batches(CROPPED, 0, 16, CPU)
    batches(0)
    there = loaders_of(os.getpid())
    assert len(there) == 2
    list(found.held_out(CROPPED, 16, CPU))
    assert len(loaders_of(os.getpid())) == 2
    del batches
    assert gone(there, 5)


TRAINS = """
import sys, torch
from phinas.training.data.images import imagefolder
from phinas.training.full.recipe import plain_sgd
source = imagefolder.open(sys.argv[1], stream=True, loaders=2, mean=[1, 2, 3], std=[1, 2, 3]).streamed()
batches = source.batches(plain_sgd(3, 8, 0.1, crop=True), 0, 16, torch.device("cpu"))
for step in range(10**9):
    batches(step)
    print(step, flush=True)
"""


@pytest.mark.slow
def test_killed_it_leaves_no_process_behind(alike: Path, command_environment: dict[str, str]) -> None:
    """After Ctrl-C too, which they do not hear: what ends them is the end of what they read for, however it comes."""
    with subprocess.Popen(
        [sys.executable, "-c", TRAINS, str(alike)],
        env=command_environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None and child.stdout.readline() == "0\n"
        there = psutil.Process(child.pid).children(recursive=True)
        assert len(loaders := loaders_of(child.pid)) == 2
        for loader in loaders:
            loader.send_signal(signal.SIGINT)
        assert all(child.stdout.readline() for _ in range(100))
        child.kill()
        assert gone(there)
