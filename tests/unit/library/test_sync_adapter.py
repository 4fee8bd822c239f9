"""The blocking limiter: the same methods from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ratelimit_service.adapter import DefaultLimit, InvalidRateLimit, RateLimitConfig, RateLimitRequest
from ratelimit_service.algorithms.limit import FailureMode
from ratelimit_service.cache import HealthStatus, WarmingReport
from ratelimit_service.cache.profiles import InvalidProfile
from ratelimit_service.redis_server.address import InvalidStoreAddress
from ratelimit_service.sync_adapter import SyncRateLimitingCacheAdapter
from support.limiters_of_library import ALGORITHMS, AWAY

DAY_MS = 86_400_000


def walk(limiter: SyncRateLimitingCacheAdapter) -> None:
    """Every method, where nothing is lost."""
    for algorithm in ALGORITHMS:
        results = [limiter.check_rate_limit("user", 2, DAY_MS, algorithm=algorithm) for _ in range(3)]
        assert [result.allowed for result in results] == [True, True, False]
    assert limiter.check_rate_limit("user", 2, DAY_MS, algorithm="token_bucket", hits=0, burst=5).allowed
    assert limiter.check_default("other", hits=3).remaining == 4
    pair = [RateLimitRequest("pair", 2, DAY_MS), RateLimitRequest("user", 2, DAY_MS)]
    assert [result.allowed for result in limiter.check_multiple_rate_limits(pair, all_or_nothing=True)] == [True, False]
    assert [result.remaining for result in limiter.check_multiple_rate_limits(pair)] == [1, 0]
    assert limiter.reset_rate_limit("user")
    told: list[WarmingReport] = []
    report = limiter.warmup_rate_limit_keys(["user", "other"], progress=told.append)
    assert report.done == 2
    assert told[-1] == report
    stats = limiter.get_rate_limiting_stats()
    assert (stats.degraded, stats.by_algorithm["fixed_window"].denied) == (0, 1)
    assert limiter.get_health().status is HealthStatus.HEALTHY
    assert {sample.name for sample in limiter.get_metrics()} >= {"tidegate_library_checks_total"}
    assert limiter.metrics()
    with pytest.raises(InvalidRateLimit, match="window_ms"):
        limiter.check_rate_limit("user", 1, 0)


def test_every_method_works_in_memory_and_beside_a_cache() -> None:
    """In the caller's thread, and on a loop's."""
    config = RateLimitConfig(default=DefaultLimit(limit=7, window_ms=DAY_MS))
    with SyncRateLimitingCacheAdapter.in_memory(config) as limiter:
        walk(limiter)
    limiter.close()
    with SyncRateLimitingCacheAdapter.from_profile("sessions", config) as beside:
        walk(beside)
    beside.close()
    with pytest.raises(RuntimeError, match="closed"):
        beside.check_default("user")


def test_a_store_that_is_away_degrades_in_every_thread() -> None:
    """The failure mode decides, as for the limiter that is awaited."""
    config = RateLimitConfig(failure=FailureMode.CLOSED)
    with SyncRateLimitingCacheAdapter.from_url(AWAY, config) as limiter:
        result = limiter.check_rate_limit("user", 100, DAY_MS)
        assert (result.allowed, result.degraded) == (False, True)
        assert limiter.get_health().status is HealthStatus.DEGRADED


def test_threads_admit_no_more_than_the_limit_together() -> None:
    """A limit is a limit however many threads check it."""
    with SyncRateLimitingCacheAdapter() as limiter, ThreadPoolExecutor(8) as pool:
        checks = pool.map(lambda _: limiter.check_rate_limit("user", 500, DAY_MS).allowed, range(2_000))
        assert sum(checks) == 500


def test_what_it_cannot_be_built_from_leaves_no_thread_behind() -> None:
    """Errors are those of the limiter that is awaited."""
    with pytest.raises(InvalidStoreAddress):
        SyncRateLimitingCacheAdapter.from_url("http://127.0.0.1")
    with pytest.raises(InvalidProfile):
        SyncRateLimitingCacheAdapter.from_profile("no-such-profile")
