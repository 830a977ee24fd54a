"""A search by one of phinas' controllers inside a `Tuner` of Ray Tune's own, which trains as you like it.

    python search.py [trials] [folder for Tune's results]

Tune decides how many trials there are, how many run at a time and which are stopped early; the controller proposes the
networks, and learns from the reward, which is made of the accuracy that a trial reports and of the network's cost.
"""

import dataclasses
import sys
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from nas.controllers.evolution import Evolution
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from nas.tune import ControllerSearch
from search_spaces.mnasnet import MnasNet


def train(config: dict[str, Any]) -> None:
    """Three epochs on the handwritten digits of scikit-learn, 16 pixels wide."""
    import torch
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy, interpolate

    from phinas.networks.network import build_network

    digits = load_digits()
    images = interpolate(torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], size=(16, 16))
    labels = torch.tensor(digits.target)
    torch.manual_seed(config["seed"])
    # Small images, and few steps: no halving at the stem, and statistics of batch norm that follow sooner.
    found = config["network"]
    stem = dataclasses.replace(found.stem, stride=1)
    network = build_network(
        dataclasses.replace(found, stem=stem, resolution=16, in_channels=1, classes=10, bn_momentum=0.1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for epoch in range(3):
        network.train()
        for batch in torch.randperm(1200).split(64):
            optimizer.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = network(images[1200:]).argmax(1) == labels[1200:]
        tune.report({"accuracy": right.float().mean().item(), "final": epoch == 2})


def main(trials: int, folder: str | None) -> None:
    problem = SearchProblem(MnasNet(), on_macs(mnas_soft, 400e6))
    search_alg = ControllerSearch(problem, Evolution, seed=0)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search_alg,
            scheduler=ASHAScheduler(grace_period=1, max_t=3),
            metric="accuracy",
            mode="max",
            num_samples=trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=folder, verbose=1),
    )
    tuner.fit()
    best = search_alg.best
    assert best is not None
    print(f"best of {len(search_alg.entries)}: reward {best.reward:.4f}, accuracy {best.accuracy:.4f}, {best.costs}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2] if len(sys.argv) > 2 else None)
