"""What the memory level tells of itself."""

from __future__ import annotations

import enum

import msgspec

__all__ = ["L1Stats", "Pressure"]


class Pressure(enum.IntEnum):
    """How full the byte budget is."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2


class L1Stats(msgspec.Struct, frozen=True):
    """Plain integers for metrics.

    Attributes:
        entries, max_entries: Entries held, expired ones that were not come across yet included; the bound.
        used_bytes, max_bytes: The account, tables included; the budget.
        pressure: How full the budget is.
        hits, misses: Answers of `get`; an expired entry is a miss.
        admitted, refused: Puts that stored a value; puts that did not, for want of room.
        evicted: Entries given up for want of room.
        expired: Entries taken out because their time was over.
    """

    entries: int
    max_entries: int
    used_bytes: int
    max_bytes: int
    pressure: Pressure
    hits: int
    misses: int
    admitted: int
    refused: int
    evicted: int
    expired: int
