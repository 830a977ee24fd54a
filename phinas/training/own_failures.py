"""What is a network's own fault in training, as an engine records it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phinas.engines.evaluator import OUT_OF_MEMORY, EvaluationFailed, OutOfMemory
from phinas.engines.out_of_memory import out_of_memory
from phinas.training.short.loop import Diverged


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
