"""How fast a training to the end is: ours beside a textbook PyTorch loop, and what of a step is not the network's.

    python -m benchmarks.train_throughput [--path CIFAR10] [--device cuda] [--repeats 7]

Both loops train B0 at 32 px on the same images in the same batches by the same recipe: `efficientnet` (Inception crops,
RMSProp with momentum, average of the weights; AutoAugment in ours alone) and `fast` (shifts and mirrors, SGD). The
textbook loop is what tutorials show: a Dataset that treats one image at a time with Pillow, a DataLoader in the same
process, contiguous NCHW, stock PyTorch layers and optimisers, loss.item() in each step. The loops take turns within one
process, a few steps each, so that what else the machine does hits all alike; so do the parts of a step, measured alone,
and batches read from JPEG files beside batches from memory. Without a path the images are scikit-learn's digits,
enlarged. On a CPU one torch thread is used.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.proxy_throughput import hardware, textbook_network
from phinas.command.configuration import configuration
from phinas.command.parts import construct
from phinas.networks.arch import Arch
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0
from phinas.training.augment import policies
from phinas.training.data import images as data
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.in_memory import InMemoryData
from phinas.training.data.training_data import Batches, TrainingData
from phinas.training.full.average import WeightAverage
from phinas.training.full.recipe import FullRecipe, full_optimizer
from phinas.training.full.training_loop import TrainingState, train

SIDE = 32
_PARTS = 10  # steps in a turn of what is short


def recipe_named(name: str, batch: int) -> FullRecipe:
    """`conf/recipe/NAME.yaml`, for steps without end and of one kind."""
    settings = [f"recipe={name}", "model=none", f"recipe.batch_size={batch}", "recipe.epochs=100000"]
    settings += ["recipe.early_epochs=0.0", "recipe.recalibrate=0", "recipe.patience=null"]
    recipe: FullRecipe = construct(configuration("phinas.train", "train", settings)[0], "recipe")
    return recipe


def dataset(path: str | None, count: int) -> Dataset:
    """`count` images to train on, and a few held out, so that scoring them between epochs takes no time."""
    if path is not None:
        found = data.parquet(path, limit=max(count, 1000), val_fraction=0.02)
    else:
        digits = data.digits(val_fraction=0.02)
        found = Dataset(_large(digits.train), _large(digits.val), digits.classes)
    return replace(found, train=found.train[np.arange(count) % len(found.train)], val=found.val[np.arange(16)])


def _large(images: Images) -> Images:
    return Images(images.pixels.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2).repeat(3, 3), images.labels)


# ------------------------------------------------------------------------------------------------------- textbook loop


class TextbookImages(TorchDataset[tuple[Tensor, int]]):
    """One image at a time: cropped (and resized) or shifted by Pillow, mirrored, to float, normalised."""

    def __init__(self, of: Dataset, recipe: FullRecipe) -> None:
        self.of, self.recipe = of, recipe
        self.mean, self.std = (torch.from_numpy(one / 255).view(3, 1, 1) for one in (of.mean, of.std))

    def __len__(self) -> int:
        return len(self.of.train)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.of.train.pixels[index])
        if self.recipe.crop:
            area = np.random.uniform(0.08, 1) * image.width * image.height
            aspect = np.exp(np.random.uniform(np.log(3 / 4), np.log(4 / 3)))
            width = min(image.width, max(1, round((area * aspect) ** 0.5)))
            height = min(image.height, max(1, round((area / aspect) ** 0.5)))
            left = np.random.randint(image.width - width + 1)
            top = np.random.randint(image.height - height + 1)
            box = (left, top, left + width, top + height)
            image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)
        else:
            shift = round(self.recipe.translate * SIDE)
            left, top = np.random.randint(-shift, shift + 1, 2)
            image = image.crop((left, top, left + SIDE, top + SIDE))
        if np.random.rand() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (pixels - self.mean) / self.std, int(self.of.train.labels[index])


def textbook_steps(arch: Arch, of: Dataset, recipe: FullRecipe, where: torch.device) -> Iterator[None]:
    """The textbook loop, a step at each `next`."""
    module = textbook_network(arch).to(where).train()
    loader = DataLoader(TextbookImages(of, recipe), recipe.batch_size, shuffle=True, drop_last=True)
    optimizer: torch.optim.Optimizer
    if recipe.crop:
        optimizer = torch.optim.RMSprop(
            module.parameters(), 1e-3, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            module.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    average, decay = deepcopy(module), recipe.average or 0.0
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    running = 0.0
    while True:
        for images, labels in loader:
            images, labels = images.to(where), labels.to(where)
            optimizer.zero_grad()
            loss = criterion(module(images), labels)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for mine, now in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
                    mine.copy_(decay * mine + (1 - decay) * now)
            running += loss.item()
            yield


# ------------------------------------------------------------------------------------------------------------- our loop


def our_turns(arch: Arch, of: Dataset, recipe: FullRecipe, where: torch.device) -> Iterator[float]:
    """Seconds of an epoch of `phinas.training.full.training_loop.fit`, without the scoring after it, at each `next`."""
    source = InMemoryData(of, None)
    batches = source.batches(recipe, 0, SIDE, where)
    training, ended = TrainingState(build(arch, seed=0), recipe, batches.steps, where), 0.0

    def after_step() -> None:
        nonlocal ended
        if training.step % batches.steps == 0:
            finish(where)
            ended = time.perf_counter()

    epochs = train(training, batches, source.held_out(recipe, SIDE, where), recipe, 0, after_step)
    while True:
        started = time.perf_counter()
        next(epochs)
        yield ended - started


def batch_steps(batches: Batches) -> Iterator[None]:
    """One batch after the other, and nothing done with it."""
    step = 0
    while True:
        batches(step)
        step += 1
        yield


def repeated(step: Callable[[], object]) -> Iterator[None]:
    while True:
        step()
        yield


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Times:
    """Milliseconds of a step, one value for each turn."""

    turns: list[float]

    def __str__(self) -> str:
        low, middle, high = statistics.quantiles(self.turns, n=4)
        return f"{middle:.1f} ({low:.1f}-{high:.1f})"

    @property
    def median(self) -> float:
        return statistics.median(self.turns)

    def per(self, other: Times) -> str:
        """How many times the other's, turn by turn."""
        low, middle, high = statistics.quantiles([a / b for a, b in zip(self.turns, other.turns, strict=True)], n=4)
        return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def turns(steps: Iterator[None], count: int, where: torch.device) -> Iterator[float]:
    """Seconds of `count` steps at each `next`."""
    while True:
        started = time.perf_counter()
        for _ in range(count):
            next(steps)
        finish(where)
        yield time.perf_counter() - started


