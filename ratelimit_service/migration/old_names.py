"""The classes of the library that came before, on the new engine.

They take the old configuration, have the old spelling beside Python's, and answer in the old shape: a mapping with
`allowed`, `limit`, `remaining`, `resetTime` (Unix time, ms) and `retryAfter` (ms, 0 when allowed). Counts are exact
where the old ones were not; nothing else of the old engine is left.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypedDict

import msgspec

from ratelimit_service.adapter import RateLimitingCacheAdapter
from ratelimit_service.cache.validate import Finding
from ratelimit_service.library.results import RateLimitResult
from ratelimit_service.migration.old_config import InvalidOldConfig, RateLimitingConfigMigrator

__all__ = ["OldResult", "OptimizedRedisRateLimit", "PerformanceOptimizedRateLimit"]


class OldResult(TypedDict):
    """What the old library answered; -1 in `resetTime` and `retryAfter`: never."""

    allowed: bool
    limit: int
    remaining: int
    resetTime: int
    retryAfter: int


class _OldRateLimit:
    """What both have in common.

    Attributes:
        limiter: The new engine, for a program that moves over call by call.
    """

    _new_call: str

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        old = {**(config or {}), **options}
        name = type(self).__name__
        warnings.warn(
            f"{name} is deprecated: build ratelimit_service.adapter.{self._new_call} and call "
            "`await limiter.check_rate_limit(key, limit, window_ms)`; "
            "`tidegate migrate config FILE` writes the new configuration",
            DeprecationWarning,
            stacklevel=2,
        )
        settings = RateLimitingConfigMigrator().migrate_from_old_config(old)
        self._check_settings(old)
        self._default = settings.default
        self.limiter = RateLimitingCacheAdapter(config=settings)
        self._is_started = False

    def _check_settings(self, old: Mapping[str, Any]) -> None:
        """Refuse what this class never worked with."""

    async def check_rate_limit(
        self, key: str, limit: int | None = None, window_ms: int | None = None, *, hits: int = 1
    ) -> OldResult:
        """Count hits of a key by `maxRequests` and `windowMs` of the configuration, or by those that are given.

        Raises:
            InvalidRateLimit: Neither says what the limit is, or an argument is wrong.
        """
        await self._start()
        default = self._default
        if default is None or limit is not None or window_ms is not None:
            algorithm = "sliding_window" if default is None else default.algorithm
            window_ms = default.window_ms if window_ms is None and default is not None else window_ms
            limit = default.limit if limit is None and default is not None else limit
            # A limit that nobody gave is refused by name.
            result = await self.limiter.check_rate_limit(key, limit, window_ms, algorithm=algorithm, hits=hits)  # type: ignore[arg-type]
        else:
            result = await self.limiter.check_default(key, hits=hits)
        return _old(result)

    async def checkRateLimit(  # noqa: N802 — the old spelling
        self,
        key: str,
        limit: int | None = None,
        windowMs: int | None = None,  # noqa: N803 — as above
    ) -> OldResult:
        """See `check_rate_limit`."""
        return await self.check_rate_limit(key, limit, windowMs)

    async def reset_rate_limit(self, key: str) -> bool:
        """Forget a key; whether anything was counted."""
        await self._start()
        return await self.limiter.reset_rate_limit(key)

    async def resetRateLimit(self, key: str) -> bool:  # noqa: N802 — the old spelling
        """See `reset_rate_limit`."""
        return await self.reset_rate_limit(key)

    async def get_stats(self) -> dict[str, Any]:
        """`totalChecks`, `allowedChecks`, `deniedChecks`, `hitRate` (decided without Redis), `averageLatencyMs`."""
        stats = self.limiter.stats()
        rates = stats.hit_rates
        local = sum(rates.get(source, 0.0) for source in ("memory", "lease", "standing"))
        return {
            "totalChecks": stats.checks,
            "allowedChecks": stats.allowed,
            "deniedChecks": stats.denied,
            "hitRate": local,
            "averageLatencyMs": stats.durations.p50_us / 1_000,
        }

    async def getStats(self) -> dict[str, Any]:  # noqa: N802 — the old spelling
        """See `get_stats`."""
        return await self.get_stats()

    async def get_health(self) -> dict[str, Any]:
        """`status` (`healthy`, `degraded`, `unhealthy`) and `levels`."""
        health = self.limiter.health()
        return {"status": health.status.value, "levels": msgspec.to_builtins(health.levels)}

    async def getHealth(self) -> dict[str, Any]:  # noqa: N802 — the old spelling
        """See `get_health`."""
        return await self.get_health()

    async def close(self) -> None:
        """Give back what is held, and close connections."""
        await self.limiter.close()

    async def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            await self.limiter.start()

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class OptimizedRedisRateLimit(_OldRateLimit):
    """Limits in Redis, by the old configuration; fields may be given as keywords too.

    Now: `RateLimitingCacheAdapter.from_url`.

    Raises:
        InvalidOldConfig: With everything that is wrong; it needs `redis`.
    """

    _new_call = "RateLimitingCacheAdapter.from_url('redis://HOST:PORT')"

    def _check_settings(self, old: Mapping[str, Any]) -> None:
        redis = old.get("redis", {})
        if "host" not in redis and "url" not in redis:
            raise InvalidOldConfig([Finding("redis", "a host or a url is wanted")])


class PerformanceOptimizedRateLimit(_OldRateLimit):
    """Limits in this process's memory, or in Redis where the configuration has one.

    Now: `RateLimitingCacheAdapter.in_memory` or `from_url`.

    Raises:
        InvalidOldConfig: With everything that is wrong.
    """

    _new_call = "RateLimitingCacheAdapter.in_memory()"


def _old(result: RateLimitResult) -> OldResult:
    return {
        "allowed": result.allowed,
        "limit": result.limit,
        "remaining": result.remaining,
        "resetTime": result.reset_at_ms,
        "retryAfter": result.retry_after_ms,
    }
