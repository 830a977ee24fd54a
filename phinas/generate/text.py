"""What people read of a family beside its figures: the README, and where the published table and the formula differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phinas.files.bytes import bytes_text
from phinas.generate.family import Family, Member
from phinas.generate.rules import FORMULA_PHI, PRESETS, Rule, made_for
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.pages.cost_text import cost_short

HEADINGS = ("model", "phi", "depth", "width", "px", "params", "MACs", "ratio", "asked", "memory", "latency")
BOTH = "Depth, width, side and MACs by both:"
COLUMNS = (
    "Depth, width and the ratio asked are the rule's, before rounding; the other ratio is that of the MACs as they are."
)

_LOADING = {  # how each form is loaded, the model's name standing for MODEL
    "pytorch": (
        "`MODEL/model.py`: the network in one file that needs torch alone, with the weights beside it",
        "import runpy\n"
        "\n"
        "from safetensors.torch import load_file\n"
        "\n"
        'build = runpy.run_path("MODEL/model.py")["build"]  # in a project of yours: from model import build\n'
        "net = build()\n"
        'net.load_state_dict(load_file("MODEL/weights.safetensors"))\n'
        "net.eval()",
    ),
    "weights": (
        "`MODEL/weights.safetensors`: the state dict, for `model.py` or the network that this project builds",
        "from phinas.networks.arch_file import read_arch\n"
        "from phinas.networks.build import build\n"
        "from safetensors.torch import load_file\n"
        "\n"
        'net = build(read_arch("MODEL.yaml"))\n'
        'net.load_state_dict(load_file("MODEL/weights.safetensors"))\n'
        "net.eval()",
    ),
    "onnx": (
        "`MODEL/model.onnx`: the evaluation form, for batches of any size",
        "import onnxruntime\n"
        "\n"
        'session = onnxruntime.InferenceSession("MODEL/model.onnx")\n'
        "logits = session.run(None, {session.get_inputs()[0].name: images})[0]",
    ),
    "pt2": (
        "`MODEL/model.pt2`: the evaluation form as `torch.export` keeps it, for batches of any size",
        'import torch\n\nnet = torch.export.load("MODEL/model.pt2").module()\nlogits = net(images)',
    ),
}


@dataclass(frozen=True)
class Comparison:
    """What there is to say of two ways, and a table, maybe empty, of networks by both: depth, width, side and MACs."""

    says: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def cells(family: Family, member: Member) -> list[str]:
    """What the table of a family says of one network, under `HEADINGS`."""
    asked = family.rule.multipliers(member.phi)
    return [
        member.name,
        f"{member.phi:g}",
        f"{asked.depth:.3g}",
        f"{asked.width:.3g}",
        str(member.arch.resolution),
        cost_short("params", member.cost.params),
        cost_short("macs", member.cost.macs),
        _times(family.ratio(member)),
        _times(family.nominal(member)),
        bytes_text(member.memory.total),
        "-" if member.latency is None else cost_short("latency", member.latency),
    ]


def _times(ratio: float) -> str:
    if ratio >= 99.995:
        return f"{ratio:,.0f}x"
    return f"{ratio:.2f}x" if ratio >= 0.0995 else f"{ratio:.2g}x"


def memory_says(family: Family) -> str:
    """What the memory is of: `a step of training at batch 32 in float32, with rmsprop and averaged weights`."""
    of = family.memory_of
    if of["mode"] == "infer":
        return f"a forward pass at batch {of['batch_size']} in {of['dtype']}"
    average = " and averaged weights" if of["ema"] else ""
    return f"a step of training at batch {of['batch_size']} in {of['dtype']}, with {of['optimiser']}{average}"


def comparison(family: Family) -> Comparison | None:
    """The released EfficientNets beside the paper's formula, for families of either; None for all others."""
    paper, published = PRESETS["paper"], PRESETS["published"]
    near = ", ".join(f"{phi:g}" for phi in FORMULA_PHI.values())
    if family.rule.name == "published":
        return Comparison(
            "The released table is not the formula (1.2, 1.1, 1.15)^phi; it comes near it at other phi: "
            f"B0 to B7 at {near}.",
            ("model", "published", "formula at its number", "formula where it is near"),
            tuple(
                (
                    member.name,
                    _shape(family.rule, member.phi, member.arch),
                    _at(paper, family.baseline, member.phi),
                    _at(paper, family.baseline, FORMULA_PHI.get(member.phi)),
                )
                for member in family.members
                if member.phi > 0
            ),
        )
    if family.rule.name == "paper" and made_for(family.baseline):
        steps = {phi: step for step, phi in FORMULA_PHI.items()}
        return Comparison(
            f"The released EfficientNets are not this formula; B0 to B7 come near it at phi = {near}.",
            ("model", "formula", "published"),
            tuple(
                (
                    member.name,
                    _shape(paper, member.phi, member.arch),
                    _at(published, family.baseline, steps[member.phi]),
                )
                for member in family.members
                if steps.get(member.phi)
            ),
        )
    return None


