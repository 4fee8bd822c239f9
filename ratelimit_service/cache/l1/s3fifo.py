"""S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak, "FIFO queues are all you need for cache eviction", SOSP 2023).

New entries stand in a small queue. Those asked for while they stand there move to the main queue, the others go, and
their keys are remembered; a remembered key that comes back goes straight to the main queue. At the main queue's head
an entry that was asked for since it last came by goes round again, any other goes.

Four numbers differ from the paper's, each for a better hit ratio on the traces of `bench_cache_l1`: the small queue is
a quarter and not a tenth (a shift of popularity costs 2 points less), one hit takes an entry to the main queue and not
two (Zipf 0.8: 2 points more), an entry goes round the main queue once per visit and not up to three times (gradual
shifts: 2 points more), and the memory forgets
at random (`Ghosts`) rather than in order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ratelimit_service.cache.entry import Entry
from ratelimit_service.cache.l1.eviction import ASKED, GONE
from ratelimit_service.cache.l1.ghosts import Ghosts
from ratelimit_service.cache.l1.pages import Pages

__all__ = ["GHOSTS_PERCENT", "SMALL_SHARE", "S3Fifo"]

T = TypeVar("T")

SMALL_SHARE: Final = 4
"""The small queue gives entries away while it holds one in four or more."""

GHOSTS_PERCENT: Final = 120
"""Keys remembered, of the entries that the cache may hold."""

IN_MAIN: Final = 1
"""`Entry.marks` of an entry in the main queue, `ASKED` aside; others have 0."""


class S3Fifo(Generic[T]):
    """See `Order`.

    Args:
        max_entries: What the cache may hold; fixes the size of the memory of evicted keys.
    """

    __slots__ = (
        "_ghosts",
        "_main",
        "_small",
        "_small_entries",
        "_sweeps_main",
        "arrivals",
        "entries",
        "leaves_slots",
        "touch",
    )

    def __init__(self, max_entries: int) -> None:
        self.entries: dict[str, Entry[T]] = {}
        self.arrivals: list[Entry[T]] = []
        self.leaves_slots = False
        self.touch: Callable[[str], None] | None = None
        self._small: Pages[T] = Pages()
        self._main: Pages[T] = Pages()
        self._small_entries = 0
        self._ghosts = Ghosts(max_entries * GHOSTS_PERCENT // 100)
        self._sweeps_main = False

    def settle(self) -> None:
        """Put what is new into the small queue, or, if it went lately, into the main one."""
        fresh: list[Entry[T]] = self.arrivals
        slots, mask = self._ghosts.slots, self._ghosts.mask
        if slots:
            known = [entry for entry in fresh if slots[(number := hash(entry.key)) & mask] == number]
            if known:
                known = [entry for entry in known if entry.marks != GONE]
                for entry in known:
                    entry.marks += IN_MAIN
                    self._ghosts.forget(entry.key)
                self._main.extend(known)
                fresh = [entry for entry in fresh if entry.marks == GONE or not entry.marks & IN_MAIN]
        # One that is gone already was taken off by `remove`, so it counts here.
        self._small_entries += len(fresh)
        self._small.extend(fresh)
        self.arrivals.clear()

    def evict(self, count: int) -> int:
        """Empty the small queue's head while it holds its share or more, then the main queue's."""
        self.settle()
        self._ghosts.begin()
        entries, small, main = self.entries, self._small, self._main
        slots, mask = self._ghosts.slots, self._ghosts.mask
        left = len(entries)
        # Not below zero while the small queue has its share: every entry in it counts SMALL_SHARE, every entry takes 1.
        excess = self._small_entries * SMALL_SHARE - left
        freed_bytes = 0
        while count > 0 and left > 0:
            is_small = excess >= 0
            queue = small if is_small else main
            head = queue.head
            if not head:
                if not queue.turn():
                    break
                head = queue.head
            entry = head.pop()
            marks = entry.marks
            if marks >= ASKED:
                entry.marks = IN_MAIN
                main.append(entry)
                if is_small:
                    excess -= SMALL_SHARE
                continue
            if marks == GONE:
                continue
            key = entry.key
            if is_small:
                excess += 1 - SMALL_SHARE
                number = hash(key)
                slots[number & mask] = number
            else:
                excess += 1
            entry.marks = GONE
            del entries[key]
            freed_bytes += entry.size_bytes
            left -= 1
            count -= 1
        self._small_entries = (excess + left) // SMALL_SHARE
        return freed_bytes

    def remove(self, entry: Entry[T]) -> None:
        """Take an entry out."""
        if not entry.marks & IN_MAIN:
            self._small_entries -= 1
        del self.entries[entry.key]
        entry.marks = GONE

    def sweep(self, now_us: int) -> tuple[list[Entry[T]], bool]:
        """Look through a page of the one queue, then of the other."""
        self.settle()
        sweeps_main = self._sweeps_main
        expired, is_end = (self._main if sweeps_main else self._small).sweep(now_us)
        if not sweeps_main:
            self._small_entries -= len(expired)
        self._sweeps_main = sweeps_main is not is_end
        for entry in expired:
            del self.entries[entry.key]
        return expired, is_end and sweeps_main

    def structure_bytes(self) -> int:
        """Memory of the table, the queues and the memory of keys."""
        queues = self._small.structure_bytes() + self._main.structure_bytes()
        return sys.getsizeof(self.entries) + queues + self._ghosts.structure_bytes()
