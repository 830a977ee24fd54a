"""The pictures of a search: reward over evaluations, accuracy against MACs, and a network drawn as its stages."""

from __future__ import annotations

import html
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from convnets.arch import Arch, Stage
from convnets.cost import cost
from nas.journal import Entry
from nas.reward import RewardOf

# Okabe and Ito's palette, told apart by colour-blind readers too. Each value occurs once, so that the report can
# exchange it for a colour that suits a dark page.
INK, MUTED, GRID, PAPER = "#1f2328", "#636c76", "#dde2e7", "#ffffff"
BLUE, ORANGE, RED, GREEN, PURPLE = "#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7"

SVG_COLORS = {
    "ink": INK, "muted": MUTED, "grid": GRID, "paper": PAPER,
    "blue": BLUE, "orange": ORANGE, "red": RED, "green": GREEN, "purple": PURPLE,
}  # fmt: skip

RASTERISED_ABOVE = 5_000  # points; beyond it they are drawn as one image instead of one SVG element each

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.titlecolor": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.7, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8.5, "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "figure.constrained_layout.w_pad": 0.08, "figure.constrained_layout.h_pad": 0.06,
    "figure.facecolor": "none", "axes.facecolor": "none",
}  # fmt: skip


def reward_figure(entries: Sequence[Entry]) -> Figure:
    """Reward of each evaluation, in the order they finished, and the best so far.

    Dots ran to the end, circles were stopped early (their reward is that of fewer epochs, and never counts as the
    best), crosses at the foot failed.
    """
    with _styled((6.4, 4.1)) as figure:
        _draw_rewards(figure.add_subplot(), entries)
    return figure


def pareto_figure(entries: Sequence[Entry], target_macs: float, reward: RewardOf, best: Entry | None) -> Figure:
    """Accuracy against MACs, with the target, curves of equal reward, the Pareto front and the best network.

    reward is sampled, so that it may be any function of (accuracy as a fraction, costs); of the costs only `macs`
    varies along a curve, the others stay those of `best`.
    """
    with _styled((6.4, 4.1)) as figure:
        _draw_pareto(figure.add_subplot(), entries, target_macs, reward, best)
    return figure


def network_figure(arch: Arch) -> Figure:
    """The network as its stages, left to right, with the share of the MACs that each costs.

    A box's width grows with the square root of the channels and its height with that of the side of the feature map;
    there is one sheet per layer (12 at most), stronger in colour for larger kernels, coloured by the kind of block. A
    line around them is a skip that takes effect, dashed where it pools or projects.
    """
    parts = parts_of(arch)
    with _styled((_network_width(parts), _NETWORK_HEIGHT)) as figure:
        _draw_network(figure.add_subplot(), arch)
    return figure


def overview_figure(
    entries: Sequence[Entry], target_macs: float, reward: RewardOf, best: Entry | None, arch: Arch | None
) -> Figure:
    """All of it in one picture; `arch` is the best network, None where there is none or it has no stages."""
    width, upper = 12.6, 4.7
    # A network of few stages is drawn as if it had more, or its boxes would dwarf the rest.
    lower = 0.35 + _NETWORK_HEIGHT * width / max(_network_width(parts_of(arch)), 10.9) if arch else 0.0
    with _styled((width, upper + lower)) as figure:
        figure.set_facecolor(PAPER)
        rows = figure.add_gridspec(2 if arch else 1, 2, height_ratios=(upper, lower) if arch else None)
        left, right = figure.add_subfigure(rows[0, 0]), figure.add_subfigure(rows[0, 1])
        axes = left.add_subplot()
        _draw_rewards(axes, entries)
        axes.set_title("Reward over the search", pad=14)
        axes = right.add_subplot()
        _draw_pareto(axes, entries, target_macs, reward, best)
        axes.set_title("Accuracy against compute", pad=14)
        if arch:
            axes = figure.add_subfigure(rows[1, :]).add_subplot()
            _draw_network(axes, arch)
            axes.set_title("The best network, stage by stage", pad=4)
    return figure


