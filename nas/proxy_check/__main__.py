"""`python -m nas.proxy_check`: does a proxy rank networks as longer training does?"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from nas.checked import COMMAND, epochs_setting, fingerprint
from nas.journal import Entry, Journal, check_journal, read_journal
from nas.problem import SearchProblem
from nas.proxy_check.outcome import Outcome, notes, outcome, verdict
from nas.proxy_check.plan import (
    SCHEDULES,
    Drawn,
    Evaluations,
    Job,
    check_known,
    drawn_by,
    drawn_from,
    jobs_of,
    spread,
)  # fmt: skip
from nas.proxy_check.report import times_of, write_all
from nas.timings import Timings, read_timings
from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say, saying_what_is_kept
from phinas.command.parts import check_inert, construct
from phinas.command.progress import progress, worker_time_text
from phinas.command.run import run
from phinas.command.run_folder import another_commands, begun, locked, read_config, run_folder, write_config
from phinas.command.verbs import command_line
from phinas.engines import inline
from phinas.engines.engine import RunJobs
from phinas.engines.evaluator import Evaluator
from phinas.engines.forecast import seconds_each
from phinas.files.checks import check_flag, check_whole
from phinas.files.errors import InputError
from phinas.pages.cost_text import macs_text
from search_spaces.space import check_decisions

TIMES = 5  # the proxy's epochs, where nobody says how long the longer schedule is
LEAST = 3  # networks

# What may change between the runs of one check: how long it goes on, and where it runs.
_FREE_TO_CHANGE = (  # data is part of the evaluator
    "networks", "seeds", "engine", "name", "data", "longer", "dry_run", "trust",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    typed = [f"++{text}" if text.startswith("longer={") else text for text in arguments]
    of_search = any(text.startswith("from=") for text in arguments)  # whose evaluator may have settings of its own
    given, names = configuration(
        COMMAND, "proxy_check", typed, open_ended=("longer", "evaluator") if of_search else ("longer",)
    )
    source = None if given["from"] is None else _Source(Path(str(given["from"])))
    if source:
        names = {**names, **source.apply(given, arguments)}
    elif given["trust"]:
        raise InputError(f"trust={given['trust']}: it goes with from=, whose configuration names code")
    count, seeds = check_whole("networks", given["networks"], LEAST), check_whole("seeds", given["seeds"])
    seed = check_whole("seed", given["seed"], least=0)
    check_flag("dry_run", given["dry_run"])

    # Everything is checked, and the engine is up, before anything is written.
    settings_of_longer = _longer_settings(given, names["evaluator"])
    epochs, longer_epochs = (_epochs(schedule) for schedule in (given["evaluator"], settings_of_longer))
    folder = run_folder(given["name"])
    journal_path = folder / "journal.jsonl"
    entries_of = source.entries(journal_path) if source else None
    settings = {
        "command": COMMAND,
        **{name: value for name, value in given.items() if name not in _FREE_TO_CHANGE},
        "from": source and {"folder": str(source.folder), "evaluations": len(entries_of or ())},
        "longer": _changes(given["evaluator"], settings_of_longer),
    }
    before = _check_folder(folder, settings)
    problem = _problem(given, names["space"])
    if entries_of is not None:
        problem.recall(entries_of)
    pool = drawn_from(problem, seed) if entries_of is None else drawn_by(entries_of)
    chosen = spread(pool, count, seed)
    evaluator = construct(given, "evaluator")
    longer = _longer(given, settings_of_longer, evaluator)
    if hasattr(evaluator, "check"):  # it may know the networks of one space only
        evaluator.check(problem.network(chosen[0].picks))
    jobs = [jobs_of(chosen, schedule, seeds, seed, problem) for schedule in range(len(SCHEDULES))]
    check_known([*jobs[0], *jobs[1]], before)
    about = {
        "command": COMMAND,
        "fingerprint": fingerprint(given["space"], given["evaluator"]),
        "epochs": epochs,
        "longer_epochs": longer_epochs,
        "seeds": seeds,
        "seed": seed,
        "from": settings["from"],
        **{name: names[name] for name in ("space", "evaluator", "engine")},
    }
    asked = _Asked(folder, chosen, jobs, (evaluator, longer), about, tuple(arguments))
    times = {number: seconds for number, (seconds, _) in read_timings(folder / "timings.csv").items()}
    if given["dry_run"]:
        _introduce(asked)
        _foretell(asked, before, times)
        CONSOLE.print(_plan_table(chosen))
        return 0
    # A check that is finished needs no engine; inline costs nothing.
    engine = construct(given, "engine") if asked.left(before) else inline.engine()
    with engine as run_jobs, locked(folder):
        journal = Journal(journal_path, settings)
        with closing(journal), saying_what_is_kept(lambda: asked.kept(journal.entries)):
            write_config(folder, given)
            return _conduct(asked, journal, run_jobs)


@dataclass(frozen=True)
class _Source:
    """A search whose networks are checked."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("config.yaml", "journal.jsonl"):
            if not (self.folder / name).is_file():
                raise InputError(f"from={self.folder}: no {name} there; give the folder of a search, such as runs/NAME")

    def apply(self, given: dict[str, Any], arguments: Sequence[str]) -> dict[str, str]:
        """Take the search's space, and its evaluator and data where none are given; returns their names.

        What is given of an evaluator (`evaluator.recipe.epochs=3`) is changed in the search's.
        """
        searched = read_config(self.folder)
        for group in ("space", "evaluator"):
            if not isinstance(searched, dict) or "_target_" not in (searched.get(group) or {}):
                raise InputError(f"{self.folder}/config.yaml has no {group}; it is not the configuration of a search")
        typed = [text.split("=")[0].lstrip("+") for text in arguments]
        if any(key.split(".")[0] == "space" for key in typed):
            raise InputError(f"from={self.folder} brings the space of that search; leave space= out, or from=")
        taken = ["space"]
        if not {"evaluator", "evaluator._target_"} & set(typed):
            taken.append("evaluator")
        composed = copy.deepcopy(given)
        of_file = {name: searched[name] for name in (*taken, "data") if name in searched}
        check_inert(of_file, self.folder / "config.yaml", composed["trust"])
        for group in taken:
            settings = searched[group]
            for key in typed:
                if key.startswith(f"{group}."):
                    _put(settings, key.split(".")[1:], _get(composed, key.split(".")), key)
            given[group] = settings
        if any(key.split(".")[0] == "data" for key in typed):
            if "data" in given["evaluator"]:
                given["evaluator"]["data"] = composed["data"]
        elif "data" in searched:
            given["data"] = searched["data"]
            if "evaluator" not in taken and "data" in given["evaluator"]:
                given["evaluator"]["data"] = searched["data"]
        return {group: str(given[group]["_target_"]).rpartition(".")[2] for group in taken}

    def entries(self, checked: Path) -> list[Entry]:
        """Its evaluations; where a check at `checked` has begun, as many as there were then."""
        settings, entries, _ = read_journal(self.folder / "journal.jsonl")
        if "command" in settings:
            raise InputError(f"from={self.folder}: its journal is not a search's")
        begun = read_journal(checked)[0].get("from") if checked.exists() else None
        if isinstance(begun, Mapping) and begun.get("folder") == str(self.folder):
            entries = entries[: int(begun["evaluations"])]
        return entries


