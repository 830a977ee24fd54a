"""Faster formulae for the convolutions that small ConvNets are made of, for training on a CPU.

A mobile network at proxy sizes (16 to 32 pixels) spends its late stages on maps of 1 to 4 pixels. There PyTorch 2.13
with oneDNN 3.12 takes, for a batch of 32 on one AVX-512 core, 10 ms for a 1x1 convolution that a matrix product does in
1.3 ms, and 17 ms for the weight gradient of a 5x5 depthwise convolution on 1x1 maps, which is a sum of 32 products per
channel. On such maps most weights of a wide kernel only ever meet padding, and are left out: on 1x1 maps one per kernel
remains. Larger convolutions are left to PyTorch. The values are those of `nn.Conv2d` up to the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Multiply-adds up to which a 1x1 convolution is a matrix product. On a core of an AMD EPYC (forward and backward, 48 to
# 640 channels, batches of 32 and 128) that is 2 to 3 times as fast at 1x1 maps, even at 1 to 5 million multiply-adds,
# and only half as fast from some 20 million on, as PyTorch's matrix products are Intel's.
_SMALL_PRODUCT = 2**21


@contextmanager
def fast_convolutions(module: nn.Module) -> Iterator[None]:
    """Inside, the plain convolutions of `module` compute by the formulae here if they have one and lie on a CPU.

    Parameters, state dict and class stay what they are, and so does what is exported or pickled outside.
    """
    replaced: list[nn.Conv2d] = []
    try:
        for layer in module.modules():
            # A subclass may compute anything; a forward of its own was set by an outer block, or by somebody else.
            if type(layer) is not nn.Conv2d or layer.weight.device.type != "cpu" or "forward" in vars(layer):
                continue
            formula = _formula(layer)
            if formula is not None:
                layer.forward = partial(formula, layer)  # type: ignore[method-assign]
                replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            del layer.forward  # the class's own shows again


def _formula(layer: nn.Conv2d) -> Callable[[nn.Conv2d, Tensor], Tensor] | None:
    """For 1x1 kernels, and for square, odd ones padded by half with zeros, so that each formula has one case."""
    kernel = layer.kernel_size[0]
    if (layer.kernel_size, layer.stride, layer.padding, layer.groups) == ((1, 1), (1, 1), (0, 0), 1):
        return _pointwise
    if (
        layer.bias is not None
        or kernel % 2 == 0
        or layer.kernel_size != (kernel, kernel)
        or layer.padding != (kernel // 2, kernel // 2)
        or layer.padding_mode != "zeros"
        or layer.stride[0] != layer.stride[1]
        or layer.dilation != (1, 1)
    ):
        return None
    if layer.groups == 1:
        return _dense
    return _depthwise if layer.groups == layer.in_channels == layer.out_channels else None


def _pointwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution is a matrix product over pixels, which lie one behind the other in channels_last."""
    if x.numel() * layer.out_channels > _SMALL_PRODUCT and x.shape[2:] != (1, 1):
        return nn.Conv2d.forward(layer, x)
    return functional.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)


def _dense(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """On a 1 x 1 map a matrix product of the kernels' centres."""
    if x.shape[2:] == (1, 1):
        return functional.linear(x.flatten(1), _centre(layer))[:, :, None, None]
    return _cropped(layer, x)


def _depthwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """On a 1 x 1 map one weight per channel; the weight gradient tap by tap where the kernel is wider than the map."""
    if x.shape[2:] == (1, 1):
        return x * _centre(layer)[:, :, None]
    stride, kernel = layer.stride[0], layer.kernel_size[0]
    output_side = (max(x.shape[2:]) - 1) // stride + 1
    if output_side >= kernel or not torch.is_grad_enabled():
        return _cropped(layer, x)
    y: Tensor = _SmallMapDepthwise.apply(x, layer.weight, stride)  # type: ignore[no-untyped-call]
    return y


def _centre(layer: nn.Conv2d) -> Tensor:
    """The weights in the kernels' centres: [outputs, inputs per group]."""
    middle = layer.kernel_size[0] // 2
    return layer.weight[:, :, middle, middle]


def _cropped(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Without the weights that only ever meet padding: on an n x n map those further than n - 1 from the centre."""
    kernel, reach = layer.kernel_size[0], max(x.shape[2:]) - 1
    unused = kernel // 2 - reach
    if unused <= 0:
        return nn.Conv2d.forward(layer, x)
    used = slice(unused, kernel - unused)
    return functional.conv2d(x, layer.weight[:, :, used, used], None, layer.stride, reach, groups=layer.groups)


class _SmallMapDepthwise(torch.autograd.Function):
    """y[c, i, j] = sum over taps (u, v) of w[c, u, v] * x[c, s*i + u - p, s*j + v - p], with p = k // 2."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        context.save_for_backward(x, weight)
        context.stride = stride
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, weight.shape[0])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = (saved.to(gradient.dtype) for saved in context.saved_tensors)  # as autocast had them
        stride, padding = [context.stride] * 2, [weight.shape[-1] // 2] * 2
        into_x = into_weight = None
        if context.needs_input_grad[0]:
            into_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], weight.shape[0], [True, False, False]
            )[0]
        if context.needs_input_grad[1]:
            into_weight = _weight_gradient(x, gradient, weight.shape[-1], context.stride)
        return into_x, into_weight, None


def _weight_gradient(x: Tensor, gradient: Tensor, kernel: int, stride: int) -> Tensor:
    """dw[c, u, v] = sum over images and pixels of dy[c, i, j] * x[c, s*i + u - p, s*j + v - p]: [C, 1, k, k]."""
    pixels, errors = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    taps = x.new_zeros(kernel, kernel, x.shape[1])
    rows = [_overlap(u, kernel, stride, pixels.shape[1], errors.shape[1]) for u in range(kernel)]
    columns = [_overlap(v, kernel, stride, pixels.shape[2], errors.shape[2]) for v in range(kernel)]
    for u, row in enumerate(rows):
        for v, column in enumerate(columns):
            if row and column:  # otherwise the tap only ever meets padding
                products = pixels[:, row[0], column[0]] * errors[:, row[1], column[1]]
                torch.sum(products, (0, 1, 2), out=taps[u, v])
    return taps.permute(2, 0, 1).unsqueeze(1)


def _overlap(tap: int, kernel: int, stride: int, inputs: int, outputs: int) -> tuple[slice, slice] | None:
    """Along one axis, the inputs that `tap` meets and the outputs it meets them for."""
    offset = tap - kernel // 2
    first = max(0, -(offset // stride))  # smallest output with stride * output + offset >= 0
    last = min(outputs - 1, (inputs - 1 - offset) // stride)
    if last < first:
        return None
    start = stride * first + offset
    return slice(start, stride * last + offset + 1, stride), slice(first, last + 1)