def timed(seconds: Mapping[str, Iterator[float]], count: int, repeats: int) -> dict[str, Times]:
    """Each of them `repeats` times, in turns of `count` steps, after a turn that warms up."""
    rounds = [{name: next(one) for name, one in seconds.items()} for _ in range(repeats + 1)][1:]
    return {name: Times([1e3 * one[name] / count for one in rounds]) for name in seconds}


def finish(where: torch.device) -> None:
    """Wait for what the device was given to do."""
    if where.type == "cuda":
        torch.cuda.synchronize()


def compare_loops(of: Dataset, batch: int, repeats: int, where: torch.device) -> dict[str, Times]:
    """Print the loops beside each other; return our steps' times by recipe."""
    count = len(of.train) // batch
    arch, ours = replace(EFFICIENTNET_B0, resolution=SIDE, classes=len(of.classes)), {}
    print("\n| recipe | loop | ms a step (quartiles) | images/s | times as fast (quartiles of the turns) |")
    print("|---|---|---|---|---|")
    for name in ("efficientnet", "fast"):
        recipe = recipe_named(name, batch)
        network = replace(
            arch,
            dropout=arch.dropout if recipe.dropout is None else recipe.dropout,
            drop_connect=arch.drop_connect if recipe.drop_connect is None else recipe.drop_connect,
        )
        steps = {
            "textbook": turns(textbook_steps(network, of, recipe, where), count, where),
            "ours": our_turns(network, of, recipe, where),
        }
        if recipe.policy is not None:
            steps["ours without the policy"] = our_turns(network, of, replace(recipe, policy=None), where)
        times = timed(steps, count, repeats)
        ours[name] = times["ours"]
        for loop, one in times.items():
            factor = "" if loop == "textbook" else times["textbook"].per(one)
            print(f"| {name} | {loop} | {one} | {1e3 * batch / one.median:,.0f} | {factor} |")
    return ours


