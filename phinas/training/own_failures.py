"""What is a network's own fault in training: that it diverges, or does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from phinas.engines.evaluator import OUT_OF_MEMORY, EvaluationFailed, OutOfMemory
from phinas.engines.out_of_memory import out_of_memory

# Reading the loss makes the host wait for the device: seldom enough to cost nothing, often enough to stop early.
STEPS_BETWEEN_CHECKS = 50


class Diverged(Exception):
    """The loss, or what a trained network answers, stopped being finite numbers."""


def check_finite(losses: Tensor, before: int, of_steps: str = "") -> None:
    """Diverged, naming the first step whose loss [steps] is not finite; `before` steps came in earlier epochs."""
    finite = losses.isfinite()
    if not finite.all():
        step = int(finite.int().argmin())
        raise Diverged(f"loss is {losses[step].item():g} at step {before + step + 1}{of_steps}")


@contextmanager
def own_failures(batch_size: int, height: int, width: int) -> Iterator[None]:
    """Inside, that it diverged is EvaluationFailed; that it does not fit is OutOfMemory, naming batch and pixels."""
    try:
        yield
    except Diverged as error:
        raise EvaluationFailed(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemory(f"{OUT_OF_MEMORY} at batch {batch_size}, {width} x {height} pixels") from error
