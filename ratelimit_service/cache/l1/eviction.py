"""What an eviction policy is, and which there are."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from ratelimit_service.cache.entry import Entry

__all__ = ["ASKED", "GONE", "Eviction", "Order"]

T = TypeVar("T")

ASKED: Final = 4
"""What a hit adds to `Entry.marks` that are below it: the entry was asked for since the policy last came by.

Lower marks are the policy's own, 0 for an entry that it has not seen yet.
"""

GONE: Final = -1
"""`Entry.marks` of an entry that was taken out; queues drop it when they come to it."""


class Eviction(enum.Enum):
    """Which entry goes when there is no room.

    Attributes:
        S3FIFO: A small queue for what is new, a main queue for what was asked for again, a memory of what went.
        SIEVE: One queue and a hand that takes the first entry not asked for since it last passed.
        CLOCK: One ring; entries asked for since the hand last passed get a second chance.
        LRU: The one not asked for the longest.
    """

    S3FIFO = "s3-fifo"
    SIEVE = "sieve"
    CLOCK = "clock"
    LRU = "lru"


class Order(Protocol[T]):
    """Entries, and the order in which they go.

    New entries are put into `entries` and `arrivals` by the level itself, hits set `ASKED` in an entry's marks, and
    that is all that happens in a put or a get. The policy does its work in batches, which makes each entry cheaper, and
    by the same rules: arrivals are taken in, in their order, before anything goes.

    Attributes:
        entries: All entries by key.
        arrivals: Entries since `settle` was last called, in order.
        leaves_slots: Evicted entries stay in a queue until a sweep drops them, as removed ones do in all policies.
        touch: Called with the key at every hit, by policies that marks are not enough for; else None.
    """

    entries: dict[str, Entry[T]]
    arrivals: list[Entry[T]]
    leaves_slots: bool
    touch: Callable[[str], None] | None

    def settle(self) -> None:
        """Take the arrivals in. `evict` and `sweep` do it first thing."""

    def evict(self, count: int) -> int:
        """Take out the `count` entries that should go next, or all there are; return their bytes."""

    def remove(self, entry: Entry[T]) -> None:
        """Take out an entry that is in, for another reason than want of room."""

    def sweep(self, now_us: int) -> tuple[list[Entry[T]], bool]:
        """Go through the next 128 entries or so, and take out those that have expired by `now_us`.

        Returns:
            The expired entries, and whether a round ends here: between two ends, every entry was looked at that was
            there all the time.
        """

    def structure_bytes(self) -> int:
        """Memory of table and queues, entries not included."""
