"""NAS-Bench-Macro (arXiv 2103.11922): every network of its space, trained on CIFAR-10, as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.evaluators.published import published_file, with_noise
from phinas.engines.evaluator import Measurement
from phinas.files.checks import check_number
from phinas.files.errors import InputError
from phinas.networks.network import Network
from search_spaces.nasbench_macro import NasBenchMacro
from search_spaces.space import Picks

ADDRESS = "https://github.com/xiusu/NAS-Bench-Macro (nas-bench-macro_cifar10.json)"
_SPACE = NasBenchMacro()


class NasBenchMacroTable:
    """The mean CIFAR-10 test accuracy of three trainings of each network of space=nasbench_macro.

    path   the published nas-bench-macro_cifar10.json.
    noise  standard deviation, in points of accuracy, of Gaussian noise drawn from the evaluation's seed.
    Raises InputError for a path or a setting that is wrong.
    """

    def __init__(self, path: str | Path | None, noise: float = 0.0) -> None:
        self.noise = check_number("evaluator.noise", noise, least=0)
        self._accuracy = read_table(published_file("evaluator.path", path, "the table of NAS-Bench-Macro", ADDRESS))

    def check(self, network: Network) -> None:
        """InputError for a network that is not in space=nasbench_macro."""
        _picks(network)

    def accuracies(self, picks: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Accuracies without noise, fractions [networks], for picks [networks, 8] of NasBenchMacro()."""
        accuracies: npt.NDArray[np.float64] = self._accuracy[tuple(np.asarray(picks).T)]
        return accuracies

    def expected(self, network: Network) -> float:
        """The accuracy without noise. Raises InputError for a network of another space."""
        return float(self._accuracy[_picks(network)])

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield the one measurement. Raises InputError for a network of another space."""
        yield Measurement(with_noise(self.expected(network), self.noise, seed))


def read_table(path: str | Path) -> npt.NDArray[np.float64]:
    """The accuracies, fractions of shape (3,) * 8, indexed by picks. Raises InputError naming what is wrong."""
    try:
        table = json.loads(Path(path).read_bytes())
        accuracy = np.empty([len(decision.choices) for decision in _SPACE.decisions])
        for picks in product(*map(range, accuracy.shape)):
            accuracy[picks] = _percent(table["".join(map(str, picks))]["mean_acc"]) / 100
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; it must be the table of {ADDRESS}") from None
    except KeyError as error:
        raise InputError(f"{path}: no {error} in it; it must be the table of {ADDRESS}") from None
    except (TypeError, ValueError, RecursionError) as error:  # of another structure, or no JSON
        raise InputError(f"{path}: {error}; it must be the table of {ADDRESS}") from None
    return accuracy


def _percent(value: Any) -> float:
    if not 0 <= value <= 100:
        raise ValueError(f"mean_acc={value} is no accuracy")
    return float(value)


def _picks(network: Network) -> Picks:
    try:
        return _SPACE.encode(network)
    except InputError:
        raise InputError(
            "evaluator=nasbench_macro knows the networks of space=nasbench_macro only, with 32 pixels and 10 classes"
        ) from None
