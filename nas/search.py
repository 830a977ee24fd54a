"""`python -m nas.search target_flops=400e6`: search for a network under a compute budget."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from conf.command import configuration, construct, run
from conf.run_folder import locked, run_folder, write_config
from convnets.atomic_file import write_atomically
from convnets.checks import check_number, check_whole
from convnets.cost import macs_text
from convnets.errors import InputError
from nas.halving import Halving
from nas.journal import Entry, Journal, check_journal
from nas.loop import RewardOf, Search, best_of
from nas.problem import SearchProblem
from nas.progress import Timings, duration_text, progress
from nas.report import report
from nas.results import differences, outline, write_best, write_summary, write_trials
from nas.reward import on_macs
from search_spaces.space import check_decisions, size

# What may change between the runs of one search: how long it goes on, and where it runs.
_FREE_TO_CHANGE = ("budget", "engine", "name", "data")  # data is part of the evaluator that uses it


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    config, names = configuration("nas.search", "search", arguments)
    target = check_number("target_flops", config.target_flops, above=0)
    budget, seed = check_whole("budget", config.budget), check_whole("seed", config.seed, least=0)
    factor = config.refuse_above
    refuse_above = None if factor is None else target * check_number("refuse_above", factor, above=0)
    folder = run_folder(config.name)
    settings = {name: value for name, value in _plain(config).items() if name not in _FREE_TO_CHANGE}
    check_journal(folder / "journal.jsonl", settings)  # before anything is loaded or written
    if not (folder / "journal.jsonl").exists() and (folder / "summary.json").exists():
        raise InputError(f"name={folder.name}: {folder} holds another command's results; give another name=")

    space = construct(config, "space")
    try:
        check_decisions(space.decisions)
    except (AttributeError, ValueError) as error:
        raise InputError(f"space={names['space']}: {error}") from None
    problem = SearchProblem(space, refuse_above)
    reward = on_macs(construct(config, "reward"), target)
    controller = construct(config, "controller", problem=problem, seed=seed)
    if controller.ask(0, []) is None:  # asking changes nothing; without entries, only a space that is empty says None
        allowed = "" if refuse_above is None else f" of at most {macs_text(refuse_above)} (refuse_above)"
        raise InputError(f"space={names['space']}: no network{allowed} was found in it")
    evaluator = construct(config, "evaluator")
    halving = _halving(config, evaluator)
    engine = construct(config, "engine")

    with locked(folder):
        journal = Journal(folder / "journal.jsonl", settings)
        write_config(folder, config)
        timings = Timings(folder / "timings.csv")
        command = f"python -m nas.search {_command_line(arguments, folder.name)}"
        results = _Run(folder, journal, problem, reward, timings, target, budget, seed, names, command)
        _introduce(results)
        try:
            with progress(_CONSOLE, journal.entries, budget) as show:

                def watch(entry: Entry, seconds: float) -> None:
                    timings.add(entry.number, seconds)
                    show(entry)

                search = Search(problem, controller, reward, journal, budget, seed, halving, watch)
                engine(search, evaluator)
        except KeyboardInterrupt:
            if journal.entries:
                _save(results)
            _say(f"\nstopped; {len(journal.entries)} of {budget} evaluations are kept. To go on:\n  {command}")
            raise
        finally:
            journal.close()
        _save(results)
        return _conclude(results, search.exhausted)


@dataclass(frozen=True)
class _Run:
    """What a run's results are made from."""

    folder: Path
    journal: Journal
    problem: SearchProblem
    reward: RewardOf
    timings: Timings
    target: float
    budget: int
    seed: int
    names: Mapping[str, str]
    command: str  # the command line that resumes it


_CONSOLE = Console(highlight=False)


def _say(text: str) -> None:
    _CONSOLE.print(text, markup=False, soft_wrap=True)


