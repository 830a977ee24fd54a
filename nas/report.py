"""The report of a search, one HTML page, and `python -m nas.report runs/NAME [png=FILE]`, which makes it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.checked import checked_note
from nas.figures.network import block_name, network_figure, parts_of
from nas.figures.overview import overview_figure
from nas.figures.pareto import pareto_figure
from nas.figures.rewards import reward_figure
from nas.front import hypervolume, pareto_front, reference, spread
from nas.jobs import best_of
from nas.journal import Entry, read_journal
from nas.objective import Objective, read_objective
from nas.problem import SearchProblem
from nas.reward import on_targets
from nas.timings import read_timings
from phinas.command.parts import check_inert, construct
from phinas.command.progress import duration_text
from phinas.command.run import run
from phinas.command.run_folder import RUNS
from phinas.command.verbs import command_line
from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_whole
from phinas.files.errors import InputError
from phinas.files.moved import renamed
from phinas.files.yaml_file import read_yaml, safe_yaml
from phinas.networks.arch import Arch
from phinas.pages.cost_text import cost_short, cost_text, cost_title, macs_text
from phinas.pages.page import drawing, render
from phinas.pages.style import RASTERISED_ABOVE, png
from search_spaces.space import Decision, check_picks, choices_of

PICTURE_WIDTH = 1600  # pixels
_SHOWN = 20  # members of a front
_GROUPS = ("space", "reward")  # what is made again from config.yaml
_LISTED = 12  # decisions; the rest is counted
_LEAST_FOR_EFFECTS = 20  # complete evaluations; with fewer, means of a choice are chance

USAGE = """usage: python -m nas.report runs/NAME [png=FILE] [trust=TARGET,...]

