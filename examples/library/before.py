"""A program on the older library's names: it still runs, counts exactly now, and tells what to call instead."""

from __future__ import annotations

import asyncio
import warnings

from ratelimit_service.migration import PerformanceOptimizedRateLimit

OLD = {"windowMs": 60_000, "maxRequests": 2, "algorithm": "sliding_window", "keyPrefix": "shop:"}


async def main() -> None:
    """Check one user three times."""
    limiter = PerformanceOptimizedRateLimit(OLD)
    for _ in range(3):
        result = await limiter.checkRateLimit("user:42")
        print("allowed" if result["allowed"] else "denied", result["remaining"])
    await limiter.close()


warnings.simplefilter("ignore", DeprecationWarning)  # this example is about them; yours should show them
asyncio.run(main())
