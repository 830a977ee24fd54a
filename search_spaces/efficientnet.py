"""The skeleton of EfficientNet-B0 with free expansions, kernels, depths and squeeze-excitation (Accel-NASBench)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from operator import itemgetter
from typing import Any

from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage
from phinas.networks.reference import EFFICIENTNET_B0
from search_spaces.space import Decision

EXPANSIONS = (1, 4, 6)
KERNELS = (3, 5)
LAYERS = (1, 2, 3)
LAYERS_OF_BLOCK_5 = (1, 2, 3, 4)  # B0 has four there
SE_RATIOS = (0.0, 0.25)


class EfficientNet:
    """B0's channels, strides, stem and head; per block its expansion, kernel, layers and squeeze-excitation.

    28 decisions, 1.04e11 networks, every one distinct: the space of the 5,138 networks that Accel-NASBench trained
    on ImageNet (its field `block5_l` is the decision `block5.layers`, and so on; blocks count from 0 there).
    Raises InputError naming the argument that is wrong.
    """

    def __init__(self, resolution: int = 224, classes: int = 1000) -> None:
        try:
            self._skeleton = replace(EFFICIENTNET_B0, resolution=resolution, classes=classes)
        except ValueError as error:
            raise InputError(f"EfficientNet space: {error}") from None
        decisions = []
        for block in range(len(self._skeleton.stages)):
            decisions += [
                Decision(f"block{block}.expand", EXPANSIONS),
                Decision(f"block{block}.kernel", KERNELS),
                Decision(f"block{block}.layers", LAYERS_OF_BLOCK_5 if block == 5 else LAYERS),
                Decision(f"block{block}.se", SE_RATIOS),
            ]
        self.decisions: tuple[Decision, ...] = tuple(decisions)
        names = [decision.name for decision in decisions]
        self._of_block = [itemgetter(*names[first : first + 4]) for first in range(0, len(names), 4)]

    def decode(self, choices: Mapping[str, Any]) -> Arch:
        """The network of these choices; every combination is one."""
        stages = [_stage(block, *of_block(choices)) for block, of_block in enumerate(self._of_block)]
        return self._skeleton.with_stages(stages)


@cache  # a space has few stages and many networks
def _stage(block: int, expand: int, kernel: int, layers: int, se_ratio: float) -> Stage:
    """The stage of these choices, which come in the order of the decisions."""
    return replace(EFFICIENTNET_B0.stages[block], expand=expand, kernel=kernel, repeats=layers, se_ratio=se_ratio)