def png(figure: Figure, path: Any, width: int) -> None:
    """Write `figure` as a PNG of `width` pixels to `path`, a file name or a binary file."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=width / figure.get_figwidth())


def svg(figure: Figure, label: str) -> str:
    """`figure` as one `<svg>` element to stand in an HTML page, where `label` is read out in place of it.

    Its colours are the page's: `var(--ink)`, `var(--muted)`, ... as named in `SVG_COLORS`. Text stays text. It asks
    for no other file; points that were drawn as an image are inside.
    """
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(drawn, format="svg", dpi=160, metadata={"Date": None})
    text = drawn.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # HTML knows SVG without its namespaces
    # Several figures share the page: their ids must differ.
    prefix = f"f{zlib.crc32(label.encode()):08x}-"
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    for name, color in SVG_COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


# --- what the pictures are about -------------------------------------------------------------------------------------


def pareto_front(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that no other beats in accuracy without costing more MACs, or in MACs without being less accurate.

    Of those evaluated to the end only. From few MACs to many; entries that tie in both are all in it.
    """
    complete = [(entry.costs["macs"], -(entry.accuracy or 0.0), entry.number, entry) for entry in _complete(entries)]
    front: list[Entry] = []
    reached: tuple[float, float] | None = None  # MACs and negated accuracy of the front's last member
    for macs, error, _, entry in sorted(complete, key=lambda row: row[:3]):
        if reached is None or error < reached[1] or (macs, error) == reached:
            front.append(entry)
            reached = (macs, error)
    return front


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
    if stage.block == "mbconv":
        return f"MBConv{stage.expand:g}"
    return {"conv": "Conv", "linear": "Linear", "separable": "Separable", "bottleneck": "Bottleneck"}[stage.block]


def _complete(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.accuracy is not None and not entry.stopped]


def _stopped(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.accuracy is not None and entry.stopped]


# --- reward over evaluations -----------------------------------------------------------------------------------------


