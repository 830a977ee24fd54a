"""The text of `model.py`: one network as a readable file of PyTorch that depends on torch alone.

It is `model_template` with this network's constants, branches and stages, without what it does not need: no
squeeze-excitation where no stage has it. Its modules have the names, and so its state dict the keys, of
`phinas.networks`; the same weights give the same outputs to the bit, in training too, and the same seed gives the same
weights.
"""

from __future__ import annotations

import ast
import itertools
import keyword
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.kinds import KINDS, Conv
from phinas.pages.cost_text import macs_text

TEMPLATE = Path(__file__).with_name("model_template.py")
WIDTH = 88  # of a line: what formatters do when nobody tells them otherwise

_ACTIVATIONS = {
    "relu": "nn.ReLU(inplace=True)",
    "relu6": "nn.ReLU6(inplace=True)",
    "silu": "nn.SiLU()",
    "hardswish": "nn.Hardswish()",
}


def standalone(arch: Arch, name: str, about: Mapping[str, str]) -> str:
    """The file for `arch`, called `name`; `about` says in its docstring where the network came from.

    `build(classes=...)` in it gives the freshly initialised network, of a class called after `name`. Ruff's formatter
    and its default checks leave the text as it is, at 88 columns and at more.
    """
    _, _, code = TEMPLATE.read_text(encoding="utf-8").split('"""', 2)
    head, *definitions = _for(arch, code).strip().split("\n\n\n")
    needed = _named(_with_branches(definitions, arch))
    imports, _, constants = head.rpartition("\n\n")
    body = re.sub(r"\bConvNet\b", class_name(name), "\n\n\n".join([constants, *needed]))
    return "\n\n".join([f'"""{_docstring(arch, name, about)}\n"""', _imported(imports, body), body]) + "\n"


def class_name(name: str) -> str:
    """The class of the network called `name`: EfficientNetB0 for efficientnet_b0."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    called = "".join(re.sub(r"(?<=\w)net(?=\d*$)", "Net", word[0].upper() + word[1:]) for word in words)
    taken = _names(TEMPLATE.read_text(encoding="utf-8")) - {"ConvNet"}
    usable = called and not called[0].isdigit() and called not in taken and not keyword.iskeyword(called)
    return (called if usable else f"ConvNet{called}")[:60]  # a line has to hold it


# --- what the network needs of the template --------------------------------------------------------------------------


def _for(arch: Arch, code: str) -> str:
    """The code with the network's constants and stages, without the lines whose condition it does not meet."""
    skips = {stage.skip for stage in arch.stages}
    kinds = tuple(dict.fromkeys(stage.block for stage in arch.stages))
    activated = [kind for kind in kinds if KINDS[kind].activated]
    met = {
        "head": arch.head_channels > 0,
        "dropout": arch.dropout > 0,
        "drops": arch.drop_connect > 0 and skips != {"none"},
        "shortcuts": skips != {"none"},
        "same": bool(skips & {"identity", "projection"}),
        "projection": "projection" in skips,
        "pool": "pool" in skips,
        "activated": bool(activated),
        "stem pool": arch.stem.pool,
    }
    constants = {
        "RESOLUTION": arch.resolution,
        "STEM": (arch.in_channels, arch.stem.channels, arch.stem.kernel, arch.stem.stride),
        "HEAD": arch.head_channels,
        "CLASSES": arch.classes,
        "DROPOUT": arch.dropout,
        "DROP_CONNECT": arch.drop_connect,
        "BN_EPS, BN_MOMENTUM": f"{arch.bn_eps!r}, {arch.bn_momentum!r}",
        "ACTIVATED": f"({', '.join(activated)}{',' if len(activated) == 1 else ''})",
    }
    for constant, value in constants.items():
        code = re.sub(rf"^({constant}) = .*?(?=  #|$)", rf"\1 = {value}", code, flags=re.MULTILINE)
    code = code.replace("return nn.SiLU()", f"return {_ACTIVATIONS[arch.activation]}")
    code = re.sub(r"^    Stage\(.*\n", "", code, flags=re.MULTILINE)
    code = code.replace("expand, se_ratio, skip\n", f"expand, se_ratio, skip\n{''.join(_rows(arch))}")
    return "\n".join(_meeting(met, code.splitlines()))


def _meeting(met: Mapping[str, bool], lines: Sequence[str]) -> Iterator[str]:
    """The lines, without the marks of conditions; of those that are not met, neither the line nor what it holds."""
    left_out = None  # indentation of the line that is left out
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        if left_out is not None and line and indentation > left_out:
            continue
        text, _, condition = line.partition("  #: ")
        left_out = indentation if condition and not met[condition] else None
        if left_out is None:
            yield text


