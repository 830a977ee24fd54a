"""The exponential moving average of a network's weights, by which it is evaluated."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from phinas.files.checks import check_number


def ramped_decay(updates: int, decay: float = 0.9999) -> float:
    """min(decay, (1 + updates) / (10 + updates)), so that the weights a run starts from are soon forgotten.

    0.9999 is reached after 89,990 updates; a run of few steps is averaged over its last tenth or so throughout.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """A copy of a network that follows its weights and batch-norm statistics, more and more slowly.

    At update t = 1, 2, ...: average <- average + (1 - d) * (now - average), with d = ramped_decay(t, decay), from the
    weights at construction. What is not a floating-point number, such as a count of batches, is copied. Once after each
    step of the optimiser, this is tf.train.ExponentialMovingAverage with num_updates=global_step, as in tensorflow/tpu.

    module   the average: in evaluation form, on the device and in the memory layout of the network at construction.
    updates  how many there have been.

    Raises InputError for a decay out of [0, 1), ValueError for half-precision weights, in which 1 - 0.9999 of a
    difference is lost to rounding: keep the weights in float32 and compute under autocast.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        self.decay = check_number("decay", decay, least=0, below=1)
        for tensor in _tensors(module):
            if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
                raise ValueError(f"weights are {tensor.dtype}; an average needs float32 or wider")
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take one step towards `module`, which has the layers and the device of the module at construction."""
        self.updates += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(_tensors(self.module), _tensors(module), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - ramped_decay(self.updates, self.decay))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on to the bit: tensors, which are not copied, and a number."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. Raises RuntimeError naming the weights that do not fit this network."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, a shared one once."""
    return chain(module.parameters(), module.buffers())
