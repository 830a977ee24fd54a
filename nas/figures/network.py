"""A network drawn as its stages, with what each of them costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from phinas.networks.arch import Arch, Stage
from phinas.networks.cost import cost
from phinas.networks.kinds import KINDS
from phinas.pages.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, PAPER, PURPLE, RED, styled


def network_figure(arch: Arch) -> Figure:
    """The network as its stages, left to right, with the share of the MACs that each costs.

    A box's width grows with the square root of the channels and its height with that of the side of the feature map;
    there is one sheet per layer (12 at most), stronger in colour for larger kernels, coloured by the kind of block. A
    line around them is a skip that takes effect, dashed where it pools or projects.
    """
    parts = parts_of(arch)
    with styled((network_width(parts), NETWORK_HEIGHT)) as figure:
        draw_network(figure.add_subplot(), arch)
    return figure


@dataclass(frozen=True)
class Part:
    """A stretch of a network. `stage` is None for stem and head; sides are in pixels, macs and params all layers'."""

    name: str
    stage: Stage | None
    in_side: int
    out_side: int
    in_channels: int
    channels: int
    macs: int
    params: int


def parts_of(arch: Arch) -> list[Part]:
    """Stem, stages and head with what each costs: the parts add up to `cost(arch)`.

    The cost of a part is what the network up to it costs more than the network up to the part before it.
    """
    stem, side = arch.stem, -(-arch.resolution // arch.stem.stride)
    weights = stem.kernel**2 * arch.in_channels * stem.channels
    macs, params = weights * side * side, weights + 2 * stem.channels
    side = -(-side // 2) if stem.pool else side
    parts = [Part("stem", None, arch.resolution, side, arch.in_channels, stem.channels, macs, params)]
    for number, stage in enumerate(arch.stages, start=1):
        # One class and no head leave a classifier of one weight per channel and one bias, which is taken off again.
        upto = cost(replace(arch, stages=arch.stages[:number], head_channels=0, classes=1))
        upto_macs, upto_params = upto.macs - stage.channels, upto.params - stage.channels - 1
        out_side = -(-side // stage.stride)
        more = upto_macs - macs, upto_params - params
        parts.append(Part(str(number), stage, side, out_side, parts[-1].channels, stage.channels, *more))
        macs, params, side = upto_macs, upto_params, out_side
    whole, last = cost(arch), parts[-1].channels
    more = whole.macs - macs, whole.params - params
    return [*parts, Part("head", None, side, 1, last, arch.head_channels or last, *more)]


def block_name(stage: Stage) -> str:
    """`MBConv6`, `Conv`, ...: the kind of block as the papers write it."""
    return KINDS[stage.block].label.format(f"{stage.expand:g}")


# Inches. Rows from the top: size of the feature map, boxes, one line of text per property, shares of the MACs.
_COLUMN, _GUTTER, _BOXES, _LINE, _BARS, _SIZES = 1.13, 0.72, 1.4, 0.205, 0.62, 0.3
_ROWS: tuple[tuple[str, Callable[[Stage], str]], ...] = (
    ("block", block_name),
    ("kernel", lambda stage: f"{stage.kernel}×{stage.kernel}"),
    ("stride", lambda stage: str(stage.stride)),
    ("channels", lambda stage: str(stage.channels)),
    ("layers", lambda stage: f"×{stage.repeats}"),
    ("SE", lambda stage: f"{stage.se_ratio:g}" if stage.se_ratio else "–"),
    ("skip", lambda stage: stage.skip if stage.skip != "none" else "–"),
)
NETWORK_HEIGHT = _SIZES + _BOXES + _LINE * len(_ROWS) + _BARS + 0.3
_BLOCK_COLORS = dict(zip(KINDS, cycle((ORANGE, RED, GREEN, BLUE, PURPLE))))


def network_width(parts: Sequence[Part]) -> float:
    return _GUTTER + _COLUMN * len(parts)


def draw_network(axes: Axes, arch: Arch) -> None:
    parts = parts_of(arch)
    width, height = network_width(parts), NETWORK_HEIGHT
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    axes.set_anchor("W")
    middle = height - _SIZES - _BOXES / 2
    text_top = height - _SIZES - _BOXES - 0.12
    bars_foot = text_top - _LINE * len(_ROWS) - _BARS - 0.04
    axes.annotate(
        "", (width - 0.02, middle), (_GUTTER - 0.1, middle), arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 1.0}
    )
    axes.text(_GUTTER - 0.14, middle, f"image\n{arch.resolution}²×{arch.in_channels}", ha="right", va="center",
              fontsize=8, color=MUTED)  # fmt: skip
    for row, (title, _) in enumerate(_ROWS):
        axes.text(0, text_top - _LINE * row, title, va="center", fontsize=8, color=MUTED)
    axes.text(0, bars_foot + 0.12, "share of\nMACs", va="center", fontsize=8, color=MUTED)
    axes.plot([_GUTTER, width], [bars_foot, bars_foot], color=GRID, linewidth=1)
    whole = sum(part.macs for part in parts)
    largest = max(part.macs for part in parts)
    widest, tallest = max(part.channels for part in parts), max(part.out_side for part in parts)
    for position, part in enumerate(parts):
        centre = _GUTTER + _COLUMN * (position + 0.5)
        _draw_part(axes, part, centre, middle, widest, tallest)
        shape = f"{part.out_side}²×{part.channels}" if part.name != "head" else f"{arch.classes} classes"
        axes.text(centre, height - 0.12, shape, ha="center", va="center", fontsize=8.5)
        for row, text in enumerate(_texts(arch, part)):
            color = MUTED if text == "–" else INK
            weight = "bold" if row == 0 else "normal"
            y = text_top - _LINE * row
            axes.text(centre, y, text, ha="center", va="center", fontsize=8.5, color=color, weight=weight)
        bar = 0.4 * part.macs / largest
        axes.bar(centre, bar, width=0.5, bottom=bars_foot, color=RED, alpha=0.75, linewidth=0)
        share = 100 * part.macs / whole
        text = f"{share:.0f}%" if share >= 0.95 else "<1%"
        axes.text(centre, bars_foot + bar + 0.04, text, ha="center", va="bottom", fontsize=8.5)


def _draw_part(axes: Axes, part: Part, centre: float, middle: float, widest: int, tallest: int) -> None:
    """The sheets of one stage, the first layer in front, and a line around those with a skip."""
    stage = part.stage
    side = part.in_side if part.name == "head" else part.out_side
    box_width = 0.16 + 0.5 * float(np.sqrt(part.channels / widest))
    box_height = max(0.18, 0.88 * _BOXES * float(np.sqrt(side / tallest)))
    color = _BLOCK_COLORS[stage.block] if stage else MUTED
    depth = min(stage.repeats, 12) if stage else 1
    shift = min(0.1, (0.9 - box_width) / (depth - 1)) if depth > 1 else 0.0
    left = centre - (box_width + shift * (depth - 1)) / 2
    strength = {1: 0.12, 3: 0.22, 5: 0.5}.get(stage.kernel, 0.7) if stage else 0.18
    for layer in reversed(range(depth)):
        corner = (left + shift * layer, middle - box_height / 2 + 0.3 * shift * layer)
        for fill, alpha in ((PAPER, 1.0), (color, strength)):  # an opaque sheet below hides the line behind
            box = FancyBboxPatch(corner, box_width, box_height, boxstyle="round,pad=0,rounding_size=0.035")
            box.set(facecolor=to_rgba(fill, alpha), edgecolor=color, linewidth=1.0, zorder=3)
            axes.add_patch(box)
    if stage and _skips(part, stage):
        top = middle + box_height / 2 + 0.3 * shift * (depth - 1)
        right = left + box_width + shift * (depth - 1)
        x = [left - 0.07] * 2 + [right + 0.07] * 2
        style = "-" if stage.skip == "identity" else (0, (2.5, 1.5))
        axes.plot(x, [middle, top + 0.08, top + 0.08, middle], color=INK, linewidth=1.0, linestyle=style, zorder=2.5)
        axes.plot([x[0], x[-1]], [middle, middle], color=INK, marker="o", markersize=3, linestyle="none", zorder=2.5)


def _skips(part: Part, stage: Stage) -> bool:
    """Whether any layer of the stage has a skip; the first layer changes the shape, the others do not."""
    if stage.skip == "identity":
        return stage.repeats > 1 or (stage.stride == 1 and part.in_channels == part.channels)
    if stage.skip == "pool":
        return stage.repeats > 1 or part.in_channels <= part.channels
    return stage.skip == "projection"


def _texts(arch: Arch, part: Part) -> list[str]:
    """What stands under a part, in the order of `_ROWS`."""
    if part.stage is not None:
        return [text(part.stage) for _, text in _ROWS]
    if part.name == "stem":
        stem = arch.stem
        pool = "max pool" if stem.pool else "–"
        return ["Stem conv", f"{stem.kernel}×{stem.kernel}", str(stem.stride), str(stem.channels), "×1", "–", pool]
    if arch.head_channels:
        return ["Head", "1×1", "1", str(arch.head_channels), "pool, fc", "–", "–"]
    return ["Head", "–", "–", "–", "pool, fc", "–", "–"]
