"""One process that checks a limiter as fast as it can; `bench_adapter` starts it, for ours and for each rival.

Runs in the environment of the limiter that it is told to call: only the standard library is imported at the top.
Its plan comes as JSON on standard input; one JSON object goes out: CPU and wall microseconds per check, of the best of
some rounds by CPU, and how many checks were admitted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

HOUR_S = 3_600
SLICE = 500
"""Checks between two turns of the loop: nobody checks without ever doing anything else."""

Run = Callable[[list[str]], int]
"""Checks every key once; how many were admitted."""


def limits_of(plan: dict) -> Run:
    """`limits`: its strategy of that name, in memory or over Redis."""
    from limits import RateLimitItemPerHour, storage, strategies

    kept = storage.RedisStorage(plan["url"]) if plan["url"] else storage.MemoryStorage()
    hit = getattr(strategies, plan["strategy"])(kept).hit
    item = RateLimitItemPerHour(plan["requests"])
    return lambda keys: sum([hit(item, key) for key in keys])


def throttled_of(plan: dict) -> Run:
    """`throttled-py`: its limiter of that name."""
    from throttled import Throttled, rate_limiter, store

    quota = rate_limiter.per_duration(timedelta(seconds=HOUR_S), plan["requests"], burst=plan["requests"])
    kept = store.RedisStore(server=plan["url"]) if plan["url"] else store.MemoryStore()
    limit = Throttled(using=plan["strategy"], quota=quota, store=kept).limit
    return lambda keys: sum([not limit(key, 1).limited for key in keys])


def measured(run: Run, plan: dict) -> dict:
    """The best of some rounds."""
    keys = keys_of(plan)
    admitted = run(keys)
    best = (float("inf"), 0.0)
    for _ in range(plan["rounds"]):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        for _ in range(plan["times"]):
            admitted += run(keys)
        best = min(best, (time.process_time() - cpu_s, time.perf_counter() - wall_s))
    checks = len(keys) * plan["times"]
    return {"cpu_us": best[0] / checks * 1e6, "wall_us": best[1] / checks * 1e6, "admitted": admitted}


def keys_of(plan: dict) -> list[str]:
    """As many as the plan says."""
    return [f"user:{number}" for number in range(plan["keys"])]


async def ours(plan: dict) -> dict:
    """`RateLimitingCacheAdapter`, awaited check by check."""
    from ratelimit_service.adapter import RateLimitConfig, RateLimitingCacheAdapter

    config = RateLimitConfig(deadline_ms=5_000)
    url = f"{plan['url']}?command_timeout=4s" if plan["url"] else ""
    made = RateLimitingCacheAdapter.from_url(url, config) if url else RateLimitingCacheAdapter.in_memory(config)
    keys, algorithm, requests = keys_of(plan), plan["strategy"], plan["requests"]
    async with made as limiter:
        for _ in range(1_000):
            if limiter.health().levels["quota"].up:
                break
            await asyncio.sleep(0.01)
        check = limiter.check_rate_limit

        async def run() -> int:
            admitted = 0
            for start in range(0, len(keys), SLICE):
                for key in keys[start : start + SLICE]:
                    admitted += (await check(key, requests, HOUR_S * 1_000, algorithm=algorithm)).allowed
                await asyncio.sleep(0)
            return admitted

        admitted = await run()
        # What is asked for first is learnt by then: how much is spent, and so how much is leased.
        await settle(run, plan)
        best = (float("inf"), 0.0)
        for _ in range(plan["rounds"]):
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            for _ in range(plan["times"]):
                admitted += await run()
            best = min(best, (time.process_time() - cpu_s, time.perf_counter() - wall_s))
        stats = limiter.stats()
    checks = len(keys) * plan["times"]
    return {
        "cpu_us": best[0] / checks * 1e6,
        "wall_us": best[1] / checks * 1e6,
        "admitted": admitted,
        "round_trips": stats.round_trips,
        "checks": stats.checks,
        "degraded": stats.degraded,
        "p95_us": stats.durations.p95_us,
    }


async def settle(run: Callable[[], Awaitable[int]], plan: dict) -> None:
    """Check for a while before anything is measured."""
    ends_s = time.monotonic() + plan["settle_s"]
    while time.monotonic() < ends_s:
        await run()


def main() -> None:
    """Run the plan."""
    plan = json.load(sys.stdin)
    if plan["limiter"] == "tidegate":
        found = asyncio.run(ours(plan))
    else:
        found = measured({"limits": limits_of, "throttled-py": throttled_of}[plan["limiter"]](plan), plan)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
