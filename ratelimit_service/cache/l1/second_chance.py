"""CLOCK (Corbató, "A paging experiment with the Multics system", 1968), written as FIFO with a second chance.

One queue. At its head, an entry that was asked for since it last came by goes to the end again, any other goes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

from ratelimit_service.cache.entry import Entry
from ratelimit_service.cache.l1.eviction import ASKED, GONE
from ratelimit_service.cache.l1.pages import Pages

__all__ = ["SecondChance"]

T = TypeVar("T")


class SecondChance(Generic[T]):
    """See `Order`."""

    __slots__ = ("_ring", "arrivals", "entries", "leaves_slots", "touch")

    def __init__(self) -> None:
        self.entries: dict[str, Entry[T]] = {}
        self.arrivals: list[Entry[T]] = []
        self.leaves_slots = False
        self.touch: Callable[[str], None] | None = None
        self._ring: Pages[T] = Pages()

    def settle(self) -> None:
        """Put what is new at the end."""
        self._ring.extend(self.arrivals)
        self.arrivals.clear()

    def evict(self, count: int) -> int:
        """Take out the first entry without a mark; `count` times."""
        self.settle()
        entries, ring = self.entries, self._ring
        left = len(entries)
        freed_bytes = 0
        while count > 0 and left > 0:
            if not ring.head and not ring.turn():
                break
            entry = ring.head.pop()
            marks = entry.marks
            if marks >= ASKED:
                entry.marks = 0
                ring.append(entry)
            elif marks != GONE:
                entry.marks = GONE
                del entries[entry.key]
                freed_bytes += entry.size_bytes
                left -= 1
                count -= 1
        return freed_bytes

    def remove(self, entry: Entry[T]) -> None:
        """Take an entry out."""
        del self.entries[entry.key]
        entry.marks = GONE

    def sweep(self, now_us: int) -> tuple[list[Entry[T]], bool]:
        """Look through a page of the ring."""
        self.settle()
        expired, is_end = self._ring.sweep(now_us)
        for entry in expired:
            del self.entries[entry.key]
        return expired, is_end

    def structure_bytes(self) -> int:
        """Memory of the table and the ring."""
        return sys.getsizeof(self.entries) + self._ring.structure_bytes()
