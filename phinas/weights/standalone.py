"""The text of `model.py`: one network as a readable file of PyTorch that depends on torch alone.

It holds what this network needs and nothing else: no squeeze-excitation where no stage has it, no column in its table
that is the same in every row. Its modules have the names, and so its state dict the keys, of `phinas.networks`; the
same weights give the same outputs to the bit, in training too, and the same seed gives the same weights.
"""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from phinas.networks.arch import Arch, Stage
from phinas.networks.cost import cost
from phinas.networks.kinds import KINDS, Conv, added
from phinas.pages.cost_text import macs_text

WIDTH = 88  # of a line: what formatters do when nobody tells them otherwise

_ACTIVATIONS = {
    "relu": "nn.ReLU(inplace=True)",
    "relu6": "nn.ReLU6(inplace=True)",
    "silu": "nn.SiLU()",
    "hardswish": "nn.Hardswish()",
}
# Names that the file gives to other things.
_TAKEN = (
    "Block",
    "Callable",
    "NamedTuple",
    "OrderedDict",
    "PoolShortcut",
    "RESOLUTION",
    "SqueezeExcite",
    "STAGES",
    "Stage",
    "Tensor",
)


def standalone(arch: Arch, name: str, about: Mapping[str, str]) -> str:
    """The file for `arch`, called `name`; `about` says in its docstring where the network came from.

    `build(classes=...)` in it gives the freshly initialised network, of a class called after `name`. Ruff's formatter
    and its default checks leave the text as it is, at 88 columns and at more.
    """
    plan = _plan(arch)
    parts = [_head(plan, name, about), _conv_norm(plan)]
    if any(any(ratios) for ratios in plan.ratios.values()):
        parts.append(_squeeze_excite(plan))
    if "pool" in plan.added:
        parts.append(_pool_shortcut(plan))
    if plan.drops:
        parts.append(_DROP_SAMPLES)
    if plan.added:
        parts.append(_block(plan))
    parts.append(_stage(plan))
    if plan.added - {"identity"}:
        parts.append(_shortcut(plan))
    parts += [_branch(plan, block) for block in plan.blocks]
    parts += [_table(plan), _network(plan, class_name(name)), _build(plan, class_name(name))]
    return "\n\n\n".join(parts) + "\n"


