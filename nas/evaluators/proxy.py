"""Score a network by training it: few epochs, small images, one seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Literal

import torch
from torch import nn

from phinas.engines.evaluator import Measurement
from phinas.engines.out_of_memory import out_of_memory
from phinas.engines.threads import torch_threads
from phinas.files.checks import check_whole
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.build import ConvNet
from phinas.networks.network import Network, build_network
from phinas.training.data.dataset import Dataset
from phinas.training.data.decode import MAX_SIDE
from phinas.training.data.samples import Samples, samples
from phinas.training.device import device
from phinas.training.own_failures import own_failures
from phinas.training.randomness import seeded
from phinas.training.short.forecast import forecast_seconds
from phinas.training.short.recipe import Recipe
from phinas.training.short.training_loop import train

_NETWORK: Final = "network"
_SIDES_KEPT = 2  # of the images that are kept: a study alternates between a few, and each may be gigabytes


class Proxy:
    """An evaluator that trains each network from scratch on `data`.

    recipe       how; its `epochs` and `batch_size` are most of the cost.
    resolution   side of the square that images are stretched to, pixels; None: as they are; "network": each network's
                 own, so that networks of several resolutions can be compared.
    stem_stride  stride of an Arch's first convolution while it trains here; None: the network's own. Networks for 224
                 pixels stride 32-fold, and small images keep more of their detail with 1.
    score_every  score every so many epochs, and always after the last; what is not scored yields no measurement.

    The defaults of a search are in conf/evaluator/proxy.yaml; those below are for whoever makes one in Python.

    An Arch is trained at the images' size, channels and classes, without dropout and stochastic depth (a few epochs
    underfit as it is), and from a classifier of zeros (the initialiser for 1000 classes starts 10 of them at a loss of
    6, and B0 on the digits at 0.43 instead of 0.75 after three epochs). What the search counts is still the network as
    the space made it. Other networks are built as they are, and must take the data's channels and give at least as
    many logits as it has classes (InputError); their own resolution is that of their `input_shape`.
    """

    def __init__(
        self,
        data: Dataset,
        recipe: Recipe | None = None,
        resolution: int | Literal["network"] | None = 32,
        stem_stride: int | None = None,
        score_every: int = 1,
    ) -> None:
        if resolution is not None and resolution != _NETWORK:
            try:
                check_whole("evaluator.resolution", resolution, most=MAX_SIDE)
            except InputError as error:
                raise InputError(f"{error}, null, or {_NETWORK}") from None
        if stem_stride is not None:
            check_whole("evaluator.stem_stride", stem_stride)
        check_whole("evaluator.score_every", score_every)
        self.data = data
        self.recipe = Recipe() if recipe is None else recipe
        self.resolution = resolution
        self.stem_stride = stem_stride
        self.score_every = score_every
        self._samples: dict[int | None, tuple[Samples, Samples]] = {}  # by side, the latest used last

    @property
    def epochs(self) -> int:
        """Measurements of one evaluation, for engines that stop early."""
        return math.ceil(self.recipe.epochs / self.score_every)

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield the accuracy on the held-out images after each scored epoch; the last is final.

        Raises EvaluationFailed if the loss or the logits leave the finite numbers, or the network does not fit into
        memory; InputError if the data alone do not.
        """
        train_set, val_set = self._samples_at(self._side(network))
        with own_failures(self.recipe.batch_size, *train_set.pixels.shape[1:3]):
            module = self._built(network, seed, train_set)
            for epoch in train(module, train_set, val_set, self.recipe, seed, score_every=self.score_every):
                if epoch.accuracy is not None:
                    yield Measurement(epoch.accuracy, final=epoch.number == self.recipe.epochs)

    def forecast(self, network: Network, threads: int | None = None) -> float:
        """Seconds that one evaluation will take on this machine as busy as it is now, from training for a moment.

        `threads` are torch's meanwhile; None: as many as it has. Torch's global generators are left as they were.
        Raises as an evaluation does.
        """
        train_set, val_set = self._samples_at(self._side(network))
        with own_failures(self.recipe.batch_size, *train_set.pixels.shape[1:3]), torch_threads(threads):
            module = self._built(network, 0, train_set)
            return forecast_seconds(module, train_set, val_set, self.recipe, self.score_every)

    def check(self, network: Network) -> None:
        """InputError for a network whose own resolution is asked for, and that has none."""
        self._side(network)

    def enlarges(self, network: Network) -> bool:
        """Whether images are blown up for it: what a larger resolution gains is then no detail of theirs."""
        side = self._side(network)
        return side is not None and side > max(self.data.train.pixels.shape[1:3])

    def adapted(self, network: Network) -> Network:
        """What is built: an Arch fitted to the data, as described above; any other network unchanged."""
        if not isinstance(network, Arch):
            return network
        stem = network.stem if self.stem_stride is None else replace(network.stem, stride=self.stem_stride)
        return replace(
            network,
            stem=stem,
            resolution=self._side(network) or max(self.data.train.pixels.shape[1:3]),
            in_channels=self.data.channels,
            classes=len(self.data.classes),
            dropout=0.0,
            drop_connect=0.0,
        )

    def _side(self, network: Network) -> int | None:
        """Of the square that images are stretched to for this network; None: as they are."""
        if self.resolution != _NETWORK:
            return self.resolution
        if isinstance(network, Arch):
            return network.resolution
        shape = getattr(network, "input_shape", None)
        if shape is None or len(shape) != 3 or shape[1] != shape[2]:
            given = "no input_shape" if shape is None else f"input_shape {tuple(shape)}"
            raise InputError(
                f"evaluator.resolution={_NETWORK}: a network has {given}; it must be (channels, side, side)"
            )
        return check_whole("input_shape[1]", shape[1])

    def _samples_at(self, side: int | None) -> tuple[Samples, Samples]:
        """(train, val) on this worker's device, put there by the first evaluation at this size."""
        placed = self._samples.pop(side, None)
        while placed is None:
            if len(self._samples) == _SIDES_KEPT:
                del self._samples[next(iter(self._samples))]
            try:
                placed = samples(self.data, side, device())
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if not self._samples:
                    images = len(self.data.train) + len(self.data.val)
                    setting = "the networks' resolution" if self.resolution == _NETWORK else "evaluator.resolution"
                    raise InputError(
                        f"the data's {images} images do not fit into the memory of {device()}; "
                        f"lower {setting} or data.limit, or run fewer workers at a time"
                    ) from error
                self._samples.clear()  # and again, with the room that the other sizes took
        self._samples[side] = placed
        return placed

    def _built(self, network: Network, seed: int, train_set: Samples) -> nn.Module:
        """A module that fits the data, with weights from `seed`."""
        with seeded(seed, torch.device("cpu")):  # where modules are built
            module = build_network(self.adapted(network))
        if isinstance(module, ConvNet):
            nn.init.zeros_(module.classifier.weight)
        self._check_logits(module, train_set)
        return module

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
        return {**self.__dict__, "_samples": {}}  # each worker puts the images on its own device
