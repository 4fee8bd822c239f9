"""What the level in Redis answers, as plain values; known also where no Redis library is installed."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["MOST_PREFIXES", "Found", "Granted", "LeaseAnswer", "PrefixState", "Taken"]

MOST_PREFIXES: Final = 64
"""Invalidated prefixes that are told apart."""


class Found(msgspec.Struct, frozen=True):
    """The value was there after all."""

    payload: bytes


class Granted(msgspec.Struct, frozen=True):
    """This process loads the value.

    Attributes:
        lease: What shows that it may; begins with the fence, microseconds of the server's time.
    """

    lease: bytes

    @property
    def fence(self) -> int:
        """Grows from lease to lease of one key."""
        return int(self.lease.partition(b":")[0])


class Taken(msgspec.Struct, frozen=True):
    """Another process loads it.

    Attributes:
        left_us: When its lease ends, if it does not prolong it.
    """

    left_us: int


LeaseAnswer = Found | Granted | Taken
"""What came of asking for a lease."""


class PrefixState(msgspec.Struct, frozen=True, array_like=True):
    """What was invalidated by prefix.

    Attributes:
        version: The newest; values that are loaded now get it.
        prefixes: Version and prefix, oldest first: what begins so and has a lower version is void.
    """

    version: int
    prefixes: tuple[tuple[int, str], ...]
