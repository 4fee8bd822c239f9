"""Short keys, exact lifetimes and batches, for programs that keep limits of their own in Redis.

The limiter itself needs none of this: its stores do it. Programs that moved over, and scripts that still count beside
the limiter, get from here what is easily got wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from ratelimit_service.algorithms import fixed_window, sliding_window
from ratelimit_service.algorithms.limit import MAX_REQUESTS
from ratelimit_service.library.laws import ALGORITHMS, MOST_WINDOW_MS
from ratelimit_service.library.results import InvalidRateLimit, RateLimitRequest, RateLimitResult

__all__ = ["FixedWindowPlace", "RateLimitingPerformanceOptimizer"]

_US_PER_MS: Final = 1_000
_LONGEST: Final = 40
"""Identifiers above this are known by their digest."""
_DIGEST_BYTES: Final = 16
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_MOST_MS: Final = 2**53


class FixedWindowPlace(NamedTuple):
    """Where a time falls: the number of its window since the Unix epoch, and how long the window still lasts."""

    window_id: int
    ttl_ms: int


class Limiter(Protocol):
    """What checks: `RateLimitingCacheAdapter`."""

    async def check_multiple_rate_limits(
        self, requests: Sequence[RateLimitRequest], *, all_or_nothing: bool = False
    ) -> list[RateLimitResult]:
        """Check several."""


class RateLimitingPerformanceOptimizer:
    """See the module.

    Args:
        limiter: Checks batches; None: `batch_rate_limit_checks` cannot be used.
    """

    def __init__(self, limiter: Limiter | None = None) -> None:
        self._limiter = limiter

    @staticmethod
    def generate_optimized_key(identifier: str, algorithm: str, window_ms: int) -> str:
        """A key for Redis: short, the same only for the same arguments, in one cluster slot per identifier.

        `{=user:42}s1aao` is `user:42`, sliding window of 60,000 ms. Identifiers of more than 40 bytes, with braces or
        beyond ASCII are a digest of 128 bits after `{#`.

        Raises:
            InvalidRateLimit: With every argument that is wrong.
        """
        _check(_text_problems(identifier, algorithm), _number_problems(window_ms=(window_ms, 1, MOST_WINDOW_MS)))
        is_plain = len(identifier) <= _LONGEST and identifier.isascii() and "{" not in identifier
        if is_plain and "}" not in identifier:
            tag = f"={identifier}"
        else:
            raw = identifier.encode(errors="surrogatepass")
            tag = f"#{blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest()}"
        return f"{{{tag}}}{algorithm[0]}{_base36(window_ms)}"

    @staticmethod
    def calculate_optimal_ttl(
        window_ms: int,
        buffer_ms: int = 0,
        *,
        algorithm: str = "sliding_window",
        now_ms: int | None = None,
        limit: int = 1,
        burst: int | None = None,
    ) -> int:
        """How long a counter has to live, milliseconds: never shorter than its hits count for something.

        Args:
            window_ms: Length of the window.
            buffer_ms: Added, for clocks that differ.
            algorithm: A fixed window is over at its end, a sliding one a part (1/60) after the window, a bucket when it
                is full.
            now_ms: Unix time; given, a fixed window's lifetime ends with the window instead of a window from now.
            limit: Of a token bucket: hits that come back per window.
            burst: What it holds; None: `limit`. It is full after `burst / limit` windows.

        Raises:
            InvalidRateLimit: With every argument that is wrong.
        """
        _check(
            _text_problems("-", algorithm),
            _number_problems(
                window_ms=(window_ms, 1, MOST_WINDOW_MS),
                buffer_ms=(buffer_ms, 0, MOST_WINDOW_MS),
                now_ms=(0 if now_ms is None else now_ms, 0, _MOST_MS),
                limit=(limit, 1, MAX_REQUESTS),
                burst=(1 if burst is None else burst, 1, MAX_REQUESTS),
            ),
        )
        if algorithm == "fixed_window":
            needed_ms = window_ms if now_ms is None else _place(window_ms, now_ms).ttl_ms
        elif algorithm == "sliding_window":
            parts_us = (sliding_window.SUB_BUCKETS + 1) * sliding_window.part_width_us(window_ms * _US_PER_MS)
            needed_ms = -(-parts_us // _US_PER_MS)
        else:
            # Rounded up per hit, as the law rounds: at most a thousandth more than the exact time.
            needed_ms = -(-(burst or limit) * window_ms * 1_001 // (limit * 1_000))
        return needed_ms + buffer_ms

    @staticmethod
    def align_to_fixed_window(window_ms: int, now_ms: int) -> FixedWindowPlace:
        """The fixed window that holds a time.

        Args:
            window_ms: Its length.
            now_ms: Unix time, milliseconds.

        Returns:
            Its number since the epoch, and milliseconds until its end, at least 1.

        Raises:
            InvalidRateLimit: With every argument that is wrong.
        """
        _check(_number_problems(window_ms=(window_ms, 1, MOST_WINDOW_MS), now_ms=(now_ms, 0, _MOST_MS)))
        return _place(window_ms, now_ms)

    async def batch_rate_limit_checks(self, requests: Sequence[RateLimitRequest]) -> list[RateLimitResult]:
        """Check several, with one call of the store per node at the most; a result per request, in order.

        Raises:
            InvalidRateLimit: With every argument that is wrong; nothing is counted. Or there is no limiter.
        """
        if self._limiter is None:
            raise InvalidRateLimit({"limiter": "batches are checked by a limiter, and none was given"})
        return await self._limiter.check_multiple_rate_limits(requests)


def _place(window_ms: int, now_ms: int) -> FixedWindowPlace:
    window = fixed_window.window_at(window_ms, now_ms)
    return FixedWindowPlace(window.start_us // window_ms, window.end_us - now_ms)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _check(*found: Iterator[tuple[str, str]]) -> None:
    problems = {name: problem for some in found for name, problem in some}
    if problems:
        raise InvalidRateLimit(problems)


def _text_problems(identifier: object, algorithm: object) -> Iterator[tuple[str, str]]:
    if not isinstance(identifier, str) or not identifier:
        yield "identifier", f"a text that is not empty is wanted, not {identifier!r:.60}"
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        yield "algorithm", f"one of {', '.join(ALGORITHMS)} is wanted, not {algorithm!r:.60}"


def _number_problems(**numbers: tuple[object, int, int]) -> Iterator[tuple[str, str]]:
    for name, (value, least, most) in numbers.items():
        if type(value) is not int or not least <= value <= most:
            yield name, f"a whole number from {least} to {most} is wanted, not {value!r:.60}"
