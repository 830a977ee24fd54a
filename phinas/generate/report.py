"""The report of a family, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from phinas.files.bytes import bytes_text
from phinas.generate.family import Family, Member
from phinas.generate.text import BOTH, COLUMNS, HEADINGS, cells, comparison, memory_says
from phinas.networks.memory import Memory, memory
from phinas.pages.cost_text import cost_short
from phinas.pages.page import drawing, render

if TYPE_CHECKING:  # torch takes seconds to load, and only exports need it
    from phinas.weights.export import Exported

PICTURE_WIDTH = 1200  # pixels
_PARTS = ("weights", "gradients", "optimiser", "activations", "working")
_FORMS = {
    "pytorch": "one file that needs torch alone",
    "weights": "the state dict",
    "onnx": "evaluation form, batches of any size",
    "pt2": "evaluation form, batches of any size",
}


def family_report(
    name: str,
    family: Family,
    figure: Figure,
    made_from: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
    exports: Mapping[str, Sequence[Exported]],
    command: str,
    config_text: str,
) -> str:
    """The whole report as one page that asks for no other file.

    figure     of `family_figure`, which may have been written as a PNG before.
    made_from  as in summary.json: what the scaling and the baseline are, with the hashes of their files.
    notes      what else to know of the family, a sentence each; command: the command line that made it.
    exports    by member; of those that are not there, nothing is said.
    """
    measured = any(member.latency is not None for member in family.members)
    shown = len(HEADINGS) if measured else len(HEADINGS) - 1
    return render(
        Path(__file__).with_name("report.html"),
        name,
        [],
        config_text,
        title=f"{family.baseline_name} scaled by {family.rule.name}",
        step=_step(family),
        facts=_facts(family),
        notes=notes,
        headings=HEADINGS[:shown],
        members=[cells(family, member)[:shown] for member in family.members],
        columns=COLUMNS,
        memory_says=memory_says(family),
        memory_of=family.memory_of,
        parts=_PARTS,
        memories=_memories(family),
        family_figure=drawing(figure, "MACs of the family against parameters and memory"),
        comparison=comparison(family),
        both=BOTH,
        exports=[_exported(member, exported) for member in family.members for exported in exports.get(member.name, ())],
        sources=[
            (kind, [(key, str(value)) for key, value in of.items() if value is not None])
            for kind, of in made_from.items()
        ],
        keys=[(member.name, member.arch.key()) for member in family.members],
        command=command,
    )


def _step(family: Family) -> str:
    """What one step of phi asks for: of a formula its constants, of a table that it is one."""
    if family.rule.steps is not None:
        return "a table of depths, widths and resolutions"
    asked = family.rule.multipliers(1)
    return f"for each step of phi, {asked.depth:.4g} times the layers, {asked.width:.4g} the channels, " + (
        f"{asked.resolution:.4g} the side of the input"
    )


def _facts(family: Family) -> list[tuple[str, str]]:
    """What stands in large letters: figures with what they are, of the smallest and the largest network."""
    first, last = family.members[0], family.members[-1]

    def span(text: Any) -> str:
        return text(first) if first is last else f"{text(first)} – {text(last)}"

    facts = [
        ("network" if first is last else "networks", str(len(family.members))),
        ("MACs of one image", span(lambda member: cost_short("macs", member.cost.macs))),
        ("parameters", span(lambda member: cost_short("params", member.cost.params))),
        ("memory", span(lambda member: bytes_text(member.memory.total))),
    ]
    if first.latency is not None and last.latency is not None:
        facts.append(("latency of one image", span(lambda member: cost_short("latency", member.latency))))
    return facts


def _memories(family: Family) -> list[dict[str, Any]]:
    """Each member's memory in training, part by part, and at inference."""
    trained = [_memory_in("train", family, member) for member in family.members]
    return [
        {
            "name": member.name,
            "parts": [bytes_text(getattr(whole, part)) for part in _PARTS],
            "shares": [(part, 100 * getattr(whole, part) / whole.total) for part in _PARTS],
            "train": bytes_text(whole.total),
            "infer": bytes_text(_memory_in("infer", family, member).total),
        }
        for member, whole in zip(family.members, trained, strict=True)
    ]


def _memory_in(mode: str, family: Family, member: Member) -> Memory:
    return memory(member.arch, **{**family.memory_of, "mode": mode})


def _exported(member: Member, exported: Exported) -> dict[str, str]:
    differs = f"{exported.difference:.1g} of the largest logit" if exported.difference else "equal, bit for bit"
    return {
        "file": f"{member.name}/{exported.file.name}",
        "says": _FORMS[exported.form],
        "size": bytes_text(exported.bytes),
        "difference": differs,
        "sha256": exported.sha256,
    }