Makes runs/NAME/report.html again from config.yaml and journal.jsonl, also while the search runs.
png=FILE also draws its figures as one picture.
trust=my_pkg.MySpace lets config.yaml run what is not ours, a space or a reward of your own."""


def report(
    name: str,
    entries: Sequence[Entry],
    objective: Objective,
    problem: SearchProblem,
    config_text: str,
    seconds: float | None,
    budget: int,
    runs: Path = RUNS,
) -> str:
    """The whole report as one HTML page that asks for no other file.

    entries      finished evaluations in the order they finished; there may be none.
    config_text  the text of `config.yaml`, shown as it is.
    seconds      wall time of the search over all its resumptions; None where it is not known.
    runs         where the search's folder lies, and a check of its proxy if there is one.
    """
    entries = list(entries)
    best = best_of(entries)
    network = problem.network(best.picks) if best else None
    arch = network if isinstance(network, Arch) else None
    complete = [entry for entry in entries if entry.complete]
    effects = _effects(problem.decisions, complete)
    drawn = network_figure(arch) if arch else None
    return render(
        Path(__file__).with_name("report.html"),
        name=name,
        errors=[(entry.number, entry.error) for entry in entries if entry.error is not None],
        config_text=config_text,
        objective=str(objective),
        evaluations=len(entries),
        budget=budget,
        unfinished=len(entries) < budget,
        best=_row(best) if best else None,
        best_costs=[(cost_title(name), cost_short(name, best.costs[name])) for name in _others(best)] if best else [],
        totals=_totals(entries, seconds),
        checked=_checked(config_text, runs),
        check_command=command_line("nas.proxy_check", [f"from={runs / name}"]),
        reward_svg=drawing(reward_figure(entries), "Reward of each evaluation, and the best so far"),
        panels=[
            (
                cost_title(cost),
                drawing(
                    pareto_figure(entries, cost, objective, problem.reward_of, best),
                    f"Accuracy against {cost_title(cost)}, with the Pareto front",
                ),
            )
            for cost in objective.drawn
        ],
        targets=len(objective.targets),
        front=_front(entries, objective),
        network_svg=drawing(drawn, "The best network as its stages") if drawn else None,
        network_width=round(drawn.get_figwidth() * 80) if drawn else None,
        network_note=_network_note(arch) if arch else None,
        many_layers=arch is not None and any(stage.repeats > 12 for stage in arch.stages),
        stages=_stages(arch) if arch else [],
        choices=list(choices_of(problem.decisions, best.picks).items()) if best else [],
        top=_top(problem.decisions, complete),
        top_costs=[cost_title(name) for name in _others(best)] if best else [],
        complete=len(complete),
        stopped=any(entry.stopped for entry in entries),
        effects=effects[:_LISTED],
        effects_left=len(problem.decisions) - len(effects[:_LISTED]),
        rasterised=len(entries) > RASTERISED_ABOVE,
    )


# --- what the page says ----------------------------------------------------------------------------------------------


def _totals(entries: Sequence[Entry], seconds: float | None) -> str:
    failed = sum(entry.error is not None for entry in entries)
    parts = [
        f"{len(entries):,} evaluation{'' if len(entries) == 1 else 's'}",
        f"{len({entry.key for entry in entries}):,} unique",
        f"{sum(entry.stopped for entry in entries):,} stopped early",
        f"{failed:,} failed",
    ]
    text = ", ".join(parts)
    return f"{text}, in {duration_text(seconds)} of wall time." if seconds is not None else f"{text}."


def _checked(config_text: str, runs: Path) -> tuple[str, bool] | None:
    config = renamed(safe_yaml(config_text))
    return checked_note(config, runs) if isinstance(config, dict) else None


def _row(entry: Entry) -> dict[str, str]:
    """The figures of a complete evaluation, as people read them."""
    macs = entry.costs["macs"]
    return {
        "number": str(entry.number),
        "reward": f"{entry.reward:.4f}",
        "accuracy": f"{100 * (entry.accuracy or 0.0):.2f}%",
        "macs": macs_text(macs),
        "params": f"{entry.costs['params'] / 1e6:.2f}M",
        "key": entry.key,
    }


def _top(decisions: Sequence[Decision], complete: Sequence[Entry]) -> list[dict[str, Any]]:
    """The best five, each with the decisions in which it differs from the first."""
    ranked = sorted(complete, key=lambda entry: (-(entry.reward or 0.0), entry.number))[:5]
    rows: list[dict[str, Any]] = []
    for entry in ranked:
        first, own = choices_of(decisions, ranked[0].picks), choices_of(decisions, entry.picks)
        changed = [f"{name} {own[name]} (not {first[name]})" for name in own if own[name] != first[name]]
        apart = ", ".join(changed[:6]) + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")
        macs = entry.costs["macs"]
        row = {**_row(entry), "macs": f"{macs / 1e6:,.1f}M", "flops": f"{2 * macs / 1e9:.3f}G"}
        others = [cost_short(name, entry.costs[name]) for name in _others(entry)]
        rows.append({**row, "others": others, "apart": apart if entry is not ranked[0] else "–"})
    return rows


def _others(entry: Entry) -> list[str]:
    """The costs that are not shown of every network anyway."""
    return [name for name in entry.costs if name not in ("macs", "params", "activations")]


def _front(entries: Sequence[Entry], objective: Objective) -> dict[str, Any] | None:
    """What the page says of the front that was searched for; None where none was, or nothing is on it."""
    front = pareto_front(entries, objective.front) if objective.front else []
    if not front:
        return None
    corner = reference(entries, objective.front, objective.limits)
    return {
        "costs": [cost_title(name) for name in objective.front],
        "size": len(front),
        "volume": f"{hypervolume(front, corner):.4f}",
        "corner": " and ".join(cost_text(name, cost) for name, cost in corner.items()),
        "rows": [
            {
                **_row(entry),
                "costs": [cost_short(name, entry.costs[name]) for name in objective.front],
            }
            for entry in spread(front, _SHOWN)
        ],
    }


def _stages(arch: Arch) -> list[dict[str, str]]:
    parts = parts_of(arch)
    whole = sum(part.macs for part in parts)
    rows = []
    for part in parts:
        stage = part.stage
        row = {
            "name": part.name,
            "block": block_name(stage) if stage else "",
            "kernel": f"{stage.kernel}×{stage.kernel}" if stage else "",
            "stride": str(stage.stride) if stage else "",
            "layers": str(stage.repeats) if stage else "",
            "channels": f"{part.in_channels} → {part.channels}",
            "se": f"{stage.se_ratio:g}" if stage else "",
            "skip": stage.skip if stage else "",
            "sides": f"{part.in_side} → {part.out_side}",
            "macs": f"{part.macs:,}",
            "share": f"{100 * part.macs / whole:.1f}%",
            "params": f"{part.params:,}",
        }
        if part.name == "stem":
            row |= {
                "block": "conv",
                "kernel": f"{arch.stem.kernel}×{arch.stem.kernel}",
                "stride": str(arch.stem.stride),
            }
        if part.name == "head":
            row |= {"block": "1×1 conv, pool, classifier" if arch.head_channels else "pool, classifier"}
        rows.append(row)
    total = {name: "" for name in rows[0]}
    total |= {"name": "all", "macs": f"{whole:,}", "params": f"{sum(part.params for part in parts):,}"}
    return [*rows, total]


def _network_note(arch: Arch) -> str:
    return (
        f"Activation {arch.activation}, {arch.classes} classes, dropout {arch.dropout:g}, "
        f"stochastic depth {arch.drop_connect:g}, input {arch.resolution}×{arch.resolution}×{arch.in_channels}."
    )


def _effects(decisions: Sequence[Decision], complete: Sequence[Entry]) -> list[dict[str, Any]]:
    """Decisions whose choice goes with the reward, the strongest first; none where there is too little to say so.

    The share is the adjusted R² of the reward on the choice: 0 on average for a choice without effect, however many
    values it has. Decisions at or below 0 are left out.
    """
    if len(complete) < _LEAST_FOR_EFFECTS:
        return []
    rewards = np.array([entry.reward for entry in complete], dtype=float)
    picks = np.array([entry.picks for entry in complete])
    spread = float(((rewards - rewards.mean()) ** 2).sum())
    effects = []
    for position, decision in enumerate(decisions):
        counts = np.bincount(picks[:, position], minlength=len(decision.choices))
        tried, n = int((counts > 0).sum()), len(rewards)
        if tried < 2 or tried >= n - 1 or spread == 0:
            continue
        means = np.bincount(picks[:, position], rewards, minlength=len(counts)) / np.maximum(counts, 1)
        within = float(((rewards - means[picks[:, position]]) ** 2).sum())
        share = 1 - (within / (n - tried)) / (spread / (n - 1))
        if share > 0.005:
            effects.append((share, decision, counts, means))
    effects.sort(key=lambda row: -row[0])
    return [
        {
            "name": decision.name,
            "share": f"{100 * share:.0f}%" if share >= 0.01 else "<1%",
            "bar": f"{6 * share:.2f}",
            "choices": [
                {
                    "choice": str(choice),
                    "mean": f"{mean:.3f}" if count else "–",
                    "count": f"{count:,}",
                    "top": bool(count) and mean == means[counts > 0].max(),
                }
                for choice, count, mean in zip(decision.choices, counts, means, strict=True)
            ],
        }
        for share, decision, counts, means in effects
    ]


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> None:
    """`runs/NAME [png=FILE] [trust=TARGET,...]`. Raises InputError for what the user can mend."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return
    folder, picture, trust = _options(arguments)
    config_path = folder / "config.yaml"
    for path in (config_path, folder / "journal.jsonl"):
        if not path.is_file():
            raise InputError(f"{folder}: no {path.name} there; give the folder of a search, such as runs/NAME")
    if picture is not None and not picture.parent.is_dir():
        raise InputError(f"png={picture}: no folder {picture.parent}")
    config = _read_config(config_path, trust)
    _, entries, _ = read_journal(folder / "journal.jsonl")
    # Runs of earlier releases have one target, of MACs, and no more.
    aims = read_objective(
        config.get("targets", {"macs": config.get("target_flops")}), config.get("limits", {}),
        config.get("front", []), config.get("refuse_above"),
    )  # fmt: skip
    problem = SearchProblem(construct(config, "space"), on_targets(construct(config, "reward"), aims.targets))
    if entries:
        try:
            check_picks(problem.decisions, np.max([entry.picks for entry in entries], axis=0))
        except ValueError as error:  # a space of the user's own that is not what it was, or a journal put here by hand
            raise InputError(f"{folder}: the journal is not of the space in config.yaml ({error})") from None
    timings = read_timings(folder / "timings.csv")
    page = report(
        name=folder.resolve().name, entries=entries, objective=aims, problem=problem,
        config_text=config_path.read_text(), budget=check_whole("budget", config["budget"]),
        seconds=max((elapsed for _, elapsed in timings.values()), default=None), runs=folder.parent,
    )  # fmt: skip
    try:
        write_atomically(folder / "report.html", page)
        print(f"written: {folder / 'report.html'}")
        if picture is not None:
            best = best_of(entries)
            network = problem.network(best.picks) if best else None
            arch = network if isinstance(network, Arch) else None
            png(overview_figure(entries, aims, problem.reward_of, best, arch), picture, PICTURE_WIDTH)
            print(f"written: {picture}")
    except OSError as error:
        raise InputError(f"{error.filename or folder} cannot be written: {error.strerror}") from None


