"""Sliding windows in a shared store: a lease is charged in the part of the window in which it ends.

Every spend of a lease falls in that part or earlier, so for any interval as long as the window the parts that are
summed at its last take hold all that was spent in it (`algorithms.sliding_window` has the rest of the argument).
"""

from __future__ import annotations

from ratelimit_service.algorithms import sliding_window
from ratelimit_service.algorithms.judgement import Judgement
from ratelimit_service.algorithms.sliding_window import SUB_BUCKETS
from ratelimit_service.quota.redis.twin_state import COUNT_LIMIT, NO_RESERVE, SlidingEntry, kept_until_us
from ratelimit_service.quota.takes import Ask


class SlidingCounter:
    """One sliding window; see `Counter`."""

    def __init__(self, mark: bytes, entry: SlidingEntry | None, ask: Ask, now_us: int) -> None:
        """Open it at `now_us`."""
        self._mark = mark
        self._opened = entry
        reached, parts, reserve = (entry.reached, entry.parts, entry.reserve) if entry else (-1, (), NO_RESERVE)
        self._now_us = now_us
        self._window_us = ask.limit.window_us
        self._width_us = sliding_window.part_width_us(self._window_us)
        self._reached = self.window = sliding_window.part_at(self._window_us, now_us, reached)
        self._parts = sliding_window.live(parts, self._reached)
        # The clock may be behind what was reached: time stands still until it has caught up.
        self._at_us = max(now_us, self._reached * self._width_us)
        kept = reserve.since((self._reached - SUB_BUCKETS) * self._width_us)
        self._reserve = kept.with_asked(ask.reserve if ask.lasting else 0, self._at_us)
        self.is_reserve_new = self._reserve.hits > kept.hits
        self._requests = max(0, ask.limit.requests - max(self._reserve.hits, ask.reserve))
        self.room = self._requests - self._total()

    def judge(self, hits: int) -> Judgement:
        """What the law says of `hits` now."""
        return sliding_window.judge(self._requests, self._window_us, self._parts, self._reached, hits, self._now_us)

    def full_us(self) -> int:
        """Until the newest part that holds anything has left."""
        if not self._parts:
            return 0
        return sliding_window.leaves_us(self._window_us, self._parts[-1][0]) - self._now_us

    def charge(self, hits: int, lease_us: int) -> None:
        """Count hits in the part in which the lease ends."""
        self.window = (self._at_us + self.spend_us(lease_us)) // self._width_us
        hits = min(hits, COUNT_LIMIT - self._total())
        if hits:
            counts = dict(self._parts)
            counts[self.window] = counts.get(self.window, 0) + hits
            self._put(tuple(sorted(counts.items())))

    def spend_us(self, lease_us: int) -> int:
        """The whole lease, at most a window: the part in which it ends is the one that was charged."""
        return min(lease_us, self._window_us)

    def give_back(self, hits: int) -> None:
        """Take hits out again, newest part first, never below 0."""
        self._put(sliding_window.give_back(self._parts, self._reached, hits))

    def give_back_to(self, window: int, hits: int) -> None:
        """Take hits out of one part, if it still counts."""
        left = ((part, count - hits if part == window else count) for part, count in self._parts)
        self._put(tuple((part, count) for part, count in left if count > 0))

    def entry(self) -> SlidingEntry:
        """What to keep."""
        newest = max(self._reached, *(part for part, _ in self._parts), 0)
        leaves_us = sliding_window.leaves_us(self._window_us, newest)
        until_us = kept_until_us(self._opened, leaves_us, self._window_us)
        return SlidingEntry(self._mark, until_us, self._reserve, self._reached, self._parts)

    def _total(self) -> int:
        return sum(count for _, count in self._parts)

    def _put(self, parts: sliding_window.State) -> None:
        self._parts = parts
        self.room = self._requests - self._total()
