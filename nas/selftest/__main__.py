"""`python -m nas.selftest`: do searches on this machine, or on this cluster, survive what happens to machines?"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from nas.selftest.corrupted import corrupted
from nas.selftest.disk_full import disk_full
from nas.selftest.drivers import drivers
from nas.selftest.nodes import nodes
from nas.selftest.outcome import Finding, Outcome
from nas.selftest.proxy import proxy
from nas.selftest.searches import instant, subject
from nas.selftest.settings import Settings
from nas.selftest.torn import torn
from nas.selftest.two_at_once import two_at_once
from nas.selftest.workers import workers
from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say
from phinas.command.progress import duration_text
from phinas.command.run import run
from phinas.command.run_folder import another_commands, begun, locked, run_folder, write_config, write_json
from phinas.command.verbs import command_line
from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_whole
from phinas.files.errors import InputError
from phinas.files.settings import check_same_settings
from phinas.pages.page import render

COMMAND = "nas.selftest"
SILENCE = 5.0  # seconds between two lines about one fault


@dataclass(frozen=True)
class _Fault:
    """What may be injected: how, what it is for people, and where it cannot be."""

    inject: Callable[[Settings], Outcome]
    title: str
    uses_ray: bool = False  # some of its searches run on the engine that was given
    needs_ray: bool = False  # it makes no sense without Ray
    breaks_cluster: bool = False  # it needs a cluster that is made for it


FAULTS = {
    "torn": _Fault(torn, "the journal's last line torn at every byte"),
    "corrupted": _Fault(corrupted, "the journal damaged at random"),
    "disk_full": _Fault(disk_full, "the disk full"),
    "two_at_once": _Fault(two_at_once, "a second search in the same folder"),
    "drivers": _Fault(drivers, "kill -9 of the driver", uses_ray=True),
    "workers": _Fault(workers, "kill -9 of a worker", uses_ray=True, needs_ray=True),
    "nodes": _Fault(nodes, "a node of the cluster lost", needs_ray=True, breaks_cluster=True),
    "proxy": _Fault(proxy, "kill -9 while networks train", uses_ray=True),
}


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code: 1 if anything was lost, repeated or otherwise wrong.

    Raises InputError for what the user can mend.
    """
    given, _ = configuration(COMMAND, "selftest", arguments)
    check_whole("seed", given["seed"], least=0)
    counts = {name: check_whole(name, given[name], least=0) for name in FAULTS}
    ray = _ray_options(given["engine"])
    wanted = _wanted(given["only"], counts, ray is not None, given["engine"].get("address"))
    folder = run_folder(given["name"])
    settings = {name: value for name, value in given.items() if name not in ("only", "name")}
    outcomes = _earlier(folder, settings)
    asked = _Asked(folder, settings, wanted, ray, tuple(arguments))
    if not asked.left(outcomes):
        say(f"{folder}/ is finished: nothing to do")
        return _conclude(asked, outcomes)
    if ray is not None and any(FAULTS[name].uses_ray for name in asked.left(outcomes)):
        _check_engine(ray)
    with locked(folder):
        _write(asked, outcomes, config_text=None)  # first of all: by it the command knows the folder as its own
        write_config(folder, given)
        try:
            _inject(asked, outcomes)
        except KeyboardInterrupt:
            done = len(wanted) - len(asked.left(outcomes))
            say(f"\nstopped; {done} of {len(wanted)} faults are done. To go on:\n  {asked.command}")
            raise
    return _conclude(asked, outcomes)


