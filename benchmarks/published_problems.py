"""The two problems of benchmarks.search_quality, on published results, and the best network of each that is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from nas.controller import Result
from nas.controllers.evolution import Evolution
from nas.evaluators.accel_nasbench import AccelNASBench
from nas.evaluators.nasbench_macro import NasBenchMacroTable
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from phinas.files.atomic_file import write_atomically
from search_spaces.efficientnet import EfficientNet
from search_spaces.nasbench_macro import NasBenchMacro
from search_spaces.space import Decision, Picks, Space

EVOLVED = 100_000  # evaluations of the long search
STARTS = 200  # random networks that an exchange of single decisions starts from


@dataclass(frozen=True)
class Published:
    """Accuracies that are known for every network of a space, and the reward that a search goes by."""

    title: str
    space: Space
    target_macs: float
    accuracies: Callable[[npt.ArrayLike], npt.NDArray[np.float64]]

    def problem(self) -> SearchProblem:
        """A problem of its own for each search: what one has counted, another has to count again."""
        return SearchProblem(self.space, on_macs(mnas_soft, self.target_macs))


def published(paths: dict[str, str]) -> dict[str, Published]:
    """The problems `imagenet` and `macro` from the files at `paths`: accel_nasbench, nasbench_macro.

    Raises InputError for a path that is wrong.
    """
    space = NasBenchMacro()
    every = product(*(range(len(decision.choices)) for decision in space.decisions))
    counted = SearchProblem(space, on_macs(mnas_soft, 1.0))
    middle = median(counted.cost(picks)["macs"] for picks in every)
    return {
        "imagenet": Published(
            "ImageNet (Accel-NASBench)", EfficientNet(), 400e6, AccelNASBench(paths["accel_nasbench"]).accuracies
        ),
        "macro": Published(
            "CIFAR-10 (NAS-Bench-Macro)", space, middle, NasBenchMacroTable(paths["nasbench_macro"]).accuracies
        ),
    }


def best_known(name: str, published: Published, folder: Path) -> tuple[float, Picks]:
    """Reward and picks of the best network known, from `folder` where it was found before for the same accuracies.

    A space of up to 10,000 picks is looked through. In another, it is the best of an evolution of EVOLVED evaluations
    and of exchanges of single decisions from STARTS random networks, after exhaustive exchanges of two decisions.
    """
    probes = _random_picks(published.space.decisions, 100, np.random.default_rng(0))
    identity = hashlib.sha256(published.accuracies(probes).tobytes()).hexdigest()[:16]
    file = folder / f"best_known_{name}.json"
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["predictor"] == identity:
            return kept["reward"], tuple(kept["picks"])
    reward, picks = _look_for_best(published)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps({"reward": reward, "picks": picks, "predictor": identity}) + "\n")
    return reward, picks


def _look_for_best(published: Published) -> tuple[float, Picks]:
    problem, decisions = published.problem(), published.space.decisions
    counts = [len(decision.choices) for decision in decisions]

    def best_of(candidates: list[Picks]) -> tuple[float, Picks]:
        accuracies = published.accuracies(candidates)
        rewards = [problem.reward(picks, float(a)) for picks, a in zip(candidates, accuracies, strict=True)]
        place = int(np.argmax(rewards))
        return rewards[place], candidates[place]

    if np.prod(counts) <= 10_000:
        return best_of(list(product(*map(range, counts))))

    def climb(best: tuple[float, Picks], at_once: int) -> tuple[float, Picks]:
        while (found := best_of(list(_exchanged(best[1], counts, at_once))))[0] > best[0]:
            best = found
        return best

    starts = _random_picks(decisions, STARTS, np.random.default_rng(0))
    best = max(climb(best_of([picks]), at_once=1) for picks in starts)
    evolution = Evolution(problem, seed=0)
    for number in range(EVOLVED):
        picks = evolution.ask(number, [])
        if picks is None:
            break
        reward, _ = found = best_of([picks])
        evolution.tell(Result(number, picks, float(published.accuracies([picks])[0]), reward))
        best = max(best, found)
    return climb(climb(best, at_once=1), at_once=2)


def _exchanged(picks: Picks, counts: list[int], at_once: int) -> list[Picks]:
    """All picks that differ from `picks` in up to `at_once` decisions."""
    found = []
    for places in combinations(range(len(counts)), at_once):
        for values in product(*(range(counts[place]) for place in places)):
            changed = list(picks)
            for place, value in zip(places, values, strict=True):
                changed[place] = value
            found.append(tuple(changed))
    return found


def _random_picks(decisions: tuple[Decision, ...], count: int, rng: np.random.Generator) -> list[Picks]:
    drawn = rng.integers([len(decision.choices) for decision in decisions], size=(count, len(decisions)))
    return [tuple(row) for row in drawn.tolist()]
