"""Amounts of memory as people write and read them: `16GiB`, `512 MiB`, `2GB`."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from phinas.files.errors import InputError

_UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_AMOUNT = re.compile(r"\s*([\d.]+(?:e[+-]?\d{1,2})?)\s*([a-z]*)\s*", re.IGNORECASE)


def bytes_of(value: Any, name: str = "memory") -> int:
    """The bytes that `value` says: a number of bytes, or text with a unit, in powers of 1000 (2GB) or 1024 (16GiB).

    Without a unit it is bytes (1e9). A fraction of a byte is left out. Raises InputError, naming the setting `name`,
    for all else and for less than one byte.
    """
    match = None if isinstance(value, bool) else _AMOUNT.fullmatch(str(value))
    if match and (match[2] or "b").lower() in _UNITS:
        try:
            count = int(Decimal(match[1]) * _UNITS[(match[2] or "b").lower()])
        except InvalidOperation:  # 1.2.3
            count = 0
        if 1 <= count < 2**63:
            return count
    raise InputError(f"{name}={value}: it must be an amount of memory: 16GiB, 512MiB, 2GB, or a number of bytes")


def bytes_text(count: int) -> str:
    """`1.50 GiB`, `24.0 MiB`, `512 KiB`, `100 bytes`: three digits in the largest unit of 1024 that fits."""
    for unit, suffix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= 0.9995 * unit:
            amount = count / unit
            return f"{amount:,.{0 if amount >= 99.95 else 1 if amount >= 9.995 else 2}f} {suffix}"
    return f"{count:,} byte{'' if count == 1 else 's'}"
