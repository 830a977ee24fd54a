"""An experiment: the same search by several controllers, and what they found beside networks that people know."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from nas.costs import within
from nas.device import NoDevice
from nas.figures.comparison import Compared, Trained, comparison_figure
from nas.jobs import best_of
from nas.journal import Entry, read_journal
from nas.objective import read_objective
from nas.reward import RewardOf, on_targets
from phinas.command.console import CONSOLE, say
from phinas.command.parts import construct, targets_of
from phinas.command.run_folder import locked, run_folder, write_config
from phinas.command.verbs import command_line
from phinas.engines.evaluator import EvaluationFailed, measure
from phinas.files.atomic_file import write_atomically
from phinas.files.errors import DoesNotFit, InputError
from phinas.networks.network import Network, cost_of
from phinas.networks.reference import reference
from phinas.pages.cost_text import cost_short, cost_title
from phinas.pages.style import png
from search_spaces.space import decode

PICTURE_WIDTH = 1600  # pixels

Names = Mapping[str, str]
Configured = Callable[[Sequence[str]], tuple[dict[str, Any], Names]]  # command line -> settings, choice in each group
RunOne = Callable[[dict[str, Any], Names, Sequence[str]], int]  # one ordinary search; returns its exit code


@dataclass(frozen=True)
class Known:
    """A published network to compare with: what it is called, and its published accuracy, a fraction."""

    title: str
    published: float | None = None


@dataclass(frozen=True)
class Experiment:
    """The key `experiment` of a configuration.

    controllers  one search by each of them.
    beside       names of `phinas.networks.reference` -> what is known of the network.
    accuracy     what the accuracy is of.
    source       where the accuracies of the search come from: `predicted`, `measured`.
    note         what a reader of the comparison must know.
    """

    controllers: Sequence[str]
    beside: Mapping[str, Known] = field(default_factory=dict)
    accuracy: str = "accuracy"
    source: str = "measured"
    note: str = ""


def run_experiment(arguments: Sequence[str], configured: Configured, run_one: RunOne) -> int:
    """Run the searches that `arguments` describe, each of which resumes, and compare what they found.

    Writes runs/NAME-CONTROLLER for each controller; comparison.csv and comparison.png in runs/NAME. A controller that
    is named on the command line is the only one, and its search is runs/NAME itself.
    Returns the exit code; raises InputError for what the user can mend.
    """
    given, names = configured(arguments)
    experiment = read_experiment(given["experiment"])
    folder = run_folder(given["name"])
    alone = any(argument.split("=")[0] in ("controller", "controller._target_") for argument in arguments)
    if alone:
        named = [argument for argument in arguments if not argument.startswith("name=")] + [f"name={folder.name}"]
        searches = {names["controller"]: named}
    else:
        if (folder / "journal.jsonl").exists():
            raise InputError(f"name={folder.name}: {folder} is a search, not an experiment; give another name=")
        others = [argument for argument in arguments if not argument.startswith("name=")]
        searches = {
            controller: [*others, f"controller={controller}", f"name={folder.name}-{controller}"]
            for controller in experiment.controllers
        }
    # All of them are read before the first is run.
    ready = {controller: (*configured(typed), typed) for controller, typed in searches.items()}
    known = targets_of("controller")
    for own, own_names, _ in ready.values():
        if own_names["controller"] in known:
            check_front(own["front"], own_names["controller"], known[own_names["controller"]])
    again = functools.partial(command_line, "nas.search", arguments, name=folder.name)
    code = 0
    for place, (controller, (own, own_names, typed)) in enumerate(ready.items(), start=1):
        if len(ready) > 1:
            say(f"{'' if place == 1 else chr(10)}search {place} of {len(ready)}: {controller}")
        try:
            code = max(code, run_one(own, own_names, typed))
        except KeyboardInterrupt:
            if len(ready) > 1:
                say(f"or with the whole experiment:\n  {again()}")
            raise
    entries = {
        controller: read_journal(run_folder(own["name"]) / "journal.jsonl")[1]
        for controller, (own, _, _) in ready.items()
    }  # fmt: skip
    with locked(folder):
        if not alone:
            write_config(folder, given)
        _compare(folder, given, experiment, entries)
    if len(ready) > 1:
        say(f"all of them with a larger budget:\n  {again(budget=2 * int(given['budget']))}")
    return code


def check_front(front: Sequence[str], name: str, controller: object) -> None:
    """InputError where there is a front to search for, and the controller, or its class, cannot search for one."""
    if front and not getattr(controller, "multi_objective", False):
        able = [each for each, kind in targets_of("controller").items() if getattr(kind, "multi_objective", False)]
        raise InputError(f"controller={name} cannot search for a front; those that can: {', '.join(able)}")


def read_experiment(settings: Any) -> Experiment:
    """The experiment that a configuration describes. Raises InputError naming the setting that is wrong."""
    allowed = tuple(vars(Experiment([])))
    if not isinstance(settings, dict) or (unknown := sorted(set(settings) - set(allowed))):
        raise InputError(
            f"experiment has no {unknown[0] if isinstance(settings, dict) else settings}; it has {', '.join(allowed)} "
            "(a YAML in experiment/ that sets other options begins with `# @package _global_`)"
        )
    controllers, beside = settings.get("controllers"), settings.get("beside") or {}
    if not isinstance(controllers, list) or not controllers or len(set(map(str, controllers))) < len(controllers):
        raise InputError(f"experiment.controllers={controllers}: it must be a list of controllers, each of them once")
    if not isinstance(beside, dict):
        raise InputError(f"experiment.beside={beside}: it must name networks, as in efficientnet_b0: {{}}")
    known = {}
    for name, facts in beside.items():
        reference(name)
        facts = {"title": name, **(facts or {})} if isinstance(facts, dict | None) else {"": facts}
        if unknown := sorted(set(facts) - {"title", "published"}):
            raise InputError(f"experiment.beside.{name} has no {unknown[0]!r}; allowed: title, published")
        published = facts.get("published")
        if published is not None and not (isinstance(published, int | float) and 0 <= published <= 1):
            raise InputError(f"experiment.beside.{name}.published={published}: it must be a fraction, from 0 to 1")
        known[name] = Known(str(facts["title"]), published)
    texts = {name: str(settings[name]) for name in ("accuracy", "source", "note") if settings.get(name) is not None}
    return Experiment([str(controller) for controller in controllers], known, **texts)


# --- the comparison --------------------------------------------------------------------------------------------------


def _compare(
    folder: Path, given: Mapping[str, Any], experiment: Experiment, searches: Mapping[str, list[Entry]]
) -> None:
    """Print the table, and write it and the picture."""
    objective = read_objective(given["targets"], given["limits"], given["front"], given["refuse_above"])
    reward = on_targets(construct(given, "reward"), objective.targets)
    evaluator = construct(given, "evaluator")
    costs_of = _costs_with(construct(given, "device"))
    space = construct(given, "space")
    rows = [
        *_found(searches, experiment, evaluator, space, reward),
        *_known(experiment, evaluator, costs_of, reward, given["seed"]),
    ]
    trained = (
        _trained(evaluator, reward, objective.limits) if isinstance(construct(given, "device"), NoDevice) else None
    )
    if trained is not None:
        rows.append(trained.best)
    rows += _published(experiment, costs_of, reward)
    names = tuple(dict.fromkeys(["macs", "params", *objective.drawn]))
    CONSOLE.print(_table(rows, names, experiment))
    if experiment.note:
        say(experiment.note.rstrip())
    picture = comparison_figure(searches, rows, trained, objective, reward, experiment.accuracy)
    png(picture, folder / "comparison.png", PICTURE_WIDTH)
    write_atomically(folder / "comparison.csv", pd.DataFrame([_record(row) for row in rows]).to_csv(index=False))
    say(f"written: {folder}/comparison.csv, comparison.png")


def _found(
    searches: Mapping[str, list[Entry]], experiment: Experiment, evaluator: Any, space: Any, reward: RewardOf
) -> Iterator[Compared]:  # fmt: skip
    """The best network of each search; what it is worth without noise, where the evaluator knows."""
    for controller, entries in searches.items():
        best = best_of(entries)
        if best is not None and best.accuracy is not None:
            accuracy, worth = best.accuracy, best.reward
            if hasattr(evaluator, "expected"):
                accuracy = evaluator.expected(decode(space, best.picks))
                worth = float(reward(accuracy, best.costs))
            fields = f"found by {controller}", "found", accuracy, experiment.source, best.costs, worth, best.key
            yield Compared(*fields, controller=controller)


def _known(
    experiment: Experiment, evaluator: Any, costs_of: Callable[[Network], dict[str, float]], reward: RewardOf, seed: int
) -> Iterator[Compared]:
    """The published networks of which the evaluator can say something, as it judges them."""
    for name, known in experiment.beside.items():
        network = reference(name)
        try:
            if hasattr(evaluator, "check"):
                evaluator.check(network)
            if hasattr(evaluator, "expected"):
                accuracy = evaluator.expected(network)
            else:
                *_, (_, last) = measure(evaluator, network, seed)
                accuracy = last.accuracy
        except (InputError, EvaluationFailed):  # it is in another space than the evaluator's
            continue
        yield _compared(known.title, "reference", accuracy, experiment.source, network, costs_of, reward)


def _published(
    experiment: Experiment, costs_of: Callable[[Network], dict[str, float]], reward: RewardOf
) -> Iterator[Compared]:
    """The published networks with their published accuracies."""
    for name, known in experiment.beside.items():
        if known.published is not None:
            network = reference(name)
            yield _compared(known.title, "published", known.published, "published", network, costs_of, reward)


def _trained(evaluator: Any, reward: RewardOf, limits: Mapping[str, float]) -> Trained | None:
    """The networks within the limits that an evaluator knows of real trainings, if it is one that knows some."""
    if not hasattr(evaluator, "trained"):
        return None
    costs, accuracies, best = [], [], None
    for network, accuracy in evaluator.trained():
        row = _compared("", "trained", accuracy, "trained", network, _counted, reward)
        if not within(row.costs, limits):
            continue
        costs.append(row.costs)
        accuracies.append(accuracy)
        if best is None or (row.reward or 0.0) > (best.reward or 0.0):
            best = row
    if best is None:
        return None
    return Trained(costs, accuracies, replace(best, title=f"best of {len(accuracies):,} trained"))


def _compared(
    title: str, kind: str, accuracy: float, source: str, network: Network,
    costs_of: Callable[[Network], dict[str, float]], reward: RewardOf,
) -> Compared:  # fmt: skip
    costs = costs_of(network)
    try:
        worth = float(reward(accuracy, costs))
    except KeyError:  # a cost of the reward that the device cannot give for this network
        worth = None
    return Compared(title, kind, accuracy, source, costs, worth, network.key())


def _counted(network: Network) -> dict[str, float]:
    return {name: int(value) for name, value in vars(cost_of(network)).items()}


def _costs_with(device: Any) -> Callable[[Network], dict[str, float]]:
    """Counted costs, and those of the device where it can give them for the network."""

    def costs_of(network: Network) -> dict[str, float]:
        if isinstance(device, NoDevice):
            return _counted(network)
        try:
            return {**_counted(network), **device.costs(network)}
        except (InputError, DoesNotFit):
            return _counted(network)

    return costs_of


# --- what is said of it ----------------------------------------------------------------------------------------------


def _table(rows: Sequence[Compared], costs: Sequence[str], experiment: Experiment) -> Table:
    table = Table(title="what was found, and what is known", title_justify="left")
    table.add_column("network")
    for heading in (experiment.accuracy, "", *("params" if name == "params" else cost_title(name) for name in costs)):
        table.add_column(heading, no_wrap=bool(heading) and heading != experiment.accuracy)
    table.add_column("reward", no_wrap=True)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(
            row.title,
            f"{100 * row.accuracy:.2f}%",
            row.source,
            *(cost_short(name, row.costs[name]) if name in row.costs else "–" for name in costs),
            "–" if row.reward is None else f"{row.reward:.4f}",
            end_section=following is not None and row.kind != following.kind == "published",
        )
    return table


def _record(row: Compared) -> dict[str, Any]:
    return {
        "network": row.title, "accuracy": row.accuracy, "source": row.source, **row.costs, "reward": row.reward,
        "key": row.key,
    }  # fmt: skip
