"""Sliding windows in memory: a total by key, and for each part of the window what was counted in it.

A part that leaves the window is subtracted from the totals: in slices by `reclaim` and by the calls that follow,
and for a key that is met before that, at once. So the sum is always the law's (`sliding_window`), a request costs
two look-ups whatever the number of parts, and a sparse key holds one small entry for each part that it was seen in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from ratelimit_service.algorithms.judgement import COUNT_MAX
from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.algorithms.sliding_window import SUB_BUCKETS, part_width_us
from ratelimit_service.quota.store import NEVER_US, Outcome

_KEY_BYTES: Final = 33 + 42
"""Beside its text: a bytes header and its place among the totals; small counts are shared."""
_ENTRY_BYTES: Final = 38
"""A key's place in one part; the text is shared."""
_DRAINED_PER_CALL: Final = 2
"""Entries that a call drops of those that left the window; it makes at most one."""


class _Part:
    """What was counted in one part of the window."""

    __slots__ = ("counts", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: dict[bytes, int] = {}


class SlidingLedger:
    """Counts of one identity with sliding windows of one length."""

    __slots__ = ("_current", "_end_us", "_entries", "_leaving", "_parts", "_text_bytes", "_totals", "_width_us")

    def __init__(self, limit: Limit) -> None:
        self._width_us = part_width_us(limit.window_us)
        self._totals: dict[bytes, int] = {}
        # Parts that count, oldest first; the last is `_current`. Parts in which nothing was counted are not here.
        self._parts: deque[_Part] = deque()
        self._leaving: deque[_Part] = deque()
        self._current = _Part(-1)
        self._end_us = 0
        self._entries = 0
        self._text_bytes = 0

    def _turn(self, wall_us: int) -> None:
        """Begin the part that holds `wall_us`; parts that are too old leave."""
        number = wall_us // self._width_us
        self._current = _Part(number)
        if self._parts and not self._parts[-1].counts:
            self._parts.pop()
        self._parts.append(self._current)
        self._end_us = (number + 1) * self._width_us
        while self._parts[0].number < number - SUB_BUCKETS:
            self._leaving.append(self._parts.popleft())

    def _used(self, key: bytes) -> int:
        """What counts for the key now, once what left the window has been subtracted."""
        if self._leaving:
            # Each call drops more entries than it can make, so that those that left never pile up.
            self._drain(_DRAINED_PER_CALL)
            for part in self._leaving:
                gone = part.counts.pop(key, 0)
                if gone:
                    self._entries -= 1
                    self._put(key, self._totals[key] - gone)
        return self._totals.get(key, 0)

    def _drain(self, budget: int) -> int:
        """Subtract up to `budget` entries that left the window; how many."""
        seen = 0
        while self._leaving and seen < budget:
            counts = self._leaving[0].counts
            count = min(len(counts), budget - seen)
            for _ in range(count):
                key, gone = counts.popitem()
                self._put(key, self._totals[key] - gone)
            self._entries -= count
            seen += count
            if not counts:
                self._leaving.popleft()
        return seen

    def _put(self, key: bytes, total: int) -> None:
        if total:
            self._totals[key] = total
        else:
            del self._totals[key]
            self._text_bytes -= len(key)

    def take(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge, and count the hits if they fit."""
        wall_us = now.wall_us
        if wall_us >= self._end_us:
            self._turn(wall_us)
        used = self._used(key) if self._leaving else self._totals.get(key, 0)
        left = limit.requests - used
        # The same law as `sliding_window.judge`; written out because this is every request's path.
        if hits > left or left < 1:
            return Outcome(True, 0, self._wait_us(limit, key, hits, left, wall_us), used)
        if not hits:
            return Outcome(False, left, self._full_us(key, wall_us) if used else 0, used)
        counts = self._current.counts
        before = counts.get(key)
        if before is None:
            self._entries += 1
            counts[key] = hits
            if not used:
                self._text_bytes += len(key)
        else:
            counts[key] = before + hits
        self._totals[key] = used + hits
        return Outcome(False, left - hits, self._end_us + SUB_BUCKETS * self._width_us - wall_us, used)

    def _wait_us(self, limit: Limit, key: bytes, hits: int, left: int, wall_us: int) -> int:
        """Until enough parts have left for `hits` to fit."""
        wanted = hits or 1
        if wanted > limit.requests:
            return NEVER_US
        part, parts = self._current, iter(self._parts)
        while left < wanted:
            part = next(parts)
            left += part.counts.get(key, 0)
        return (part.number + SUB_BUCKETS + 1) * self._width_us - wall_us

    def _full_us(self, key: bytes, wall_us: int) -> int:
        """Until the newest part that holds `key` has left."""
        newest = next(part for part in reversed(self._parts) if key in part.counts)
        return (newest.number + SUB_BUCKETS + 1) * self._width_us - wall_us

    def judge(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge; change no count."""
        wall_us = now.wall_us
        if wall_us >= self._end_us:
            self._turn(wall_us)
        used = self._used(key)
        left = limit.requests - used
        if hits > left or left < 1:
            return Outcome(True, 0, self._wait_us(limit, key, hits, left, wall_us), used)
        if hits:
            return Outcome(False, left - hits, self._end_us + SUB_BUCKETS * self._width_us - wall_us, used)
        return Outcome(False, left, self._full_us(key, wall_us) if used else 0, used)

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Count the hits, whether or not they fit; saturates."""
        if now.wall_us >= self._end_us:
            self._turn(now.wall_us)
        used = self._used(key)
        hits = min(hits, COUNT_MAX - used)
        if hits > 0:
            counts = self._current.counts
            if key not in counts:
                self._entries += 1
            if not used:
                self._text_bytes += len(key)
            counts[key] = counts.get(key, 0) + hits
            self._totals[key] = used + hits

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Take hits out again, newest first, never below 0."""
        if now.wall_us >= self._end_us:
            self._turn(now.wall_us)
        total = self._used(key)
        for part in reversed(self._parts):
            if not total or not hits:
                return
            count = part.counts.get(key, 0)
            if count:
                out = min(count, hits)
                if out == count:
                    del part.counts[key]
                    self._entries -= 1
                else:
                    part.counts[key] = count - out
                hits -= out
                total -= out
                self._put(key, total)

    def holds(self, key: bytes) -> bool:
        """Say whether the key has a count of its own."""
        return key in self._totals

    def forget(self, key: bytes) -> bool:
        """Drop the key; say whether it was there."""
        if self._totals.pop(key, None) is None:
            return False
        self._text_bytes -= len(key)
        for parts in (self._parts, self._leaving):
            for part in parts:
                if part.counts.pop(key, None) is not None:
                    self._entries -= 1
        return True

    def reclaim(self, now: Instant, budget: int) -> int:
        """Drop up to `budget` counts of parts that left the window, and keys with none left; return how many."""
        if now.wall_us >= self._end_us and self._parts:
            self._turn(now.wall_us)
        return self._drain(budget)

    def keys(self, start: int, count: int) -> Sequence[bytes]:
        """List up to `count` live keys from the `start`-th on."""
        return list(islice(self._totals, start, start + count))

    def __len__(self) -> int:
        return len(self._totals)

    @property
    def listed(self) -> int:
        """Count the keys, as `len` does."""
        return len(self._totals)

    @property
    def bytes_used(self) -> int:
        """Estimated memory of the keys, bytes."""
        return self._text_bytes + _KEY_BYTES * len(self._totals) + _ENTRY_BYTES * self._entries