def _draw_rewards(axes: Axes, entries: Sequence[Entry]) -> None:
    order = {id(entry): position for position, entry in enumerate(entries, start=1)}

    def points(chosen: list[Entry]) -> tuple[list[int], list[float]]:
        return [order[id(entry)] for entry in chosen], [float(entry.reward or 0.0) for entry in chosen]

    axes.set(xlabel="Evaluations, in the order they finished", ylabel="Reward", xlim=(0, max(len(entries), 1) + 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="x", visible=False)
    complete, failed = _complete(entries), [entry for entry in entries if entry.accuracy is None]
    _dots(axes, *points(complete), "complete", len(entries) > RASTERISED_ABOVE)
    _dots(axes, *points(_stopped(entries)), "stopped early", len(entries) > RASTERISED_ABOVE, hollow=True)
    if complete:
        records, x, y = complete[0], [order[id(complete[0])]], [float(complete[0].reward or 0.0)]
        for entry in complete:
            if (entry.reward or 0.0) > (records.reward or 0.0):
                records = entry
                x.append(order[id(entry)])
                y.append(float(entry.reward or 0.0))
        axes.plot([*x, len(entries)], [*y, y[-1]], drawstyle="steps-post", color=RED, lw=1.8, label="best so far")
        axes.plot(x[-1], y[-1], marker="*", ms=13, color=RED, markeredgecolor=PAPER, markeredgewidth=0.8, zorder=5)
    _frame(axes, points(complete)[1], points(_stopped(entries))[1])
    if failed:
        positions = [order[id(entry)] for entry in failed]
        axes.scatter(
            positions, [0.025] * len(positions), marker="x", s=22, linewidths=1.1, color=INK, label="failed",
            transform=axes.get_xaxis_transform(), rasterized=len(entries) > RASTERISED_ABOVE,
        ).set_in_layout(False)  # fmt: skip
    if not complete:
        _say_nothing_yet(axes, entries)
    if entries:
        _legend_below(axes)


# --- accuracy against MACs -------------------------------------------------------------------------------------------


def _draw_pareto(
    axes: Axes, entries: Sequence[Entry], target_macs: float, reward: RewardOf, best: Entry | None
) -> None:
    def points(chosen: list[Entry]) -> tuple[list[float], list[float]]:
        return [float(entry.costs["macs"]) for entry in chosen], [entry.accuracy or 0.0 for entry in chosen]

    axes.set(ylabel="Accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    complete, stopped = _complete(entries), _stopped(entries)
    _dots(axes, *points(complete), "complete", len(entries) > RASTERISED_ABOVE)
    _dots(axes, *points(stopped), "stopped early", len(entries) > RASTERISED_ABOVE, hollow=True)
    _macs_axis(axes, [*points(complete)[0], *points(stopped)[0], target_macs])
    _frame(axes, points(complete)[1], points(stopped)[1], fractions=True)
    axes.axvline(target_macs, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2.3)
    axes.annotate(
        f" target {_short_macs(target_macs)}", (target_macs, 1.0), xycoords=("data", "axes fraction"), va="bottom",
        ha="center", fontsize=8.5,
    )  # fmt: skip
    front = pareto_front(entries)
    if front:
        x, y = points(front)
        axes.plot(
            [*x, axes.get_xlim()[1]], [*y, y[-1]], drawstyle="steps-post", color=GREEN, linewidth=1.8,
            label="Pareto front", zorder=2.2,
        )  # fmt: skip
    if best is not None and best.reward is not None:
        _draw_equal_rewards(axes, reward, target_macs, best, above_the_dots=len(entries) > RASTERISED_ABOVE)
        axes.plot(
            best.costs["macs"], best.accuracy or 0.0, marker="*", markersize=15, color=RED, markeredgecolor=PAPER,
            markeredgewidth=0.9, linestyle="none", label="best reward", zorder=5, clip_on=False,
        )  # fmt: skip
    if not complete:
        _say_nothing_yet(axes, entries)
    if complete or stopped:
        _legend_below(axes)


def _draw_equal_rewards(
    axes: Axes, reward: RewardOf, target_macs: float, best: Entry, above_the_dots: bool
) -> None:  # fmt: skip
    """Curves along which the reward is that of the best, and some round number below it."""
    best_reward, zorder = float(best.reward or 0.0), 2.15 if above_the_dots else 1.8
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    macs = np.geomspace(left, right, 61) if axes.get_xscale() == "log" else np.linspace(left, right, 61)
    macs = np.union1d(macs, [target_macs])  # where rewards have their kinks
    accuracies = np.linspace(bottom, top, 31)  # few: a reward that Hydra made takes a millisecond a call
    # The frame is wider than what can occur, which is all that a reward needs to be defined for.
    fractions = np.clip(accuracies, 1e-6, 1.0)
    rewards = np.array([[reward(float(a), {**best.costs, "macs": float(m)}) for m in macs] for a in fractions])
    rewards[~np.isfinite(rewards)] = np.nan
    if np.isnan(rewards).all():
        return
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(float(np.nanmin(rewards)), best_reward)
    step = float(ticks[1] - ticks[0])
    levels = [float(tick) for tick in ticks if np.nanmin(rewards) < tick < best_reward - step / 3]
    digits = max(0, -int(np.floor(np.log10(step))))
    for chosen, color, width, text in (
        (levels, PURPLE, 0.8, f"%.{digits}f"),
        ([best_reward], PURPLE, 1.5, "%.3f"),
    ):
        if not chosen or not np.nanmin(rewards) < chosen[-1] < np.nanmax(rewards):
            continue
        curves = axes.contour(macs, fractions, rewards, levels=chosen, colors=color, linewidths=width, zorder=zorder)
        labels = axes.clabel(curves, fmt=text, fontsize=7.5, inline=True, inline_spacing=3, zorder=zorder)
        for label in labels:
            label.set(color=INK, path_effects=[withStroke(linewidth=2.5, foreground=PAPER)])
    axes.plot([], [], color=PURPLE, linewidth=1.2, label="equal reward")
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _macs_axis(axes: Axes, macs: Sequence[float]) -> None:
    """Logarithmic where the costs span a factor of 3, with ticks as people say them: 200M, 1G."""
    low, high = min(macs), max(macs)
    if high > 3 * low > 0:
        axes.set_xscale("log")
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        digits = (1, 2, 5) if high / low < 300 else (1,)
        axes.xaxis.set_major_locator(FixedLocator([digit * 10.0**decade for decade in decades for digit in digits]))
        axes.xaxis.set_minor_locator(NullLocator())
        room = (high / low) ** 0.05
        axes.set_xlim(low / room, high * room)
    else:
        room = 0.06 * (high - low) or 0.1 * high
        axes.set_xlim(max(low - room, 0.0), high + room)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_macs(value)))
    axes.set_xlabel("MACs (multiply-adds) of one image" + (", logarithmic" if axes.get_xscale() == "log" else ""))


