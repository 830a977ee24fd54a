"""Score a network by training it: few epochs, small images, one seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from convnets.arch import Arch
from convnets.build import ConvNet
from convnets.checks import check_whole
from convnets.errors import InputError
from convnets.memory import out_of_memory
from convnets.network import Network, build_network
from nas.evaluator import EvaluationFailed, Measurement
from training.augment import Samples, samples
from training.dataset import Dataset
from training.loop import Diverged, device, train
from training.recipe import Recipe


class Proxy:
    """An evaluator that trains each network from scratch on `data`.

    recipe       how; its `epochs` and `batch_size` are most of the cost.
    resolution   side of the square that images are stretched to, pixels; None: as they are.
    stem_stride  stride of an Arch's first convolution while it trains here; None: the network's own. Networks for 224
                 pixels stride 32-fold, and small images keep more of their detail with 1.

    An Arch is trained at the data's size, channels and classes, without dropout and stochastic depth (a few epochs
    underfit as it is), and from a classifier of zeros (the initialiser for 1000 classes starts 10 of them at a loss of
    6, and B0 on the digits at 0.43 instead of 0.75 after three epochs). What the search counts is still the network as
    the space made it. Other networks are built as they are, and must take the data's channels and give at least as
    many logits as it has classes (InputError).
    """

    def __init__(
        self,
        data: Dataset,
        recipe: Recipe | None = None,
        resolution: int | None = 32,
        stem_stride: int | None = None,
    ) -> None:
        for name, value in (("resolution", resolution), ("stem_stride", stem_stride)):
            if value is not None:
                check_whole(f"evaluator.{name}", value)
        self.data = data
        self.recipe = Recipe() if recipe is None else recipe
        self.resolution = resolution
        self.stem_stride = stem_stride
        self._samples: tuple[Samples, Samples] | None = None

    @property
    def epochs(self) -> int:
        """Measurements of one evaluation, for engines that stop early."""
        return self.recipe.epochs

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield the accuracy on the held-out images after each scored epoch; the last is final.

        Raises EvaluationFailed if the loss or the logits leave the finite numbers, or the network does not fit into
        memory; InputError if the data alone do not.
        """
        train_set, val_set = self._placed()
        try:
            with torch.random.fork_rng(devices=[]):  # modules are built on the CPU
                torch.default_generator.manual_seed(seed)
                module = build_network(self.adapted(network))
            if isinstance(module, ConvNet):
                nn.init.zeros_(module.classifier.weight)
            self._check_logits(module, train_set)
            for epoch in train(module, train_set, val_set, self.recipe, seed):
                if epoch.accuracy is not None:
                    yield Measurement(epoch.accuracy, final=epoch.number == self.recipe.epochs)
        except Diverged as error:
            raise EvaluationFailed(str(error)) from error
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            height, width = train_set.pixels.shape[1:3]
            size = f"batch {self.recipe.batch_size}, {width} x {height} pixels"
            raise EvaluationFailed(f"out of memory at {size}") from error

    def adapted(self, network: Network) -> Network:
        """What is built: an Arch fitted to the data, as described above; any other network unchanged."""
        if not isinstance(network, Arch):
            return network
        stem = network.stem if self.stem_stride is None else replace(network.stem, stride=self.stem_stride)
        return replace(
            network,
            stem=stem,
            resolution=self.resolution or max(self.data.train.pixels.shape[1:3]),
            in_channels=self.data.channels,
            classes=len(self.data.classes),
            dropout=0.0,
            drop_connect=0.0,
        )

    def _placed(self) -> tuple[Samples, Samples]:
        """(train, val) on this worker's device, put there by its first evaluation."""
        if self._samples is None:
            try:
                self._samples = samples(self.data, self.resolution, device())
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                images = len(self.data.train) + len(self.data.val)
                raise InputError(
                    f"the data's {images} images do not fit into the memory of {device()}; "
                    "lower evaluator.resolution or data.limit, or run fewer workers at a time"
                ) from error
        return self._samples

    def _check_logits(self, module: nn.Module, train_set: Samples) -> None:
        """InputError unless the module gives [n, classes or more]; without this, a wrong width fails far from here."""
        module = module.to(train_set.labels.device).eval()
        with torch.no_grad():
            logits = module(train_set.normalised(train_set.pixels[:2]))
        classes = len(self.data.classes)
        if logits.ndim != 2 or logits.shape[1] < classes:
            shape = list(logits.shape[1:])
            raise InputError(f"the network gives {shape} per image; the data has {classes} classes and needs as many")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None}  # each worker puts the images on its own device
