"""The same program on the new names; it prints what `before.py` prints."""

from __future__ import annotations

import asyncio

from ratelimit_service.adapter import DefaultLimit, RateLimitConfig, RateLimitingCacheAdapter

CONFIG = RateLimitConfig(namespace="shop:", default=DefaultLimit(limit=2, window_ms=60_000))


async def main() -> None:
    """Check one user three times."""
    async with RateLimitingCacheAdapter.in_memory(CONFIG) as limiter:
        for _ in range(3):
            result = await limiter.check_default("user:42")
            print("allowed" if result.allowed else "denied", result.remaining)


asyncio.run(main())
