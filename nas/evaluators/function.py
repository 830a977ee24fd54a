"""A plain function as an evaluator: network in, accuracy out."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from phinas.engines.evaluator import OUT_OF_MEMORY, Measurement, OutOfMemory
from phinas.engines.out_of_memory import out_of_memory
from phinas.files.errors import InputError
from phinas.networks.network import Network


class Function:
    """Calls `function(network)`, or `function(network, seed)` where it takes two arguments, for its accuracy.

    The accuracy is a fraction. What the function raises stops the search, but for an EvaluationFailed (of
    phinas.engines.evaluator) and for want of memory, which are recorded as the network's own failures.
    """

    def __init__(self, function: Callable[..., Any] | str) -> None:
        """`function` may be a dotted path too, as on a command line. Raises InputError where it is no function."""
        self.function = _named(function) if isinstance(function, str) else function
        if not callable(self.function):
            raise InputError(f"evaluator.function={function!r}: it must be a function from a network to its accuracy")
        self.takes_seed = _positional(self.function) >= 2

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield the one measurement there is."""
        try:
            accuracy = self.function(network, seed) if self.takes_seed else self.function(network)
        except (RuntimeError, MemoryError) as error:
            if "torch" not in sys.modules or not out_of_memory(error):
                raise
            raise OutOfMemory(f"{OUT_OF_MEMORY}: {error}") from error
        yield Measurement(_fraction(accuracy))


def as_evaluator(evaluate: Any) -> Any:
    """An evaluator as it is; a function or a method that is no generator, or a lambda, as a `Function`."""
    function = evaluate.func if isinstance(evaluate, functools.partial) else evaluate
    if inspect.isroutine(function) and not inspect.isgeneratorfunction(function):
        return Function(evaluate)
    if not callable(evaluate):
        raise InputError(
            f"evaluate={evaluate!r}: it must be a function from a network to its accuracy, or an evaluator or its name"
        )
    return evaluate


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"evaluator.function={path}: cannot be found ({error})") from None


def _positional(function: Callable[..., Any]) -> int:
    """How many arguments without defaults the function takes by their place."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return 1
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in by_place and each.default is inspect.Parameter.empty for each in parameters)


def _fraction(accuracy: Any) -> float:
    """Raises ValueError naming what came instead of an accuracy."""
    try:
        return float(accuracy)
    except (TypeError, ValueError):
        raise ValueError(f"the function returned {accuracy!r}; an accuracy is a fraction in [0, 1]") from None