def class_name(name: str) -> str:
    """The class of the network called `name`: EfficientNetB0 for efficientnet_b0."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    called = "".join(re.sub(r"(?<=\w)net(?=\d*$)", "Net", word[0].upper() + word[1:]) for word in words)
    usable = called and not called[0].isdigit() and called not in _TAKEN and not keyword.iskeyword(called)
    return (called if usable else f"ConvNet{called}")[:60]  # a line has to hold it


# --- what the file needs ---------------------------------------------------------------------------------------------


class _Layer(NamedTuple):
    """One block of the network: its stage, the channels it is fed, its stride."""

    stage: Stage
    inputs: int
    stride: int


@dataclass(frozen=True)
class _Plan:
    """What of the general network this one needs.

    blocks    the kinds of its blocks.
    columns   of its table: what differs between stages, and what every reader looks for.
    expands   kind of block -> the expansions in its stages of that kind, where it has any.
    ratios    kind of block -> the squeeze-excitation ratios, likewise.
    skips     each stage's skip; of several that add the same to its layers, the simplest.
    added     what is added to branches: "identity", "projection", "pool".
    bare      whether there are layers to which nothing is added.
    drops     whether drop-connect ever drops.
    narrows   whether there are stages with pooled shortcuts that have none because their channels become fewer.
    widens    whether pooled shortcuts have to add channels.
    """

    arch: Arch
    layers: tuple[_Layer, ...]
    blocks: tuple[str, ...]
    columns: tuple[str, ...]
    expands: Mapping[str, set[float]]
    ratios: Mapping[str, set[float]]
    skips: tuple[str, ...]
    added: frozenset[str]
    bare: bool
    drops: bool
    narrows: bool
    widens: bool

    @property
    def activation(self) -> str:
        return _ACTIVATIONS[self.arch.activation]

    @property
    def convolutions(self) -> list[Conv]:
        """Of the branches of all kinds of blocks that there are."""
        return [part for block in self.blocks for part in KINDS[block].branch if isinstance(part, Conv)]

    @property
    def depthwise(self) -> bool:
        """Whether there are convolutions in groups."""
        return any(conv.depthwise for conv in self.convolutions)

    @property
    def activated(self) -> list[str]:
        """The kinds of blocks with an activation behind the addition."""
        return [block for block in self.blocks if KINDS[block].activated]

    @property
    def mixed(self) -> bool:
        """Whether only some layers have an activation behind the addition."""
        return 0 < len(self.activated) < len(self.blocks)


def _plan(arch: Arch) -> _Plan:
    stages = _layers(arch)
    layers = tuple(layer for of_stage in stages for layer in of_stage)
    added = [_added(layer, layer.stage.skip) for layer in layers]
    common = _equal_skips(layers)
    skips = tuple(common[0] if common else _equal_skips(of_stage)[0] for of_stage in stages)
    blocks = tuple(dict.fromkeys(stage.block for stage in arch.stages))
    expands = {block: {stage.expand for stage in arch.stages if stage.block == block} for block in blocks}
    expands = {block: values for block, values in expands.items() if KINDS[block].middle_of}
    ratios = {block: {stage.se_ratio for stage in arch.stages if stage.block == block} for block in blocks}
    ratios = {block: values for block, values in ratios.items() if KINDS[block].squeezes}
    pooled = [
        layer.stage.channels - layer.inputs
        for of_stage, skip in zip(stages, skips, strict=True)
        if skip == "pool"
        for layer in of_stage
    ]
    columns = (
        *(("branch",) if len(blocks) > 1 else ()),
        *("kernel", "stride", "channels", "layers"),
        *(("expand",) if len(set().union(*expands.values())) > 1 else ()),
        *(("se_ratio",) if len(set().union(*ratios.values())) > 1 else ()),
        *(("skip",) if len(set(skips)) > 1 else ()),
    )
    return _Plan(
        arch=arch,
        layers=layers,
        blocks=blocks,
        columns=columns,
        expands=expands,
        ratios=ratios,
        skips=skips,
        added=frozenset(kind for kind in added if kind),
        bare="" in added,
        drops=arch.drop_connect > 0 and any(added[1:]),
        narrows=any(extra < 0 for extra in pooled),
        widens=any(extra > 0 for extra in pooled),
    )


def _layers(arch: Arch) -> list[list[_Layer]]:
    """The layers of each stage."""
    stages, inputs = [], arch.stem.channels
    for stage in arch.stages:
        stages.append([_Layer(stage, inputs, stage.stride)] + [_Layer(stage, stage.channels, 1)] * (stage.repeats - 1))
        inputs = stage.channels
    return stages


def _added(layer: _Layer, skip: str) -> str:
    """What is added to the branch of the layer if its skip is `skip`: "" for nothing."""
    return added(skip, layer.inputs, layer.stage.channels, layer.stride)


def _equal_skips(layers: Sequence[_Layer]) -> list[str]:
    """The skips that add the same to these layers as their own do, the simplest first."""
    return [
        skip
        for skip in ("none", "identity", "projection", "pool")
        if all(_added(layer, skip) == _added(layer, layer.stage.skip) for layer in layers)
    ]


# --- the parts of the file, in their order ---------------------------------------------------------------------------


def _head(plan: _Plan, name: str, about: Mapping[str, str]) -> str:
    arch, counted = plan.arch, cost(plan.arch)
    figures = (
        f"{macs_text(counted.macs)} and {counted.params:,} parameters at {arch.resolution} x {arch.resolution} pixels. "
        f"Takes images [batch, {arch.in_channels}, height, width] of any size, gives logits [batch, {arch.classes}]."
    )
    origin = [_wrapped(f"{_clean(key)}: {_clean(value)}", "    ") for key, value in about.items()]
    return _text(
        '"""' + _wrapped(f"{_clean(name) or 'ConvNet'}: a convolutional network for images, in PyTorch alone."),
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
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import math",
        "from collections import OrderedDict",
        *(["from collections.abc import Callable"] if "branch" in plan.columns else []),
        "from typing import NamedTuple",
        "",
        *(["import torch"] if plan.drops else []),
        "from torch import Tensor, nn",
        *(["from torch.nn import functional"] if plan.widens else []),
        "",
        f"RESOLUTION = {arch.resolution}  # side of the images it was made for, pixels",
    )