def _introduce(run: _Run) -> None:
    """Say what is about to happen, and what was found of an earlier run."""
    if run.journal.repaired:
        _say(f"repaired {run.journal.path}: its last line had been cut off by an interruption")
    if run.journal.entries:
        _say(f"resuming {run.folder}: {len(run.journal.entries)} of {run.budget} evaluations are done")
    _say(
        f"{run.names['controller']} over {size(run.problem.decisions):.2g} networks ({run.names['space']}), target "
        f"{macs_text(run.target)}, {run.budget} evaluations by {run.names['evaluator']} on {run.names['engine']}"
    )


def _save(run: _Run) -> None:
    """Write everything that is made from the journal."""
    entries, folder = run.journal.entries, run.folder
    seconds = {number: seconds for number, (seconds, _) in run.timings.seconds.items()}
    write_trials(folder / "trials.csv", entries, run.problem, seconds)
    if best := best_of(entries):
        write_best(folder / "best.yaml", best, run.problem)
    page = report(
        name=folder.name,
        entries=entries,
        target_flops=run.target,
        reward=run.reward,
        problem=run.problem,
        config_text=(folder / "config.yaml").read_text(),
        seconds=run.timings.elapsed,
        budget=run.budget,
    )
    write_atomically(folder / "report.html", page)
    write_summary(folder / "summary.json", entries, run.timings.elapsed, run.target, run.seed, run.names)


def _conclude(run: _Run, exhausted: bool) -> int:
    """Say what was found, where it is, and what to type next. Returns the exit code."""
    entries = run.journal.entries
    if exhausted:
        _say(f"the space holds nothing more: all {len(entries)} networks found in it were evaluated")
    complete = [entry for entry in entries if entry.reward is not None and not entry.stopped]
    stopped, failed = sum(entry.stopped for entry in entries), sum(entry.error is not None for entry in entries)
    if not complete:
        reasons = sorted({entry.error for entry in entries if entry.error is not None})
        _say(
            f"no network was evaluated to the end ({failed} failed: {'; '.join(reasons)}); see {run.folder}/trials.csv"
        )
        return 1
    top = sorted(complete, key=lambda entry: (-(entry.reward or 0), entry.number))[:5]
    table = Table(title="best networks", title_justify="left")
    for heading in ("reward", "accuracy", "MACs (FLOPs)", "params", "differs from the best in"):
        table.add_column(heading, overflow="fold")
    for entry in top:
        table.add_row(
            f"{entry.reward:.4f}",
            f"{entry.accuracy:.4f}",
            macs_text(entry.costs["macs"]),
            f"{entry.costs['params'] / 1e6:.2f}M",
            differences(run.problem.decisions, top[0].picks, entry.picks),
        )
    _CONSOLE.print(table)
    _say(
        f"the best: {outline(run.problem, top[0].picks)}\n"
        f"{len(entries)} evaluations in {duration_text(run.timings.elapsed)}: {len(complete)} to the end, "
        f"{stopped} stopped early, {failed} failed\n"
        f"written: {run.folder}/ with best.yaml, summary.json, trials.csv, journal.jsonl\n"
        f"look at it: {run.folder}/report.html\n"
        f"go on with a larger budget=:\n  {run.command}"
    )
    return 0


def _halving(config: DictConfig, evaluator: Any) -> Halving | None:
    """Successive halving over the evaluator's epochs, for evaluators that have some."""
    epochs = getattr(evaluator, "epochs", None)
    if config.halving is None or epochs is None:
        return None
    if not OmegaConf.is_dict(config.halving) or set(config.halving) != {"grace", "eta"}:
        raise InputError(f"halving={config.halving}: it must be null, or have grace and eta")
    return Halving(epochs, config.halving.grace, config.halving.eta)


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return dict(plain)


def _command_line(arguments: Sequence[str], name: str) -> str:
    given = [argument for argument in arguments if not argument.startswith("name=")]
    return shlex.join([*given, f"name={name}"])


if __name__ == "__main__":
    run(main)
