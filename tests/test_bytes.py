"""Amounts of memory: what people write is what they mean, and what they read is true to three digits."""

from __future__ import annotations

from typing import Any

import pytest

from phinas.files.bytes import bytes_of, bytes_text
from phinas.files.errors import InputError


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("16GiB", 16 * 2**30),
        ("512 MiB", 512 * 2**20),
        (" 2gb ", 2 * 10**9),
        ("1.5TiB", 3 * 2**39),
        ("0.1 KiB", 102),
        ("100B", 100),
        ("7", 7),
        (7, 7),
        (1e9, 10**9),
        ("1e9", 10**9),
        ("2.5e3 kB", 2_500_000),
        (2**62 + 1, 2**62 + 1),
    ],
)
def test_amounts_are_read_exactly(value: Any, count: int) -> None:
    assert bytes_of(value) == count


@pytest.mark.parametrize(
    "value",
    ["", "GiB", "16 G", "lots", "-1GiB", "0", 0, 0.5, "1.2.3MB", "..", "nan", float("inf"), True, None, [1], "9e18 TB"],
)  # fmt: skip
def test_what_is_no_amount_is_one_line(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        bytes_of(value, "target_memory")
    assert str(caught.value) == (
        f"target_memory={value}: it must be an amount of memory: 16GiB, 512MiB, 2GB, or a number of bytes"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1000, "1,000 bytes"),
        (2**10, "1.00 KiB"),
        (3 * 2**29, "1.50 GiB"),
        (24 * 2**20, "24.0 MiB"),
        (2**20 - 1, "1.00 MiB"),
        (999 * 2**30, "999 GiB"),
        (5000 * 2**40, "5,000 TiB"),
    ],
)
def test_amounts_are_written_in_the_unit_that_fits(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_what_is_written_can_be_read_again() -> None:
    for exponent in range(1, 180):
        count = int(1.25**exponent)
        text = bytes_text(count).replace(",", "").replace("bytes", "B").replace("byte", "B")
        assert bytes_of(text) == pytest.approx(count, rel=0.006, abs=1)