@dataclass(frozen=True)
class _Asked:
    """What the user asked for, and what that comes to. Pairs are of the proxy and the longer schedule."""

    folder: Path
    chosen: Sequence[Drawn]
    jobs: Sequence[Sequence[Job]]
    evaluators: tuple[Evaluator, Evaluator]
    about: Mapping[str, Any]
    arguments: tuple[str, ...]

    @property
    def wanted(self) -> int:
        return sum(map(len, self.jobs))

    def left_of(self, schedule: int, entries: Sequence[Entry]) -> list[Job]:
        done = {entry.number for entry in entries}
        return [job for job in self.jobs[schedule] if job.number not in done]

    def left(self, entries: Sequence[Entry]) -> int:
        return sum(len(self.left_of(schedule, entries)) for schedule in range(len(SCHEDULES)))

    def found(self, entries: Sequence[Entry], seconds: Mapping[int, float]) -> Outcome:
        every = getattr(self.evaluators[0], "score_every", 1)
        return outcome(self.chosen, entries, seconds, self.about["seeds"], self.about["epochs"], every)

    def kept(self, entries: Sequence[Entry], before_command: str = " ") -> str:
        """What a check that ends too soon says."""
        done = self.wanted - self.left(entries)
        return f"{done} of {self.wanted} evaluations are kept. To go on:{before_command}{self.command()}"

    def command(self, **changes: object) -> str:
        """The command line that resumes this run, with options changed."""
        return command_line(COMMAND, self.arguments, **{**changes, "name": self.folder.name})


def _epochs(evaluator: Mapping[str, Any]) -> int:
    path = epochs_setting(evaluator)
    assert path is not None  # _longer_settings has seen to it
    return int(_get(evaluator, path))


