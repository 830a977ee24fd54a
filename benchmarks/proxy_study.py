"""How well short proxies rank networks: Kendall's tau against five times longer schedules, with seconds per network.

    python -m benchmarks.proxy_study [networks=12] [out=runs/proxy_study.jsonl] [only=NAME,NAME]

Trains each network by each proxy and by its schedule made five times longer, on the embedded digits, one torch thread,
seed 0, and prints the table. One JSON line per finished training goes to `out`: the same command again goes on where it
stopped. Networks are spread evenly over the MACs of 400 random ones of the `mnasnet` space, with B0 among them. Several
processes may share the work: each takes its own proxies through `only`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from convnets.arch import Arch
from convnets.cost import cost
from convnets.reference import EFFICIENTNET_B0
from nas.evaluators.proxy import Proxy
from search_spaces.mnasnet import MnasNet
from search_spaces.space import decode, sample
from training.data import digits
from training.recipe import Recipe

LONGER = 5


@dataclass(frozen=True)
class Candidate:
    """One way to train a proxy."""

    recipe: Recipe
    resolution: int
    stem_stride: int | None


SGD = Recipe(epochs=3, batch_size=32, optimizer="sgd", lr=0.02)
ADAMW = Recipe(epochs=3, batch_size=32, optimizer="adamw", lr=3e-3)
STILL = {"epochs": 2, "translate": 0.0}  # digits that do not move are learnt in fewer epochs
CANDIDATES = {
    "sgd-16": Candidate(SGD, 16, 1),
    "sgd-16-still": Candidate(replace(SGD, **STILL), 16, 1),
    "adamw-16": Candidate(ADAMW, 16, 1),
    "adamw-16-still": Candidate(replace(ADAMW, **STILL), 16, 1),
    "sgd-8-still": Candidate(replace(SGD, **STILL), 8, 1),
    "sgd-32-stride2": Candidate(replace(SGD, lr=0.05), 32, None),
    "sgd-16-uncalibrated": Candidate(replace(SGD, recalibrate=0), 16, 1),
}


def networks(count: int) -> list[Arch]:
    """`count` networks of the space, at even quantiles of MACs, the one nearest to B0's replaced by B0."""
    space, rng = MnasNet(), np.random.default_rng(0)
    drawn = [decode(space, sample(space.decisions, rng)) for _ in range(400)]
    by_macs = sorted((network for network in drawn if isinstance(network, Arch)), key=lambda arch: cost(arch).macs)
    chosen = [by_macs[round(q * (len(by_macs) - 1))] for q in np.linspace(0.02, 0.98, count)]
    b0 = cost(EFFICIENTNET_B0).macs
    nearest = min(range(count), key=lambda i: abs(cost(chosen[i]).macs - b0))
    return [EFFICIENTNET_B0 if i == nearest else network for i, network in enumerate(chosen)]


def accuracies(candidate: Candidate, network: Arch) -> tuple[list[float], float]:
    """Accuracy after each epoch, and seconds of this process's CPU time."""
    proxy = Proxy(DATA, candidate.recipe, candidate.resolution, candidate.stem_stride)
    start = time.process_time()
    curve = [measurement.accuracy for measurement in proxy(network, seed=0)]
    return curve, time.process_time() - start


def interval(short: np.ndarray, long: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of tau over networks."""
    rng, taus = np.random.default_rng(0), []
    for _ in range(2000):
        drawn = rng.integers(len(short), size=len(short))
        tau = kendalltau(short[drawn], long[drawn]).statistic
        taus += [] if np.isnan(tau) else [tau]
    return float(np.percentile(taus, 2.5)), float(np.percentile(taus, 97.5))


DATA = digits()


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    out = Path(options.get("out", "runs/proxy_study.jsonl"))
    names = options["only"].split(",") if "only" in options else list(CANDIDATES)
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = networks(int(options.get("networks", 12)))
    done = (
        {(r["proxy"], r["key"], r["epochs"]): r for r in map(json.loads, out.read_text().splitlines())}
        if out.exists()
        else {}
    )
    for times in (1, LONGER):
        for name in names:
            short = CANDIDATES[name]
            candidate = replace(short, recipe=replace(short.recipe, epochs=times * short.recipe.epochs))
            for network in chosen:
                if (name, network.key(), candidate.recipe.epochs) in done:
                    continue
                curve, seconds = accuracies(candidate, network)
                record = {
                    "proxy": name, "key": network.key(), "macs": cost(network).macs,
                    "epochs": candidate.recipe.epochs, "curve": curve, "seconds": round(seconds, 2),
                }  # fmt: skip
                with out.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                done[(name, network.key(), candidate.recipe.epochs)] = record
    table(names, chosen, done)


def table(names: list[str], chosen: list[Arch], done: dict[tuple[str, str, int], dict]) -> None:
    """tau of each proxy against its own longer schedule, and against the mean of all longer schedules."""

    def column(name: str, times: int) -> np.ndarray:
        epochs = times * CANDIDATES[name].recipe.epochs
        return np.array([done[(name, network.key(), epochs)]["curve"][-1] for network in chosen])

    reference = np.mean([column(name, LONGER) for name in names], axis=0)
    print("| proxy | s a network | accuracy, least to most | tau, own 5x | 95 % | tau, mean 5x | 95 % |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        short, long = column(name, 1), column(name, LONGER)
        seconds = np.median([done[(name, n.key(), CANDIDATES[name].recipe.epochs)]["seconds"] for n in chosen])
        cells = []
        for against in (long, reference):
            low, high = interval(short, against)
            cells += [f"{kendalltau(short, against).statistic:.2f}", f"{low:.2f} to {high:.2f}"]
        print(f"| {name} | {seconds:.1f} | {short.min():.3f} to {short.max():.3f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
