"""What the workers of a training say to one another. A worker alone says nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from phinas.training.workers.shard import ALONE, Shard

Value = TypeVar("Value")


@dataclass(frozen=True)
class WorkerGroup:
    """The workers of a training as one of them sees them. All of them must make the same calls in the same order.

    shard  which worker this is.
    norms  the workers over whose images its batch norms go; None: its own alone.
    """

    shard: Shard = ALONE
    norms: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes and speaks."""
        return self.shard.rank == 0

    @property
    def alone(self) -> bool:
        return self.shard.world_size == 1

    def data_parallel(self, module: nn.Module) -> nn.Module:
        """What computes as `module` does and averages the gradients over the workers."""
        if self.alone:
            return module
        # Statistics are `average`d, so the first worker's need not be sent to the others.
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def without_sync(self, forward: object, last: bool) -> AbstractContextManager[object]:
        """For a part of a batch: gradients add up in each worker until those of the last part are averaged."""
        if isinstance(forward, DistributedDataParallel) and not last:
            return forward.no_sync()
        return nullcontext()

    def average(self, loss: Tensor, module: nn.Module) -> None:
        """Make `loss` its mean over the workers, and statistics of norms that do not go over all of them too.

        So every worker has the same network. The variances miss how far the workers' means are apart.
        """
        if self.alone:
            return
        tensors = [loss]
        if self.norms is None or self.norms.size() < self.shard.world_size:
            norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
            statistics = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
            tensors += [statistic for statistic in statistics if statistic is not None]
        means = self.sum(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.shard.world_size
        for tensor, mean in zip(tensors, torch.split(means, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the workers."""
        if not self.alone:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def broadcast(self, value: Value) -> Value:
        """What the first worker says, told to all; it travels as a pickle."""
        if self.alone:
            return value
        said = [value]
        dist.broadcast_object_list(said)
        return said[0]

    def broadcast_flag(self, wish: bool) -> bool:
        """Whether the first worker wishes it. Through the host's memory, so that nobody waits for a GPU."""
        if self.alone:
            return wish
        said = torch.tensor([int(wish)])
        dist.broadcast(said, 0)
        return bool(said.item())


ONE_WORKER = WorkerGroup()


def worker_group(norm_over: int) -> WorkerGroup:
    """The group of this process's `torch.distributed`, whose norms go over `norm_over` workers, which divides them."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    norms = None
    if norm_over > 1:
        # Every process takes part in making every group.
        groups = [dist.new_group(range(first, first + norm_over)) for first in range(0, world_size, norm_over)]
        norms = groups[rank // norm_over]
    return WorkerGroup(Shard(rank, world_size), norms)