def _conv_norm(plan: _Plan) -> str:
    linear = "projection" in plan.added or any(conv.linear for conv in plan.convolutions)
    parameters = ["inputs: int", "outputs: int", "kernel: int", "stride: int = 1"]
    arguments = ["inputs", "outputs", "kernel", "stride", "padding=kernel // 2"]
    if plan.depthwise:
        parameters.append("groups: int = 1")
        arguments.append("groups=groups")
    if linear:
        parameters.append("linear: bool = False")
    norm = ["outputs", f"eps={plan.arch.bn_eps!r}", f"momentum={plan.arch.bn_momentum!r}"]
    return _text(
        _fitted("def conv_norm(", parameters, ") -> nn.Sequential:"),
        f'    """Convolution, batch norm and{", unless `linear`," if linear else ""} activation."""',
        "    layers = OrderedDict(",
        _fitted("        conv=nn.Conv2d(", [*arguments, "bias=False"], "),"),
        _fitted("        norm=nn.BatchNorm2d(", norm, "),"),
        "    )",
        *(["    if not linear:"] if linear else []),
        f'    {"    " if linear else ""}layers["activation"] = {plan.activation}',
        "    return nn.Sequential(layers)",
    )


def _squeeze_excite(plan: _Plan) -> str:
    return _text(
        "class SqueezeExcite(nn.Module):",
        '    """Scale each channel by a gate computed from the means of all channels."""',
        "",
        "    def __init__(self, channels: int, squeezed: int) -> None:",
        "        super().__init__()",
        "        self.reduce = nn.Linear(channels, squeezed)",
        f"        self.activation = {plan.activation}",
        "        self.expand = nn.Linear(squeezed, channels)",
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        "        gate = self.expand(self.activation(self.reduce(x.mean((2, 3)))))",
        "        return x * gate.sigmoid()[:, :, None, None]",
    )


def _pool_shortcut(plan: _Plan) -> str:
    padding = [
        "        x = self.pool(x)",
        "        return functional.pad(x, (0, 0, 0, 0, 0, self.extra)) if self.extra else x",
    ]
    return _text(
        "class PoolShortcut(nn.Module):",
        f'    """3x3 average pooling{", then `extra` channels of zeros" if plan.widens else ""}."""',
        "",
        f"    def __init__(self, stride: int{', extra: int' if plan.widens else ''}) -> None:",
        "        super().__init__()",
        "        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)",
        *(["        self.extra = extra"] if plan.widens else []),
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        *(padding if plan.widens else ["        return self.pool(x)"]),
    )


_DROP_SAMPLES = """\
def drop_samples(x: Tensor, rate: float) -> Tensor:
    \"""Zero each sample with probability `rate`, divide the others by 1 - rate.\"""
    survival = 1.0 - rate
    kept = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device)
    return x * (kept.bernoulli_(survival) / survival)"""


def _block(plan: _Plan) -> str:
    plain = plan.added == {"identity"}
    parameters = ["branch: nn.Module"]
    if plain and plan.bare:
        parameters.append("residual: bool")
    elif not plain:
        parameters.append("shortcut: nn.Module | None" if plan.bare else "shortcut: nn.Module")
    if plan.drops:
        parameters.append("drop_connect: float")
    if plan.mixed:
        parameters.append("after: nn.Module")
    addition = ["y = y + x" if plain else "y = y + self.shortcut(x)"]
    if plan.drops:
        condition = "if self.training and self.drop_connect:"
        addition = [condition, "    y = drop_samples(y, self.drop_connect)", *addition]
    if plan.bare:
        condition = "if self.residual:" if plain else "if self.shortcut is not None:"
        addition = [condition, *(f"    {line}" for line in addition)]
    after = "self.after" if plan.mixed else "self.activation" if plan.activated else ""
    names = [parameter.split(":")[0] for parameter in parameters]
    return _text(
        "class Block(nn.Module):",
        f'    """`branch` plus {"its input" if plain else "shortcut"}{", then activation" if after else ""}."""',
        "",
        _fitted("    def __init__(", ["self", *parameters], ") -> None:"),
        "        super().__init__()",
        *(f"        self.{name} = {name}" for name in names),
        *([f"        self.activation = {plan.activation}"] if after == "self.activation" else []),
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        "        y = self.branch(x)",
        *(f"        {line}" for line in addition),
        f"        return {after}(y)" if after else "        return y",
    )


