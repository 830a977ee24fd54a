"""Batch norm whose statistics are those of several workers' images; torch's own, SyncBatchNorm, refuses CPUs.

tensorflow/tpu's EfficientNet (utils.py, TpuBatchNormalization) averages the moments over groups of max(8, shards // 8)
shards where there are more than 8, and over none up to 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

_FEW_IMAGES = 32  # of a worker, below which its own statistics are too noisy to normalise by


def norm_workers(workers: int, images: int) -> int:
    """Over how many of the workers' images a norm should go, where each has `images` of a step.

    All of them where a worker has few; otherwise as tensorflow/tpu's groups are, made to divide the workers.
    """
    if images < _FEW_IMAGES:
        return workers
    if workers <= 8:
        return 1
    return next(size for size in range(max(8, workers // 8), workers + 1) if workers % size == 0)


@contextmanager
def norms_over(group: dist.ProcessGroup | None, module: nn.Module) -> Iterator[None]:
    """Inside, batch norms of `module` in training form see the images of all workers in `group`; None: their own.

    Each worker must have as many images as the others. Parameters, state dict and class stay what they are.
    """
    replaced: list[nn.BatchNorm2d] = []
    try:
        for layer in module.modules():
            if group is not None and isinstance(layer, nn.BatchNorm2d):
                layer.forward = partial(_forward, layer, group)  # type: ignore[method-assign]
                replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            del layer.forward  # the class's own shows again


def _forward(layer: nn.BatchNorm2d, group: dist.ProcessGroup, x: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, x)
    pixels = x.numel() // x.shape[1] * group.size()
    mean, variance = _moments(x.detach(), group)
    if layer.running_mean is not None and layer.running_var is not None and layer.num_batches_tracked is not None:
        layer.num_batches_tracked += 1
        rate = 1 / layer.num_batches_tracked.item() if layer.momentum is None else layer.momentum
        layer.running_mean.lerp_(mean, rate)
        layer.running_var.lerp_(variance * (pixels / (pixels - 1)), rate)
    y: Tensor = _Normalise.apply(x, layer.weight, layer.bias, mean, variance, layer.eps, group)  # type: ignore[no-untyped-call]
    return y


def _moments(x: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over all workers' [n, c, h, w]: float32 [c]."""
    scratch = torch.zeros(2, x.shape[1], device=x.device)  # without running statistics bfloat16 would have its own
    mean, variance = (moment.double() for moment in torch.batch_norm_update_stats(x, scratch[0], scratch[1], 0.0))
    # E[x^2] - E[x]^2 cancels in float32 where a mean is large; these are few numbers, so that double costs nothing.
    both = torch.cat([mean, variance + mean**2])
    dist.all_reduce(both, group=group)
    mean, square = (both / group.size()).chunk(2)
    return mean.float(), (square - mean**2).clamp_(min=0).float()


class _Normalise(torch.autograd.Function):
    """y = x^ * weight + bias with x^ = (x - mean) / sqrt(variance + eps), the moments being functions of all images."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, group: Any
    ) -> Tensor:
        context.save_for_backward(x, weight, mean, variance)
        context.eps, context.group = eps, group
        return nn.functional.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """dx = weight / s * (dy - E[dy] - x^ * E[dy x^]), with s = sqrt(variance + eps) and means over all images."""
        x, weight, mean, variance = context.saved_tensors
        group, eps = context.group, context.eps
        inverse = torch.rsqrt(variance + eps)  # 1 / s
        # As if the moments were constants: weight / s * dy, and this worker's sums of dy x^ and dy. They are given
        # as running and as saved ones: the CPU's kernel reads the former, CUDA's for channels_last the latter.
        into_x, into_weight, into_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, mean, inverse, False, eps, [True, True, True]
        )
        means = torch.cat([into_weight, into_bias])
        dist.all_reduce(means, group=group)
        of_product, of_gradient = (means / (x.numel() // x.shape[1] * group.size())).chunk(2)
        slope = -weight * inverse**2 * of_product
        offset = -weight * inverse * of_gradient - slope * mean
        into_x.addcmul_(x, slope[:, None, None]).add_(offset[:, None, None])
        return into_x, into_weight, into_bias, None, None, None, None
