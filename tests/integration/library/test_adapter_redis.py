"""The library's limiter over a real Redis, leased and exact: every method, two replicas, and an outage."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

import pytest

from ratelimit_service.adapter import (
    RateLimitConfig,
    RateLimitingCacheAdapter,
    RateLimitingCacheWarmer,
    RateLimitRequest,
)
from ratelimit_service.algorithms.limit import FailureMode
from ratelimit_service.cache import HealthStatus
from ratelimit_service.sync_adapter import SyncRateLimitingCacheAdapter
from support.limiters_of_library import ALGORITHMS
from support.redis_servers import MISSING, RedisServer, running_server

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason=MISSING)

DAY_MS: Final = 86_400_000
PATIENCE_S: Final = 30.0
NAMES: Final = map("test-{}".format, itertools.count())
MODES: Final = {"leased": False, "exact": True}

each_mode = pytest.mark.parametrize("exact", MODES.values(), ids=MODES)
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for all tests that leave it as it is; every test has a namespace of its own."""
    with running_server() as running:
        yield running


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds; fail after a patience that no machine needs."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < deadline_s, "never came to hold"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def replicas(
    server: RedisServer, count: int = 1, *, exact: bool = False
) -> AsyncIterator[list[RateLimitingCacheAdapter]]:
    """Limiters of one namespace, connected. They wait long, so that a busy machine is no outage."""
    config = RateLimitConfig(namespace=next(NAMES), exact=exact, deadline_ms=60_000)
    url = f"redis://{server.endpoint}?command_timeout=20s"
    made = [await RateLimitingCacheAdapter.from_url(url, config).start() for _ in range(count)]
    try:
        for each in made:

            async def counts(limiter: RateLimitingCacheAdapter = each) -> bool:
                # One that has just come is in doubt about what others own, and decides by the failure mode.
                checks = [RateLimitRequest("ready", limit, DAY_MS, name) for limit in (1, 10**6) for name in ALGORITHMS]
                results = await limiter.check_multiple_rate_limits(checks)
                return not any(result.degraded for result in results)

            await eventually(counts)
        yield made
    finally:
        for each in made:
            await each.close()


@each_mode
@each_algorithm
def test_replicas_admit_a_limit_together(server: RedisServer, algorithm: str, exact: bool) -> None:
    """Never more than the limit, and, where no lease is out, all of it."""

    async def main() -> None:
        async with replicas(server, 2, exact=exact) as (a, b):

            async def check(limiter: RateLimitingCacheAdapter) -> bool:
                return (await limiter.check_rate_limit("user", 40, DAY_MS, algorithm=algorithm)).allowed

            checks = [check(limiter) for _ in range(60) for limiter in (a, b)]
            allowed = sum(await asyncio.gather(*checks))
            assert allowed <= 40
            # What one of them holds in hand comes back, and is admitted then.
            total = allowed

            async def is_spent() -> bool:
                nonlocal total
                results = [
                    await limiter.check_rate_limit("user", 40, DAY_MS, algorithm=algorithm) for limiter in (a, b)
                ]
                total += sum(result.allowed for result in results)
                return total >= 40

            await eventually(is_spent)
            assert total == 40
            stats = a.stats()
            assert stats.round_trips > 0
            assert stats.batch_size >= 1
            assert a.health().store_latency_us > 0
            assert a.health().levels["quota"].up

    asyncio.run(main())


@each_mode
def test_several_checks_leave_together(server: RedisServer, exact: bool) -> None:
    """Eight new keys are fewer round trips than keys; all or nothing counts nothing if one is over."""

    async def main() -> None:
        async with replicas(server, exact=exact) as (limiter,):
            requests = [RateLimitRequest(f"key {number}", 30, DAY_MS, hits=3) for number in range(8)]
            results = await limiter.check_multiple_rate_limits(requests)
            assert [result.remaining for result in results] == [27] * 8
            # The first may be on its way alone before the others come.
            assert limiter.stats().batch_size > 1
            over = [RateLimitRequest("key 0", 30, DAY_MS, hits=20), RateLimitRequest("key 1", 30, DAY_MS, hits=28)]
            refused = await limiter.check_multiple_rate_limits(over, all_or_nothing=True)
            assert [result.allowed for result in refused] == [True, False]
            fits = [RateLimitRequest("key 0", 30, DAY_MS, hits=27), RateLimitRequest("key 1", 30, DAY_MS, hits=27)]
            passed = await limiter.check_multiple_rate_limits(fits, all_or_nothing=True)
            assert [result.allowed for result in passed] == [True, True]

    asyncio.run(main())


