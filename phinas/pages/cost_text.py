"""The costs of a network by name, as people read them."""

from __future__ import annotations

_COUNTS = {"macs": "MACs", "params": "parameters", "activations": "activations"}
_UNITS = {"latency": (1e3, "ms"), "throughput": (1.0, "images/s")}  # by the name up to its first underscore


def macs_text(macs: float) -> str:
    """Both units, as people mean either: `400M MACs (0.80 GFLOPs)`; a FLOP count is twice the multiply-adds."""
    if macs >= 1e7:
        return f"{macs / 1e6:,.0f}M MACs ({2 * macs / 1e9:.2f} GFLOPs)"
    if macs >= 1e6:
        return f"{macs / 1e6:.1f}M MACs ({2 * macs / 1e6:.1f} MFLOPs)"
    return f"{macs / 1e3:.0f}k MACs ({2 * macs / 1e6:.2f} MFLOPs)"


def cost_title(name: str) -> str:
    """What the cost is called within a sentence: `MACs`, `latency`, `throughput a100`."""
    return _COUNTS.get(name, name.replace("_", " "))


def cost_unit(name: str) -> tuple[float, str]:
    """(factor, unit): the cost times the factor is in the unit that people read; (1, "") where there is none."""
    return _UNITS.get(name.split("_")[0], (1.0, ""))


def cost_text(name: str, value: float) -> str:
    """The cost as people read it: `400M MACs (0.80 GFLOPs)`, `5.29M parameters`, `12.3 ms`, `1,240 images/s`."""
    if name == "macs":
        return macs_text(value)
    if name in _COUNTS:
        return f"{value / 1e6:.2f}M {_COUNTS[name]}"
    factor, unit = cost_unit(name)
    return f"{_three_digits(value * factor)} {unit or cost_title(name)}"


def cost_short(name: str, value: float) -> str:
    """The cost in a table or at an axis, under a heading that names it: `386M`, `12.3 ms`, `1,240 images/s`."""
    if name in _COUNTS:
        for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= 0.9995 * unit:
                return f"{_three_digits(value / unit)}{suffix}"
    factor, unit_text = cost_unit(name)
    return f"{_three_digits(value * factor)} {unit_text}".rstrip()


def _three_digits(value: float) -> str:
    """`1,240`, `386`, `12.3`, `6.00`; beyond what fits so, in powers of ten."""
    if not 0.1 <= value < 1e9:
        return f"{value:.3g}"
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
