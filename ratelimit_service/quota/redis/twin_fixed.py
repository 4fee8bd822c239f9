"""Fixed and calendar windows in a shared store.

A take is charged in the window of the store's clock, and its grant may be spent until that window ends: the sum of
all grants of a window is at most the limit. The window never goes back, so a clock that does re-opens none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ratelimit_service.algorithms import fixed_window
from ratelimit_service.algorithms.fixed_window import Window
from ratelimit_service.algorithms.judgement import Judgement
from ratelimit_service.quota.redis.twin_state import COUNT_LIMIT, NO_RESERVE, FixedEntry, kept_until_us
from ratelimit_service.quota.takes import Ask


class WindowUnknownError(Exception):
    """The caller's list of calendar windows does not hold the store's time; it asks again with better ones."""


LISTED: Final = 4
"""Calendar windows that a caller lists: the one before its own, its own, and the two after it."""


def window_of(ask: Ask, listed: Sequence[Window], now_us: int, start_us: int) -> Window:
    """The window that counts when the store's clock says `now_us` and the window of `start_us` was reached.

    Raises:
        WindowUnknownError: A calendar's window is not in the list.
    """
    at_us = max(now_us, start_us)
    if ask.limit.calendar is None:
        return fixed_window.window_at(ask.limit.window_us, at_us)
    for window in listed:
        if window.start_us <= at_us < window.end_us:
            return window
    raise WindowUnknownError


class FixedCounter:
    """One fixed window; see `Counter`."""

    def __init__(self, mark: bytes, entry: FixedEntry | None, ask: Ask, listed: Sequence[Window], now_us: int) -> None:
        """Open it at `now_us`.

        Raises:
            WindowUnknownError: See `window_of`.
        """
        self._mark = mark
        start_us, count, reserve = (entry.start_us, entry.count, entry.reserve) if entry else (-1, 0, NO_RESERVE)
        window = window_of(ask, listed, now_us, start_us)
        if window.start_us > start_us:
            start_us, count = window.start_us, 0
        self.window = start_us
        self._count = count
        self._until_us = kept_until_us(entry, window.end_us, window.end_us - window.start_us)
        kept = reserve.since(start_us)
        # The clock may be behind: what is asked for now is asked for in the window that was reached.
        self._reserve = kept.with_asked(ask.reserve if ask.lasting else 0, max(now_us, start_us))
        self.is_reserve_new = self._reserve.hits > kept.hits
        self._until_end_us = window.end_us - now_us
        self._requests = max(0, ask.limit.requests - max(self._reserve.hits, ask.reserve))
        self.room = self._requests - count

    def judge(self, hits: int) -> Judgement:
        """What the law says of `hits` now."""
        return fixed_window.judge(self._requests, self._count, hits, self._until_end_us)

    def full_us(self) -> int:
        """Until the window ends, if it holds anything."""
        return self._until_end_us if self._count else 0

    def charge(self, hits: int, lease_us: int) -> None:
        """Count hits."""
        self._put(min(self._count + hits, COUNT_LIMIT))

    def spend_us(self, lease_us: int) -> int:
        """Until the window ends, at the most."""
        return min(lease_us, self._until_end_us)

    def give_back(self, hits: int) -> None:
        """Take hits out again, never below 0."""
        self._put(fixed_window.give_back(self._count, hits))

    def give_back_to(self, window: int, hits: int) -> None:
        """Take hits out again if the window is still this one."""
        if window == self.window:
            self.give_back(hits)

    def entry(self) -> FixedEntry:
        """What to keep."""
        return FixedEntry(self._mark, self._until_us, self._reserve, self.window, self._count)

    def _put(self, count: int) -> None:
        self._count = count
        self.room = self._requests - count
