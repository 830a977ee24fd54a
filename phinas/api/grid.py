"""`phinas.grid(...)`: the scaling search of `python -m scaling_search.grid` from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from phinas.api.picture import Picture

if TYPE_CHECKING:  # a front door that opens at once
    import pandas as pd

    from phinas.api.network import AnyNetwork
    from phinas.api.search import Evaluates
    from phinas.engines.evaluator import Evaluator
    from phinas.networks.compound import Coefficients
    from phinas.networks.scaling_file import Scaling


@dataclass(frozen=True, eq=False)
class GridResult:
    """What a scaling search found, as far as it came; `folder` holds all of it as files.

    scaling     what `scaling.yaml` holds: the constants, the network they are for, and the evidence.
    candidates  one row per set of constants, as in `candidates.csv`: their costs, accuracies and ranks.
    summary     what `summary.json` holds, `verdict` among it: a sentence on what the data can tell.
    picture     every set of constants on the surface of equal cost, its accuracy as colour.
    """

    folder: Path
    scaling: Scaling
    candidates: pd.DataFrame
    summary: Mapping[str, Any]
    picture: Picture

    @property
    def constants(self) -> Coefficients:
        """alpha, beta and gamma, by which depth, width and resolution grow in one step."""
        return self.scaling.constants

    def __repr__(self) -> str:
        return f"<scaling search {self.folder.name}: {self.constants}>"

    def _repr_png_(self) -> bytes:
        return self.picture.png


def grid(
    *,
    baseline: AnyNetwork = "efficientnet_b0",
    evaluate: str | Evaluates | Evaluator = "proxy_own_size",
    phi: float = 1,
    candidates: int | None = 12,
    seeds: int = 3,
    name: str | None = None,
    seed: int = 0,
    variant: Mapping[str, Any] | None = MappingProxyType({}),
    data: str = "digits",
    engine: str = "ray",
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> GridResult:
    """Search the constants by which a network grows; called again with the same `name`, go on where it was.

    Every setting is the one of `python -m scaling_search.grid`, with its default, its checks and its messages; what is
    written to `runs/NAME/` is the same too.

    baseline    the network to scale: a published one by name, a YAML file, an `Arch`, or what a search found.
    evaluate    what a network is worth: a function `network -> accuracy` or `(network, seed) -> accuracy`, an
                evaluator, or the name of one of ours.
    phi         steps: candidates cost 2^phi times the baseline.
    candidates  sets of constants that are evaluated; None: all of the lattice.
    seeds       evaluations of each.
    name        the run's folder is `runs/NAME`; None: a timestamp.
    seed        of all that is random.
    variant     the baseline made smaller before it is scaled: `resolution`, `stem_stride`, `width`; what is left out is
                as on the command line. None: the baseline as it is.
    data        images that the evaluator trains on: `digits`, `imagefolder`, `parquet`; with options such as
                `data.path`.
    engine      `ray` or `inline`.
    options     any other option by its name on the command line: `{"tolerance": 0.1}`.
    progress    whether to say what happens.

    Returns what was found. Raises InputError for whatever you can mend, in one line that names it, and nothing is
    written over; RunFailed where no candidate has a result, or Ray is lost. Then, and where you interrupt it, all that
    was finished is kept.
    """
    import json

    import pandas as pd

    from phinas.command.hidden import check_not_hidden

    check_not_hidden()
    from nas.evaluators.function import as_evaluator
    from phinas.api.call import mapping, named_run, network_option, options_of, speaking
    from phinas.command.configuration import configuration
    from phinas.command.run_folder import RUNS
    from phinas.files.dotted_path import located
    from phinas.files.errors import RunFailed
    from phinas.networks.scaling_file import read_scaling
    from scaling_search.grid import grid as run_grid

    settings: dict[str, Any] = {"baseline": network_option("baseline", baseline), "phi": phi, "candidates": candidates}
    settings |= {"seeds": seeds, "seed": seed, "name": named_run(name)}
    if variant is None:
        settings["variant"] = None
    else:
        settings |= {f"variant.{part}": value for part, value in mapping("variant", variant).items()}
    if isinstance(evaluate, str) and "." in evaluate and not isinstance(there := located(evaluate, "evaluate"), type):
        evaluate = there  # a function by its dotted path
    groups: dict[str, Any] = {"evaluator": evaluate, "data": data, "engine": engine}
    asked = options_of("grid", settings, groups, options, ("evaluator",))
    given, names = configuration("scaling_search.grid", "grid", asked.typed)
    asked.describe(given, names)
    evaluator = as_evaluator(asked.parts["evaluator"]) if "evaluator" in asked.parts else None
    with speaking(progress):
        code = run_grid(given, names, asked.typed, evaluator)
    folder = (RUNS / str(given["name"])).resolve()
    if code:
        raise RunFailed(f"no candidate has a result; see {folder}/candidates.csv")
    return GridResult(
        folder,
        read_scaling(folder / "scaling.yaml"),
        pd.read_csv(folder / "candidates.csv"),
        json.loads((folder / "summary.json").read_text()),
        Picture((folder / "surface.png").read_bytes()),
    )
