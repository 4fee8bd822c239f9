"""The algorithms for themselves: one limit, any number of keys, in this process, without an event loop.

    from ratelimit_service.adapter import SlidingWindowRateLimit

    limit = SlidingWindowRateLimit(100, 60_000)
    if not limit.check("user:42").allowed:
        ...

Laws and counters are those of the service; nothing runs in the background, expired keys go as others come.
Not thread-safe.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import MAX_REQUESTS
from ratelimit_service.clock import Clock as MachineClock
from ratelimit_service.library.checks import Checks
from ratelimit_service.library.config import RateLimitConfig
from ratelimit_service.library.laws import MOST_WINDOW_MS, counted, problems_of
from ratelimit_service.library.quotas import quota_of
from ratelimit_service.library.results import InvalidRateLimit, RateLimitResult
from ratelimit_service.quota.memory.bounds import Clock

__all__ = ["FixedWindowRateLimit", "SlidingWindowRateLimit", "TokenBucketRateLimit", "refill_of"]

_MS_PER_S: Final = 1_000


class _RateLimit:
    """One limit of one algorithm."""

    _algorithm: str

    def __init__(
        self, limit: int, window_ms: int, burst: int | None, clock: Clock | None, config: RateLimitConfig | None
    ) -> None:
        problems = problems_of("key", limit, window_ms, self._algorithm, 1, burst)
        if problems:
            raise InvalidRateLimit(problems)
        self.limit = limit
        self.window_ms = window_ms
        self._burst = burst
        clock = clock or MachineClock()
        config = msgspec.structs.replace(config or RateLimitConfig(), redis=None)
        self._quota = quota_of(config, clock, None)
        self._checks = Checks(config, self._quota, clock, logging.getLogger("tidegate.library"))

    def check(self, key: str, *, hits: int = 1) -> RateLimitResult:
        """Count hits of a key if they fit; 0 only looks.

        Raises:
            InvalidRateLimit: The key is no text or empty, or the hits are no number from 0 on.
        """
        result = self._checks.decide(key, self.limit, self.window_ms, self._algorithm, hits, self._burst)
        assert isinstance(result, RateLimitResult)  # memory always answers
        return result

    def reset(self, key: str) -> bool:
        """Forget a key; whether anything was counted."""
        found: list[bool | None] = []
        for identity in self._checks.book.identities():
            self._quota.store.reset(identity, counted(key), found.append)
        return any(found)


class FixedWindowRateLimit(_RateLimit):
    """At most `limit` hits in each window of `window_ms`, aligned to the Unix epoch.

    An interval as long as the window may hold twice as many, around an edge.

    Args:
        limit: Hits per window.
        window_ms: Milliseconds.
        clock: Where time comes from.
        config: Bounds of memory; a Redis in it is not used.

    Raises:
        InvalidRateLimit: With every argument that is wrong.
    """

    _algorithm = "fixed_window"

    def __init__(
        self, limit: int, window_ms: int, *, clock: Clock | None = None, config: RateLimitConfig | None = None
    ) -> None:
        super().__init__(limit, window_ms, None, clock, config)


class SlidingWindowRateLimit(_RateLimit):
    """At most `limit` hits in any interval of `window_ms`; arguments as for `FixedWindowRateLimit`."""

    _algorithm = "sliding_window"

    def __init__(
        self, limit: int, window_ms: int, *, clock: Clock | None = None, config: RateLimitConfig | None = None
    ) -> None:
        super().__init__(limit, window_ms, None, clock, config)


class TokenBucketRateLimit(_RateLimit):
    """At most `capacity` hits at once, and `refill_rate` a second in the long run.

    Args:
        capacity: Hits that the bucket holds.
        refill_rate: Hits that come back per second; above 0, may be a fraction.
        clock: Where time comes from.
        config: Bounds of memory; a Redis in it is not used.

    Raises:
        InvalidRateLimit: With every argument that is wrong.
    """

    _algorithm = "token_bucket"

    def __init__(
        self,
        capacity: int,
        refill_rate: float,
        *,
        clock: Clock | None = None,
        config: RateLimitConfig | None = None,
    ) -> None:
        problems = dict(_bucket_problems(capacity, refill_rate))
        if problems:
            raise InvalidRateLimit(problems)
        limit, window_ms = refill_of(refill_rate)
        super().__init__(limit, window_ms, capacity, clock, config)
        self.capacity = capacity
        self.refill_rate = refill_rate


def _bucket_problems(capacity: object, refill_rate: object) -> Iterator[tuple[str, str]]:
    if type(capacity) is not int or not 1 <= capacity <= MAX_REQUESTS:
        yield "capacity", f"a whole number from 1 to {MAX_REQUESTS} is wanted, not {capacity!r:.60}"
    least, most = _MS_PER_S / MOST_WINDOW_MS, float(MAX_REQUESTS)
    if type(refill_rate) not in {int, float} or not least <= float(str(refill_rate)) <= most:
        yield "refill_rate", f"hits per second above 0, up to {MAX_REQUESTS}, are wanted, not {refill_rate!r:.60}"


def refill_of(refill_rate: float) -> tuple[int, int]:
    """A rate of hits per second as hits per window of whole milliseconds.

    Exact where such a window of at most 1,000,000 ms exists (0.1 a second is 1 per 10,000 ms, 100 / 3 is 1 per 30 ms),
    else the nearest below: rounding never admits more.
    """
    near = Fraction(refill_rate).limit_denominator(_MS_PER_S)
    exact = near if float(near) == refill_rate else Fraction(str(refill_rate))
    rate = exact / _MS_PER_S
    if rate.denominator <= _MS_PER_S * _MS_PER_S:
        return rate.numerator, rate.denominator
    # Below: the longest window there is, or one hit in a window rounded up.
    window_ms = _MS_PER_S * _MS_PER_S
    hits = int(rate * window_ms)
    return (hits, window_ms) if hits else (1, -(-rate.denominator // rate.numerator))
