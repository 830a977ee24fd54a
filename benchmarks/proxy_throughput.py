"""How fast the proxy trains: our loop beside a textbook PyTorch loop, and two Ray workers beside one.

    python -m benchmarks.proxy_throughput [--repeats 7] [--ray]

Both loops train B0 on the same images of 32 x 32 pixels in the same batches, one torch thread, in turns within one
process, so that what else the machine does hits both alike. The textbook loop is what tutorials show: a Dataset with
per-image transforms in Python, a DataLoader, contiguous NCHW, SGD, cross-entropy, loss.item() in each step. Its network
is written out below from stock PyTorch layers. Two workers are two Ray actors of one CPU each; 2.0 would be perfect.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from phinas.networks.arch import Arch
from phinas.networks.build import build
from phinas.networks.reference import EFFICIENTNET_B0
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.samples import samples
from phinas.training.short.recipe import Recipe
from phinas.training.short.training_loop import train

RESOLUTION = 32
CLASSES = 10
B0 = replace(EFFICIENTNET_B0, resolution=RESOLUTION, classes=CLASSES)


def made_up_data(count: int) -> Dataset:
    """Noise of CIFAR-10's shape; speed does not depend on what is in the images."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, RESOLUTION, RESOLUTION, 3), np.uint8)
    images = Images(pixels, random.integers(0, CLASSES, count))
    return Dataset(images, images, tuple("abcdefghij"), flip=True)


# ------------------------------------------------------------------------------------------------------- textbook loop


class TextbookImages(TorchDataset[tuple[Tensor, Tensor]]):
    """One image at a time: to float, random crop with padding, random flip, normalise."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.mean = torch.from_numpy(data.mean / 255).view(3, 1, 1)
        self.std = torch.from_numpy(data.std / 255).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.data.train)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(self.data.train.pixels[index]).permute(2, 0, 1).contiguous().float().div(255)
        image = functional.pad(image, (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = image[:, top : top + RESOLUTION, left : left + RESOLUTION]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image - self.mean) / self.std, torch.tensor(self.data.train.labels[index])


class TextbookSqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(functional.silu(self.reduce(self.pool(x)))))


class TextbookMBConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int, drop: float) -> None:
        super().__init__()
        middle = inputs * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += textbook_conv(inputs, middle, 1, 1, 1)
        layers += textbook_conv(middle, middle, kernel, stride, middle)
        layers += [TextbookSqueezeExcite(middle, inputs // 4), *textbook_conv(middle, outputs, 1, 1, 1)[:2]]
        self.layers = nn.Sequential(*layers)
        self.drop = drop if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        if self.drop is None:
            return y
        if self.training and self.drop:
            y = y * torch.bernoulli(torch.full((len(y), 1, 1, 1), 1 - self.drop, device=y.device)) / (1 - self.drop)
        return x + y


def textbook_conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01), nn.SiLU()]


def textbook_network(arch: Arch) -> nn.Module:
    """B0, as many read it out of the paper's table."""
    layers, channels, index = textbook_conv(3, arch.stem.channels, 3, arch.stem.stride, 1), arch.stem.channels, 0
    for stage in arch.stages:
        for repeat in range(stage.repeats):
            stride, drop = (stage.stride if repeat == 0 else 1), arch.drop_connect * index / arch.blocks
            layers.append(TextbookMBConv(channels, stage.channels, stage.kernel, stride, int(stage.expand), drop))
            channels, index = stage.channels, index + 1
    layers += [*textbook_conv(channels, arch.head_channels, 1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(arch.dropout), nn.Linear(arch.head_channels, arch.classes))


class Textbook:
    """One epoch of the textbook loop per call: seconds."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.module = textbook_network(B0)
        self.loader = DataLoader(TextbookImages(data), recipe.batch_size, shuffle=True, drop_last=True)
        self.optimizer = torch.optim.SGD(
            self.module.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.criterion = nn.CrossEntropyLoss()

    def epoch(self) -> float:
        started = time.perf_counter()
        self.module.train()
        running = 0.0
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            loss = self.criterion(self.module(images), labels)
            loss.backward()
            self.optimizer.step()
            running += loss.item()
        return time.perf_counter() - started


# ----------------------------------------------------------------------------------------------------------- measuring


class Ours:
    """One epoch of `phinas.training.short.training_loop.train` per call, never scored in between: seconds."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        recipe = replace(recipe, epochs=1000)
        train_set, val_set = samples(data, None, torch.device("cpu"))
        self.epochs = train(build(B0), train_set, val_set, recipe, 0, score_every=1000)

    def epoch(self) -> float:
        return next(self.epochs).seconds


def summary(name: str, rates: list[float]) -> None:
    low, middle, high = statistics.quantiles(rates, n=4)
    print(f"{name:24} {middle:6.1f} images/s (quartiles {low:.1f}-{high:.1f}, n={len(rates)})")


def compare_loops(count: int, batch: int, repeats: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, recipe = made_up_data(count), Recipe(batch_size=batch, lr=0.01)
    textbook, ours = Textbook(data, recipe), Ours(data, recipe)
    images = count // batch * batch
    pairs = [(textbook.epoch(), ours.epoch()) for _ in range(repeats + 1)][1:]  # the first pair warms up
    summary("textbook loop", [images / seconds for seconds, _ in pairs])
    summary("our loop", [images / seconds for _, seconds in pairs])
    low, middle, high = statistics.quantiles([slow / fast for slow, fast in pairs], n=4)
    print(f"our loop is {middle:.2f}x as fast (quartiles of the pairs {low:.2f}-{high:.2f})")


def compare_workers(count: int, batch: int, repeats: int) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)

    @ray.remote(num_cpus=1)
    class Worker:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.ours = Ours(made_up_data(count), Recipe(batch_size=batch, lr=0.01))

        def epoch(self) -> float:
            return self.ours.epoch()

    images = count // batch * batch
    workers = [Worker.remote(), Worker.remote()]  # type: ignore[attr-defined]
    ray.get([worker.epoch.remote() for worker in workers])
    alone, together = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        ray.get(workers[0].epoch.remote())
        alone.append(images / (time.perf_counter() - started))
        started = time.perf_counter()
        ray.get([worker.epoch.remote() for worker in workers])
        together.append(2 * images / (time.perf_counter() - started))
    ray.shutdown()
    summary("one Ray worker", alone)
    summary("two Ray workers", together)
    ratios = [two / one for one, two in zip(alone, together, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"two workers do {middle:.2f}x the work of one (quartiles of the pairs {low:.2f}-{high:.2f})")


def hardware() -> str:
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} CPUs{load}; torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="per epoch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7, help="pairs of epochs, at least 2")
    parser.add_argument("--ray", action="store_true", help="compare two Ray workers with one as well")
    arguments = parser.parse_args()
    print(hardware())
    print(f"EfficientNet-B0 at {RESOLUTION} x {RESOLUTION}, batch {arguments.batch}, one torch thread per process")
    compare_loops(arguments.images, arguments.batch, arguments.repeats)
    if arguments.ray:
        compare_workers(arguments.images, arguments.batch, arguments.repeats)


if __name__ == "__main__":
    main()
