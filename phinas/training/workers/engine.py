"""Which workers train: how many, where, and over whose images their batch norms go; `ray_train.py` starts them."""

from __future__ import annotations

from dataclasses import dataclass

from phinas.engines.threads import MOST_THREADS
from phinas.files.checks import check_whole
from phinas.files.errors import InputError
from phinas.training.full.recipe import FullRecipe
from phinas.training.workers.batch_norm import norm_workers
from phinas.training.workers.shard import Shard


@dataclass(frozen=True)
class Engine:
    """What `conf/train.yaml` says of the workers; InputError names the setting, its value and what is allowed.

    workers          processes that train together; one is the command's own, and needs no Ray.
    address          of a Ray cluster, "auto" or host:port; None starts Ray on this machine.
    cpus_per_worker  of which each takes one torch thread; None: an equal share of what there is.
    gpus_per_worker  1 or 0; None: one where there are any.
    max_failures     how often all start again from the newest checkpoint when a worker dies.
    norm_over        workers over whose images a batch norm goes; None: all where a worker has fewer than 32 of a step,
                     otherwise those of tensorflow/tpu's groups: its own up to 8 workers, max(8, workers // 8) beyond.
    """

    workers: int = 1
    address: str | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: int | None = None
    max_failures: int = 3
    norm_over: int | None = None

    def __post_init__(self) -> None:
        check_whole("engine.workers", self.workers)
        check_whole("engine.max_failures", self.max_failures, least=0)
        if self.cpus_per_worker is not None:
            check_whole("engine.cpus_per_worker", self.cpus_per_worker, most=MOST_THREADS)
        if self.norm_over is not None:
            check_whole("engine.norm_over", self.norm_over)
        if self.gpus_per_worker not in (None, 0, 1):
            raise InputError(f"engine.gpus_per_worker={self.gpus_per_worker}: it must be null, 0 or 1")
        if self.workers % (self.norm_over or 1):
            raise InputError(f"engine.norm_over={self.norm_over}: it must divide engine.workers={self.workers}")
        if self.workers == 1 and self.address is not None:
            raise InputError(f"engine.address={self.address}: one worker trains here; it takes engine.workers=2")

    def check(self, recipe: FullRecipe, batch: int) -> None:
        """InputError where these workers cannot train by the recipe, in batches of so many images."""
        Shard(0, self.workers).check_divides(batch)
        if recipe.accumulate > max(1, batch // self.workers // 2):
            raise InputError(
                f"recipe.accumulate={recipe.accumulate}: a worker's {batch // self.workers} images of a batch "
                "must have parts of 2 images or more"
            )
        if recipe.compile and self.workers > 1:
            raise InputError(f"recipe.compile=true: it takes engine.workers=1, not {self.workers}")

    def norms(self, batch: int) -> int:
        """Over how many workers' images a batch norm goes."""
        return norm_workers(self.workers, batch // self.workers) if self.norm_over is None else self.norm_over


class WorkersFailed(Exception):
    """Workers died, and so did those that took over."""
