"""`python -m nas.search target_flops=400e6`: search for a network under a compute budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from nas.controller import WALK_LIMIT
from nas.experiment import check_front, run_experiment
from nas.front import pareto_front, spread
from nas.halving import read_halving
from nas.jobs import SearchJobs, best_of
from nas.journal import Entry, Journal, check_journal
from nas.objective import Objective, read_objective
from nas.problem import SearchProblem
from nas.report import report
from nas.results import differences, outline, summary_of, trials_table, write_front, write_network
from nas.reward import on_targets
from nas.timings import Timings
from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say, saying_what_is_kept
from phinas.command.parts import construct
from phinas.command.progress import duration_text, progress
from phinas.command.run import run
from phinas.command.run_folder import begun, locked, run_folder, write_config, write_json
from phinas.command.verbs import command_line
from phinas.engines import inline
from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_number, check_whole
from phinas.files.errors import InputError, RunFailed
from phinas.files.origin import file_source
from phinas.pages.cost_text import cost_short, cost_text, cost_title, macs_text
from search_spaces.space import check_decisions, size

# What may change between the runs of one search: how long it goes on, and where it runs. `data` is in its evaluator.
_FREE_TO_CHANGE = ("budget", "give_up_after", "engine", "name", "data", "experiment")


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, names = configured(arguments)
    if given["experiment"] is not None:
        return run_experiment(arguments, configured, _search_and_conclude)
    return _search_and_conclude(given, names, arguments)


def _search_and_conclude(given: Mapping[str, Any], names: Mapping[str, str], arguments: Sequence[str]) -> int:
    return _conclude(search(given, names, arguments))


def search(
    given: Mapping[str, Any], names: Mapping[str, str], arguments: Sequence[str], parts: Mapping[str, Any] | None = None
) -> Searched:
    """One search, or as much of it as is left: its settings, the choice in each group, and what was typed.

    parts  objects that are there already, by their group: `given` describes them, and they are not constructed.
    Raises InputError for what the user can mend, RunFailed where it gave up.
    """
    part = partial(_part, given, parts or {})
    if given["target_flops"] is not None:
        check_number("target_flops", given["target_flops"], above=0)
    objective = read_objective(given["targets"], given["limits"], given["front"], given["refuse_above"])
    budget, seed = check_whole("budget", given["budget"]), check_whole("seed", given["seed"], least=0)
    give_up_after = None if given["give_up_after"] is None else check_whole("give_up_after", given["give_up_after"])
    folder = run_folder(given["name"])
    settings = {name: value for name, value in given.items() if name not in _FREE_TO_CHANGE}

    # Everything is checked, and the engine is up, before anything is written.
    entries = check_journal(folder / "journal.jsonl", settings) if begun(folder, "journal.jsonl") else []
    space = part("space")
    try:
        check_decisions(space.decisions)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"space={names['space']}: {error}") from None
    reward = on_targets(part("reward"), objective.targets)
    try:
        reward(0.5, objective.targets)
    except (TypeError, ValueError, ArithmeticError) as error:
        own = {name: "null" if value is None else value for name, value in given["reward"].items()}
        typed = "".join(f", reward.{name}={value}" for name, value in own.items() if not name.startswith("_"))
        raise InputError(f"reward={names['reward']}{typed}: {error}") from None
    device = part("device")
    if not callable(getattr(device, "costs", None)):
        raise InputError(f"device={names['device']}: it has no method costs(network)")
    problem = SearchProblem(space, reward, objective.limits, objective.front, device)
    problem.recall(entries)
    objective.check(tuple(entries[0].costs) if entries else problem.cost_names(), names["device"])
    controller = part("controller", problem=problem, seed=seed)
    check_front(objective.front, names["controller"], controller)
    first = controller.ask(0, [])  # asking changes nothing, and nothing was told
    if first is None:  # there is no network at all
        allowed = f" within limits and refuse_above ({objective.limits_text})" if objective.limits else ""
        raise InputError(f"space={names['space']}: no network{allowed} was found in it")
    evaluator = part("evaluator")
    if hasattr(evaluator, "check"):  # it may know the networks of one space only
        evaluator.check(problem.network(first))
    # Halving goes by the reward alone, and would stop the cheap end of a front.
    halving = read_halving(given["halving"], evaluator) if not objective.front else None
    # A search that is finished needs no engine; inline costs nothing.
    engine = part("engine") if len(entries) < budget else inline.engine()

    with engine as run_jobs, locked(folder):
        journal, timings = Journal(folder / "journal.jsonl", settings), Timings(folder / "timings.csv")
        results = Searched(folder, journal, problem, timings, objective, budget, seed, names, arguments)
        with closing(journal), saying_what_is_kept(results.kept):
            write_config(folder, given)
            _introduce(results)
            best = best_of(journal.entries)

            def watch(entry: Entry, seconds: float) -> None:
                nonlocal best
                timings.add(entry.number, seconds)
                best = best_of([known for known in (best, entry) if known])
                show(_outcome(entry, objective.drawn), "-" if best is None else f"{best.reward:.4f}")

            try:
                with progress(CONSOLE, "searching", len(journal.entries), budget) as show:
                    state = SearchJobs(problem, controller, journal, budget, seed, halving, give_up_after, watch)
                    if not state.done:
                        run_jobs(state, evaluator)
            except (KeyboardInterrupt, RunFailed) as end:
                if isinstance(end, KeyboardInterrupt):
                    say("\nstopped; " + results.kept("\n  "))
                if journal.entries:
                    _save(results)
                raise
            _save(results)
            if state.given_up and not state.done:
                raise RunFailed(state.given_up)
            return replace(results, exhausted=state.exhausted)


def _part(given: Mapping[str, Any], parts: Mapping[str, Any], group: str, **arguments: Any) -> Any:
    """The part of this group: constructed by its settings, or the one that is there already."""
    if group not in parts:
        return construct(given, group, **arguments)
    return parts[group](**arguments) if arguments else parts[group]  # a controller is made of its problem


@dataclass(frozen=True)
class Searched:
    """A search that was run, and what its results are made from."""

    folder: Path
    journal: Journal
    problem: SearchProblem
    timings: Timings
    objective: Objective
    budget: int
    seed: int
    names: Mapping[str, str]
    arguments: Sequence[str]
    exhausted: bool = False  # nothing new was left to evaluate

    def command(self, **changes: object) -> str:
        """The command line that resumes this run, with options changed."""
        return command_line("nas.search", self.arguments, **{**changes, "name": self.folder.name})

    def trials(self) -> pd.DataFrame:
        """What `trials.csv` holds."""
        seconds = {number: seconds for number, (seconds, _) in self.timings.seconds.items()}
        return trials_table(self.journal.entries, self.problem, seconds)

    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        return summary_of(self.journal.entries, self.timings.elapsed, self.objective, self.seed, self.names)

    def kept(self, before_command: str = " ") -> str:
        """What a search that ends too soon says."""
        text = f"{len(self.journal.entries)} of {self.budget} evaluations are kept. To go on:"
        return f"{text}{before_command}{self.command()}"


def _introduce(run: Searched) -> None:
    """Say what is about to happen, and what was found of an earlier run."""
    if run.journal.repaired:
        say(f"repaired {run.journal.path}: its last line had been cut off by an interruption")
    if run.journal.upgraded:
        say(f"{run.journal.path} was an earlier release's, and is written anew in the format of this one")
    if run.journal.entries:
        say(f"resuming {run.folder}: {len(run.journal.entries)} of {run.budget} evaluations are done")
    say(
        f"{run.names['controller']} over {size(run.problem.decisions):.2g} networks ({run.names['space']}), "
        f"{run.objective}, {run.budget} evaluations by {run.names['evaluator']} on {run.names['engine']}"
    )


def _save(run: Searched) -> None:
    """Write everything that is made from the journal."""
    entries, folder = run.journal.entries, run.folder
    write_atomically(folder / "trials.csv", run.trials().to_csv(index=False))
    journal = file_source(run.journal.path)
    if best := best_of(entries):
        write_network(folder / "best.yaml", best, run.problem, journal)
    if run.objective.front:
        write_front(folder, entries, run.objective.front, run.problem, journal)
    page = report(
        name=folder.name,
        entries=entries,
        objective=run.objective,
        problem=run.problem,
        config_text=(folder / "config.yaml").read_text(),
        seconds=run.timings.elapsed,
        budget=run.budget,
    )
    write_atomically(folder / "report.html", page)
    write_json(folder / "summary.json", run.summary())


def _conclude(run: Searched) -> int:
    """Say what was found, where it is, and what to type next. Returns the exit code."""
    entries = run.journal.entries
    if run.exhausted:
        beginning = "the space holds" if size(run.problem.decisions) <= WALK_LIMIT else "the controller found"
        say(f"{beginning} nothing new: all {len(entries)} networks it proposed were evaluated")
    complete = [entry for entry in entries if entry.complete]
    stopped, failed = sum(entry.stopped for entry in entries), sum(entry.error is not None for entry in entries)
    if not complete:
        reasons = sorted({entry.error for entry in entries if entry.error is not None})
        say(f"no network was evaluated to the end ({failed} failed: {'; '.join(reasons)}); see {run.folder}/trials.csv")
        return 1
    ranked = sorted(complete, key=lambda entry: (-(entry.reward or 0), entry.number))
    CONSOLE.print(_front_table(run) if run.objective.front else _best_table(run, ranked[:5]))
    say(
        f"the best: {outline(run.problem, ranked[0].picks)}\n"
        f"{len(entries)} evaluations in {duration_text(run.timings.elapsed)}: {len(complete)} to the end, "
        f"{stopped} stopped early, {failed} failed\n"
        f"written: {run.folder}/ with best.yaml, {'front.csv, front/, ' if run.objective.front else ''}"
        "summary.json, trials.csv, journal.jsonl\n"
        f"look at it: {run.folder}/report.html\n"
        f"go on with a larger budget:\n  {run.command(budget=2 * run.budget)}"
    )
    return 0


def _outcome(entry: Entry, costs: Sequence[str]) -> str:
    """What came of one evaluation, with its `costs`, on lines that have room for them."""
    if entry.error is not None:
        return f"failed: {entry.error}"
    halted = f" stopped after {len(entry.curve)}" if entry.stopped else ""
    known = "  ".join(cost_text(name, entry.costs[name]) for name in costs)
    return f"accuracy {entry.accuracy:.4f}{halted}  {known}  reward {entry.reward:.4f}"


def _best_table(run: Searched, best: Sequence[Entry]) -> Table:
    others = [name for name in run.objective.drawn if name not in ("macs", "params")]
    table = Table(title="best networks", title_justify="left")
    compute = "MACs" if others else "MACs (FLOPs)"  # 80 columns do not hold it all
    for heading in ("reward", "accuracy", compute, "params", *map(cost_title, others)):
        table.add_column(heading, no_wrap=True)
    table.add_column("differs from the best in", overflow="fold")
    for entry in best:
        table.add_row(
            f"{entry.reward:.4f}",
            f"{entry.accuracy:.4f}",
            cost_short("macs", entry.costs["macs"]) if others else macs_text(entry.costs["macs"]),
            f"{entry.costs['params'] / 1e6:.2f}M",
            *(cost_short(name, entry.costs[name]) for name in others),
            differences(run.problem.decisions, best[0].picks, entry.picks),
        )
    return table


def _front_table(run: Searched) -> Table:
    costs = run.objective.front
    front = pareto_front(run.journal.entries, costs)
    shown = spread(front, 12)
    few = f", {len(shown)} of them" if len(shown) < len(front) else ""
    table = Table(title=f"Pareto front: {len(front)} network{'s' if len(front) > 1 else ''}{few}", title_justify="left")
    for heading in (*map(cost_title, costs), "accuracy", "reward", "network"):
        table.add_column(heading, no_wrap=True)
    for entry in shown:
        known = [cost_short(name, entry.costs[name]) for name in costs]
        table.add_row(*known, f"{entry.accuracy:.4f}", f"{entry.reward:.4f}", f"front/{entry.number}.yaml")
    return table


def configured(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that `arguments` make of the defaults, and the choice in each group. Raises InputError."""
    return configuration("nas.search", "search", arguments, open_ended=("targets", "limits"))


if __name__ == "__main__":
    run(main)
