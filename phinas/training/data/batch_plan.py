"""Which images each batch has, and how they are seen: functions of (seed, step), for which a run keeps no state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from phinas.training.augment.crops import Boxes, random_boxes
from phinas.training.augment.views import Views, random_views
from phinas.training.data.samples import Samples
from phinas.training.full.recipe import FullRecipe
from phinas.training.randomness import ORDER, POLICY, VIEWS, generator
from phinas.training.workers.shard import Shard


class BatchPlan:
    """Which images each batch has, and what is random about them but where they are cut: functions of (seed, step).

    count  training images.
    flip   they may be mirrored.
    side   the network's resolution, pixels.
    shard  whose part of each batch is asked for.

    The order and the draws of an epoch come from (seed, epoch), so that any step can be had at any time, and neither
    the steps before it nor anybody else's random numbers matter. Raises InputError where a batch does not divide.
    """

    def __init__(self, count: int, flip: bool, recipe: FullRecipe, seed: int, side: int, shard: Shard) -> None:
        self.size = min(recipe.batch_size, count)
        shard.check_divides(self.size)
        self.steps = count // self.size
        self.seed, self.side, self.recipe = seed, side, recipe
        self._count, self._flip, self._mine = count, flip, shard.part(self.size)
        self._policy: tuple[int, Any] = 0, None

    def epoch(self, step: int) -> int:
        """Counted from 1."""
        return step // self.steps + 1

    def part(self, step: int) -> slice:
        """The worker's images of `step` among those of its epoch."""
        before = step % self.steps * self.size
        return slice(before + self._mine.start, before + self._mine.stop)

    def order(self, epoch: int) -> Tensor:
        """The images of the epoch as they come: int64 [count]."""
        return torch.randperm(self._count, generator=generator(self.seed, ORDER, epoch))

    def boxes(self, epoch: int, size: Sequence[int]) -> Boxes:
        """Random crops of images of one size (height, width), in the order in which they come."""
        count = self.steps * self.size
        return random_boxes(torch.tensor(size).expand(count, 2), self._flip, generator(self.seed, VIEWS, epoch))

    def views(self, epoch: int, shift: int, where: torch.device) -> Views:
        """Where they are shifted to, in the order in which they come."""
        return random_views(self.steps * self.size, shift, self._flip, generator(self.seed, VIEWS, epoch), where)

    def shown(self, samples: Samples, step: int) -> tuple[Tensor, Tensor]:
        """A batch of `step`, cut out and moved, as the network sees it: float32 images and int64 labels."""
        epoch, pixels = self.epoch(step), samples.pixels
        side = self.recipe.side(epoch, self.side)
        if (policy := self.recipe.policy) is not None:
            if self._policy[0] != epoch:
                self._policy = epoch, policy.draw(self.steps * self.size, generator(self.seed, POLICY, epoch))
            pixels = policy.apply(pixels, self._policy[1][self.part(step)])
        images = samples.normalised(pixels)
        if side != images.shape[3]:
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images, samples.labels
