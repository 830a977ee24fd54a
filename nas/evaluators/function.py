"""A plain function as an evaluator: network in, accuracy out."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from phinas.engines.evaluator import OUT_OF_MEMORY, Measurement, OutOfMemory
from phinas.engines.out_of_memory import out_of_memory
from phinas.files.dotted_path import located
from phinas.files.errors import InputError
from phinas.networks.network import Network


class Function:
    """Calls `function(network)`, or `function(network, seed)` where it takes two arguments, for its accuracy.

    The accuracy is a fraction. What the function raises stops the search, but for an EvaluationFailed (of
    phinas.engines.evaluator) and for want of memory, which are recorded as the network's own failures.
    """

    def __init__(self, function: Callable[..., Any] | str) -> None:
        """`function` may be a dotted path too, as on a command line. Raises InputError where it is no such function."""
        self.function = located(function, "evaluator.function") if isinstance(function, str) else function
        if not callable(self.function):
            raise InputError(f"evaluator.function={function!r}: it must be a function from a network to its accuracy")
        self.takes_seed = _arguments(self.function) == 2

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield the one measurement there is."""
        try:
            accuracy = self.function(network, seed) if self.takes_seed else self.function(network)
        except (RuntimeError, MemoryError) as error:
            if "torch" not in sys.modules or not out_of_memory(error):
                raise
            raise OutOfMemory(f"{OUT_OF_MEMORY}: {error}") from error
        try:
            fraction = float(accuracy)
        except (TypeError, ValueError):
            raise ValueError(f"{self!r} returned {accuracy!r}; an accuracy is a fraction in [0, 1]") from None
        yield Measurement(fraction)

    def __repr__(self) -> str:
        return str(getattr(self.function, "__qualname__", self.function))


def as_evaluator(evaluate: Any) -> Any:
    """What Python hands over as an evaluator: one as it is; a function, or what is called like one, as a Function.

    Raises InputError for what is neither.
    """
    if inspect.isclass(evaluate) or not callable(evaluate):
        raise InputError(
            f"evaluate={evaluate!r}: it must be a function from a network to its accuracy, or an evaluator or its name"
        )
    function = evaluate.func if isinstance(evaluate, functools.partial) else evaluate
    called = function if inspect.isroutine(function) else type(function).__call__
    yields = inspect.isgeneratorfunction(called)
    if _arguments(evaluate) == 1 or (inspect.isroutine(function) and not yields):
        if yields:
            raise InputError(f"evaluate={evaluate!r}: a generator is an evaluator, and takes a network and a seed")
        return Function(evaluate)
    return evaluate


def _arguments(function: Callable[..., Any]) -> int:
    """One, or two: how many arguments it must be called with. Raises InputError for any other number, and for words."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return 1
    needed = [each for each in parameters if each.default is inspect.Parameter.empty]
    by_place = [each for each in needed if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    variable = [each for each in needed if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    if len(by_place) not in (1, 2) or len(by_place) + len(variable) < len(needed):
        if not (variable and not by_place):
            raise InputError(
                f"evaluate={function!r}: it must take a network, or a network and a seed, and need no more"
            )
    return len(by_place) or 1
