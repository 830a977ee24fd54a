"""Images of a folder read from disk while a network trains on them, by processes of their own."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from phinas.files.errors import InputError
from phinas.training.augment.crops import central_boxes, cut, random_boxes
from phinas.training.augment.views import Views, seen
from phinas.training.data.batch_plan import BatchPlan
from phinas.training.data.dataset import Moments, histogram, moments
from phinas.training.data.decode import decode, size_of
from phinas.training.data.image_files import Files, files_hash
from phinas.training.data.in_memory import spread
from phinas.training.data.samples import Samples, labelled, part_size
from phinas.training.full.recipe import FullRecipe
from phinas.training.randomness import CROP_OF_IMAGE, generator
from phinas.training.workers.shard import ALONE, Shard

_SAMPLE = 1024  # images that are looked at where not all can be
_PART = 32  # images at most that a process reads at once: a batch is read by several
_BATCHES_AHEAD = 2  # that are read before they are wanted
_MEMORY = 0.25  # share of the machine's that images may take: of all, so that a run that is resumed decides alike


# ----------------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True, eq=False)
class StreamedData:
    """`TrainingData` of image files, of equal or unequal sizes; none of its images stays in memory.

    resolution  what each image is resized to as it is read, as by `decode`; None: its own size.
    loaders     processes that read for a training, and as many for a scoring while it goes on; None: one per CPU, of
                several workers one per CPU that each was given, less those that train; 0: the training's own process.
    given       what `mean` and `std` are; None: those of the pixels of 1,024 training images evenly spread over the
                folder, or all if there are fewer, of which each counts the same.

    Training sees an image as `InMemoryData` does, to the bit where the recipe does not crop at random, on a CPU. Random
    crops are drawn by themselves for each image, from (seed, epoch, image), as its size is known only when it is read.
    `hash` is that of the files' paths and labels, not of what is in them, and of how they are read. A file that
    cannot be read is an InputError with its path when its turn comes.
    """

    classes: tuple[str, ...]
    channels: int
    flip: bool
    train_files: Files
    held_out_files: Files
    test_files: Files | None
    resolution: int | None = None
    loaders: int | None = None
    given: Moments | None = None

    @property
    def train_count(self) -> int:
        return len(self.train_files)

    @property
    def held_out_count(self) -> int:
        return len(self.held_out_files)

    @property
    def test_count(self) -> int | None:
        return None if self.test_files is None else len(self.test_files)

    @cached_property
    def hash(self) -> str:
        given = None if self.given is None else [array.tolist() for array in self.given]
        return files_hash((self.train_files, self.held_out_files), f"{self.resolution} {given}")

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """As far as a sample of the training images tells."""
        if self.resolution is not None:
            return self.resolution, self.resolution
        return _common_size([self.train_files])

    @property
    def mean(self) -> NDArray[np.float32]:
        return self._moments[0]

    @property
    def std(self) -> NDArray[np.float32]:
        return self._moments[1]

    @cached_property
    def _moments(self) -> Moments:
        if self.given is not None:
            return self.given
        counts, first = np.zeros((self.channels, 256)), 0
        for path in _sample([self.train_files]):
            pixels = decode(Path(path), path, self.channels, self.resolution)
            area = pixels.shape[0] * pixels.shape[1]
            first = first or area
            counts += histogram(pixels) * (first / area)  # of images of one size whole numbers, and so exact
        return moments(counts)

    def batches(
        self, recipe: FullRecipe, seed: int, side: int, where: torch.device, shard: Shard = ALONE
    ) -> StreamedBatches:
        plan = BatchPlan(self.train_count, self.flip, recipe, seed, side, shard)
        some = self.train_files[spread(self.train_count, recipe.recalibrate)]
        calibration = self._scored(some, recipe, side, where, ALONE).samples() if len(some) else None
        return StreamedBatches(self, plan, where, shard, calibration)

    def held_out(self, recipe: FullRecipe, side: int, where: torch.device, shard: Shard = ALONE) -> StreamedEvaluation:
        return self._scored(self.held_out_files, recipe, side, where, shard)

    def test(self, recipe: FullRecipe, side: int, where: torch.device, shard: Shard = ALONE) -> StreamedEvaluation:
        if self.test_files is None:
            raise ValueError("there is no test split")
        return self._scored(self.test_files, recipe, side, where, shard)

    def whole(self) -> StreamedData:
        return replace(self, train_files=self.train_files + self.held_out_files)

    def _scored(
        self, files: Files, recipe: FullRecipe, side: int, where: torch.device, shard: Shard
    ) -> StreamedEvaluation:
        mine = files[np.arange(len(files))[shard.part(len(files))]]
        return StreamedEvaluation(self, mine, side, recipe.evaluated_share(side), where, shard)

    def samples(self, pixels: Tensor, labels: NDArray[np.int64]) -> Samples:
        """uint8 [n, height, width, channels] on a device with their labels, and what it takes to normalise them."""
        return labelled(pixels, labels, self.mean, self.std, self.flip)


class StreamedBatches:
    """Batches of a `StreamedData`, read before they are wanted as long as steps are asked for in turn.

    Another step than the next starts the reading anew. `steps`, `size` and `calibration` as `Batches` has them.
    """

    def __init__(
        self, data: StreamedData, plan: BatchPlan, where: torch.device, shard: Shard, calibration: Samples | None
    ) -> None:
        self.steps, self.size, self.calibration = plan.steps, plan.size, calibration
        self._data, self._plan, self._where, self._shard = data, plan, where, shard
        self._stream: Iterator[Tensor] = iter(())
        self._next: int | None = None
        self._epoch: tuple[int, NDArray[np.int64], Views | None] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        plan, crop = self._plan, self._plan.recipe.crop
        epoch, part = plan.epoch(step), plan.part(step)
        shift = round(plan.recipe.translate * plan.side)
        if self._epoch is None or self._epoch[0] != epoch:
            views = None if crop else plan.views(epoch, shift, self._where)
            self._epoch = epoch, plan.order(epoch).numpy(), views
        _, order, views = self._epoch
        if step != self._next:
            self._stream = self._started(step)
        self._next = None  # until it is there
        index = order[part]
        pixels = _gathered(self._stream, len(index), self._where)
        self._next = step + 1
        if views is not None:
            pixels = seen(pixels, views[part], shift)
        return plan.shown(self._data.samples(pixels, self._data.train_files.labels[index]), step)

    def _started(self, step: int) -> Iterator[Tensor]:
        data, plan = self._data, self._plan
        images = plan.part(0).stop - plan.part(0).start
        bytes_of_batch = images * plan.side**2 * data.channels
        parts = _parts(data.train_files, plan, step)
        return _read(parts, data, self._where, self._shard, bytes_of_batch * _BATCHES_AHEAD)


@dataclass(frozen=True, eq=False)
class StreamedEvaluation:
    """Files that are read each time they are scored: the square in the middle with `central` of the shorter side."""

    data: StreamedData
    files: Files
    side: int
    central: float
    where: torch.device
    shard: Shard

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for samples in self._in_parts(part_size(self.side, self.side)):
            yield samples.normalised(samples.pixels), samples.labels

    def samples(self) -> Samples:
        """All of them at once."""
        return next(self._in_parts(len(self)))

    def _in_parts(self, size: int) -> Iterator[Samples]:
        parts = (
            _Part([self.files.path(image) for image in index], self.side, self.central, None)
            for start in range(0, len(self), size)
            for index in _pieces(np.arange(start, min(start + size, len(self))), self.side)
        )
        ahead = _BATCHES_AHEAD * size * self.side**2 * self.data.channels
        stream = _read(parts, self.data, self.where, self.shard, ahead)
        for start in range(0, len(self), size):
            labels = self.files.labels[start : start + size]
            yield self.data.samples(_gathered(stream, len(labels), self.where), labels)


def _parts(files: Files, plan: BatchPlan, step: int) -> Iterator[_Part]:
    """What is to be read for training from `step` on, without end."""
    known, crop = 0, plan.recipe.crop
    for batch in itertools.count(step):
        epoch = plan.epoch(batch)
        if epoch != known:
            known, order = epoch, plan.order(epoch).numpy()
        side = plan.recipe.side(epoch, plan.side) if crop else plan.side
        for index in _pieces(order[plan.part(batch)], side):
            crops = [(plan.seed, CROP_OF_IMAGE, epoch, image) for image in index.tolist()] if crop else None
            yield _Part([files.path(image) for image in index], side, 1.0, crops)


# ---------------------------------------------------------------------------------------------------------- the reading


class _Part(NamedTuple):
    """Images that one process reads at once, cut out at side x side pixels.

    central  share of the shorter side of the square in the middle that is cut out, where there are no seeds.
    crops    numbers of each, from which a random crop is drawn; None: the square in the middle.
    """

    paths: Sequence[str]
    side: int
    central: float
    crops: Sequence[tuple[int, ...]] | None


@dataclass(frozen=True)
class _Reader:
    """What a process does: the images of a part as uint8 [n, side, side, channels], or in words why that cannot be."""

    channels: int
    resolution: int | None
    flip: bool

    def __getitem__(self, part: _Part) -> Tensor | str:
        done = torch.empty((len(part.paths), part.side, part.side, self.channels), dtype=torch.uint8)
        crops: Sequence[tuple[int, ...] | None] = part.crops or [None] * len(part.paths)
        try:
            for target, path, crop in zip(done, part.paths, crops, strict=True):
                pixels = torch.from_numpy(decode(Path(path), path, self.channels, self.resolution))
                size = torch.tensor([pixels.shape[:2]])
                if crop is None:
                    boxes = central_boxes(size, part.central)
                else:
                    boxes = random_boxes(size, self.flip, generator(*crop))
                target.copy_(cut(pixels[None], boxes, part.side)[0])
        except InputError as error:
            return str(error)  # an exception would come out of the process with its traceback for a message
        return done


def _read(
    parts: Iterable[_Part], data: StreamedData, where: torch.device, shard: Shard, ahead: int
) -> Iterator[Tensor]:
    """The images of each part in turn, whoever reads them. `ahead` bytes or a little more are read in advance.

    The processes end with the iterator, and with this process however it ends. Raises InputError.
    """
    loaders = _loaders(data.loaders, where, shard)
    reader = _Reader(data.channels, data.resolution, data.flip)
    loader: Iterable[Tensor | str] = map(reader.__getitem__, parts)
    if loaders:
        parts = iter(parts)
        first = next(parts, None)
        if first is None:
            return
        bytes_of_part = len(first.paths) * first.side**2 * data.channels
        wanted = max(2, -(-ahead // (bytes_of_part * loaders)))
        fitting = max(1, _shared_memory() // (2 * shard.world_size) // (bytes_of_part * loaders))
        loader = DataLoader(
            reader,  # type: ignore[arg-type]  # torch asks for a subclass of its own
            batch_size=None,
            sampler=itertools.chain([first], parts),
            num_workers=loaders,
            multiprocessing_context=_context(),
            worker_init_fn=_bound,
            prefetch_factor=min(wanted, fitting),
            pin_memory=where.type == "cuda",
            generator=torch.Generator(),  # or torch would take from the global one
        )
    try:
        for images in loader:
            if isinstance(images, str):
                raise InputError(images)
            yield images
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        raise InputError(
            f"data.loaders={loaders}: a process that reads images was killed, by lack of memory perhaps; "
            "fewer need less, and 0 none"
        ) from None


def _gathered(stream: Iterator[Tensor], count: int, where: torch.device) -> Tensor:
    """The next `count` images of the stream, on the device."""
    gathered, done = None, 0
    while gathered is None or done < count:
        part = next(stream)
        if gathered is None:
            gathered = torch.empty((count, *part.shape[1:]), dtype=torch.uint8, device=where)
        gathered[done : done + len(part)].copy_(part, non_blocking=True)
        done += len(part)
    return gathered


def _pieces(index: NDArray[np.int64], side: int) -> list[NDArray[np.int64]]:
    """Of images at side x side pixels, as many as one process reads at once."""
    size = min(_PART, part_size(side, side))
    return [index[start : start + size] for start in range(0, len(index), size)]


def _loaders(asked: int | None, where: torch.device, shard: Shard) -> int:
    if asked is not None:
        return asked
    threads = torch.get_num_threads()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if shard.world_size > 1:
        cpus = threads  # one per CPU that this worker was given, of a machine that it may share with others
    return max(1, cpus - (1 if where.type == "cuda" else threads))


def _context() -> BaseContext:
    """Processes that start from a clean process: a copy of this process would have its CUDA context and locks, and
    none of its threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Imported once for all: torch, and what the main module uses, whose text each process runs anew.
    main = vars(sys.modules["__main__"]).values()
    used = {getattr(value, "__module__", getattr(value, "__name__", "")) for value in main}
    context.set_forkserver_preload([__name__, *sorted(used - {"", "__main__"})])
    _start_forkserver()
    return context