def _stage(plan: _Plan) -> str:
    whole = all(expand.is_integer() for expand in set().union(*plan.expands.values()))
    of_inputs = [block for block in plan.expands if KINDS[block].middle_of == "inputs"]
    references = "input" if of_inputs else "output"
    if 0 < len(of_inputs) < len(plan.expands):
        references = f"input ({', '.join(of_inputs)}) or output"
    fields = {
        "branch": "branch: Callable[..., nn.Sequential]  # makes that of one layer",
        "kernel": "kernel: int",
        "stride": "stride: int  # of the first layer; 1 in the others",
        "channels": "channels: int  # that each layer puts out",
        "layers": "layers: int",
        "expand": f"expand: {'int' if whole else 'float'}  # middle channels / {references} channels",
        "se_ratio": "se_ratio: float  # squeezed channels / input channels; 0: not squeezed",
        "skip": "skip: str  # what is added to the branch, where shapes allow",
    }
    return _text(
        "class Stage(NamedTuple):",
        '    """Layers of one kind; the first one strides and changes the channels."""',
        "",
        *(f"    {fields[column]}" for column in plan.columns),
    )


def _shortcut(plan: _Plan) -> str:
    skips = sorted(set(plan.skips))
    projection = ("conv_norm", ["inputs", "stage.channels", "1", "stride", "linear=True"])
    pool = ("PoolShortcut", ["stride", "stage.channels - inputs"] if plan.widens else ["stride"])
    lines, same = [], "stride == 1 and inputs == stage.channels"
    if len({"identity", "projection"}.intersection(skips)) == 2:
        lines, same = [f"    same = {same}"], "same"
    for skip, condition, call in (
        ("identity", same, ("nn.Identity", [])),
        ("projection", same, ("nn.Identity", [])),
        ("projection", "", projection),
        ("pool", "stage.channels >= inputs" if plan.narrows else "", pool),
    ):
        if skip in skips:
            chosen = f'stage.skip == "{skip}"' if len(skips) > 1 else ""
            conditions = " and ".join(filter(None, (chosen, condition)))
            lines += [f"    if {conditions}:"] if conditions else []
            lines.append(_called(f"    {'    ' if conditions else ''}return ", call))
    if len(skips) > 1 or (skips == ["pool"] and plan.narrows):
        lines.append("    return None")
    returned = "nn.Module | None" if plan.bare else "nn.Module"
    return _text(
        _fitted("def shortcut(", ["stage: Stage", "inputs: int", "stride: int"], f") -> {returned}:"),
        '    """What is added to the branch of a layer."""',
        *lines,
    )


def _branch(plan: _Plan, block: str) -> str:
    kind, middle = KINDS[block], _middle(plan, block)
    channels = {"inputs": "inputs", "middle": "middle" if middle else "inputs", "channels": "stage.channels"}
    fed, gate, written = "inputs", "", []
    for part in kind.branch:
        if isinstance(part, str):
            for condition, arguments in _gate(plan, block, fed):
                gate = ", squeeze-excitation"
                written += _assigned(part, condition, ("SqueezeExcite", arguments))
        elif middle or not part.expanding:
            outputs = channels[part.outputs]
            arguments = [fed, outputs, "stage.kernel" if part.spatial else "1"] + ["stride"] * part.strided
            arguments += [f"groups={fed}"] * part.depthwise + ["linear=True"] * part.linear
            condition = "stage.expand != 1" if part.expanding and 1 in plan.expands[block] else ""
            written += _assigned(part.name, condition, ("conv_norm", arguments))
            fed = outputs
    return _text(
        f"def {block}(stage: Stage, inputs: int, stride: int) -> nn.Sequential:",
        f'    """{kind.summary.format(gate)}."""',
        *([f"    middle = {middle}"] if middle else []),
        "    layers = OrderedDict()",
        *written,
        "    return nn.Sequential(layers)",
    )


