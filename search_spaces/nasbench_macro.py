"""The space of NAS-Bench-Macro (arXiv 2103.11922): eight layers, three choices each, all of it trained on CIFAR-10."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import groupby
from typing import Any

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.network import Network
from search_spaces.space import Decision, Picks

IDENTITY = "identity"
OPERATIONS = (IDENTITY, "mb3_k3", "mb6_k5")  # digits 0, 1 and 2 of the published table
LAYERS_AND_CHANNELS = ((2, 64), (3, 128), (3, 256))  # of the three stages; the first layer of each strides


class NasBenchMacro:
    """Eight layers behind a 3x3 stem of 32 channels, a 1x1 convolution to 1280 on top; ReLU throughout.

    The decisions `layer0` ... `layer7` are the eight digits of the published table: an identity, or MobileNetV2's
    block with expansion 3 and kernel 3, or with expansion 6 and kernel 5. Where the shape changes, in layers 0, 2 and
    5, the identity is a strided 1x1 convolution with norm and no activation. Elsewhere it is no layer at all, so that
    its place within a stage does not matter: the 6,561 picks are 3,969 networks, and the table repeats the results of
    each under all of its names.

    Raises InputError naming the argument that is wrong.
    """

    def __init__(self, resolution: int = 32, classes: int = 10) -> None:
        try:
            self._skeleton = Arch(
                stem=Stem(channels=32, stride=1),
                stages=(_run(IDENTITY, stride=2, channels=64, repeats=1),),  # others take its place
                head_channels=1280,
                activation="relu",
                resolution=resolution,
                classes=classes,
                dropout=0.0,
                drop_connect=0.0,
                bn_momentum=0.1,  # PyTorch's defaults, with which the table's networks were trained
                bn_eps=1e-5,
            )
        except ValueError as error:
            raise InputError(f"NAS-Bench-Macro space: {error}") from None
        layers = sum(count for count, _ in LAYERS_AND_CHANNELS)
        self.decisions: tuple[Decision, ...] = tuple(Decision(f"layer{number}", OPERATIONS) for number in range(layers))

    def decode(self, choices: Mapping[str, Any]) -> Arch:
        """The network of these choices; every combination is one."""
        operations = tuple(choices[decision.name] for decision in self.decisions)
        stages: list[Stage] = []
        for count, channels in LAYERS_AND_CHANNELS:
            stages += _stages(operations[:count], channels)
            operations = operations[count:]
        return self._skeleton.with_stages(stages)

    def encode(self, network: Network) -> Picks:
        """The picks of a network, with the identities last in each stage, as the authors of the table trained it.

        Raises InputError for a network of another space.
        """
        picks: list[int] = []
        for count, channels in LAYERS_AND_CHANNELS:
            layers: list[int] = []
            for stage in network.stages if isinstance(network, Arch) else ():
                if stage.channels == channels:
                    layers += [{3.0: 1, 6.0: 2}.get(stage.expand, 0)] * stage.repeats
            picks += [*layers, *[0] * count][:count]
        choices = {decision.name: OPERATIONS[pick] for decision, pick in zip(self.decisions, picks, strict=True)}
        if self.decode(choices).key() != network.key():
            raise InputError("not in the space of NAS-Bench-Macro")
        return tuple(picks)


@cache  # a space has few stages and many networks
def _stages(operations: tuple[str, ...], channels: int) -> list[Stage]:
    """A stage of the benchmark as runs of equal layers; identities that change no shape are left out."""
    layers = [operations[0], *(operation for operation in operations[1:] if operation != IDENTITY)]
    runs = [(operation, len(list(run))) for operation, run in groupby(layers)]
    return [
        _run(operation, 1 if position else 2, channels, length) for position, (operation, length) in enumerate(runs)
    ]


def _run(operation: str, stride: int, channels: int, repeats: int) -> Stage:
    if operation == IDENTITY:
        return Stage("linear", kernel=1, stride=stride, channels=channels, repeats=repeats, skip="none")
    expand, kernel = (3, 3) if operation == "mb3_k3" else (6, 5)
    return Stage("mbconv", kernel=kernel, stride=stride, channels=channels, repeats=repeats, expand=expand)
