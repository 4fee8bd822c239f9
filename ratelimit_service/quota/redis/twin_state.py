"""What a shared store keeps of one counted key, as values; `packing` writes the same as bytes.

All limits of a rule are one state, so that several limits are one atomic step. Times are microseconds of the
store's clock. Every number stays below 2**53, because scripts in Redis count in doubles.
"""

from __future__ import annotations

import functools
from hashlib import blake2b
from typing import Final

import msgspec

COUNT_LIMIT: Final = 2**48 - 1
"""Where counts of windows saturate: far beyond any limit, and six bytes."""

BACKLOG_LIMIT: Final = 2**52
"""Where the backlog of a bucket saturates, in its units: at least 71 minutes of debt, mostly 142 years."""

MARK_BYTES: Final = 8
"""Length of the mark that tells the limits of one counted key apart."""


@functools.lru_cache(maxsize=65_536)
def mark_of(identity: bytes) -> bytes:
    """The short name of a limit inside the state of a counted key: a digest of its identity."""
    return blake2b(identity, digest_size=MARK_BYTES, person=b"tidegate-mark").digest()


class Reserve(msgspec.Struct, frozen=True, gc=False):
    """The greatest reserve that was in force in the window (DECISIONS 14).

    Attributes:
        hits: That reserve; 0: none.
        at_us: When it was last asked for.
    """

    hits: int = 0
    at_us: int = 0

    def since(self, horizon_us: int) -> Reserve:
        """What is left of it in a window that began at `horizon_us`."""
        return self if self.hits and self.at_us >= horizon_us else NO_RESERVE

    def with_asked(self, hits: int, now_us: int) -> Reserve:
        """The reserve once `hits` are in force; a smaller one leaves the greater until its window is over."""
        return Reserve(hits, now_us) if hits and hits >= self.hits else self


NO_RESERVE: Final = Reserve()


class FixedEntry(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A fixed or calendar window.

    Attributes:
        mark: Whose it is (`mark_of`).
        until_us: From then on it may be forgotten.
        reserve: See `Reserve`.
        start_us: The latest window reached, by its first instant; never goes back.
        count: Hits charged in it.
    """

    mark: bytes
    until_us: int
    reserve: Reserve
    start_us: int
    count: int


class SlidingEntry(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A sliding window.

    Attributes:
        mark, until_us, reserve: As in `FixedEntry`.
        reached: The latest part that the store's clock had reached at a charge; never goes back.
        parts: (part, count), oldest first; those of leases may lie ahead of `reached`.
    """

    mark: bytes
    until_us: int
    reserve: Reserve
    reached: int
    parts: tuple[tuple[int, int], ...]


class BucketEntry(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A token bucket: its arrival time, as the backlog at the latest charge.

    Attributes:
        mark, until_us, reserve: As in `FixedEntry`.
        at_us: When it was last charged; never goes back.
        backlog: What had to drain then until the bucket was full, in units of 2**-shift µs.
        interval, shift: The rate of that charge (`token_bucket.Rate`).
    """

    mark: bytes
    until_us: int
    reserve: Reserve
    at_us: int
    backlog: int
    interval: int
    shift: int


Entry = FixedEntry | SlidingEntry | BucketEntry


class State(msgspec.Struct, frozen=True, gc=False):
    """One counted key.

    Attributes:
        epoch: How often it was reset.
        number: Of the latest take or spend: greater than any before it and at least the store's time then, so that
            numbers never come again after a state was forgotten.
        entries: Its limits, each mark once.
    """

    epoch: int
    number: int
    entries: tuple[Entry, ...]

    @property
    def until_us(self) -> int:
        """From then on the state may be forgotten: a new one would answer the same."""
        return max((entry.until_us for entry in self.entries), default=0)

    def entry(self, mark: bytes) -> Entry | None:
        """The limit with that mark."""
        return next((entry for entry in self.entries if entry.mark == mark), None)


def grace_us(window_us: int) -> int:
    """How long a state is kept when nothing counts in it any more, so that a clock that steps back finds it."""
    return min(max(window_us, 5_000_000), 60_000_000)


def kept_until_us(entry: Entry | None, counts_until_us: int, window_us: int) -> int:
    """Until when to keep a limit whose counts matter until `counts_until_us`.

    The grace is added twice where what was kept does not suffice, so that the time to live of a key in Redis need
    not be set at every charge: that is half of what a charge costs.
    """
    needed_us = counts_until_us + grace_us(window_us)
    if entry is not None and entry.until_us >= needed_us:
        return entry.until_us
    return needed_us + grace_us(window_us)
