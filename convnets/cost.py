"""What a network costs, counted exactly with integer arithmetic; nothing is built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Costs of one forward pass of one image.

    macs         multiply-adds of convolutions and fully connected layers, squeeze-excitation included; the paper's
                 "FLOPS". Biases, norms, activations, pooling and additions are not counted.
    params       trainable parameters.
    activations  elements that convolutions put out (the "acts" of pycls, arXiv 2003.13678).
    """

    macs: int
    params: int
    activations: int