def _options(arguments: Sequence[str]) -> tuple[Path, Path | None, list[str]]:
    """The run's folder, where the picture goes, and what config.yaml may run."""
    folders = [argument for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    unknown = [name for name in options if name not in ("png", "trust")]
    if unknown:
        raise InputError(f"unknown option {unknown[0]!r}; allowed: png=FILE, trust=TARGET,...")
    if len(folders) != 1:
        raise InputError(f"give one folder of a search, such as runs/NAME; got {len(folders)}")
    if options.get("png") == "":
        raise InputError("png= is empty; give the name of a file")
    picture = Path(options["png"]) if "png" in options else None
    return Path(folders[0]), picture, options.get("trust", "").split(",")


def _read_config(path: Path, trust: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration of a search. Raises InputError `path: what is wrong`."""
    config = renamed(read_yaml(path, lambda content: content))
    missing = [name for name in (*_GROUPS, "budget") if not isinstance(config, dict) or config.get(name) is None]
    if missing or not isinstance(config, dict):
        raise InputError(f"{path} has no {missing[0]}; it is not the configuration of a search")
    for name in _GROUPS:
        if not isinstance(config[name], dict) or "_target_" not in config[name]:
            raise InputError(f"{path}: {name} has no _target_; it is not the configuration of a search")
    check_inert({name: config[name] for name in _GROUPS}, path, trust)
    return config


if __name__ == "__main__":
    run(main)