@dataclass(frozen=True)
class _Asked:
    """What the user asked for."""

    folder: Path
    settings: Mapping[str, Any]
    wanted: Sequence[str]
    ray: Sequence[str] | None
    arguments: Sequence[str]

    @property
    def address(self) -> str | None:
        """Of the cluster that searches on Ray run on; None where there is none, or Ray is started for each."""
        return str(given) if (given := self.settings["engine"].get("address")) is not None else None

    def left(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        return [name for name in self.wanted if name not in outcomes]

    @property
    def command(self) -> str:
        """The command line that goes on with this run."""
        return command_line(COMMAND, self.arguments, name=self.folder.name)


def _ray_options(engine: Mapping[str, Any]) -> list[str] | None:
    """What puts a search on this engine; None for the inline one. InputError for any other."""
    if engine["_target_"] == "phinas.engines.inline.engine":
        return None
    if engine["_target_"] != "phinas.engines.ray.engine":
        raise InputError(f"engine={engine['_target_']}: it must be ray, or inline for what needs no Ray")
    chosen = {key: "null" if value is None else value for key, value in engine.items() if key != "_target_"}
    return ["engine=ray", *(f"engine.{key}={value}" for key, value in chosen.items())]


def _wanted(only: Any, counts: Mapping[str, int], ray: bool, address: str | None) -> list[str]:
    """The faults to inject, in their order. InputError for a name that is none, or one that cannot be injected here."""
    if only is not None and (not isinstance(only, list) or not only or set(map(str, only)) - set(FAULTS)):
        raise InputError(f"only={only}: it must be a list of {', '.join(FAULTS)}")
    wanted = []
    for name, fault in FAULTS.items():
        why = None
        if fault.needs_ray and not ray:
            why = "engine=inline has none"
        elif fault.breaks_cluster and address is not None:
            why = f"engine.address={address} is not for us to break; leave it out"
        asked = counts[name] > 0 and (only is None or name in only)
        if only is not None and asked and why:
            raise InputError(f"only={only}: {name} needs a Ray of its own, and {why}")
        if asked and not why:
            wanted.append(name)
    if not wanted:
        raise InputError(f"there is nothing to do: give one of {', '.join(FAULTS)} a number above 0")
    return wanted


def _earlier(folder: Path, settings: Mapping[str, Any]) -> dict[str, Outcome]:
    """What an earlier run of this self-test found; changes nothing. InputError where the folder is none's."""
    path = folder / "summary.json"
    if not begun(folder, path.name):
        return {}
    try:
        summary = json.loads(path.read_text())
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged; give another name=") from None
    if not isinstance(summary, dict) or summary.get("command") != COMMAND:
        raise another_commands(folder)
    try:
        earlier, outcomes = dict(summary["settings"]), [_outcome_of(*fault) for fault in summary["faults"].items()]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} is damaged; give another name=") from None
    check_same_settings(path, earlier, settings)
    return {outcome.fault: outcome for outcome in outcomes}


def _outcome_of(name: str, record: Mapping[str, Any]) -> Outcome:
    findings = tuple(Finding(**finding) for finding in record["findings"])
    return Outcome(name, record["injected"], record["seconds"], findings, record["note"])


def _check_engine(ray: Sequence[str]) -> None:
    """InputError where a search on this engine does not come to its end, undisturbed."""
    say("first a search on Ray that nothing happens to")
    with tempfile.TemporaryDirectory(prefix="phinas-selftest-") as folder:
        ended = subject(Settings(Path(folder), count=0), "search", (*ray, *instant()), budget=2).run()
    if ended.code:
        said = (ended.errors.strip() or ended.output.strip() or "it said nothing").splitlines()[-1]
        said = said.removeprefix("error: ")
        raise InputError(said if ended.code == 2 else f"engine=ray: not even an undisturbed search ends here: {said}")


def _inject(asked: _Asked, outcomes: dict[str, Outcome]) -> None:
    """Inject what is left, one kind of fault after the other; `outcomes` grows, and is on disk after each."""
    left = asked.left(outcomes)
    for place, name in enumerate(left, start=1):
        say(f"[{place}/{len(left)}] {name}: {FAULTS[name].title}")
        searches = asked.folder / "searches" / name
        shutil.rmtree(searches, ignore_errors=True)  # of a run that was interrupted
        searches.mkdir(parents=True)
        settings = Settings(
            searches.resolve(),
            asked.settings[name],
            asked.settings["seed"],
            asked.ray,
            asked.address,
            _shown(name),
        )
        outcomes[name] = _all_of(settings.count, FAULTS[name].inject(settings))
        say(f"      {_line(outcomes[name])}")
        for finding in outcomes[name].findings:
            say(f"      {finding.kind}: {finding.text}" + (f" ({finding.count})" if finding.count > 1 else ""))
        if outcomes[name].passed:  # what went wrong is kept to be looked at
            shutil.rmtree(searches)
        _write(asked, outcomes, (asked.folder / "config.yaml").read_text())


