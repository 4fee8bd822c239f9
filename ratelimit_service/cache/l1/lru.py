"""LRU: the entry that was not asked for the longest goes.

The one policy that has to do something at every hit. Its order is that of an `OrderedDict`; a queue beside it, in order
of arrival, is there for sweeps only.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from ratelimit_service.cache.entry import Entry
from ratelimit_service.cache.l1.eviction import GONE
from ratelimit_service.cache.l1.pages import Pages

__all__ = ["Lru"]

T = TypeVar("T")


class Lru(Generic[T]):
    """See `Order`."""

    __slots__ = ("_by_use", "_settled", "arrivals", "entries", "leaves_slots", "touch")

    def __init__(self) -> None:
        self._by_use: OrderedDict[str, Entry[T]] = OrderedDict()
        self.entries: dict[str, Entry[T]] = self._by_use
        self.touch: Callable[[str], None] | None = self._by_use.move_to_end
        self.arrivals: list[Entry[T]] = []
        self.leaves_slots = True
        self._settled: Pages[T] = Pages()

    def settle(self) -> None:
        """Put what is new where sweeps come by."""
        self._settled.extend(self.arrivals)
        self.arrivals.clear()

    def evict(self, count: int) -> int:
        """Take out the entry that was not asked for the longest; `count` times."""
        self.settle()
        freed_bytes = 0
        for _ in range(min(count, len(self._by_use))):
            entry = self._by_use.popitem(last=False)[1]
            entry.marks = GONE
            freed_bytes += entry.size_bytes
        return freed_bytes

    def remove(self, entry: Entry[T]) -> None:
        """Take an entry out."""
        del self._by_use[entry.key]
        entry.marks = GONE

    def sweep(self, now_us: int) -> tuple[list[Entry[T]], bool]:
        """Look through a page, in order of arrival."""
        self.settle()
        expired, is_end = self._settled.sweep(now_us)
        for entry in expired:
            del self._by_use[entry.key]
        return expired, is_end

    def structure_bytes(self) -> int:
        """Memory of the table, which includes the order, and of the queue."""
        return sys.getsizeof(self._by_use) + self._settled.structure_bytes()
