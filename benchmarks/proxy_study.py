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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from nas.evaluators.proxy import Proxy
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0
from phinas.training.data.dataset import Dataset
from phinas.training.data.images import digits
from phinas.training.short.recipe import Recipe
from search_spaces.mnasnet import MnasNet
from search_spaces.space import decode, sample

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


def accuracies(data: Dataset, candidate: Candidate, network: Arch) -> tuple[list[float], float]:
    """Accuracy after each epoch, and seconds of this process's CPU time."""
    proxy = Proxy(data, candidate.recipe, candidate.resolution, candidate.stem_stride)
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


def longer(candidate: Candidate, epochs: int) -> Candidate:
    return replace(candidate, recipe=replace(candidate.recipe, epochs=epochs))


def identity(network: str, settings: dict[str, Any]) -> str:
    """What a training is: the network's key and every setting, so that a changed candidate is trained anew."""
    return json.dumps([network, settings], sort_keys=True)


def finished(out: Path) -> dict[str, dict[str, Any]]:
    """The records of `out` by identity.

    A line that an interruption tore is skipped. Older records lack the settings, which were those of CANDIDATES.
    """
    text = out.read_text() if out.exists() else ""
    if text and not text.endswith("\n"):  # so that the next record has a line of its own
        with out.open("a") as file:
            file.write("\n")
    records = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "settings" not in record:
            record["settings"] = asdict(longer(CANDIDATES[record["proxy"]], record["epochs"]))
        records[identity(record["key"], record["settings"])] = record
    return records


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    out = Path(options.get("out", "runs/proxy_study.jsonl"))
    names = options["only"].split(",") if "only" in options else list(CANDIDATES)
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    data, chosen, done = digits(), networks(int(options.get("networks", 12))), finished(out)
    for times in (1, LONGER):
        for name in names:
            candidate = longer(CANDIDATES[name], times * CANDIDATES[name].recipe.epochs)
            for network in chosen:
                settings = asdict(candidate)
                if identity(network.key(), settings) in done:
                    continue
                curve, seconds = accuracies(data, candidate, network)
                record = {
                    "proxy": name, "key": network.key(), "macs": cost(network).macs, "settings": settings,
                    "epochs": candidate.recipe.epochs, "curve": curve, "seconds": round(seconds, 2),
                }  # fmt: skip
                with out.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                done[identity(network.key(), settings)] = record
    table(names, chosen, done)


def table(names: list[str], chosen: list[Arch], done: dict[str, dict[str, Any]]) -> None:
    """tau of each proxy against its own longer schedule, and against the mean of all longer schedules."""

    def records(name: str, times: int) -> list[dict[str, Any]]:
        settings = asdict(longer(CANDIDATES[name], times * CANDIDATES[name].recipe.epochs))
        return [done[identity(network.key(), settings)] for network in chosen]

    def column(name: str, times: int) -> np.ndarray:
        return np.array([record["curve"][-1] for record in records(name, times)])

    reference = np.mean([column(name, LONGER) for name in names], axis=0)
    print("| proxy | s a network | accuracy, least to most | tau, own 5x | 95 % | tau, mean 5x | 95 % |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        short, long = column(name, 1), column(name, LONGER)
        seconds = np.median([record["seconds"] for record in records(name, 1)])
        cells = []
        for against in (long, reference):
            low, high = interval(short, against)
            cells += [f"{kendalltau(short, against).statistic:.2f}", f"{low:.2f} to {high:.2f}"]
        print(f"| {name} | {seconds:.1f} | {short.min():.3f} to {short.max():.3f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