def _all_of(count: int, outcome: Outcome) -> Outcome:
    """The outcome; it does not pass where fewer were injected than were asked for, for whatever reason."""
    if outcome.injected >= count or not outcome.passed:
        return outcome
    return replace(outcome, findings=(Finding("wrong", f"{outcome.injected} of {count} could be injected"),))


def _shown(name: str) -> Callable[[int], None]:
    """Says how many were injected, now and then."""
    last = time.monotonic()

    def show(injected: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SILENCE:
            last = time.monotonic()
            say(f"      {injected} injected")

    return show


def _line(outcome: Outcome) -> str:
    """`20 injected, 0 lost, 0 repeated, 62s: 15 inline, 5 on Ray`."""
    figures = f"{outcome.injected} injected, {outcome.lost} lost, {outcome.repeated} repeated"
    return f"{figures}, {duration_text(outcome.seconds)}: {outcome.note}"


def _write(asked: _Asked, outcomes: Mapping[str, Outcome], config_text: str | None) -> None:
    """`summary.json`, and the page once there is a configuration to show."""
    ordered = [outcomes[name] for name in FAULTS if name in outcomes]
    left = asked.left(outcomes)
    summary = {
        "command": COMMAND,
        "finished": not left,
        "passed": all(outcome.passed for outcome in ordered),
        **{name: sum(getattr(outcome, name) for outcome in ordered) for name in ("injected", "lost", "repeated")},
        "seconds": round(sum(outcome.seconds for outcome in ordered), 3),
        "settings": asked.settings,
        "faults": {
            outcome.fault: {
                "passed": outcome.passed,
                "injected": outcome.injected,
                "lost": outcome.lost,
                "repeated": outcome.repeated,
                "seconds": round(outcome.seconds, 3),
                "note": outcome.note,
                "findings": [asdict(finding) for finding in outcome.findings],
            }
            for outcome in ordered
        },
    }
    if config_text is not None:
        page = render(
            Path(__file__).with_name("report.html"),
            asked.folder.name,
            [],
            config_text,
            outcomes=ordered,
            titles={name: fault.title for name, fault in FAULTS.items()},
            left=left,
            summary=summary,
            address=asked.address,
            verdict=_verdict(ordered),
            duration=duration_text,
        )
        write_atomically(asked.folder / "report.html", page)
    write_json(asked.folder / "summary.json", summary)  # last: by it a fault counts as done


def _verdict(outcomes: Sequence[Outcome]) -> str:
    """What came of it all, in a sentence."""
    injected, lost, repeated = (
        sum(getattr(outcome, name) for outcome in outcomes) for name in ("injected", "lost", "repeated")
    )
    wrong = sum(finding.count for outcome in outcomes for finding in outcome.findings if finding.kind == "wrong")
    said = [f"{lost or 'nothing'} lost", f"{repeated or 'nothing'} repeated"]
    said += [f"{wrong} other findings"] if wrong else []
    return f"{injected:,} fault{'' if injected == 1 else 's'} injected: {', '.join(said)}"


def _conclude(asked: _Asked, outcomes: Mapping[str, Outcome]) -> int:
    """Say what was found and where it is. Returns the exit code."""
    ordered = [outcomes[name] for name in FAULTS if name in outcomes]
    table = Table(title="what was injected, and what came of it", title_justify="left")
    for heading in ("fault", "injected", "lost", "repeated", "seconds"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "fault" else "right")
    table.add_column("", no_wrap=True)
    for outcome in ordered:
        figures = (f"{outcome.injected:,}", f"{outcome.lost}", f"{outcome.repeated}", f"{outcome.seconds:.0f}")
        table.add_row(outcome.fault, *figures, "passed" if outcome.passed else "FAILED")
    CONSOLE.print(table)
    passed = all(outcome.passed for outcome in ordered)
    hint = "" if passed else f"\nwhat failed can be looked at: {asked.folder}/searches/"
    say(f"{_verdict(ordered)}\nwritten: {asked.folder}/ with summary.json, report.html{hint}")
    return 0 if passed else 1


if __name__ == "__main__":
    run(main)
