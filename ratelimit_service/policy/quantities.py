"""Durations and quantities: text on the wire, integers inside."""

from __future__ import annotations

import re
from typing import Final

DURATION_PATTERN: Final = r"^([0-9]{1,7}(h|m|s|ms)){1,4}$"
"""What a duration looks like: `100ms`, `1m30s`, `8784h`; at most 24 characters."""

QUANTITY_PATTERN: Final = r"^[0-9]{1,16}(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"
"""What a quantity looks like: `200Mi`, `1G`, `4096`."""

MAX_DURATION_LENGTH: Final = 24
"""Longest text of a duration."""

_DURATION: Final = re.compile(DURATION_PATTERN[:-1] + r"\Z")
_PART: Final = re.compile(r"([0-9]+)(ms|h|m|s)")
_QUANTITY: Final = re.compile(r"([0-9]{1,16})(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?\Z")
_UNITS_US: Final = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
_UNITS_BYTES: Final = {
    **{f"{letter}i": 1 << (10 * power) for power, letter in enumerate("KMGTP", start=1)},
    **{letter: 1_000**power for power, letter in enumerate("kMGTP", start=1)},
    "": 1,
}
_BINARY: Final = ("Pi", "Ti", "Gi", "Mi", "Ki")


def duration_us(text: str) -> int | None:
    """Microseconds of a duration, None if it is none."""
    if len(text) > MAX_DURATION_LENGTH or _DURATION.match(text) is None:
        return None
    return sum(int(number) * _UNITS_US[unit] for number, unit in _PART.findall(text))


def duration_text(value_us: int) -> str:
    """The shortest duration text of a whole number of milliseconds: `1m30s`, `0ms`."""
    parts = []
    rest_us = value_us
    for unit, unit_us in _UNITS_US.items():
        count, rest_us = divmod(rest_us, unit_us)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0ms"


def quantity_bytes(text: str) -> int | None:
    """Bytes of a quantity, None if it is none."""
    match = _QUANTITY.match(text)
    return int(match[1]) * _UNITS_BYTES[match[2] or ""] if match else None


def quantity_text(value_bytes: int) -> str:
    """The shortest exact quantity text with a binary suffix: `200Mi`, `1000`."""
    for suffix in _BINARY:
        if value_bytes and value_bytes % _UNITS_BYTES[suffix] == 0:
            return f"{value_bytes // _UNITS_BYTES[suffix]}{suffix}"
    return str(value_bytes)
