"""Every method of the library's limiter, in memory; give a Redis URL as the argument to count there."""

from __future__ import annotations

import asyncio
import sys

from ratelimit_service.adapter import (
    FixedWindowRateLimit,
    InvalidRateLimit,
    RateLimitingCacheAdapter,
    RateLimitingCacheWarmer,
    RateLimitingPerformanceOptimizer,
    RateLimitRequest,
    SlidingWindowRateLimit,
    TokenBucketRateLimit,
)


async def check(limiter: RateLimitingCacheAdapter) -> None:
    """One check, a look, several at once, all or nothing."""
    result = await limiter.check_rate_limit("user:42", 100, 60_000)
    print("one check:", result.allowed, result.remaining, "left of", result.limit)
    look = await limiter.check_rate_limit("user:42", 100, 60_000, hits=0)
    print("a look takes nothing:", look.remaining)
    bucket = await limiter.check_rate_limit("user:42", 10, 1_000, algorithm="token_bucket", burst=50, hits=50)
    print("a bucket of 50:", bucket.allowed, bucket.remaining)
    requests = [
        RateLimitRequest("user:42", 100, 60_000),
        RateLimitRequest("tenant:7", 20, 60_000, "fixed_window", hits=30),
    ]
    each = await limiter.check_multiple_rate_limits(requests)
    print("each for itself:", [one.allowed for one in each])
    together = await limiter.check_multiple_rate_limits(requests, all_or_nothing=True)
    print("all or nothing:", all(one.allowed for one in together))
    try:
        await limiter.check_rate_limit("", 100, 0)
    except InvalidRateLimit as wrong:
        print("bad arguments:", ", ".join(wrong.problems))


async def look_after(limiter: RateLimitingCacheAdapter) -> None:
    """Reset, warm, and ask how it is."""
    print("reset:", await limiter.reset_rate_limit("user:42"))
    report = await limiter.warmup_rate_limit_keys(["user:1", "user:2"])
    print("warmed and skipped:", report.warmed + report.skipped)
    report = await RateLimitingCacheWarmer(limiter).warmup_high_traffic_keys("high")
    print("failed to warm:", report.failed)
    stats = await limiter.get_rate_limiting_stats()
    print("checks:", stats.checks, "denied:", stats.denied)
    health = await limiter.get_health()
    print("health:", health.status.value, "bound:", health.bound_hits)
    print("metrics:", len(await limiter.get_metrics()) > 10)


def alone() -> None:
    """The algorithms for themselves, and what programs need that count in Redis by themselves."""
    limits = (FixedWindowRateLimit(1, 1_000), SlidingWindowRateLimit(1, 1_000), TokenBucketRateLimit(1, 0.5))
    print("alone:", [limit.check("user:42").allowed for limit in limits])
    optimizer = RateLimitingPerformanceOptimizer()
    print("short key:", optimizer.generate_optimized_key("user:42", "sliding_window", 60_000))
    print("lifetime:", optimizer.calculate_optimal_ttl(60_000, 500), "ms")
    print("window:", optimizer.align_to_fixed_window(60_000, 90_000))


async def main() -> None:
    """Run all of it."""
    urls = sys.argv[1:]
    made = RateLimitingCacheAdapter.from_url(urls[0]) if urls else RateLimitingCacheAdapter.in_memory()
    async with made as limiter:
        await check(limiter)
        await look_after(limiter)
    alone()


asyncio.run(main())
