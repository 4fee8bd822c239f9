"""The library's limiter from its making to its end: profiles, statistics, health, short memory, warming."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ratelimit_service.adapter import (
    DefaultLimit,
    InvalidRateLimit,
    RateLimitConfig,
    RateLimitingCacheAdapter,
    RateLimitRequest,
)
from ratelimit_service.algorithms.limit import FailureMode
from ratelimit_service.cache import CacheService, CacheSettings, HealthStatus, WarmingReport
from ratelimit_service.cache.profiles import InvalidProfile
from ratelimit_service.library.quotas import ForeignQuota
from ratelimit_service.policy.profile_model import WarmingMode
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.redis.store import RedisStore
from ratelimit_service.redis_server.address import InvalidStoreAddress, parse_store_url
from support.clocks import ManualClock
from support.deferred_store import DeferredStore
from support.limiters_of_library import AWAY, Bench, at_once, away, run

SECOND_US = 1_000_000


# Building.


def test_it_is_built_from_urls_profiles_and_caches(tmp_path: Path) -> None:
    """Each says where hits are counted."""
    profile = tmp_path / "profile.yaml"
    profile.write_text(
        "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\nmetadata: {name: mine}\n"
        "spec:\n  store: {type: Redis, endpoints: ['127.0.0.1:1'], durability: Wait, newMaster: Trust}\n"
        "  leases: {mode: Exact, horizon: 100ms, slots: 4, standingShare: 10}\n"
        "  l1: {maxEntries: 1000, warningPercent: 50, criticalPercent: 60}\n"
    )
    limiter = RateLimitingCacheAdapter.from_profile(profile)
    ships = RateLimitingCacheAdapter.from_profile("rate-limiting", RateLimitConfig(namespace="shop"))
    cache: CacheService[int] = CacheService(CacheSettings(redis=parse_store_url(AWAY)))

    assert limiter.config.redis is not None
    assert (limiter.config.wait_replicas, limiter.config.new_master.value) == (1, "Trust")
    assert (limiter.config.exact, limiter.config.horizon_ms, limiter.config.slots) == (True, 100, 4)
    assert (limiter.config.max_keys, limiter.config.warning_percent, limiter.config.critical_percent) == (1000, 50, 60)
    assert limiter.cache is not None
    assert (ships.config.namespace, ships.config.max_keys, ships.config.warming) == (
        "shop",
        100_000,
        WarmingMode.BACKGROUND,
    )
    assert RateLimitingCacheAdapter(cache=cache).health().store == "redis"
    assert RateLimitingCacheAdapter.from_url("redis://127.0.0.1:1/3").health().store == "redis"
    assert RateLimitingCacheAdapter.in_memory(RateLimitConfig(redis=parse_store_url(AWAY))).health().store == "memory"
    assert RateLimitingCacheAdapter(config=RateLimitConfig(cache=CacheSettings())).cache is not None
    with pytest.raises(InvalidStoreAddress):
        RateLimitingCacheAdapter.from_url("http://127.0.0.1")
    with pytest.raises(InvalidProfile):
        RateLimitingCacheAdapter.from_profile("no-such-profile")


def test_a_profile_without_redis_counts_here_and_a_missing_secret_is_told(tmp_path: Path) -> None:
    """As the service tells it."""
    memory, secret = tmp_path / "memory.yaml", tmp_path / "secret.yaml"
    head = "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\nmetadata: {name: mine}\nspec:\n"
    memory.write_text(head + "  store: {type: Memory}\n")
    secret.write_text(head + "  store: {type: Redis, endpoints: ['r:1'], auth: {secretRef: {name: none}}}\n")

    assert RateLimitingCacheAdapter.from_profile(memory).config.redis is None
    with pytest.raises(InvalidProfile, match="password"):
        RateLimitingCacheAdapter.from_profile(secret, secrets=tmp_path)


def test_a_store_that_a_program_brings_is_used() -> None:
    """Memory and Redis are known, others are only counted in."""
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    redis = RedisStore(parse_store_url(AWAY), ReplicaSettings(), clock)

    assert RateLimitingCacheAdapter(store=memory, clock=clock).health().store == "memory"
    assert RateLimitingCacheAdapter(store=redis, clock=clock).health().store == "redis"


def test_a_configuration_names_everything_that_is_wrong() -> None:
    """Ranges, thresholds, and a share of nobody knows how many."""
    with pytest.raises(InvalidRateLimit) as refused:
        RateLimitConfig(namespace="", max_keys=0, deadline_ms=True, warning_percent=90, standing_percent=5)

    assert set(refused.value.problems) == {
        "namespace",
        "max_keys",
        "deadline_ms",
        "warning_percent",
        "standing_percent",
    }


# Life.


def test_start_and_close_are_idempotent_and_walk_store_cache_and_warming() -> None:
    """After `close` it is unhealthy."""

    async def main() -> None:
        config = RateLimitConfig(cache=CacheSettings(), warming=WarmingMode.ADAPTIVE)
        async with RateLimitingCacheAdapter(config=config) as limiter:
            assert await limiter.start() is limiter
            assert limiter.health().status is HealthStatus.HEALTHY
        await limiter.close()
        assert limiter.health().status is HealthStatus.UNHEALTHY
        plain = await RateLimitingCacheAdapter.in_memory().start()
        await plain.close()

    run(main())


# Telling.


def test_statistics_tell_what_was_done() -> None:
    """By algorithm, by level, with percentiles and the busiest keys."""
    bench = Bench(cache=CacheSettings())

    async def main() -> None:
        for number in range(170):
            await bench.limiter.check_rate_limit("busy", 100, 60_000, algorithm="fixed_window")
            if number % 10 == 0:
                await bench.limiter.check_rate_limit(f"rare {number}", 1, 60_000)
        stats = await bench.limiter.get_rate_limiting_stats()
        assert (stats.checks, stats.allowed, stats.denied) == (187, 117, 70)
        assert (stats.by_algorithm["fixed_window"].denied, stats.by_algorithm["token_bucket"].checks) == (70, 0)
        assert stats.hit_rates == {"memory": 1.0, "fallback": 0.0, "l1": 0.0, "l2": 0.0, "l3": 0.0}
        assert stats.top_keys[0][0] == "busy"
        assert bench.limiter.checks_of("busy") == stats.top_keys[0][1]
        assert (stats.round_trips, stats.batch_size, stats.limits, stats.keys) == (0, 0.0, 2, 18)
        assert stats.durations.p50_us == stats.durations.p99_us == 1
        names = {sample.name for sample in await bench.limiter.get_metrics()}
        assert {"tidegate_library_checks_total", "tidegate_library_keys", "tidegate_cache_misses_total"} <= names
        alone = {sample.name for sample in Bench().limiter.metrics()}
        assert not any(name.startswith("tidegate_cache") for name in alone)

    run(main())


def test_percentiles_are_nothing_before_the_first_check() -> None:
    """And an unused limiter is well."""
    limiter = Bench().limiter

    assert limiter.stats().durations.p99_us == 0
    assert limiter.stats().hit_rates == {"memory": 0.0, "fallback": 0.0}
    assert limiter.health().bound_hits == 0


# Pressure.


def test_at_the_warning_level_what_has_expired_goes_first() -> None:
    """Without any background work: a limiter that was never started cleans up as it counts."""
    bench = Bench(max_keys=1_000)

    async def main() -> None:
        for number in range(700):
            await bench.limiter.check_rate_limit(f"old {number}", 1, 1_000, algorithm="fixed_window")
        assert bench.limiter.health().pressure == "warning"
        assert bench.limiter.health().fill_percent >= 70
        for _ in range(2):
            bench.clock.advance(10 * SECOND_US)
            for _ in range(1_200):
                await bench.limiter.check_rate_limit("one", 10**6, 60_000)
        assert bench.limiter.health().pressure == "normal"
        stats = bench.limiter.stats()
        assert stats.keys < 10
        # The limit that was not used for longer than it remembers went too.
        assert stats.limits == 1

    run(main())


def test_at_the_critical_level_new_keys_share_counters_and_nobodys_budget_comes_back() -> None:
    """Keys that were there are limited as before; new ones are still limited."""
    bench = Bench(max_keys=1_000, warning_percent=70, critical_percent=85)

    async def main() -> None:
        early = [f"early {number}" for number in range(900)]
        for key in early:
            await bench.limiter.check_rate_limit(key, 1, 3_600_000)
        assert bench.limiter.health().pressure == "critical"
        assert bench.limiter.health().status is HealthStatus.DEGRADED
        again = [(await bench.limiter.check_rate_limit(key, 1, 3_600_000)).allowed for key in early]
        late = [(await bench.limiter.check_rate_limit(f"late {n}", 1, 3_600_000)).allowed for n in range(3_000)]
        assert not any(again)
        assert sum(late) <= 150

    run(main())


def test_what_others_hold_is_cleaned_where_it_can_be() -> None:
    """Cells over Redis that are idle are forgotten; of a foreign store nothing is known."""

    async def main() -> None:
        limiter = away(max_keys=10, warning_percent=50)
        for number in range(8):
            await limiter.check_rate_limit(f"key {number}", 100, 60_000)
        assert limiter.health().pressure == "warning"
        for _ in range(2_000):
            await limiter.check_rate_limit("key 1", 100, 60_000)
        assert limiter.health().fill_percent <= 90
        foreign = ForeignQuota(DeferredStore(MemoryStore(clock=ManualClock())))
        assert (foreign.relieve(ManualClock().read()), foreign.fill_percent()) == (0, 0)

    run(main())


def test_memory_without_any_room_is_told() -> None:
    """The failure mode decides, and health says why."""
    bench = Bench(max_keys=1, failure=FailureMode.CLOSED)

    async def main() -> None:
        for number in range(5):
            result = await bench.limiter.check_rate_limit(f"key {number}", 1, 60_000)
        assert (result.allowed, result.degraded) == (False, True)
        assert bench.limiter.health().levels["quota"].reason == "keys find no room"

    run(main())


# Warming.


def test_warming_in_memory_has_nothing_to_take() -> None:
    """Keys are skipped; with a value cache their values are loaded."""

    async def main() -> None:
        told: list[WarmingReport] = []
        report = await Bench().limiter.warmup_rate_limit_keys(["a", "b", "a"], progress=told.append)
        assert (report, told) == (WarmingReport(skipped=2), [WarmingReport(skipped=2)])
        limiter = RateLimitingCacheAdapter(config=RateLimitConfig(cache=CacheSettings()))
        assert limiter.cache is not None

        async def load(key: str) -> str | None:
            return None if key == "none" else key.upper()

        limiter.cache.load_with("", load)
        keys: list[str | RateLimitRequest] = ["a", "none", RateLimitRequest("b", 5, 1_000, hits=0)]
        assert await limiter.warmup_rate_limit_keys(keys) == WarmingReport(warmed=2, skipped=1)
        assert await limiter.warmup_rate_limit_keys(["a"]) == WarmingReport(skipped=1)

    run(main())


def test_warming_fails_where_the_store_is_away() -> None:
    """For the default limit and for one of its own; what is never leased is skipped."""

    async def main() -> None:
        limiter = away(default=DefaultLimit(limit=100, window_ms=60_000))
        keys: list[str | RateLimitRequest] = ["a", RateLimitRequest("b", 100, 60_000), RateLimitRequest("c", 3, 60_000)]
        assert await limiter.warmup_rate_limit_keys(keys) == WarmingReport(failed=2, skipped=1)

    run(main())


def test_warming_is_paced_and_ends_when_room_is_short() -> None:
    """What was not come to is skipped."""

    async def main() -> None:
        bench = Bench(max_keys=100, warning_percent=50)
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        async def fill(report: WarmingReport) -> None:
            if report.done == 30 and not report.stopped:
                for number in range(60):
                    await bench.limiter.check_rate_limit(f"key {number}", 1, 60_000)

        keys = [f"warm {number}" for number in range(100)]
        report = await bench.limiter.warmup_rate_limit_keys(keys, per_second=100, progress=fill)
        assert report == WarmingReport(skipped=100, stopped=True)
        assert 0.2 < loop.time() - began_s < 0.4

    run(main())


def test_bad_keys_to_warm_are_named() -> None:
    """With their place; and a pace of nothing is refused."""
    limiter = Bench().limiter

    with pytest.raises(InvalidRateLimit) as refused:
        at_once(limiter.warmup_rate_limit_keys(["good", "", RateLimitRequest("b", -1, 5)]))
    with pytest.raises(InvalidRateLimit, match="per_second"):
        at_once(limiter.warmup_rate_limit_keys(["good"], per_second=0))

    assert set(refused.value.problems) == {"keys[1].key", "keys[2].limit"}
