"""`phinas.generate(...)`: families of networks, as `python -m phinas.generate` makes them, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phinas.api.picture import Picture

if TYPE_CHECKING:  # a front door that opens at once
    import pandas as pd
    from torch import nn

    from phinas.api.grid import GridResult
    from phinas.api.network import AnyNetwork
    from phinas.networks.arch import Arch


@dataclass(frozen=True, eq=False)
class Family:
    """The networks that were made; `folder` holds all of it as files.

    table     one row per network, as in `family.csv`: what it is and what it costs.
    networks  each network by its name, the smallest first.
    picture   the networks by what they cost.
    """

    folder: Path
    table: pd.DataFrame
    networks: Mapping[str, Arch]
    picture: Picture

    def module(self, name: str | None = None, seed: int = 0) -> nn.Module:
        """A network as a torch module from images [batch, channels, height, width] to logits [batch, classes].

        Freshly initialised from the seed. `name` may be left out where there is one network. Raises InputError.
        """
        from phinas.files.errors import InputError
        from phinas.networks.build import build

        if name is None and len(self.networks) == 1:
            (name,) = self.networks
        if name is None or name not in self.networks:
            raise InputError(f"name={name}: the family has no such network; it has {', '.join(self.networks)}")
        return build(self.networks[name], seed)

    def __repr__(self) -> str:
        return f"<family {self.folder.name}: {', '.join(self.networks)}>"

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


def generate(
    *,
    baseline: AnyNetwork | None = None,
    scaling: str | PathLike[str] | GridResult = "published",
    phi: float | str | Sequence[float | str] | None = None,
    target_flops: float | None = None,
    target_params: float | None = None,
    target_memory: int | str | None = None,
    target_latency: float | None = None,
    export: Sequence[str] | str = (),
    weights: str | PathLike[str] | None = None,
    name: str | None = None,
    seed: int = 0,
    device: str = "here",
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Family:
    """A family of networks, or the largest that fits a budget.

    Every setting is the one of `python -m phinas.generate`, with its default, its checks and its messages; what is
    written to `runs/NAME/` is the same too.

    baseline        a published network by name, a YAML file, an `Arch`, or what a search found; None: the one that the
                    scaling was found for, else EfficientNet-B0.
    scaling         `published`, `paper`, `dwr`, `efficientnet_x_gpu`, `tinynet`, a `scaling.yaml`, or what
                    `phinas.grid` returned.
    phi             steps of the scaling: one, or several; None: what the targets give, else 0, 1 and 2.
    target_flops    the largest network of at most so many multiply-adds,
    target_params   so many parameters,
    target_memory   so many bytes (or `"16GiB"`),
    target_latency  and so many seconds for an image on the device; measured.
    export          forms to write: any of `pytorch`, `weights`, `onnx`, `pt2`, or `all`.
    weights         a file of weights for the one network that is exported; None: fresh ones.
    name            the run's folder is `runs/NAME`; None: a timestamp.
    seed            of fresh weights.
    device          what latency is measured on: `here`, `cpu`, `cuda`.
    options         any other option by its name on the command line: `{"batch_size": 64}`.
    progress        whether to say what happens.

    Returns the networks. Raises InputError for whatever you can mend, in one line that names it, and nothing is written
    over.
    """
    import pandas as pd

    from phinas.command.hidden import check_not_hidden

    check_not_hidden()
    from phinas.api.call import alone, folder_of, listed, named_run, network_option, options_of, speaking
    from phinas.api.grid import GridResult
    from phinas.command.configuration import configuration
    from phinas.command.run_folder import RUNS
    from phinas.generate.__main__ import generate as run_generate
    from phinas.networks.arch_file import read_arch

    settings: dict[str, Any] = {
        "baseline": network_option("baseline", baseline),
        "scaling": Path(str(folder_of(scaling))) / "scaling.yaml" if isinstance(scaling, GridResult) else scaling,
        "phi": phi if alone(phi) else listed(phi),
        "target_flops": target_flops,
        "target_params": target_params,
        "target_memory": target_memory,
        "target_latency": target_latency,
        "export": export if alone(export) else listed(export),
        "weights": weights if weights is None else folder_of(weights) or weights,
        "seed": seed,
        "name": named_run(name),
    }
    asked = options_of("generate", settings, {"device": device}, options)
    given, names = configuration("phinas.generate", "generate", asked.typed)
    with speaking(progress):
        run_generate(given, names, asked.typed)
    folder = (RUNS / str(given["name"])).resolve()
    table = pd.read_csv(folder / "family.csv")
    networks = {str(model): read_arch(folder / f"{model}.yaml") for model in table["model"]}
    return Family(folder, table, networks, Picture((folder / "family.png").read_bytes()))
