"""Token buckets in memory: one integer by key, the arrival time.

Keys that were filled at another rate stay in that rate's dictionary until they are met again and
converted (`token_bucket.convert`), so a change of the limit costs nothing at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from typing import Final

from ratelimit_service.algorithms import token_bucket
from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.algorithms.token_bucket import Rate
from ratelimit_service.quota.store import NEVER_US, Outcome

_KEY_BYTES: Final = 33 + 42 + 28 + 8
"""Beside its text: a bytes header, its place in the dictionary, the integer, its place in the queue to look at."""


class _Buckets:
    """All keys that were last filled at one rate.

    Attributes:
        rate: That rate.
        arrivals: Arrival time by key, in the rate's units from the ledger's origin.
        until_us: When another rate was last taken up in its place, from the origin: no hit was counted at it later.
    """

    __slots__ = ("arrivals", "rate", "until_us")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.arrivals: dict[bytes, int] = {}
        self.until_us = 0


class BucketLedger:
    """Buckets of one identity; see the module."""

    __slots__ = (
        "_arrivals",
        "_by_requests",
        "_current",
        "_depth",
        "_forgotten",
        "_interval",
        "_latest_us",
        "_limit",
        "_origin_us",
        "_queue",
        "_shift",
        "_text_bytes",
    )

    def __init__(self) -> None:
        self._by_requests: dict[int, _Buckets] = {}
        self._current = _Buckets(Rate(0, 1))
        # What `take` needs of the current rate and limit; `_depth` is the whole bucket in units.
        self._arrivals = self._current.arrivals
        self._shift = self._interval = self._depth = 0
        self._limit: Limit | None = None
        self._origin_us = -1
        # Time never goes back: a clock that does refills nothing until it has caught up, and a bucket that was
        # full, and dropped, is as full as it was.
        self._latest_us = 0
        # Keys in the order in which `reclaim` looks at them, each once; one that was forgotten keeps its place.
        self._queue: deque[bytes] = deque()
        self._forgotten: set[bytes] = set()
        self._text_bytes = 0

    def _select(self, limit: Limit, now: Instant) -> None:
        """Make `limit` the one that the next lines work with."""
        if self._origin_us < 0:
            self._origin_us = now.wall_us
        buckets = self._by_requests.get(limit.requests)
        if buckets is None:
            rate = token_bucket.rate_of(limit.requests, limit.window_us)
            buckets = self._by_requests[limit.requests] = _Buckets(rate)
        if buckets is not self._current:
            self._current.until_us = max(self._latest_us, now.wall_us - self._origin_us)
        self._current = buckets
        self._arrivals = buckets.arrivals
        self._shift, self._interval = buckets.rate.shift, buckets.rate.interval
        self._depth = limit.burst * self._interval
        self._limit = limit

    def _now_us(self, limit: Limit, now: Instant) -> int:
        """The latest time seen, from the origin, with `limit` selected."""
        if limit is not self._limit:
            self._select(limit, now)
        now_us = now.wall_us - self._origin_us
        if now_us > self._latest_us:  # noqa: PLR1730 — as in `take`
            self._latest_us = now_us
        return self._latest_us

    def _arrival(self, limit: Limit, key: bytes, now_us: int) -> int:
        """The key's arrival time at the current rate; a full bucket's is the least there is."""
        arrival = self._arrivals.get(key)
        if arrival is not None:
            return arrival
        if len(self._by_requests) > 1:
            rate = self._current.rate
            for buckets in self._by_requests.values():
                old = buckets.arrivals.get(key)
                if old is not None:
                    return token_bucket.convert(old, buckets.rate, rate, limit.burst, buckets.until_us, now_us)
        return now_us << self._shift

    def _store(self, key: bytes, arrival: int) -> None:
        if key not in self._arrivals and not self._move(key):
            self._text_bytes += len(key)
            if key in self._forgotten:
                self._forgotten.discard(key)
            else:
                self._queue.append(key)
        self._arrivals[key] = arrival

    def _move(self, key: bytes) -> bool:
        """Take the key out of another rate's dictionary; whether it was in one."""
        return len(self._by_requests) > 1 and any(
            buckets.arrivals.pop(key, None) is not None for buckets in self._by_requests.values()
        )

    def take(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge, and count the hits if they fit."""
        if limit is not self._limit:
            self._select(limit, now)
        now_us = now.wall_us - self._origin_us
        if now_us < self._latest_us:
            return self._take_behind(limit, key, hits, now)
        self._latest_us = now_us
        time = now_us << self._shift
        arrival = self._arrivals.get(key)
        base = arrival if arrival is not None else self._arrival(limit, key, now_us)
        if base < time:  # noqa: PLR1730 — `max` costs a call on every request
            base = time
        # The same law as `token_bucket.judge`; written out because this is every request's path.
        interval = self._interval
        after = base + hits * interval
        room = time + self._depth - after
        if room < 0 or (not hits and room < interval):
            return self._say(limit.burst, hits, room, after - time)
        if hits:
            if arrival is not None:
                self._arrivals[key] = after
            else:
                self._store(key, after)
        left = room // interval
        return Outcome(False, left, -(time - after >> self._shift), limit.burst - left - hits)

    def _take_behind(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """`take` while the clock is behind the latest time seen."""
        outcome = self.judge(limit, key, hits, now)
        if not outcome.over:
            self.spend(limit, key, hits, now)
        return outcome

    def judge(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge; change no count."""
        now_us = self._now_us(limit, now)
        backlog = self._arrival(limit, key, now_us) - (now_us << self._shift)
        if backlog < 0:  # noqa: PLR1730 — as in `take`
            backlog = 0
        backlog += hits * self._interval
        outcome = self._say(limit.burst, hits, self._depth - backlog, backlog)
        behind_us = now_us - now.wall_us + self._origin_us
        if behind_us and outcome.wait_us > 0:
            return Outcome(outcome.over, outcome.remaining, outcome.wait_us + behind_us, outcome.before)
        return outcome

    def _say(self, burst: int, hits: int, room: int, backlog: int) -> Outcome:
        """`token_bucket.judge` of hits that would leave `room` units of the bucket and `backlog` units to drain."""
        left = room // self._interval
        before = burst - left - hits
        if room >= 0 and (hits or left):
            return Outcome(False, left, -(-backlog >> self._shift), before)
        if (hits or 1) > burst:
            return Outcome(True, 0, NEVER_US, before)
        short = room if hits else room - self._interval
        return Outcome(True, 0, -(short >> self._shift), before)

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Count the hits, whether or not they fit; saturates."""
        now_us = self._now_us(limit, now)
        if hits:
            arrival = self._arrival(limit, key, now_us)
            self._store(key, token_bucket.spend(self._current.rate, arrival, hits, now_us))

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Take hits out again, newest first, never below 0."""
        now_us = self._now_us(limit, now)
        if self.holds(key):
            arrival = self._arrival(limit, key, now_us)
            self._store(key, token_bucket.give_back(self._current.rate, arrival, hits, now_us))

    def holds(self, key: bytes) -> bool:
        """Say whether the key has a count of its own."""
        return any(key in buckets.arrivals for buckets in self._by_requests.values())

    def forget(self, key: bytes) -> bool:
        """Drop the key; say whether it was there."""
        for buckets in self._by_requests.values():
            if buckets.arrivals.pop(key, None) is not None:
                self._text_bytes -= len(key)
                self._forgotten.add(key)
                return True
        return False

    def reclaim(self, now: Instant, budget: int) -> int:
        """Look at up to `budget` keys and drop those whose bucket is full; return how many were looked at."""
        if self._origin_us < 0:
            return 0  # nothing was ever counted, and there is no origin yet to measure from
        self._latest_us = max(self._latest_us, now.wall_us - self._origin_us)
        seen = min(budget, len(self._queue))
        for _ in range(seen):
            key = self._queue.popleft()
            for buckets in self._by_requests.values():
                arrival = buckets.arrivals.get(key)
                if arrival is not None:
                    if self._is_full(buckets, arrival):
                        del buckets.arrivals[key]
                        self._text_bytes -= len(key)
                    else:
                        self._queue.append(key)
                    break
            else:
                self._forgotten.discard(key)
        if len(self._by_requests) > 1:
            used = {r: b for r, b in self._by_requests.items() if b.arrivals or b is self._current}
            self._by_requests = used
        return seen

    def _is_full(self, buckets: _Buckets, arrival: int) -> bool:
        """Whether a bucket is full at its own rate, and would be if converted to any other that is known."""
        now_us, rate = self._latest_us, buckets.rate
        if arrival > now_us << rate.shift:
            return False
        if buckets is self._current:
            return True
        others = (other.rate for other in self._by_requests.values() if other is not buckets)
        return all(
            token_bucket.convert(arrival, rate, other, 1, buckets.until_us, now_us) <= now_us << other.shift
            for other in others
        )

    def keys(self, start: int, count: int) -> Sequence[bytes]:
        """List up to `count` live keys from the `start`-th on."""
        live = chain.from_iterable(buckets.arrivals for buckets in self._by_requests.values())
        return list(islice(live, start, start + count))

    def __len__(self) -> int:
        return sum(len(buckets.arrivals) for buckets in self._by_requests.values())

    @property
    def listed(self) -> int:
        """Count the keys, as `len` does."""
        return len(self)

    @property
    def bytes_used(self) -> int:
        """Estimated memory of the keys, bytes; a forgotten key counts until `reclaim` meets its place in the queue."""
        return self._text_bytes + _KEY_BYTES * len(self._queue)
