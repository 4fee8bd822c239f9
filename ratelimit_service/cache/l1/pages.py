"""A first-in-first-out queue of entries in pages, which can be searched bit by bit.

A `deque` can do neither of two things that a cache needs at a bounded cost: leave out what was deleted from its middle,
and look through itself a little at a time for what has expired. Here entries stand in lists of at least 128 when they
are closed. Deleted ones are marked `GONE`, passed over at the head, and dropped when a sweep comes to their page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from ratelimit_service.cache.entry import Entry
from ratelimit_service.cache.l1.eviction import GONE

__all__ = ["PAGE_ENTRIES", "Pages"]

T = TypeVar("T")

PAGE_ENTRIES: Final = 128

_PAGE_BYTES: Final = 56 + 8 * (PAGE_ENTRIES + PAGE_ENTRIES // 8) + 8
"""A list's header, its slots, grown as lists grow, and its own slot among the pages."""


class Pages(Generic[T]):
    """The queue.

    Attributes:
        head: The oldest page, its oldest entry last, so that `pop` takes the queue's oldest. Entries in it may be gone.
            When it is empty, `turn` brings the next one.
    """

    __slots__ = ("_cursor", "_pages", "_tail", "head")

    def __init__(self) -> None:
        self.head: list[Entry[T]] = []
        self._pages: deque[list[Entry[T]]] = deque()
        self._tail: list[Entry[T]] = []
        self._cursor = 0
        """The page that the next sweep looks at."""

    def append(self, entry: Entry[T]) -> None:
        """Put an entry at the end."""
        tail = self._tail
        tail.append(entry)
        if len(tail) >= PAGE_ENTRIES:
            self._pages.append(tail)
            self._tail = []

    def extend(self, entries: Iterable[Entry[T]]) -> None:
        """Put up to a page of entries at the end, in their order."""
        tail = self._tail
        tail.extend(entries)
        if len(tail) >= PAGE_ENTRIES:
            self._pages.append(tail)
            self._tail = []

    def turn(self) -> bool:
        """Replace the empty head by the next page; False if there is none."""
        if self._pages:
            self.head = self._pages.popleft()
            self._cursor = max(0, self._cursor - 1)
        elif self._tail:
            self.head, self._tail = self._tail, []
        else:
            return False
        self.head.reverse()
        return True

    def sweep(self, now_us: int) -> tuple[list[Entry[T]], bool]:
        """Look through one page: drop what is gone, take out and mark `GONE` what has expired by `now_us`.

        Returns:
            The expired entries, and whether this was the end of a round.
        """
        pages, index = self._pages, self._cursor
        if index >= len(pages):
            # The page being emptied and the one being filled are looked at together, at the end of each round.
            self._cursor = 0
            self.head, expired = _sift(self.head, now_us)
            self._tail, others = _sift(self._tail, now_us)
            return expired + others, True
        kept, expired = _sift(pages[index], now_us)
        following = index + 1
        if following < len(pages) and len(kept) + len(pages[following]) <= PAGE_ENTRIES:
            # Two thin pages become one, which is looked at again for the sake of its second half.
            pages[following] = kept + pages[following]
            del pages[index]
        elif kept:
            pages[index] = kept
            self._cursor = following
        else:
            del pages[index]
        return expired, False

    def structure_bytes(self) -> int:
        """Memory of the pages, as if each was full."""
        return (len(self._pages) + 2) * _PAGE_BYTES


def _sift(page: list[Entry[T]], now_us: int) -> tuple[list[Entry[T]], list[Entry[T]]]:
    """What stays of a page, and what has expired, now marked as gone."""
    kept = [entry for entry in page if entry.expires_us > now_us and entry.marks != GONE]
    if len(kept) == len(page):
        return page, []
    expired = [entry for entry in page if entry.expires_us <= now_us and entry.marks != GONE]
    for entry in expired:
        entry.marks = GONE
    return kept, expired
