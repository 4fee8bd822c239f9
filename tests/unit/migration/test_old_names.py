"""The old classes: old arguments and answers, on the new engine, with a warning that names the new call."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.adapter import InvalidRateLimit
from ratelimit_service.migration import InvalidOldConfig, OptimizedRedisRateLimit, PerformanceOptimizedRateLimit
from support.virtual_time import run_virtually


def made(cls: Any, *arguments: Any, **options: Any) -> Any:
    """One of them, with its warning checked."""
    with pytest.warns(DeprecationWarning, match=r"RateLimitingCacheAdapter\..*check_rate_limit"):
        return cls(*arguments, **options)


def test_old_programs_get_old_answers() -> None:
    """By both spellings, by the configuration's limit or by their own."""

    async def main() -> None:
        limit = made(PerformanceOptimizedRateLimit, {"windowMs": 60_000, "maxRequests": 2}, algorithm="fixed_window")
        async with limit:
            first = await limit.checkRateLimit("user")
            second = await limit.check_rate_limit("user", hits=1)
            third = await limit.check_rate_limit("user")
            assert set(first) == {"allowed", "limit", "remaining", "resetTime", "retryAfter"}
            assert [first["allowed"], second["allowed"], third["allowed"]] == [True, True, False]
            assert (first["remaining"], first["retryAfter"], first["limit"]) == (1, 0, 2)
            assert third["retryAfter"] > 0
            assert (await limit.checkRateLimit("user", 3))["allowed"]
            assert (await limit.checkRateLimit("user", 1, windowMs=1_000))["limit"] == 1
            assert await limit.resetRateLimit("user")
            stats = await limit.getStats()
            assert (stats["totalChecks"], stats["deniedChecks"], stats["hitRate"]) == (5, 1, 1.0)
            assert await limit.getHealth() == {"status": "healthy", "levels": {"quota": {"up": True, "reason": ""}}}

    run_virtually(main())


def test_a_limit_that_nobody_gave_is_named() -> None:
    """Neither by the configuration nor by the call."""

    async def main() -> None:
        limit = made(PerformanceOptimizedRateLimit)
        with pytest.raises(InvalidRateLimit, match="limit"):
            await limit.check_rate_limit("user")
        assert (await limit.check_rate_limit("user", 5, 1_000))["allowed"]
        await limit.close()

    run_virtually(main())


def test_the_one_for_redis_needs_redis() -> None:
    """And says so by the old field's name."""
    with pytest.warns(DeprecationWarning, match="from_url"), pytest.raises(InvalidOldConfig, match="redis"):
        OptimizedRedisRateLimit(windowMs=1_000, maxRequests=1)

    limit = made(OptimizedRedisRateLimit, {"redis": {"host": "127.0.0.1", "port": 1}}, windowMs=1_000, maxRequests=1)
    assert limit.limiter.health().store == "redis"
