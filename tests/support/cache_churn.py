"""An hour of a cache's traffic without its pauses: memory after warm-up, and at the end.

python -m support.cache_churn OPERATIONS

Keys come and go: reads by popularity that drifts, loads that fail, absences, writes of changing sizes, deletions,
tags and prefixes that are invalidated, clears. Time is the program's own, so values expire as they would.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from typing import Any

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.service import CacheService
from ratelimit_service.policy.profile_model import WarmingMode
from support.rival_growth import resident_bytes

HOUR_US = 3_600_000_000
WARM_UP = 4
"""One in so many operations comes before the first measurement."""


class Hour:
    """A clock that an operation moves on."""

    def __init__(self) -> None:
        self.now_us = 10**12

    def read(self) -> Instant:
        return Instant(wall_us=self.now_us + 10**15, boot_us=self.now_us)


async def churn(cache: CacheService[Any], clock: Hour, draw: random.Random, operations: int, step_us: int) -> None:
    """So many operations."""

    async def load() -> Any:
        kind = draw.random()
        if kind < 0.02:
            raise ValueError("the source is down")
        return None if kind < 0.1 else "v" * draw.choice([10, 100, 1_000, 10_000])

    for number in range(operations):
        clock.now_us += step_us
        # Popularity drifts, so that for ever new keys come.
        key = f"key-{int(draw.paretovariate(0.6)) + clock.now_us // 10_000_000}"
        kind = draw.random()
        if kind < 0.7:
            try:
                await cache.get_or_load(key, load, tags=(f"tag-{number % 5_000}",) if kind < 0.05 else ())
            except ValueError:
                continue
        elif kind < 0.9:
            await cache.set(key, "w" * draw.randrange(2_000), ttl_ms=draw.choice([100, 10_000, 10_000_000]))
        elif kind < 0.98:
            await cache.delete(key)
        elif kind < 0.9995:
            await cache.invalidate_tag(f"tag-{draw.randrange(5_000)}")
        elif kind < 0.99999:
            await cache.invalidate_prefix(f"key-{draw.randrange(10**6)}")
        else:
            await cache.clear()


async def main(operations: int) -> None:
    """Warm up, measure, go on, measure."""
    clock, draw = Hour(), random.Random(7)
    settings = CacheSettings(
        max_entries=300,
        max_memory_bytes=2 * 1024 * 1024,
        ttl_us=300_000_000,
        stale_on_error_us=60_000_000,
        negative_ttl_us=5_000_000,
        early_refresh_percent=10,
        warming=WarmingMode.BACKGROUND,
    )
    cache: CacheService[Any] = CacheService(settings, clock=clock)  # type: ignore[arg-type]  # reads like a Clock
    step_us = HOUR_US // operations
    await churn(cache, clock, draw, operations // WARM_UP, step_us)
    gc.collect()
    before = resident_bytes()
    await churn(cache, clock, draw, operations, step_us)
    gc.collect()
    after, stats = resident_bytes(), cache.stats()
    print(
        json.dumps(
            {
                "before_bytes": before,
                "after_bytes": after,
                "operations": operations,
                "loads": stats.counts["loads"],
                "evicted": stats.memory.evicted,
                "expired": stats.memory.expired,
                "most_bytes": stats.memory.max_bytes,
                "used_bytes": stats.memory.used_bytes,
            }
        )
    )
    await cache.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
