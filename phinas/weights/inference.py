"""The form of a network for inference: batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy
from typing import TypeGuard, TypeVar

import torch
from torch import nn

_Layer = TypeVar("_Layer", bound=nn.Module)


def folded(module: nn.Module) -> nn.Module:
    """An evaluation copy of `module`, without the batch norms that follow a convolution in a sequence.

    (w * x - mean) / sqrt(variance + eps) * gamma + beta is itself a convolution, with a bias. Its weights are computed
    in float64 and rounded once. The copy computes what `module` does in evaluation mode, up to rounding, and has its
    structure and names but for the norms; a norm elsewhere, or without running statistics, stays one. It needs no
    gradients. `module` is left as it is.
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for sequence in module.modules():
        if not isinstance(sequence, nn.Sequential) or type(sequence).forward is not nn.Sequential.forward:
            continue
        layers = list(sequence._modules.items())  # named_children() leaves out a layer's second place
        for (conv_name, conv), (norm_name, norm) in zip(layers, layers[1:], strict=False):
            if _is_plain(conv, nn.Conv2d) and _is_plain(norm, nn.BatchNorm2d) and norm.running_mean is not None:
                setattr(sequence, conv_name, _fold(conv, norm))
                delattr(sequence, norm_name)
    return module


def _is_plain(layer: nn.Module | None, kind: type[_Layer]) -> TypeGuard[_Layer]:
    """Whether the layer computes what its kind does: a subclass may compute anything, and so may a hook."""
    return type(layer) is kind and not layer._forward_hooks and not layer._forward_pre_hooks


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