def _short_macs(macs: float) -> str:
    """`386M`, `1.2G`: three digits at most."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= 0.9995 * unit:
            return f"{macs / unit:.3g}{suffix}"
    return f"{macs:.3g}"


# --- parts of both scatters ------------------------------------------------------------------------------------------


def _dots(
    axes: Axes, x: Sequence[float], y: Sequence[float], label: str, rasterised: bool, hollow: bool = False
) -> None:
    """Points, smaller and fainter the more there are; `rasterised` draws them as one image."""
    if not x:
        return
    crowd = float(np.clip(np.log10(len(x) / 50) / 3, 0, 1))  # 0 for up to 50 points, 1 for 50,000
    size, alpha = 30 - 25 * crowd, 0.85 - 0.55 * crowd
    axes.scatter(
        x, y, s=size, label=label, linewidths=1.0 if hollow else 0.0, zorder=2 if hollow else 2.1,
        facecolors="none" if hollow else [to_rgba(BLUE, alpha)], edgecolors=[to_rgba(BLUE, min(1.0, alpha + 0.1))],
        rasterized=rasterised,
    ).set_in_layout(False)  # fmt: skip  # all lie within the axes, and measuring each takes seconds for 100,000


def _frame(axes: Axes, complete: Sequence[float], stopped: Sequence[float], fractions: bool = False) -> None:
    """Vertical limits that give the room to where the good ones are; says how many points lie below the frame."""
    values = np.array([*complete, *stopped])
    if not len(values):
        axes.set_ylim(0, 1)
        return
    top, floor = float(values.max()), float(values.min())
    middle = float(np.quantile(values, 0.25))
    floor = max(floor, top - 3.5 * (top - middle)) if top > middle else floor
    room = 0.07 * (top - floor) or 0.05 * abs(top) or 0.05
    bottom, ceiling = floor - 1.5 * room, top + 1.5 * room
    axes.set_ylim(*((max(bottom, 0.0), min(ceiling, 1.0)) if fractions else (bottom, ceiling)))
    below = int((values < axes.get_ylim()[0]).sum())
    if below:
        axes.annotate(
            f"↓ {below:,} more below", (0.99, 0.07), xycoords="axes fraction", ha="right", fontsize=8.5, color=MUTED,
            path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
        )  # fmt: skip


def _say_nothing_yet(axes: Axes, entries: Sequence[Entry]) -> None:
    failed = sum(entry.accuracy is None for entry in entries)
    text = "every evaluation failed" if entries and failed == len(entries) else "no evaluation has run to the end yet"
    axes.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=MUTED, fontsize=11,
                  path_effects=[withStroke(linewidth=5, foreground=PAPER)])  # fmt: skip


def _legend_below(axes: Axes) -> None:
    entries = len(axes.get_legend_handles_labels()[0])
    legend = axes.figure.legend(loc="outside lower center", ncols=entries if entries <= 4 else 3)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([26])  # also where the dots themselves are tiny


# --- a network as its stages -----------------------------------------------------------------------------------------

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
_NETWORK_HEIGHT = _SIZES + _BOXES + _LINE * len(_ROWS) + _BARS + 0.3
_BLOCK_COLORS = {"mbconv": BLUE, "conv": ORANGE, "linear": RED, "separable": GREEN, "bottleneck": PURPLE}


def _network_width(parts: Sequence[Part]) -> float:
    return _GUTTER + _COLUMN * len(parts)


def _draw_network(axes: Axes, arch: Arch) -> None:
    parts = parts_of(arch)
    width, height = _network_width(parts), _NETWORK_HEIGHT
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


@contextmanager
def _styled(size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of `size` inches, drawn in our style; the process's own settings are as before afterwards."""
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=size, layout="constrained")
