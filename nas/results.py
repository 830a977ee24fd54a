"""What a search leaves behind: the tables of `trials.csv` and `summary.json`, `best.yaml`, `front.csv` and `front/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nas.costs import COUNTED
from nas.front import hypervolume, pareto_front, reference
from nas.jobs import best_of
from nas.journal import Entry
from nas.objective import Objective
from nas.problem import SearchProblem
from phinas.files.atomic_file import write_atomically
from phinas.files.origin import origin_comment
from phinas.networks.arch import Arch, Stage
from phinas.networks.arch_file import write_arch
from phinas.networks.kinds import KINDS
from search_spaces.space import Decision, Picks, choices_of


def trials_table(entries: Sequence[Entry], problem: SearchProblem, seconds: Mapping[int, float]) -> pd.DataFrame:
    """One row per evaluation in the order they finished, one column per decision; `seconds` by evaluation."""
    rows = [
        {
            "number": entry.number, "reward": entry.reward, "accuracy": entry.accuracy, **entry.costs,
            "epochs": len(entry.curve), "stopped": entry.stopped, "error": entry.error,
            "retries": entry.retries, "seconds": seconds.get(entry.number), "key": entry.key,
            **choices_of(problem.decisions, entry.picks),
        }
        for entry in entries
    ]  # fmt: skip
    return pd.DataFrame(rows)


def write_network(path: Path, entry: Entry, problem: SearchProblem, journal: Mapping[str, str]) -> None:
    """`best.yaml`: a network as an `Arch` where it is one, else as its key and the choices that make it.

    journal  the journal that it was found in, as `phinas.files.origin.file_source` names it; the file says so.
    """
    network = problem.network(entry.picks)
    origin = {"made_by": "nas.search", "key": entry.key, "evaluation": entry.number, "from": dict(journal)}
    if isinstance(network, Arch):
        write_arch(network, path, origin)
    else:
        content = {"key": entry.key, "choices": choices_of(problem.decisions, entry.picks)}
        write_atomically(path, origin_comment(origin) + yaml.safe_dump(content, sort_keys=False))


def write_front(
    folder: Path, entries: Sequence[Entry], costs: Sequence[str], problem: SearchProblem, journal: Mapping[str, str]
) -> None:
    """`front.csv`: the Pareto front, the best in the first cost first; and each network as `front/NUMBER.yaml`."""
    front = pareto_front(entries, costs)
    rows = [
        {
            **{name: entry.costs[name] for name in costs}, "accuracy": entry.accuracy, "reward": entry.reward,
            **entry.costs, "number": entry.number, "key": entry.key, "file": f"front/{entry.number}.yaml",
        }
        for entry in front
    ]  # fmt: skip
    (folder / "front").mkdir(exist_ok=True)
    for entry in front:
        write_network(folder / "front" / f"{entry.number}.yaml", entry, problem, journal)
    members = {f"{entry.number}.yaml" for entry in front}
    for file in (folder / "front").glob("*.yaml"):
        if file.name not in members:  # dominated since an earlier run of the command
            file.unlink()
    write_atomically(folder / "front.csv", pd.DataFrame(rows).to_csv(index=False))


def summary_of(
    entries: Sequence[Entry],
    seconds: float,
    objective: Objective,
    seed: int,
    names: Mapping[str, str],
) -> dict[str, Any]:
    """What `summary.json` holds: the best network, the front where one was searched for, and the totals."""
    best = best_of(list(entries))
    summary: dict[str, Any] = {
        "best": None if best is None else {
            "reward": best.reward,
            "accuracy": best.accuracy,
            **{name: int(cost) if name in COUNTED else cost for name, cost in best.costs.items()},
            "key": best.key,
        },
        "evaluations": len(entries),
        "unique": len({entry.key for entry in entries}),
        "failures": sum(entry.error is not None for entry in entries),
        "stopped": sum(entry.stopped for entry in entries),
        "retries": sum(entry.retries for entry in entries),
        "seconds": round(seconds, 3),
        "target_flops": objective.targets.get("macs"),
        "targets": dict(objective.targets),
        "limits": dict(objective.limits),
        **{name: names[name] for name in ("space", "controller", "evaluator", "engine", "device")},
        "seed": seed,
    }  # fmt: skip
    if objective.front and best is not None:
        front, corner = pareto_front(entries, objective.front), reference(entries, objective.front, objective.limits)
        summary["front"] = {
            "costs": list(objective.front),
            "size": len(front),
            "hypervolume": hypervolume(front, corner),
            "reference": {"accuracy": 0.0, **corner},
        }
    return summary


def outline(problem: SearchProblem, picks: Picks) -> str:
    """A network in one line: `mb6k5-40x3se` is three MBConv6 layers, kernel 5, 40 channels, squeeze-excitation."""
    network = problem.network(picks)
    if not isinstance(network, Arch):
        return " ".join(f"{name}={value}" for name, value in choices_of(problem.decisions, picks).items())
    return " ".join(_stage(stage) for stage in network.stages)


def _stage(stage: Stage) -> str:
    block = KINDS[stage.block].outline.format(f"{stage.expand:g}")
    excited = "se" if stage.se_ratio else ""
    skip = {"identity": "", "pool": "+pool", "projection": "+proj", "none": "-noskip"}[stage.skip]
    return f"{block}k{stage.kernel}-{stage.channels}x{stage.repeats}{excited}{skip}"


def differences(decisions: Sequence[Decision], best: Picks, other: Picks, shown: int = 3) -> str:
    """The first `shown` decisions in which `other` differs from `best`, its choices, and how many more there are."""
    differing = [
        f"{decision.name}={decision.choices[pick]}"
        for decision, wanted, pick in zip(decisions, best, other, strict=True)
        if pick != wanted
    ]
    more = f" and {len(differing) - shown} more" if len(differing) > shown else ""
    return " ".join(differing[:shown]) + more
