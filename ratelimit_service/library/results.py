"""What a program asks a limiter, what it is answered, and what is said of bad arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ratelimit_service.errors import TidegateError

__all__ = ["NEVER_MS", "InvalidRateLimit", "RateLimitRequest", "RateLimitResult", "RateLimitStoreLost"]

NEVER_MS: Final = -1
"""`RateLimitResult.retry_after_ms` and `reset_at_ms` of hits that can never fit."""


class InvalidRateLimit(TidegateError):
    """Arguments or settings that no limit can be made of. A bug of the caller: it is not worth a retry.

    Attributes:
        problems: What is wrong, by the name of the argument or the path of the field; all of it.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{argument}: {problem}" for argument, problem in problems.items()))
        self.problems = dict(problems)


class RateLimitRequest(msgspec.Struct, frozen=True):
    """One check of several; the arguments are those of `check_rate_limit`.

    Attributes:
        key: Who is limited.
        limit: Hits per window.
        window_ms: Length of the window, milliseconds.
        algorithm: `fixed_window`, `sliding_window` or `token_bucket`.
        hits: How many; 0 only looks.
        burst: Hits that a token bucket holds; None: as many as `limit`.
    """

    key: str
    limit: int
    window_ms: int
    algorithm: str = "sliding_window"
    hits: int = 1
    burst: int | None = None


class RateLimitResult(msgspec.Struct, frozen=True, gc=False):
    """The answer to one check.

    Attributes:
        allowed: The hits fit, and are counted. Of a look (0 hits): something is left.
        limit: The limit, as it was asked with.
        remaining: Hits that are left after these; 0 when denied.
        retry_after_ms: Milliseconds until these hits fit if nothing else is counted, rounded up; 0 when allowed,
            `NEVER_MS` where they are more than the limit can ever hold.
        reset_at_ms: Unix time in milliseconds at which the whole budget is back (allowed), or these hits fit (denied);
            `NEVER_MS` as above.
        algorithm: By which law.
        degraded: The failure mode decided, not the count: the store is away, or has no room.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_ms: int
    reset_at_ms: int
    algorithm: str
    degraded: bool = False


class RateLimitStoreLost(TidegateError):
    """The store gave no count, and the program has asked to be told (`RateLimitConfig.raise_when_degraded`).

    Attributes:
        results: What the failure mode says.
    """

    def __init__(self, results: tuple[RateLimitResult, ...]) -> None:
        super().__init__("the store did not answer; the failure mode would have decided")
        self.results = results
