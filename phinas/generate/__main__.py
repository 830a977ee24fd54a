"""`python -m phinas.generate scaling=published phi=[0,1,2]`: a family of networks, or the one that fits a budget."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say, show_wide
from phinas.command.parts import construct
from phinas.command.progress import progress
from phinas.command.run import run
from phinas.command.run_folder import another_commands, empty, locked, run_folder, write_config, write_json
from phinas.command.verbs import command_line
from phinas.files.atomic_file import write_atomically
from phinas.files.bytes import bytes_text
from phinas.files.checks import check_flag, check_number, check_whole
from phinas.files.errors import InputError
from phinas.files.origin import file_source
from phinas.files.settings import check_same_settings
from phinas.generate.budget import Fit, Limit, largest
from phinas.generate.family import Family, Member, csv_text, member_name, rows
from phinas.generate.figure import family_figure
from phinas.generate.report import PICTURE_WIDTH, family_report
from phinas.generate.rules import BASELINE, Rule, read_rule
from phinas.generate.targets import TARGETS, Latency, latency_on, read_limits
from phinas.generate.text import BOTH, COLUMNS, HEADINGS, cells, comparison, memory_says, readme
from phinas.networks.arch import Arch
from phinas.networks.arch_file import write_arch
from phinas.networks.cost import cost
from phinas.networks.memory import memory
from phinas.networks.named import named, short_name
from phinas.networks.reference import NAMES
from phinas.networks.room import check_room
from phinas.pages.style import png

if TYPE_CHECKING:  # torch takes seconds to load, and only exports and measurements need it
    from phinas.weights.export import Exported

_WIDE = 132  # columns of a table where there is no terminal to fit it to


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, names = configuration("phinas.generate", "generate", arguments)
    return generate(given, names, arguments)


def generate(given: Mapping[str, Any], names: Mapping[str, str], arguments: Sequence[str]) -> int:
    """One family: its settings, the choice in each group, and what was typed. The exit code; raises InputError."""
    folder = run_folder(given["name"])
    # Everything is checked, measured and loaded before anything is written.
    check_whole("seed", given["seed"], least=0)
    for name in ("ema", "measure"):
        check_flag(name, given[name])
    rule = read_rule(str(given["scaling"]))
    source = _source(given, rule)
    memory_of = {name: given[name] for name in ("batch_size", "mode", "dtype", "optimiser", "ema")}
    memory(source.arch, **memory_of)  # says what of it is not allowed
    phis, step = _phis(given, rule), check_number("phi_step", given["phi_step"], least=0.001, below=10)
    forms = _forms(given["export"])
    if given["weights"] is not None and (not forms or (phis is not None and len(phis) > 1)):
        raise InputError(
            f"weights={given['weights']}: they are for one network that is exported; give export= and one phi="
        )
    made_from = {"scaling": {"name": rule.name, **rule.origin}, "baseline": dict(source.origin)}
    if forms:
        weights = given["weights"]
        made_from["weights"] = {"seed": given["seed"]} if weights is None else file_source(str(weights))
    settings = {name: value for name, value in given.items() if name != "name"} | {"made_from": made_from}
    earlier = _earlier(folder, settings)
    if earlier["finished"]:
        say(f"{folder}/ is finished, and of these settings: nothing to do\nlook at it: {folder}/report.html")
        return 0
    measured = given["measure"] or given["target_latency"] is not None
    before = [(rule.grow(source.arch, row["phi"]), row["latency"]) for row in earlier["members"] if row["latency"]]
    latency = latency_on(construct(given, "device"), names["device"], say, before) if measured else None
    limits = read_limits(given, memory_of, latency)
    fit = None
    if phis is None:  # measured again, another network might be the largest
        fit = _fit_of(earlier["budget"], limits) if earlier["budget"] else largest(rule, source.arch, limits, step)
        phis = [fit.phi]
    family = _family(rule, source, phis, memory_of, latency)
    for member in family.members if forms else ():
        check_room(member.arch, f"export={given['export']} of {member.name}")
    asked = _Asked(folder, settings, arguments, source, family, limits, fit, forms)
    state = None if given["weights"] is None else _weights(family.members[0].arch, str(given["weights"]))

    _introduce(asked)
    with locked(folder):
        exports = _kept(folder, _earlier(folder, settings)["members"])  # another process may have been here meanwhile
        _write_summary(asked, exports)  # first of all: by it the command knows the folder as its own
        write_config(folder, given)
        _write_networks(asked)
        try:
            if forms:
                with progress(CONSOLE, "exports", len(exports), len(family.members)) as show:
                    for member, exported in _export(asked, state, exports):
                        exports[member.name] = exported
                        _write_summary(asked, exports)
                        show(f"{member.name}: {', '.join(export.form for export in exported)}", "")
        except KeyboardInterrupt:
            say(f"\nstopped; {len(exports)} of {len(family.members)} networks are exported")
            say(f"go on with:\n  {asked.command}")
            raise
        finally:
            _write_pages(asked, exports)
        _write_summary(asked, exports, finished=True)
    _conclude(asked, exports)
    return 0


@dataclass(frozen=True)
class _Source:
    """The baseline: its name for files, the network, and where it came from."""

    name: str
    arch: Arch
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class _Asked:
    """What the user asked for, and the family that it comes to."""

    folder: Path
    settings: Mapping[str, Any]
    arguments: Sequence[str]
    source: _Source
    family: Family
    limits: Sequence[Limit]
    fit: Fit | None
    forms: Sequence[str]

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """What the networks came from and, where they are exported, the weights: by name and hash."""
        return dict(self.settings["made_from"])

    @property
    def command(self) -> str:
        return command_line("phinas.generate", self.arguments, name=self.folder.name)

    @property
    def notes(self) -> list[str]:
        """What a reader of the table must know, a sentence each."""
        family, notes = self.family, []
        if self.fit is not None:
            notes.append(_fit_says(self.fit, self.limits, family))
        if family.rule.baseline is not None and _like(family.rule.baseline, family.baseline) != family.baseline:
            notes.append(
                f"note: the constants of {family.rule.name} were found for another network, "
                f"{family.rule.baseline_from['name']}."
            )
        alike = [
            f"{larger.name} is {smaller.name}"
            for smaller, larger in zip(family.members, family.members[1:], strict=False)
            if replace(larger.arch, dropout=smaller.arch.dropout) == smaller.arch
        ]
        if alike:
            notes.append(f"note: rounding leaves no difference but for dropout: {', '.join(alike)}.")
        return notes


def _earlier(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier run of the command left in the folder, which may be nothing; finished, if no file of it is gone.

    Raises InputError where it was about something else.
    """
    if empty(folder):  # killed before it wrote
        return {"finished": False, "members": [], "budget": None}
    try:
        content = json.loads((folder / "summary.json").read_text())
        settings_before = content["settings"]
        earlier = {name: content[name] for name in ("finished", "members", "budget")}
        files = [entry["file"] for member in earlier["members"] for entry in (member, *member["exports"])]
        earlier["finished"] = earlier["finished"] and all((folder / file).exists() for file in files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise another_commands(folder) from None
    check_same_settings(folder / "summary.json", settings_before, settings)
    return earlier


def _kept(folder: Path, members: Sequence[Mapping[str, Any]]) -> dict[str, list[Exported]]:
    """The exports of an earlier run, by the name of their network, where all of its files are as they were written."""
    if not any(member["exports"] for member in members):
        return {}
    from phinas.weights.export import Exported

    exports = {}
    for member in members:
        files = [Exported(**row | {"file": folder / row["file"]}) for row in member["exports"]]
        whole = all(export.file.exists() and file_source(export.file)["sha256"] == export.sha256 for export in files)
        if files and whole:
            exports[member["model"]] = files
    return exports


def _fit_of(budget: Mapping[str, Any], limits: Sequence[Limit]) -> Fit:
    """What an earlier run found, as its summary.json has it."""
    binding = tuple((limit, budget["binding"][limit.option]) for limit in limits if limit.option in budget["binding"])
    return Fit(budget["phi"], budget["next_phi"], binding)


def _source(given: Mapping[str, Any], rule: Rule) -> _Source:
    """The baseline that is asked for; or that of the scaling.yaml; or EfficientNet-B0."""
    text = given["baseline"]
    if text is None and rule.baseline is not None:
        name, arch = short_name(rule.baseline_from["name"]), rule.baseline
        origin = {"name": rule.baseline_from["name"], "key": arch.key(), "sha256": rule.baseline_from["sha256"]}
    else:
        text = BASELINE if text is None else str(text)
        name, arch = short_name(text), named("baseline", text)
        origin = {"name": text, "key": arch.key()} | ({} if text in NAMES else file_source(text))
    if given["classes"] is not None:
        arch = replace(arch, classes=check_whole("classes", given["classes"]))
    return _Source(name, arch, origin)


def _like(arch: Arch, other: Arch) -> Arch:
    """`arch` with as many classes as the other."""
    return replace(arch, classes=other.classes)


def _phis(given: Mapping[str, Any], rule: Rule) -> list[float] | None:
    """The phi that are asked for, ascending; None where targets are to find one."""
    asked, targets = given["phi"], [name for name in TARGETS if given[name] is not None]
    if asked is None and targets:
        return None
    if targets:
        raise InputError(f"phi={asked} and {targets[0]}={given[targets[0]]}: give one of them; targets find phi")
    if asked is None:
        asked = [0, 1, 2] if rule.most >= 2 else sorted(rule.steps or [0])
    phis = [rule.phi(phi) for phi in (asked if isinstance(asked, list) else [asked])]
    if not phis:
        raise InputError("phi=[]: give one or more, as phi=[0,1,2]")
    if len(set(phis)) < len(phis):
        raise InputError(f"phi={asked}: one of them is there twice")
    return sorted(phis)


def _forms(asked: Any) -> tuple[str, ...]:
    """The forms to export; torch is loaded where there are any."""
    if asked == [] or asked is None:
        return ()
    from phinas.weights.export import FORMS, check_forms

    if asked == "all" or asked == ["all"]:
        return check_forms(FORMS)
    forms = [str(form) for form in (asked if isinstance(asked, list) else [asked])]
    if twice := [form for place, form in enumerate(forms) if form in forms[:place]]:
        raise InputError(f"export=[{','.join(forms)}]: {twice[0]} is there twice")
    return check_forms(forms)


def _family(
    rule: Rule, source: _Source, phis: Sequence[float], memory_of: Mapping[str, Any], latency: Latency | None
) -> Family:
    members = []
    for phi in phis:
        arch = rule.grow(source.arch, phi)
        seconds = None if latency is None else latency(arch)
        name = member_name(rule, source.arch, source.name, phi)
        members.append(
            Member(
                name, phi, arch, cost(arch), memory(arch, **memory_of), None if seconds in (None, math.inf) else seconds
            )
        )
    return Family(rule, source.arch, source.name, tuple(members), memory_of)


def _fit_says(fit: Fit, limits: Sequence[Limit], family: Family) -> str:
    """What the budget came to, and why no larger network meets it."""
    network, asked = family.members[0], " and ".join(str(limit) for limit in limits)
    has = ", ".join(limit.text(limit.value(network.arch)) for limit in limits)
    if fit.beyond is None:
        return f"{network.name}, the largest of scaling={family.rule.name}, is within {asked}: {has}."
    over = ", ".join(
        f"{limit.option} binds: phi={fit.beyond:g} has {limit.text(value)}" for limit, value in fit.binding
    )
    return f"{network.name} is the largest within {asked}: {has}. {over}."


def _introduce(asked: _Asked) -> None:
    """Say what the family is."""
    family = asked.family
    measured = any(member.latency is not None for member in family.members)
    shown = HEADINGS if measured else HEADINGS[:-1]
    title = f"{family.baseline_name} by scaling={family.rule.name}"
    _print(title, shown, [cells(family, member)[: len(shown)] for member in family.members])
    say(f"{COLUMNS} Memory is that of {memory_says(family)}.")
    for note in asked.notes:
        say(note)
    if beside := comparison(family):
        say(f"{beside.says} {BOTH if beside.rows else ''}".rstrip())
        if beside.rows:
            _print(None, beside.headings, beside.rows)


def _print(title: str | None, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """One of the tables."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*line)
    show_wide(table, _WIDE)


def _write_networks(asked: _Asked) -> None:
    """Each network with what it was made from, and `family.csv`."""
    folder, family = asked.folder, asked.family
    for member in family.members:
        origin = {"made_by": "phinas.generate", "model": member.name, "phi": member.phi}
        origin |= {kind: of for kind, of in asked.sources.items() if kind != "weights"}
        write_arch(member.arch, folder / f"{member.name}.yaml", origin)
    write_atomically(folder / "family.csv", csv_text(family))


def _weights(arch: Arch, path: str) -> Mapping[str, Any]:
    """The tensors in the file under our names, whosever they have there."""
    from phinas.weights.checkpoints import check_finite, load_weights

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = load_weights(path, arch)
    for warning in caught:
        say(f"warning: {warning.message}")
    check_finite(state, f"weights={path}")
    return state


def _export(
    asked: _Asked, state: Mapping[str, Any] | None, done: Mapping[str, Any]
) -> Iterator[tuple[Member, list[Exported]]]:
    """Export each member that is not `done` into a folder of its own, with the weights of `state`, or fresh ones.

    What a killed process had half written there goes.
    """
    from phinas.networks.build import build
    from phinas.weights.export import UNFINISHED, export

    about = {
        f"{kind}_{key}": str(value)
        for kind, of in asked.sources.items()
        for key, value in of.items()
        if value is not None
    }
    for member in [member for member in asked.family.members if member.name not in done]:
        net = build(member.arch, asked.settings["seed"])
        if state is not None:
            net.load_state_dict(state)
        folder = asked.folder / member.name
        for left in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left)
        yield member, export(member.arch, net, folder, member.name, asked.forms, about)


def _write_summary(asked: _Asked, exports: Mapping[str, Sequence[Exported]], finished: bool = False) -> None:
    """`summary.json`, for scripts, and for this command when it goes on."""
    family, fit = asked.family, asked.fit
    members = []
    for row, member in zip(rows(family), family.members, strict=True):
        parts = asdict(member.memory)
        files = [
            asdict(export) | {"file": str(export.file.relative_to(asked.folder))}
            for export in exports.get(member.name, ())
        ]
        members.append({**row, "memory": {**parts, "total": member.memory.total}, "exports": files})
    budget = None
    if fit is not None:
        budget = {
            "targets": {limit.option: limit.most for limit in asked.limits},
            "phi": fit.phi,
            "next_phi": fit.beyond,
            "binding": {limit.option: value for limit, value in fit.binding},
        }
    content = {
        "scaling": family.rule.name,
        "baseline": family.baseline_name,
        "made_from": asked.sources,
        "memory_of": dict(family.memory_of),
        "seed": asked.settings["seed"],
        "finished": finished,
        "budget": budget,
        "members": members,
        "settings": dict(asked.settings),
    }
    write_json(asked.folder / "summary.json", content)


def _write_pages(asked: _Asked, exports: Mapping[str, Sequence[Exported]]) -> None:
    """README, picture and report, for people."""
    family = asked.family
    forms = [form for form in asked.forms if exports]
    text = readme(asked.folder.name, family, asked.sources, asked.notes, forms, asked.command)
    write_atomically(asked.folder / "README.md", text)
    figure = family_figure(family)
    png(figure, asked.folder / "family.png", PICTURE_WIDTH)
    page = family_report(
        asked.folder.name, family, figure, asked.sources, asked.notes, exports, asked.command,
        (asked.folder / "config.yaml").read_text(),
    )  # fmt: skip
    write_atomically(asked.folder / "report.html", page)


def _conclude(asked: _Asked, exports: Mapping[str, Sequence[Exported]]) -> None:
    folder, members = asked.folder, asked.family.members
    files = sum(export.bytes for done in exports.values() for export in done)
    carried = f", {', '.join(asked.forms)} of each ({bytes_text(files)})" if exports else ""
    say(
        f"written: {folder}/ with {len(members)} network{'s' if len(members) > 1 else ''}, family.csv, family.png, "
        f"README.md, summary.json{carried}\n"
        f"look at it: {folder}/report.html\n"
        f"how fast it is here:\n  {command_line('phinas.measure', [f'model={folder}/{members[-1].name}.yaml'])}"
    )


if __name__ == "__main__":
    run(main)