def _start_forkserver() -> None:
    """The process from which those that read are forked, deaf to Ctrl-C, and they with it, from their first moment."""
    resource_tracker.ensure_running()  # first, as its start ends with SIGINT let through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _bound(number: int) -> None:
    """In a process that reads: it ends with the training, and not before, as that may have a step to finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for those that no forkserver forked
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """However the parent ends. Torch would look for the forkserver instead, which waits for this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _shared_memory() -> int:
    """Bytes free where processes pass tensors to each other; containers have little of it, and die of too little."""
    try:
        there = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return 2**40
    return there.f_bavail * there.f_frsize


# ------------------------------------------------------------------------------------------------------ before all that


def too_much_for_memory(splits: Sequence[Files], channels: int, resolution: int | None) -> bool:
    """Whether the decoded images would take more than a quarter of the memory, or are of several sizes.

    As far as 1,024 of them tell. Raises InputError for those whose header cannot be read.
    """
    size = (resolution, resolution) if resolution is not None else _common_size(splits)
    if size is None:
        return True
    needed = sum(map(len, splits)) * size[0] * size[1] * channels
    return needed > _MEMORY * psutil.virtual_memory().total


def _common_size(splits: Sequence[Files]) -> tuple[int, int] | None:
    """(height, width) of a sample of the images; None where they differ."""
    sizes = {size_of(Path(path), path) for path in _sample(splits)}
    return sizes.pop() if len(sizes) == 1 else None


def _sample(splits: Sequence[Files]) -> list[str]:
    """Paths of at most 1,024 of the images, evenly spread over them."""
    ends = np.cumsum([len(files) for files in splits])
    return [
        splits[which].path(int(image - (ends[which] - len(splits[which]))))
        for image in spread(int(ends[-1]), _SAMPLE)
        for which in [int(np.searchsorted(ends, image, side="right"))]
    ]