@each_mode
def test_a_reset_is_seen_by_every_replica(server: RedisServer, exact: bool) -> None:
    """All algorithms and windows at once; the other replica admits again without being told."""

    async def main() -> None:
        async with replicas(server, 2, exact=exact) as (a, b):

            async def spend(limiter: RateLimitingCacheAdapter) -> list[bool]:
                return [
                    (await limiter.check_rate_limit("user", 25, DAY_MS, algorithm=algorithm, hits=25)).allowed
                    for algorithm in ALGORITHMS
                ]

            assert await spend(a) == [True] * 3
            assert await spend(b) == [False] * 3
            assert await a.reset_rate_limit("user") is True

            async def is_forgotten() -> bool:
                return all(
                    [
                        (await b.check_rate_limit("user", 25, DAY_MS, algorithm=algorithm, hits=0)).allowed
                        for algorithm in ALGORITHMS
                    ]
                )

            await eventually(is_forgotten)
            assert await spend(b) == [True] * 3
            assert await a.reset_rate_limit("nobody") is False

    asyncio.run(main())


def test_a_warm_key_is_decided_at_once(server: RedisServer) -> None:
    """The first check of a warmed key asks nobody; one that is exact or in hand is skipped."""

    async def main() -> None:
        async with replicas(server) as (limiter,):
            requests = [RateLimitRequest("busy", 1_000, DAY_MS, hits=50), RateLimitRequest("small", 3, DAY_MS)]
            assert limiter.check_now("busy", 1_000, DAY_MS) is None

            async def is_warm() -> bool:
                # A lease is soon over on a machine that has other things to do.
                await limiter.warmup_rate_limit_keys(requests)
                result = limiter.check_now("busy", 1_000, DAY_MS)
                return result is not None and result.allowed

            await eventually(is_warm)
            report = await limiter.warmup_rate_limit_keys(["text"])
            assert (report.failed, report.warmed + report.skipped) == (0, 1)

    asyncio.run(main())


def test_the_busiest_keys_are_warmed(server: RedisServer) -> None:
    """By the warmer, on request and in the background."""

    async def main() -> None:
        async with replicas(server) as (limiter,):
            for _ in range(200):
                await limiter.check_rate_limit("busy", 100_000, DAY_MS)
            warmer = RateLimitingCacheWarmer(limiter)
            assert warmer.identify_high_traffic_keys(5)[0] == "busy"

            async def is_idle() -> bool:
                return limiter.check_now("busy", 100_000, DAY_MS, hits=0) is None

            await eventually(is_idle)

            async def is_warm() -> bool:
                await warmer.warmup_high_traffic_keys("high")
                return limiter.check_now("busy", 100_000, DAY_MS) is not None

            await eventually(is_warm)

    asyncio.run(main())


@each_mode
def test_an_outage_degrades_and_ends(exact: bool) -> None:
    """While Redis is away the failure mode decides; afterwards Redis does, without a restart."""

    async def main() -> None:
        with running_server() as own:
            config = RateLimitConfig(namespace=next(NAMES), exact=exact, failure=FailureMode.OPEN)
            async with RateLimitingCacheAdapter.from_url(f"redis://{own.endpoint}", config) as limiter:

                async def counts() -> bool:
                    return not (await limiter.check_rate_limit("user", 10**6, DAY_MS, hits=100)).degraded

                async def is_degraded() -> bool:
                    return (await limiter.check_rate_limit("user", 10**6, DAY_MS, hits=100)).degraded

                await eventually(counts)
                own.kill()
                await eventually(is_degraded)
                assert limiter.health().status is HealthStatus.DEGRADED
                own.start()
                await eventually(counts)

    asyncio.run(main())


@each_mode
def test_the_blocking_limiter_shares_counts_too(server: RedisServer, exact: bool) -> None:
    """Threads of one program and another replica admit a limit together; every check is counted in Redis."""
    config = RateLimitConfig(namespace=next(NAMES), exact=exact, deadline_ms=60_000)
    url = f"redis://{server.endpoint}?command_timeout=20s"
    with (
        SyncRateLimitingCacheAdapter.from_url(url, config) as a,
        SyncRateLimitingCacheAdapter.from_url(url, config) as b,
        ThreadPoolExecutor(8) as pool,
    ):
        for each in (a, b):
            deadline_s = time.monotonic() + PATIENCE_S
            while each.check_rate_limit("ready", 10**6, DAY_MS).degraded:
                assert time.monotonic() < deadline_s, "never connected"
                time.sleep(0.01)
        results = list(pool.map(lambda number: (a, b)[number % 2].check_rate_limit("user", 60, DAY_MS), range(200)))
        assert not any(result.degraded for result in results)
        assert sum(result.allowed for result in results) <= 60
        assert a.reset_rate_limit("user") is True
        assert a.get_rate_limiting_stats().round_trips > 0


def test_a_crowd_of_checks_is_decided_by_few_orders(server: RedisServer) -> None:
    """Two thousand checks at once of one key that nothing is in hand of: the limit is admitted, to the last hit."""

    async def main() -> None:
        async with replicas(server) as (limiter,):
            before = limiter.stats().round_trips
            checks = [limiter.check_rate_limit("crowd", 1_500, DAY_MS) for _ in range(2_000)]
            results = await asyncio.gather(*checks)
            assert [result.allowed for result in results] == [True] * 1_500 + [False] * 500
            assert not any(result.degraded for result in results)
            assert limiter.stats().round_trips - before < 20

    asyncio.run(main())
