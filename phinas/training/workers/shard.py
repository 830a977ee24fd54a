"""Which part of a batch, or of the images that are scored, one of several workers computes."""

from __future__ import annotations

from dataclasses import dataclass

from phinas.files.errors import InputError


@dataclass(frozen=True)
class Shard:
    """That of worker `rank`, from 0, of `world_size` workers; torch.distributed's words."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size}")

    def part(self, count: int) -> slice:
        """This worker's of `count` things in a row. Shards are of equal size, to within one, and together are all."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def check_divides(self, batch: int) -> None:
        """InputError unless a batch of so many images has equal parts for all workers."""
        if batch % self.world_size:
            raise InputError(f"recipe.batch_size={batch}: it must be a multiple of engine.workers={self.world_size}")


ALONE = Shard()
