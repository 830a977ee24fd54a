"""The form of a network for inference: batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy

import torch
from torch import nn


def folded(module: nn.Module) -> nn.Module:
    """An evaluation copy of `module`, without the batch norms that follow a convolution in a sequence.

    (w * x - mean) / sqrt(variance + eps) * gamma + beta is itself a convolution, with a bias. Its weights are computed
    in float64 and rounded once. The copy computes what `module` does in evaluation mode, up to rounding, and has its
    structure and names but for the norms; a norm elsewhere, or without running statistics, stays one. It needs no
    gradients. `module` is left as it is.
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for sequence in module.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        layers = list(sequence.named_children())
        for (conv_name, conv), (norm_name, norm) in zip(layers, layers[1:], strict=False):
            # A subclass may compute anything.
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
                setattr(sequence, conv_name, _fold(conv, norm))
                delattr(sequence, norm_name)
    return module


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution that computes norm(conv(x)), on the device and with the dtype of `conv`."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    bias = -norm.running_mean.double()
    if conv.bias is not None:
        bias = bias + conv.bias.double()
    if norm.affine:
        scale = scale * norm.weight.double()
    bias = bias * scale
    if norm.affine:
        bias = bias + norm.bias.double()
    fused = copy.deepcopy(conv)  # a layer may stand in several places
    weight = conv.weight.double() * scale[:, None, None, None]
    fused.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    fused.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    return fused
