"""Fixed windows in memory: one dictionary of counts for the current window.

All keys of an identity share their windows, so a window that ends takes its dictionary with it: expiry costs
nothing on the request path, and `reclaim` empties the old dictionaries in slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from ratelimit_service.algorithms import calendar_window, fixed_window
from ratelimit_service.algorithms.fixed_window import Window
from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.quota.store import NEVER_US, Outcome

_KEY_BYTES: Final = 33 + 42
"""Beside its text: a bytes header and its place in the dictionary (28 to 56 as that fills); small counts are shared."""
_ABSENT: Final = -1


class FixedLedger:
    """Counts of one identity with windows of one length, or of a calendar."""

    __slots__ = ("_calendar", "_counts", "_end_us", "_leaving", "_text_bytes", "_window_us")

    def __init__(self, limit: Limit) -> None:
        self._window_us = limit.window_us
        self._calendar = limit.calendar
        self._counts: dict[bytes, int] = {}
        self._end_us = 0
        self._leaving: list[dict[bytes, int]] = []
        self._text_bytes = 0

    def _window(self, wall_us: int) -> Window:
        if self._calendar is None:
            return fixed_window.window_at(self._window_us, wall_us)
        return calendar_window.window_at(self._calendar, wall_us)

    def _turn(self, wall_us: int) -> None:
        """Begin the window that holds `wall_us`; the one before leaves."""
        if self._counts:
            self._leaving.append(self._counts)
            self._counts = {}
        self._end_us = self._window(wall_us).end_us

    def take(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge, and count the hits if they fit."""
        wall_us = now.wall_us
        if wall_us >= self._end_us:
            self._turn(wall_us)
        counts = self._counts
        used = counts.get(key, _ABSENT)
        if used < 0:
            used = 0
            if hits and hits <= limit.requests:
                self._text_bytes += len(key)
        left = limit.requests - used
        # The same law as `fixed_window.judge`; written out because this line is every request's.
        if hits > left or left < 1:
            return Outcome(True, 0, NEVER_US if (hits or 1) > limit.requests else self._end_us - wall_us, used)
        if hits:
            counts[key] = used + hits
            return Outcome(False, left - hits, self._end_us - wall_us, used)
        return Outcome(False, left, self._end_us - wall_us if used else 0, used)

    def judge(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge; change no count."""
        if now.wall_us >= self._end_us:
            self._turn(now.wall_us)
        said = fixed_window.judge(limit.requests, self._counts.get(key, 0), hits, self._end_us - now.wall_us)
        return Outcome(said.over, said.remaining, said.wait_us, said.before)

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Count the hits, whether or not they fit; saturates."""
        if now.wall_us >= self._end_us:
            self._turn(now.wall_us)
        if hits:
            used = self._counts.get(key)
            if used is None:
                self._text_bytes += len(key)
            self._counts[key] = fixed_window.spend(used or 0, hits)

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Take hits out again, never below 0."""
        if now.wall_us >= self._end_us:
            self._turn(now.wall_us)
        used = self._counts.get(key)
        if used is not None:
            left = fixed_window.give_back(used, hits)
            if left:
                self._counts[key] = left
            else:
                self.forget(key)

    def holds(self, key: bytes) -> bool:
        """Say whether the key has a count of its own."""
        return key in self._counts

    def forget(self, key: bytes) -> bool:
        """Drop the key; say whether it was there."""
        if self._counts.pop(key, None) is None:
            return False
        self._text_bytes -= len(key)
        return True

    def reclaim(self, now: Instant, budget: int) -> int:
        """Drop up to `budget` keys of windows that ended; return how many."""
        if now.wall_us >= self._end_us:
            self._turn(now.wall_us)
        seen = 0
        while self._leaving and seen < budget:
            old = self._leaving[-1]
            count = min(len(old), budget - seen)
            for _ in range(count):
                self._text_bytes -= len(old.popitem()[0])
            seen += count
            if not old:
                self._leaving.pop()
        return seen

    def keys(self, start: int, count: int) -> Sequence[bytes]:
        """List up to `count` live keys from the `start`-th on."""
        return list(islice(self._counts, start, start + count))

    def __len__(self) -> int:
        return len(self._counts) + sum(map(len, self._leaving))

    @property
    def listed(self) -> int:
        """Count the keys of the current window."""
        return len(self._counts)

    @property
    def bytes_used(self) -> int:
        """Estimated memory of the keys, bytes."""
        return self._text_bytes + _KEY_BYTES * len(self)
