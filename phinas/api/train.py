"""`phinas.train(...)`: a network trained to the end, as `python -m phinas.train` does it, from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phinas.api.picture import Picture, picture_of

if TYPE_CHECKING:  # a front door that opens at once
    import pandas as pd
    from torch import nn

    from phinas.api.network import AnyNetwork
    from phinas.networks.arch import Arch


@dataclass(frozen=True, eq=False)
class Training:
    """A network that was trained; `folder` holds all of it as files.

    network  as it was trained: with the side, the channels and the classes of the data.
    metrics  one row per epoch, as in `metrics.csv`.
    summary  what `summary.json` holds: scores on the images held out and of the test, and what the network costs.
    """

    folder: Path
    network: Arch
    metrics: pd.DataFrame
    summary: Mapping[str, Any]

    @cached_property
    def module(self) -> nn.Module:
        """The network with its weights, for evaluation: from images [batch, channels, height, width] to logits.

        The images have pixels from 0 to 255, less `mean` and divided by `std` of `model.yaml`.
        """
        from phinas.networks.build import build
        from phinas.training.full.trained_network import WEIGHTS
        from phinas.weights.checkpoints import load_weights

        module = build(self.network, 0)
        module.load_state_dict(load_weights(self.folder / WEIGHTS, self.network))
        return module.eval()

    @property
    def accuracy(self) -> float:
        """A fraction: of the test images where there are any, else of those held out."""
        scored = self.summary["test"] or self.summary["held_out"]
        return float(scored["accuracy"])

    @cached_property
    def picture(self) -> Picture:
        """Loss and accuracy by epoch."""
        from phinas.train.report import curves
        from phinas.training.full.metrics import FILE, read_metrics

        return picture_of(curves(read_metrics(self.folder / FILE)))

    def __repr__(self) -> str:
        return f"<training {self.folder.name}: accuracy {self.accuracy:.4f} after {len(self.metrics)} epochs>"

    def _repr_png_(self) -> bytes:
        return self.picture.png


def train(
    model: AnyNetwork,
    *,
    data: str = "digits",
    recipe: str = "fast",
    weights: str | PathLike[str] | Training | None = None,
    name: str | None = None,
    seed: int = 0,
    resolution: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Training:
    """Train one network to the end; called again with the same `name`, go on where it was, to the bit.

    Every setting is the one of `python -m phinas.train`, with its default, its checks and its messages; what is written
    to `runs/NAME/` is the same too.

    model       a published network by name, a YAML file, an `Arch`, or what a search found.
    data        images: `digits`, `imagefolder`, `parquet`; with options such as `{"data.path": "photos"}`.
    recipe      `fast`, `efficientnet` or `finetune`.
    weights     to start from (`from=` on a command line): a file, a run's folder, or what `phinas.train` returned.
    name        the run's folder is `runs/NAME`; None: a timestamp.
    seed        of weights and of the order of images.
    resolution  pixels; None: the model's, or the images' own where the recipe enlarges none.
    options     any other option by its name on the command line: `{"recipe.epochs": 10}`.
    progress    whether to say what happens.

    Returns the trained network. Raises InputError for whatever you can mend, in one line that names it,
    and nothing is written over; RunFailed where the training diverged, or lost its workers. Then, and where you
    interrupt it, its checkpoints are kept.
    """
    import json

    import pandas as pd

    from phinas.command.hidden import check_not_hidden

    check_not_hidden()
    from phinas.api.call import folder_of, named_run, network_option, options_of, speaking
    from phinas.command.configuration import configuration
    from phinas.command.run_folder import RUNS
    from phinas.files.errors import RunFailed
    from phinas.networks.arch_file import read_arch
    from phinas.train.__main__ import TrainingFailed
    from phinas.train.__main__ import train as run_train
    from phinas.training.full.metrics import FILE
    from phinas.training.full.trained_network import NETWORK

    settings: dict[str, Any] = {
        "model": network_option("model", model),
        "from": weights if weights is None else folder_of(weights) or weights,
        "seed": seed,
        "resolution": resolution,
        "name": named_run(name),
    }
    asked = options_of("train", settings, {"data": data, "recipe": recipe}, options)
    given, names = configuration("phinas.train", "train", asked.typed)
    try:
        with speaking(progress):
            run_train(given, names, asked.typed)
    except TrainingFailed as error:
        raise RunFailed(str(error)) from error
    folder = (RUNS / str(given["name"])).resolve()
    summary = json.loads((folder / "summary.json").read_text())
    return Training(folder, read_arch(folder / NETWORK), pd.read_csv(folder / FILE), summary)