def _at(rule: Rule, baseline: Arch, phi: float | None) -> str:
    if phi is None:
        return "-"
    name = f"phi={phi:g}" if rule.steps is None else rule.steps[phi].rpartition("_")[2].upper()
    return f"{name}: {_shape(rule, phi, rule.grow(baseline, phi))}"


def _shape(rule: Rule, phi: float, arch: Arch) -> str:
    asked = rule.multipliers(phi)
    return f"{asked.depth:.3g}, {asked.width:.3g}, {arch.resolution} px, {cost_short('macs', cost(arch).macs)}"


def readme(
    name: str,
    family: Family,
    made_from: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
    forms: Sequence[str],
    command: str,
) -> str:
    """The family's `README.md`.

    made_from  what stands in summary.json; notes: what else to know, a sentence each.
    forms      that were exported; command: the command line that makes the family.
    """
    measured = any(member.latency is not None for member in family.members)
    shown = len(HEADINGS) if measured else len(HEADINGS) - 1
    parts = [
        f"# {name}",
        f"{family.baseline_name} scaled by `{family.rule.name}`, made by\n\n```\n{command}\n```",
        *notes,
        _markdown(HEADINGS[:shown], [cells(family, member)[:shown] for member in family.members]),
        f"{COLUMNS} MACs are multiply-adds, twice as many FLOPs. Memory is that of {memory_says(family)}, by "
        "arithmetic: what PyTorch allocates, without what a device adds. `family.csv` has all figures.",
    ]
    if beside := comparison(family):
        parts += [beside.says, *([BOTH, _markdown(beside.headings, beside.rows)] if beside.rows else [])]
    parts.append("## Made from\n\n" + "\n".join(f"- {kind}: {_source(of)}" for kind, of in made_from.items()))
    example = family.members[0].name
    parts.append(
        "## Loading\n\nEach `MODEL.yaml` describes a network, for `python -m phinas.measure model=MODEL.yaml` and "
        "all else that takes one:\n\n```python\n"
        "from phinas.networks.arch_file import read_arch\nfrom phinas.networks.build import build\n\n"
        f'net = build(read_arch("{example}.yaml"), seed=0)\n```'
    )
    if forms:
        arch = family.members[0].arch
        parts.append(
            f"`images` are float32 [batch, {arch.in_channels}, side, side], normalised as in training, and for ONNX a "
            f"NumPy array; the side is the `px` above ({arch.resolution} for `{example}`), any other for the PyTorch "
            "forms alone."
        )
    for form in forms:
        says, code = (text.replace("MODEL", example) for text in _LOADING[form])
        parts.append(f"{says}:\n\n```python\n{code}\n```")
    return "\n\n".join(parts) + "\n"


def _source(of: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} `{value}`" for key, value in of.items() if value is not None)


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