def _assigned(name: str, condition: str, call: tuple[str, Sequence[str]]) -> list[str]:
    """The lines that make a part of a branch, where there is a `condition` only if it holds."""
    line = _called(f'    {"    " if condition else ""}layers["{name}"] = ', call)
    return [f"    if {condition}:", line] if condition else [line]


def _middle(plan: _Plan, block: str) -> str:
    """The channels in the middle of a branch; "" where they are those it is fed."""
    of_inputs = KINDS[block].middle_of == "inputs"
    if block not in plan.expands or (of_inputs and plan.expands[block] == {1}):
        return ""
    reference = "inputs" if of_inputs else "stage.channels"
    layers = [layer for layer in plan.layers if layer.stage.block == block]
    exact = [layer.stage.expand * (layer.inputs if of_inputs else layer.stage.channels) for layer in layers]
    factor = "stage.expand" if "expand" in plan.columns else _number(layers[0].stage.expand)
    if factor == "0.25" and all(channels.is_integer() for channels in exact):
        return f"{reference} // 4"
    if all(expand.is_integer() for expand in plan.expands[block]):
        return reference if factor == "1" else f"{factor} * {reference}"
    rounded = f"round({factor} * {reference})"
    return rounded if round(min(exact)) else f"max(1, {rounded})"


def _gate(plan: _Plan, block: str, channels: str) -> list[tuple[str, list[str]]]:
    """The squeeze-excitation of a branch as (condition, arguments); none where its ratio is always 0."""
    ratios = plan.ratios.get(block, {0})
    if ratios == {0}:
        return []
    ratio = "stage.se_ratio" if "se_ratio" in plan.columns else _number(min(ratios))
    squeezed = "inputs" if ratio == "1" else f"int({ratio} * inputs)"
    if any(0 < layer.stage.se_ratio and int(layer.stage.se_ratio * layer.inputs) == 0 for layer in plan.layers):
        squeezed = f"max(1, {squeezed})"
    return [("stage.se_ratio" if 0 in ratios else "", [channels, squeezed])]


def _table(plan: _Plan) -> str:
    rows = []
    for stage, skip in zip(plan.arch.stages, plan.skips, strict=True):
        cells = {
            "branch": stage.block,
            "kernel": f"{stage.kernel}",
            "stride": f"{stage.stride}",
            "channels": f"{stage.channels}",
            "layers": f"{stage.repeats}",
            "expand": _number(stage.expand),
            "se_ratio": _number(stage.se_ratio),
            "skip": f'"{skip}"',
        }
        rows.append(f"    Stage({', '.join(cells[column] for column in plan.columns)}),")
    return _text("STAGES = (", f"    # {', '.join(plan.columns)}", *rows, ")")


def _network(plan: _Plan, called: str) -> str:
    arch = plan.arch
    stem = [f"{arch.in_channels}", f"{arch.stem.channels}", f"{arch.stem.kernel}", f"stride={arch.stem.stride}"]
    features, pooled = "self.stages(self.stem(images))", "features.mean((2, 3))"
    return _text(
        f"class {called}(nn.Module):",
        f'    """Images [batch, {arch.in_channels}, height, width] to logits [batch, classes]."""',
        "",
        f"    def __init__(self, classes: int = {arch.classes}) -> None:",
        "        super().__init__()",
        f"        self.stem = conv_norm({', '.join(stem)})",
        *(['        self.stem.add_module("pool", nn.MaxPool2d(3, 2, padding=1))'] if arch.stem.pool else []),
        "        self.stages = nn.Sequential()",
        f"        inputs = {arch.stem.channels}",
        *(["        blocks, index = sum(stage.layers for stage in STAGES), 0"] if plan.drops else []),
        "        for stage in STAGES:",
        "            layers = nn.Sequential()",
        "            for layer in range(stage.layers):",
        "                stride = stage.stride if layer == 0 else 1",
        *(f"                {line}" for line in _layer(plan)),
        "                inputs = stage.channels",
        *(["                index += 1"] if plan.drops else []),
        "            self.stages.append(layers)",
        *([f"        self.head = conv_norm(inputs, {arch.head_channels}, 1)"] if arch.head_channels else []),
        *([f"        self.dropout = nn.Dropout({arch.dropout!r})"] if arch.dropout else []),
        f"        self.classifier = nn.Linear({arch.head_channels or 'inputs'}, classes)",
        "",
        "    def forward(self, images: Tensor) -> Tensor:",
        f"        features = {f'self.head({features})' if arch.head_channels else features}",
        f"        return self.classifier({f'self.dropout({pooled})' if arch.dropout else pooled})",
    )