def _rows(arch: Arch) -> Iterator[str]:
    for stage in arch.stages:
        shape = f"{stage.kernel}, {stage.stride}, {stage.channels}, {stage.repeats}"
        ratios = f"{_number(stage.expand)}, {_number(stage.se_ratio)}"
        yield f'    Stage({stage.block}, {shape}, {ratios}, "{stage.skip}"),\n'


def _with_branches(definitions: Sequence[str], arch: Arch) -> list[str]:
    """The definitions with the branches of this network's kinds of blocks in place of the template's."""
    theirs = [place for place, code in enumerate(definitions) if "-> nn.Sequential:" in code and "(stage:" in code]
    squeezed = {stage.block for stage in arch.stages if stage.se_ratio}
    ours = [branch(kind, kind in squeezed) for kind in dict.fromkeys(stage.block for stage in arch.stages)]
    return [*definitions[: theirs[0]], *ours, *definitions[theirs[-1] + 1 :]]


def _named(definitions: Sequence[str]) -> list[str]:
    """The definitions that later ones name, and those that are there for their own sake."""
    kept: list[str] = []
    named = {"build"}
    for code in reversed(definitions):
        own = re.match(r"(?:def|class) (\w+)", code)
        if own is None or own[1] in named:
            kept.insert(0, code)
            named |= _names(code)
    return kept


def _imported(imports: str, code: str) -> str:
    """The imports whose names the code has."""
    names = _names(code) | {"annotations"}
    wanted = (not line or names & set(re.findall(r"\w+", line.split("import")[1])) for line in imports.splitlines())
    return "\n".join(itertools.compress(imports.splitlines(), wanted))


def _names(code: str) -> set[str]:
    """All names in the code, of what it defines too."""
    nodes = list(ast.walk(ast.parse(code)))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return defined | imported | {node.id for node in nodes if isinstance(node, ast.Name)}


# --- what is written for it ------------------------------------------------------------------------------------------


def branch(block: str, squeezed: bool) -> str:
    """The function that makes a branch of this kind of block, with squeeze-excitation or without."""
    kind, fed, lines = KINDS[block], "inputs", []
    outputs = {"inputs": "inputs", "middle": "middle", "channels": "outputs"}
    if kind.middle_of:
        of = outputs[kind.middle_of]
        lines.append(f"    middle = max(1, round(stage.expand * {of}))")
    for part in kind.branch:
        if isinstance(part, Conv):
            arguments = [fed, outputs[part.outputs], "kernel" if part.spatial else "1"]
            arguments += ["stride"] * part.strided + [f"groups={fed}"] * part.depthwise + ["linear=True"] * part.linear
            made = f'layers["{part.name}"] = conv_norm({", ".join(arguments)})'
            lines += ["    if stage.expand != 1:", f"        {made}"] if part.expanding else [f"    {made}"]
            fed = outputs[part.outputs]
        elif squeezed:
            lines += [
                "    if stage.se_ratio:",
                "        squeezed = max(1, int(stage.se_ratio * inputs))",
                f'        layers["{part}"] = SqueezeExcite({fed}, squeezed)',
            ]
    return "\n".join([
        f"def {block}(stage: Stage, inputs: int, stride: int) -> nn.Sequential:",
        f'    """{kind.summary.format(", squeeze-excitation" if squeezed else "")}."""',
        "    outputs, kernel = stage.channels, stage.kernel",
        "    layers = OrderedDict[str, nn.Module]()",
        *lines,
        "    return nn.Sequential(layers)",
    ])  # fmt: skip


def _docstring(arch: Arch, name: str, about: Mapping[str, str]) -> str:
    counted = cost(arch)
    figures = (
        f"{macs_text(counted.macs)} and {counted.params:,} parameters at {arch.resolution} x {arch.resolution} pixels. "
        f"Takes images [batch, {arch.in_channels}, height, width] of any size, gives logits [batch, {arch.classes}]."
    )
    origin = [_wrapped(f"{_clean(key)}: {_clean(value)}", "    ") for key, value in about.items()]
    return "\n".join([
        _wrapped(f"{_clean(name) or 'ConvNet'}: a convolutional network for images, in PyTorch alone."),
        "",
        _wrapped(figures),
        "",
        "    from model import build",
        "    from safetensors.torch import load_file",
        "",
        "    net = build()",
        '    net.load_state_dict(load_file("weights.safetensors"))',
        "    logits = net.eval()(images)",
        *(["", "Where it came from:", "", *origin] if origin else []),
    ])  # fmt: skip


def _number(value: float) -> str:
    return repr(int(value)) if value.is_integer() else repr(value)


def _clean(text: str) -> str:
    """On one line, and harmless within a docstring."""
    printable = "".join(character if character.isprintable() else " " for character in str(text))
    return " ".join(printable.split()).replace("\\", "\\\\").replace('"', "'")


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        WIDTH - 3,  # of the quotes before the first line
        initial_indent=indent,
        subsequent_indent=indent * 2,
        break_long_words=False,
        break_on_hyphens=False,
    )
