"""The factorised hierarchical space of MnasNet (arXiv 1807.11626), in which EfficientNet-B0 was found too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from phinas.files.checks import check_number
from phinas.files.errors import InputError
from phinas.networks.arch import ACTIVATIONS, Arch, Stage, Stem
from phinas.networks.scale import round_channels
from search_spaces.space import Decision

STRIDES = (1, 2, 2, 2, 1, 2, 1)
REPEATS = (1, 2, 3, 4, 3, 3, 1)  # MobileNetV2's, about which the space offers more and fewer
FILTERS = (16, 24, 32, 64, 96, 160, 320)


class MnasNet:
    """Seven blocks of identical layers behind a 3x3 stride-2 stem of 32 channels, a 1x1 convolution to 1280 on top.

    Per block (`block1.op` ... `block7.layers`): the operation, the kernel, the squeeze-excitation ratio, the skip,
    the filters and the number of layers, 432 combinations in the paper. What differs from it:

    - Operations: `conv`, `sepconv` (depthwise and linear pointwise: MBConv without expansion, the first block of
      all published nets) and `mbconvN` with expansion N. The paper counts four operations without listing them.
    - Filters are the *distinct* multiples of MobileNetV2's, rounded to 8 by the official rule, so that no two
      choices mean one network. The paper's multipliers (0.75, 1, 1.25) cannot give the 112 and 192 filters of its
      own published nets; 1.2 can, and is added.
    - A block of one layer is offered {1, 2}: never none.
    - A last decision, `activation`, where more than one is given: B0 is SiLU, MnasNet-A1 and B1 are ReLU.

    Every combination is a network. Blocks of one layer whose shape changes have no place for an identity skip:
    there `identity` and `none` compute the same, but differ once scaled in depth, so both remain.

    drop_connect    None: what tensorflow/tpu pairs with the activation, 0.2 with SiLU (EfficientNet), 0 otherwise
                    (MnasNet); or one rate for all.
    Other arguments are those of `Arch`. Raises InputError naming the argument and what is allowed.
    """

    def __init__(
        self,
        resolution: int = 224,
        classes: int = 1000,
        activations: Sequence[str] = ("silu", "relu"),
        filter_multipliers: Sequence[float] = (0.75, 1.0, 1.2, 1.25),
        operations: Sequence[str] = ("conv", "sepconv", "mbconv3", "mbconv6"),
        kernels: Sequence[int] = (3, 5),
        se_ratios: Sequence[float] = (0.0, 0.25),
        skips: Sequence[str] = ("pool", "identity", "none"),
        layer_offsets: Sequence[int] = (-1, 0, 1),
        dropout: float = 0.2,
        drop_connect: float | None = None,
    ) -> None:
        for name, values in (
            ("activations", activations),
            ("filter_multipliers", filter_multipliers),
            ("operations", operations),
            ("kernels", kernels),
            ("se_ratios", se_ratios),
            ("skips", skips),
            ("layer_offsets", layer_offsets),
        ):
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise InputError(f"{name} must be a list of one or more values, got {values!r}")
        for activation in activations:
            if activation not in ACTIVATIONS:
                raise InputError(f"activations must be among {', '.join(ACTIVATIONS)}, got {activation!r}")
        for multiplier in filter_multipliers:
            check_number("filter_multipliers", multiplier, above=0)
        for offset in layer_offsets:
            if isinstance(offset, bool) or not isinstance(offset, int):
                raise InputError(f"layer_offsets must be whole numbers, got {offset!r}")
        for operation in operations:
            _block(operation)

        decisions = []
        for number, (filters, repeats) in enumerate(zip(FILTERS, REPEATS, strict=True), start=1):
            widths = {round_channels(filters, multiplier) for multiplier in filter_multipliers}
            layers = {repeats + offset for offset in layer_offsets if repeats + offset > 0}
            if not layers:
                raise InputError(f"layer_offsets leave block {number} no layer: {list(layer_offsets)}")
            decisions += [
                Decision(f"block{number}.op", tuple(operations)),
                Decision(f"block{number}.kernel", tuple(kernels)),
                Decision(f"block{number}.se", tuple(se_ratios)),
                Decision(f"block{number}.skip", tuple(skips)),
                Decision(f"block{number}.filters", tuple(sorted(widths))),
                Decision(f"block{number}.layers", tuple(sorted(layers))),
            ]
        names = [decision.name for decision in decisions]
        self._of_block = [itemgetter(*names[first : first + 6]) for first in range(0, len(names), 6)]
        self._activation = activations[0]  # where it is not decided
        if len(activations) > 1:
            decisions.append(Decision("activation", tuple(activations)))
        self.decisions: tuple[Decision, ...] = tuple(decisions)
        try:  # kernels, skips, rates, resolution: Arch knows what is allowed
            self._skeletons = {
                activation: Arch(
                    stem=Stem(channels=32),
                    stages=(_stage(1, "conv", 3, 0.0, "none", 16, 1),),  # replaced by decode
                    head_channels=1280,
                    activation=activation,
                    resolution=resolution,
                    classes=classes,
                    dropout=dropout,
                    drop_connect=drop_connect if drop_connect is not None else 0.2 if activation == "silu" else 0.0,
                )
                for activation in activations
            }
            for choice in range(max(len(decision.choices) for decision in decisions)):
                self.decode({d.name: d.choices[min(choice, len(d.choices) - 1)] for d in decisions})
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"MnasNet space: {error}") from None

    def decode(self, choices: Mapping[str, Any]) -> Arch:
        """The network of these choices; every combination is one."""
        stages = [_stage(number, *of_block(choices)) for number, of_block in enumerate(self._of_block, start=1)]
        return self._skeletons[choices.get("activation", self._activation)].with_stages(stages)


@lru_cache(maxsize=None, typed=True)  # a space has few stages and many networks; typed, as Arch refuses a kernel of 3.0
def _stage(number: int, operation: str, kernel: int, se_ratio: float, skip: str, filters: int, layers: int) -> Stage:
    """Block `number`, from 1, by the values of its decisions in their order."""
    block, expand = _block(operation)
    return Stage(block, kernel, STRIDES[number - 1], filters, layers, expand, se_ratio, skip)


def _block(operation: str) -> tuple[str, float]:
    """The `Stage` block and expansion of an operation; InputError where it is unknown."""
    if operation == "conv":
        return "conv", 1.0
    if operation == "sepconv":
        return "mbconv", 1.0
    match = re.fullmatch(r"mbconv([2-9]|[1-9]\d)", str(operation))  # mbconv1 would be sepconv under another name
    if match is None:
        raise InputError(f"operations must be among conv, sepconv, mbconv2, mbconv3, ..., got {operation!r}")
    return "mbconv", float(match[1])