def _layer(plan: _Plan) -> list[str]:
    """The statements that make one layer and append it."""
    lines = [f"branch = {'stage.branch' if 'branch' in plan.columns else plan.blocks[0]}(stage, inputs, stride)"]
    if plan.mixed:
        chosen = " or ".join(f"stage.branch is {block}" for block in plan.activated)
        lines += ["after = nn.Identity()", f"if {chosen}:", f"    after = {plan.activation}"]
    if not plan.added:  # as Block names its parts
        lines += ["parts = OrderedDict(branch=branch)"]
        if plan.activated:
            lines += [f'parts["after"] = {"after" if plan.mixed else plan.activation}']
        return [*lines, "layers.append(nn.Sequential(parts))"]
    arguments = ["branch"]
    if plan.added != {"identity"}:
        lines.append("added = shortcut(stage, inputs, stride)")
        arguments.append("added")
    elif plan.bare:
        lines.append("residual = stride == 1 and inputs == stage.channels")
        if "skip" in plan.columns:
            lines.append('residual = residual and stage.skip == "identity"')
        arguments.append("residual")
    if plan.drops:
        lines += [f"rate = {plan.arch.drop_connect!r} * index / blocks  # linear in depth, from 0"]
        arguments.append("rate")
    if plan.mixed:
        arguments.append("after")
    return [*lines, f"layers.append(Block({', '.join(arguments)}))"]


def _build(plan: _Plan, called: str) -> str:
    of_depthwise = ", a depthwise one's being its kernel" if plan.depthwise else ""
    return _text(
        f"def build(classes: int = {plan.arch.classes}) -> {called}:",
        '    """The network in training mode, its weights drawn from torch\'s generator.',
        "",
        f"    Convolutions: normal, variance 2 / fan_out{of_depthwise}.",
        "    Classifier: uniform within 1 / sqrt(classes).",
        '    """',
        f"    net = {called}(classes)",
        "    for module in net.modules():",
        "        if isinstance(module, nn.Conv2d):",
        "            fan_out = math.prod(module.kernel_size) * module.out_channels",
        *(["            fan_out //= module.groups"] if plan.depthwise else []),
        "            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))",
        "        elif isinstance(module, nn.Linear):",
        "            nn.init.normal_(module.weight, std=math.sqrt(2 / module.out_features))",
        "            nn.init.zeros_(module.bias)",
        "    bound = 1 / math.sqrt(classes)",
        "    nn.init.uniform_(net.classifier.weight, -bound, bound)",
        "    return net",
    )


# --- text ------------------------------------------------------------------------------------------------------------


def _text(*lines: str) -> str:
    return "\n".join(lines)


def _fitted(before: str, items: Sequence[str], after: str) -> str:
    """The items on one line between `before` and `after`; where that is too long, one to a line."""
    line = f"{before}{', '.join(items)}{after}"
    if len(line) <= WIDTH:
        return line
    indent = " " * (len(before) - len(before.lstrip()))
    return _text(before, *(f"{indent}    {item}," for item in items), f"{indent}{after}")


def _called(before: str, call: tuple[str, Sequence[str]]) -> str:
    return _fitted(f"{before}{call[0]}(", call[1], ")")


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
