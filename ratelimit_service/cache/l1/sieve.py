"""SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is simpler than LRU", NSDI 2024).

One queue and a hand. The hand goes from the oldest entry towards the newest; it clears the mark of an entry that was
asked for, and the first one without a mark goes. What survives keeps its place, so the hand soon walks among the new.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

from ratelimit_service.cache.entry import Entry
from ratelimit_service.cache.l1.eviction import ASKED, GONE
from ratelimit_service.cache.l1.pages import Pages

__all__ = ["Sieve"]

T = TypeVar("T")


class Sieve(Generic[T]):
    """See `Order`. The queue is kept in two parts: what the hand has passed, and what it has not.

    A hand that passed the newest entry goes on to newer ones if some have come by the time it is to move, and begins
    again at the oldest if not; in the paper it begins again either way.
    """

    __slots__ = ("_ahead", "_behind", "_sweeps_behind", "arrivals", "entries", "leaves_slots", "touch")

    def __init__(self) -> None:
        self.entries: dict[str, Entry[T]] = {}
        self.arrivals: list[Entry[T]] = []
        self.leaves_slots = False
        self.touch: Callable[[str], None] | None = None
        self._ahead: Pages[T] = Pages()
        self._behind: Pages[T] = Pages()
        self._sweeps_behind = False

    def settle(self) -> None:
        """Put what is new at the newest end."""
        self._ahead.extend(self.arrivals)
        self.arrivals.clear()

    def evict(self, count: int) -> int:
        """Move the hand to the next entry without a mark, and take that one out; `count` times."""
        self.settle()
        entries, ahead = self.entries, self._ahead
        left = len(entries)
        freed_bytes = 0
        while count > 0 and left > 0:
            if not ahead.head:
                if not ahead.turn():
                    # Past the newest: the hand begins again at the oldest.
                    self._ahead, self._behind = self._behind, ahead
                    ahead = self._ahead
                continue
            entry = ahead.head.pop()
            marks = entry.marks
            if marks >= ASKED:
                entry.marks = 0
                self._behind.append(entry)
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
        """Look through a page of the one part, then of the other."""
        self.settle()
        sweeps_behind = self._sweeps_behind
        expired, is_end = (self._behind if sweeps_behind else self._ahead).sweep(now_us)
        self._sweeps_behind = sweeps_behind is not is_end
        for entry in expired:
            del self.entries[entry.key]
        return expired, is_end and sweeps_behind

    def structure_bytes(self) -> int:
        """Memory of the table and the queue."""
        return sys.getsizeof(self.entries) + self._ahead.structure_bytes() + self._behind.structure_bytes()
