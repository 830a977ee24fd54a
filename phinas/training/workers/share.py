"""Which part of a batch, or of the images that are scored, one of several workers computes."""

from __future__ import annotations

from dataclasses import dataclass

from phinas.files.errors import InputError


@dataclass(frozen=True)
class Share:
    """Worker `rank`, from 0, `of` so many."""

    rank: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.of:
            raise ValueError(f"rank {self.rank} of {self.of}")

    def part(self, count: int) -> slice:
        """This worker's of `count` things in a row; all workers' behind each other are all, alike to within one."""
        return slice(self.rank * count // self.of, (self.rank + 1) * count // self.of)

    def check_divides(self, batch: int) -> None:
        """InputError unless a batch of so many images has equal parts for all workers."""
        if batch % self.of:
            raise InputError(f"recipe.batch_size={batch}: it must be a multiple of engine.workers={self.of}")


ALONE = Share()