def take_apart(of: Dataset, batch: int, repeats: int, where: torch.device, ours: Mapping[str, Times]) -> None:
    """Print what the parts of a step take that are not the network."""
    recipe = recipe_named("efficientnet", batch)
    bare = replace(recipe, crop=False, policy=None)
    source = InMemoryData(of, None)
    shown = {
        "the images as they are": bare,
        "shifted by up to 1/8": replace(bare, translate=0.125),
        "shifted, with cutout": replace(bare, translate=0.125, policy=policies.cutout(0.25)),
        "random crops": replace(bare, crop=True),
        "random crops, RandAugment": replace(bare, crop=True, policy=policies.rand_augment()),
        "random crops, AutoAugment": recipe,
    }
    steps = {f"batch: {name}": batch_steps(source.batches(one, 0, SIDE, where)) for name, one in shown.items()}
    module = build(replace(EFFICIENTNET_B0, resolution=SIDE, classes=10), seed=0).to(where)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    steps["RMSProp's step"] = repeated(full_optimizer(module, recipe).step)
    steps["SGD's step"] = repeated(full_optimizer(module, recipe_named("fast", batch)).step)
    average = WeightAverage(module)
    steps["the average's"] = repeated(lambda: average.update(module))
    parts = {name: turns(one, _PARTS, where) for name, one in steps.items()}
    print(f"\n| part of a step of {batch} images | ms (quartiles) | share of a step of `efficientnet` | of `fast` |")
    print("|---|---|---|---|")
    for name, one in timed(parts, _PARTS, repeats).items():
        shares = " | ".join(f"{one.median / of_all.median:.1%}" for of_all in ours.values())
        print(f"| {name} | {one} | {shares} |")


def compare_streams(batch: int, repeats: int, where: torch.device) -> None:
    """Print what it takes to read JPEG files of 320 x 256 pixels as a training at 224 px goes on."""
    recipe = recipe_named("efficientnet", batch)
    random = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        for number in range(8 * batch):
            rough = Image.fromarray(random.integers(0, 256, (8, 10, 3), np.uint8))  # compresses like a photo
            place = Path(folder, "ab"[number % 2], f"{number}.jpg")
            place.parent.mkdir(exist_ok=True)
            rough.resize((320, 256), Image.Resampling.BICUBIC).save(place, quality=90)
        sources: dict[str, TrainingData] = {"in memory": InMemoryData(data.imagefolder(folder, val_fraction=0.1), None)}
        for loaders in (0, 1, 2):
            streamed = data.imagefolder.open(folder, val_fraction=0.1, stream=True, loaders=loaders).streamed()
            assert streamed is not None
            sources[f"from files, loaders={loaders}"] = streamed
        print(f"\n| {batch} images of 320 x 256 px, at 224 px with AutoAugment | ms a batch (quartiles) | images/s |")
        print("|---|---|---|")
        steps = {name: batch_steps(source.batches(recipe, 0, 224, where)) for name, source in sources.items()}
        for name, one in timed({name: turns(one, 4, where) for name, one in steps.items()}, 4, repeats).items():
            print(f"| {name} | {one} | {1e3 * batch / one.median:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="parquet files of CIFAR-10; without, scikit-learn's digits, enlarged")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="of each loop in its turn, an epoch")
    parser.add_argument("--repeats", type=int, default=7, help="turns, at least 2")
    given = parser.parse_args()
    where = torch.device(given.device)
    if where.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    of = dataset(given.path, given.batch * given.steps)
    print(hardware() + (f"; {torch.cuda.get_device_name()}" if where.type == "cuda" else ", one thread"))
    print(f"EfficientNet-B0 at {SIDE} px, batches of {given.batch}, n={given.repeats} turns of {given.steps} steps")
    ours = compare_loops(of, given.batch, given.repeats, where)
    take_apart(of, given.batch, given.repeats, where, ours)
    compare_streams(given.batch // 2, given.repeats, where)


if __name__ == "__main__":
    main()