def _longer_settings(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The evaluator's settings with those of `longer` in place. Raises InputError where it is not longer."""
    proxy, changes = given["evaluator"], given["longer"]
    path = epochs_setting(proxy)
    if path is None:
        raise InputError(
            f"evaluator={name}: it has no epochs, so there is no longer schedule to hold it against, "
            "and it cannot be checked so"
        )
    if not isinstance(changes, Mapping):
        raise InputError(f"longer={changes}: it must name settings of the evaluator, as in longer.epochs=20")
    epochs = check_whole(".".join(("evaluator", *path)), _get(proxy, path))
    settings: dict[str, Any] = copy.deepcopy(dict(proxy))
    for key, value in _flat(changes):
        if key != ("epochs",):
            _put(settings, key, value, ".".join(("longer", *key)))
    if epochs_setting(settings) != path:
        raise InputError(
            f"longer.{path[0]}={settings[path[0]]}: it must name settings of the evaluator's, as in "
            f"longer.{'.'.join(path)}={TIMES * epochs}"
        )
    if changes.get("epochs") is not None:
        _put(settings, path, changes["epochs"], "longer.epochs")
    elif _get(settings, path) == epochs:
        _put(settings, path, TIMES * epochs, "longer.epochs")
    if check_whole("longer.epochs", _get(settings, path)) <= epochs:
        raise InputError(
            f"longer.epochs={_get(settings, path)}: it is not longer than the proxy's {epochs} epochs; give more"
        )
    return settings


def _changes(proxy: Mapping[str, Any], longer: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted name, the settings in which the longer schedule differs."""
    before = dict(_flat(proxy))
    return {".".join(path): value for path, value in _flat(longer) if path not in before or before[path] != value}


def _flat(settings: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting with its path; a key `recipe.epochs` is one, too."""
    for key, value in settings.items():
        path = (*above, *str(key).split("."))
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        else:
            yield path, value


def _get(settings: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = settings
    for name in path:
        value = value[name]
    return value


def _put(settings: dict[str, Any], path: Sequence[str], value: Any, said: str) -> None:
    """Set one of the settings; InputError where there is no such group of them. `said` is how the user named it."""
    for name in path[:-1]:
        if not isinstance(settings.get(name), dict):
            raise InputError(f"{said}: the evaluator has no {name} with settings of its own")
        settings = settings[name]
    settings[path[-1]] = value


def _problem(given: Mapping[str, Any], name: str) -> SearchProblem:
    space = construct(given, "space")
    try:
        check_decisions(space.decisions)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"space={name}: {error}") from None
    return SearchProblem(space, lambda accuracy, costs: accuracy)


def _longer(given: Mapping[str, Any], settings: Mapping[str, Any], proxy: Any) -> Evaluator:
    """The evaluator of the longer schedule, on the very data of the proxy: they are read once."""
    shared = hasattr(proxy, "data") and "data" in settings and settings["data"] == given["evaluator"]["data"]
    other = dict(given)
    if shared:
        other["evaluator"] = {**{key: value for key, value in settings.items() if key != "data"}, "_partial_": True}
    else:
        other["evaluator"] = dict(settings)
    try:
        # Without `_convert_`, a recipe would wait as a mapping.
        made = construct(other, "evaluator", _convert_="all") if shared else construct(other, "evaluator")
        evaluator: Evaluator = made(data=proxy.data) if shared else made
    except InputError as error:
        raise InputError(f"longer{str(error).removeprefix('evaluator')}") from None
    return evaluator


def _check_folder(folder: Path, settings: Mapping[str, Any]) -> list[Entry]:
    """The finished evaluations of the check in the folder; changes nothing. InputError where it is none."""
    path = folder / "journal.jsonl"
    if not begun(folder, path.name):
        return []
    if (settings_before := read_journal(path)[0]) and settings_before.get("command") != COMMAND:
        raise another_commands(folder)
    return check_journal(path, settings)


def _introduce(asked: _Asked) -> None:
    """Say what is about to happen."""
    about, macs = asked.about, [drawn.costs["macs"] for drawn in asked.chosen]
    of = f" that {about['from']['folder']} looked at" if about["from"] else ""
    with_seeds = f", {about['seeds']} seeds each" if about["seeds"] > 1 else ""
    say(
        f"{len(asked.chosen)} networks of {about['space']}{of}, {macs_text(min(macs))} to {macs_text(max(macs))}, "
        f"by {about['evaluator']}: {about['epochs']} epochs against {about['longer_epochs']}{with_seeds}"
    )


def _foretell(
    asked: _Asked,
    entries: Sequence[Entry],
    seconds: Mapping[int, float],
    workers: int = 1,
    threads: int | None = 1,
) -> None:
    """Say how long what is left takes: by what was evaluated before, else by training one network for a moment.

    `workers` evaluate at a time, each with as many `threads`; None: as many as it likes.
    """
    parts, whole, unknown = [], 0.0, False
    mean = fmean(drawn.costs["macs"] for drawn in asked.chosen)
    for schedule, name in enumerate(SCHEDULES):
        left = asked.left_of(schedule, entries)
        if not left:
            continue
        jobs = {job.number for job in asked.jobs[schedule]}
        known = [seconds[entry.number] for entry in entries if entry.number in jobs and entry.number in seconds]
        typical = min(left, key=lambda job: abs(job.drawn.costs["macs"] - mean))
        each = seconds_each(asked.evaluators[schedule], typical.network, known, threads)
        unknown |= each is None
        whole += len(left) * (each or 0)
        parts.append(f"{len(left)} by the {name} schedule" + ("" if each is None else f" x {each:.3g} s"))
    if not parts:
        return
    if unknown:
        say(f"{', '.join(parts)}; how long they take is not known before the first")
        return
    say(f"{', '.join(parts)} = {worker_time_text(whole, asked.left(entries), workers)}")


def _plan_table(chosen: Sequence[Drawn]) -> Table:
    table = Table(title="networks, in the order they are trained", title_justify="left")
    for heading in ("network", "MACs (FLOPs)", "params"):
        table.add_column(heading, no_wrap=True)
    for drawn in chosen:
        table.add_row(drawn.key, macs_text(drawn.costs["macs"]), f"{drawn.costs['params'] / 1e6:.2f}M")
    return table


def _conduct(asked: _Asked, journal: Journal, run_jobs: RunJobs) -> int:
    """Evaluate what is left, all by the proxy first; then say and write what was found. Returns the exit code."""
    timings = Timings(asked.folder / "timings.csv")
    _introduce(asked)
    if journal.repaired:
        say(f"repaired {journal.path}: its last line had been cut off by an interruption")
    if journal.entries:
        done = asked.wanted - asked.left(journal.entries)
        say(f"resuming {asked.folder}: {done} of {asked.wanted} evaluations are done")

    def seconds() -> dict[int, float]:
        return {number: spent for number, (spent, _) in timings.seconds.items()}

    def save() -> Outcome:
        result = asked.found(journal.entries, seconds())
        about = {**asked.about, "evaluations": len(journal.entries), "seconds": round(timings.elapsed, 3)}
        write_all(asked.folder, result, about, asked.left(journal.entries))
        return result

    try:
        _foretell(asked, journal.entries, seconds(), run_jobs.workers, run_jobs.threads)
        with progress(CONSOLE, "checking", asked.wanted - asked.left(journal.entries), asked.wanted) as show:
            for schedule, name in enumerate(SCHEDULES):

                def watch(entry: Entry, spent: float, name: str = name) -> None:
                    timings.add(entry.number, spent)
                    show(f"{entry.key} {name}: {_came_of(entry)}  {spent:.3g} s", "")

                left = Evaluations(asked.jobs[schedule], journal, watch)
                if left.waiting:
                    run_jobs(left, asked.evaluators[schedule])
    except KeyboardInterrupt:
        say("\nstopped; " + asked.kept(journal.entries, "\n  "))
        if asked.left(journal.entries) < asked.wanted:
            save()
        raise
    return _conclude(asked, save())


def _came_of(entry: Entry) -> str:
    return f"failed: {entry.error}" if entry.error is not None else f"accuracy {entry.accuracy:.4f}"


def _conclude(asked: _Asked, result: Outcome) -> int:
    """Say what was found, where it is, and what to type next. Returns the exit code."""
    folder = asked.folder
    say(verdict(result, times_of(asked.about)))
    if result.tau is None:
        reasons = sorted({error for network in result.networks for error in network.errors})
        say(f"{'; '.join(reasons) or 'all networks tie'}; see {folder}/networks.csv")
        return 1
    for note in notes(result):
        say(f"note: {note}")
    say(
        f"written: {folder}/ with networks.csv, proxy_check.png, summary.json, journal.jsonl\n"
        f"look at it: {folder}/report.html\n"
        f"surer with more networks:\n  {asked.command(networks=2 * len(asked.chosen))}"
    )
    return 0


if __name__ == "__main__":
    run(main)
