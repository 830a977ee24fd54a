"""What the workers of a training say to one another. One alone says nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from phinas.training.workers.share import ALONE, Share

Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """The workers of a training as one of them sees them. All of them must make the same calls in the same order.

    share  which worker this is.
    norms  the workers over whose images its batch norms go; None: its own alone.
    """

    share: Share = ALONE
    norms: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes and speaks."""
        return self.share.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """What computes as `module` does and averages the gradients over the workers."""
        if self.share.of == 1:
            return module
        # Statistics are `average`d, so the first worker's need not be sent to the others.
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def apart(self, forward: object, last: bool) -> AbstractContextManager[object]:
        """For a part of a batch: gradients add up in each worker until those of the last part are averaged."""
        if isinstance(forward, DistributedDataParallel) and not last:
            return forward.no_sync()
        return nullcontext()

    def average(self, loss: Tensor, module: nn.Module) -> None:
        """Make `loss` its mean over the workers, and statistics of norms that do not go over all of them too.

        So every worker has the same network. The variances miss how far the workers' means are apart.
        """
        if self.share.of == 1:
            return
        tensors = [loss]
        if self.norms is None or self.norms.size() < self.share.of:
            norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
            tensors += [one for norm in norms for one in (norm.running_mean, norm.running_var) if one is not None]
        means = self.total(torch.cat([one.reshape(-1) for one in tensors])) / self.share.of
        for one, mean in zip(tensors, torch.split(means, [one.numel() for one in tensors]), strict=True):
            one.copy_(mean.view_as(one))

    def total(self, values: Tensor) -> Tensor:
        """The sum over the workers."""
        if self.share.of > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def told(self, value: Value) -> Value:
        """What the first worker says, told to all; it travels as a pickle."""
        if self.share.of == 1:
            return value
        said = [value]
        dist.broadcast_object_list(said)
        return said[0]

    def agree(self, wish: bool) -> bool:
        """Whether the first worker wishes it. Through the host's memory, so that nobody waits for a GPU."""
        if self.share.of == 1:
            return wish
        said = torch.tensor([int(wish)])
        dist.broadcast(said, 0)
        return bool(said.item())


def joined(norm_over: int) -> Group:
    """The group of this process's `torch.distributed`, whose norms go over `norm_over` workers, which divides them."""
    rank, of = dist.get_rank(), dist.get_world_size()
    norms = None
    if norm_over > 1:
        # Every process takes part in making every group.
        groups = [dist.new_group(range(first, first + norm_over)) for first in range(0, of, norm_over)]
        norms = groups[rank // norm_over]
    return Group(Share(rank, of), norms)
