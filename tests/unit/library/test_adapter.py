"""The library's limiter in memory and with its store away: every method, with time as the test says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ratelimit_service.adapter import (
    NEVER_MS,
    DefaultLimit,
    InvalidRateLimit,
    RateLimitConfig,
    RateLimitingCacheAdapter,
    RateLimitRequest,
    RateLimitResult,
    RateLimitStoreLost,
)
from ratelimit_service.algorithms.limit import FailureMode
from ratelimit_service.cache import HealthStatus, WarmingReport
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.redis_server.address import parse_store_url
from support.clocks import ManualClock
from support.deferred_store import DeferredStore
from support.limiters_of_library import ALGORITHMS, AWAY, Bench, Later, at_once, away, run

SECOND_US = 1_000_000

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


# Checks.


@each_algorithm
def test_a_limit_admits_its_hits_and_no_more(algorithm: str) -> None:
    """Two of three fit, and the answer to the third says when it will."""
    bench = Bench()
    first, second, third = (
        at_once(bench.limiter.check_rate_limit("user", 2, 60_000, algorithm=algorithm)) for _ in range(3)
    )

    assert [first.allowed, second.allowed, third.allowed] == [True, True, False]
    assert [first.remaining, second.remaining, third.remaining] == [1, 0, 0]
    assert (first.limit, first.algorithm, first.degraded) == (2, algorithm, False)
    assert (first.retry_after_ms, second.retry_after_ms) == (0, 0)
    bench.clock.advance(third.retry_after_ms * 1_000)
    assert at_once(bench.limiter.check_rate_limit("user", 2, 60_000, algorithm=algorithm)).allowed


@each_algorithm
def test_a_millisecond_before_the_wait_is_over_it_still_denies(algorithm: str) -> None:
    """`retry_after_ms` is no longer than it has to be."""
    bench = Bench()
    at_once(bench.limiter.check_rate_limit("user", 1, 60_000, algorithm=algorithm))
    denied = at_once(bench.limiter.check_rate_limit("user", 1, 60_000, algorithm=algorithm))
    bench.clock.advance((denied.retry_after_ms - 1) * 1_000 - 1)

    assert not at_once(bench.limiter.check_rate_limit("user", 1, 60_000, algorithm=algorithm)).allowed


def test_reset_is_when_the_budget_is_back_or_the_hits_fit() -> None:
    """Allowed and denied ones of a fixed window name its end, in Unix time."""
    bench = Bench()
    end_ms = (bench.clock.wall_us // 60_000_000 + 1) * 60_000
    allowed, denied = (
        at_once(bench.limiter.check_rate_limit("user", 1, 60_000, algorithm="fixed_window")) for _ in range(2)
    )

    assert (allowed.reset_at_ms, denied.reset_at_ms) == (end_ms, end_ms)
    assert denied.retry_after_ms == end_ms - bench.clock.wall_us // 1_000


def test_hits_that_can_never_fit_say_so() -> None:
    """More hits than the limit holds wait for nothing."""
    denied = at_once(Bench().limiter.check_rate_limit("user", 2, 60_000, hits=3))

    assert (denied.allowed, denied.retry_after_ms, denied.reset_at_ms) == (False, NEVER_MS, NEVER_MS)


def test_no_hits_only_look() -> None:
    """A look counts nothing, and is denied when nothing is left."""
    limiter = Bench().limiter
    looks = [at_once(limiter.check_rate_limit("user", 1, 60_000, hits=0)) for _ in range(3)]
    at_once(limiter.check_rate_limit("user", 1, 60_000))

    assert [look.remaining for look in looks] == [1, 1, 1]
    assert not at_once(limiter.check_rate_limit("user", 1, 60_000, hits=0)).allowed


def test_a_bucket_holds_its_burst() -> None:
    """`burst` is what fits at once, `limit` per window what comes back."""
    bench = Bench()
    full = at_once(bench.limiter.check_rate_limit("user", 1, 1_000, algorithm="token_bucket", burst=5, hits=5))
    bench.clock.advance(2 * SECOND_US)
    later = at_once(bench.limiter.check_rate_limit("user", 1, 1_000, algorithm="token_bucket", burst=5))

    assert (full.allowed, full.remaining, later.remaining) == (True, 0, 1)


def test_a_limit_that_is_changed_keeps_its_count() -> None:
    """Algorithm and window name the count, the numbers do not."""
    limiter = Bench().limiter
    at_once(limiter.check_rate_limit("user", 5, 60_000, hits=5))

    assert at_once(limiter.check_rate_limit("user", 7, 60_000)).remaining == 1
    assert at_once(limiter.check_rate_limit("user", 5, 30_000)).remaining == 4
    assert at_once(limiter.check_rate_limit("other", 5, 60_000)).remaining == 4


def test_long_and_odd_keys_are_counted_as_they_are() -> None:
    """Long keys by their digest, lone surrogates too."""
    limiter = Bench().limiter
    for key in ("k" * 1_000, "k" * 1_001, "\udcff", "\udcfe"):
        assert at_once(limiter.check_rate_limit(key, 1, 60_000)).allowed
        assert not at_once(limiter.check_rate_limit(key, 1, 60_000)).allowed


def test_check_now_answers_without_a_loop() -> None:
    """The hot path for callers that are no coroutines."""
    limiter = Bench().limiter

    answers = [limiter.check_now("user", 1, 60_000, algorithm="fixed_window") for _ in range(2)]

    assert [answer.allowed for answer in answers if answer is not None] == [True, False]


def test_the_default_limit_is_the_configurations() -> None:
    """A limiter without one says so."""
    limiter = Bench(default=DefaultLimit(limit=1, window_ms=1_000, algorithm="fixed_window")).limiter

    assert [at_once(limiter.check_default("user")).allowed for _ in range(2)] == [True, False]
    assert at_once(limiter.check_default("other", hits=0)).remaining == 1
    with pytest.raises(InvalidRateLimit, match="default"):
        at_once(Bench().limiter.check_default("user"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"key": ""}, ["key"]),
        ({"key": 7}, ["key"]),
        ({"limit": -1}, ["limit"]),
        ({"limit": 1.0}, ["limit"]),
        ({"limit": True}, ["limit"]),
        ({"limit": 2**32}, ["limit"]),
        ({"limit": 0, "algorithm": "token_bucket"}, ["limit"]),
        ({"window_ms": 0}, ["window_ms"]),
        ({"window_ms": "60"}, ["window_ms"]),
        ({"window_ms": 366 * 86_400_000 + 1}, ["window_ms"]),
        ({"hits": -1}, ["hits"]),
        ({"hits": 2**64}, ["hits"]),
        ({"hits": True}, ["hits"]),
        ({"algorithm": "leaky"}, ["algorithm"]),
        ({"algorithm": ["fixed_window"]}, ["algorithm"]),
        ({"burst": 3}, ["burst"]),
        ({"burst": 0, "algorithm": "token_bucket"}, ["burst"]),
        ({"burst": 10, "limit": 1, "window_ms": 366 * 86_400_000, "algorithm": "token_bucket"}, ["burst"]),
        ({"limit": 2_000_000, "window_ms": 1, "algorithm": "token_bucket"}, ["limit"]),
        ({"limit": None, "window_ms": None, "key": None}, ["key", "limit", "window_ms"]),
    ],
)
def test_bad_arguments_are_named_all_at_once(arguments: dict[str, Any], named: list[str]) -> None:
    """Also when the same check with good ones, equal to the eye of a dictionary, was made before."""
    limiter = Bench().limiter
    good: dict[str, Any] = {"key": "user", "limit": 1, "window_ms": 1_000}
    at_once(limiter.check_rate_limit(**good))

    with pytest.raises(InvalidRateLimit) as refused:
        at_once(limiter.check_rate_limit(**{**good, **arguments}))

    assert sorted(refused.value.problems) == named
    assert all(name in str(refused.value) for name in named)


# Several.


def test_several_are_answered_in_order_and_each_for_itself() -> None:
    """A denied one takes nothing from the others."""
    bench = Bench()
    requests = [
        RateLimitRequest("a", 1, 60_000),
        RateLimitRequest("a", 1, 60_000),
        RateLimitRequest("b", 5, 1_000, "fixed_window", hits=2),
        RateLimitRequest("c", 5, 1_000, "token_bucket", burst=9),
    ]

    results = at_once(bench.limiter.check_multiple_rate_limits(requests))

    assert [result.allowed for result in results] == [True, False, True, True]
    assert [result.remaining for result in results] == [0, 0, 3, 8]
    assert at_once(bench.limiter.check_multiple_rate_limits([])) == []


def test_all_or_nothing_counts_nothing_unless_all_fit() -> None:
    """The same request with one hit less is counted as a whole."""
    limiter = Bench().limiter
    too_many = [RateLimitRequest("a", 3, 60_000, hits=2), RateLimitRequest("b", 3, 60_000, hits=4)]
    fitting = [RateLimitRequest("a", 3, 60_000, hits=2), RateLimitRequest("b", 3, 60_000, hits=3)]

    refused = at_once(limiter.check_multiple_rate_limits(too_many, all_or_nothing=True))
    passed = at_once(limiter.check_multiple_rate_limits(fitting, all_or_nothing=True))

    assert [result.allowed for result in refused] == [True, False]
    assert [result.remaining for result in passed] == [1, 0]
    assert at_once(limiter.check_multiple_rate_limits([], all_or_nothing=True)) == []


def test_bad_ones_among_several_are_named_with_their_place() -> None:
    """And nothing is counted."""
    limiter = Bench().limiter
    requests = [RateLimitRequest("a", 1, 60_000), RateLimitRequest("", 1, 0)]

    with pytest.raises(InvalidRateLimit) as refused:
        at_once(limiter.check_multiple_rate_limits(requests))

    assert set(refused.value.problems) == {"requests[1].key", "requests[1].window_ms"}
    assert at_once(limiter.check_rate_limit("a", 1, 60_000)).allowed


# A store that answers later.


def test_a_check_that_waits_is_answered_the_same() -> None:
    """One, several, all or nothing, and a reset; `check_now` says that it cannot know."""

    async def main() -> None:
        later = Later()
        limiter = later.limiter
        assert limiter.check_now("user", 1, 60_000) is None
        results = [await later.of(limiter.check_rate_limit("user", 1, 60_000)) for _ in range(2)]
        several = [RateLimitRequest("user", 1, 60_000), RateLimitRequest("b", 2, 60_000, hits=2)]
        assert [result.allowed for result in results] == [True, False]
        assert [each.allowed for each in await later.of(limiter.check_multiple_rate_limits(several))] == [False, True]
        together = await later.of(limiter.check_multiple_rate_limits(several, all_or_nothing=True))
        assert [each.allowed for each in together] == [False, False]
        assert await later.of(limiter.reset_rate_limit("user"))
        assert (await later.of(limiter.check_rate_limit("user", 1, 60_000))).allowed
        assert limiter.health().store == "DeferredStore"
        assert (limiter.stats().hit_rates, limiter.stats().checks) == ({}, 7)
        assert await later.of(limiter.warmup_rate_limit_keys(["user"])) == WarmingReport(skipped=1)

    run(main())


def test_a_check_that_waits_for_long_is_in_the_last_percentile() -> None:
    """Longer than every bound counts as the last."""

    async def main() -> None:
        later = Later()
        task = asyncio.ensure_future(later.limiter.check_rate_limit("user", 1, 60_000))
        await asyncio.sleep(0)
        later.clock.advance(5 * SECOND_US)
        await later.of(asyncio.wait_for(task, None))
        assert later.limiter.stats().durations.p50_us == SECOND_US

    run(main())


def test_a_check_that_is_cancelled_leaves_the_others_alone() -> None:
    """The answer to nobody goes nowhere."""

    async def main() -> None:
        later = Later()
        given_up = asyncio.ensure_future(later.limiter.check_rate_limit("user", 2, 60_000))
        await asyncio.sleep(0)
        given_up.cancel()
        result = await later.of(later.limiter.check_rate_limit("user", 2, 60_000))
        assert result.allowed
        assert given_up.cancelled()

    run(main())


# A store that is away.


@pytest.mark.parametrize(
    ("failure", "allowed"), [(FailureMode.OPEN, True), (FailureMode.CLOSED, False), (FailureMode.SHARE, True)]
)
def test_without_its_store_the_failure_mode_decides_and_says_so(failure: FailureMode, allowed: bool) -> None:
    """Nothing is raised, for one check or several."""

    async def main() -> None:
        limiter = away(failure=failure)
        result = await limiter.check_rate_limit("user", 100, 60_000)
        several = await limiter.check_multiple_rate_limits([RateLimitRequest("b", 100, 60_000)] * 2)
        assert (result.allowed, result.degraded) == (allowed, True)
        assert [(each.allowed, each.degraded) for each in several] == [(allowed, True)] * 2
        assert limiter.stats().degraded == 3
        health = await limiter.get_health()
        assert health.status is HealthStatus.DEGRADED
        assert not health.levels["quota"].up
        # `Share` of nobody knows how many is as unbounded as `Open`.
        assert health.bound_hits == (0 if failure is FailureMode.CLOSED else None)
        known = away(failure=failure, slots=4)
        await known.check_rate_limit("user", 100, 60_000)
        assert (known.health().bound_hits is None) == (failure is FailureMode.OPEN)

    run(main())


def test_a_program_that_asks_for_it_is_told_by_an_error() -> None:
    """The error carries what the failure mode says."""

    async def main() -> None:
        limiter = away(raise_when_degraded=True)
        with pytest.raises(RateLimitStoreLost) as lost:
            await limiter.check_rate_limit("user", 100, 60_000)
        assert lost.value.results[0].degraded
        with pytest.raises(RateLimitStoreLost) as lost:
            await limiter.check_multiple_rate_limits([RateLimitRequest("b", 100, 60_000)] * 2)
        assert len(lost.value.results) == 2
        with pytest.raises(RateLimitStoreLost):
            limiter.check_now("user", 100, 60_000)

    run(main())


def test_a_store_that_is_lost_while_a_check_waits_degrades_it() -> None:
    """The answer comes later, and from the failure mode."""

    class Lost(DeferredStore):
        def charge_later(self, charges: Sequence[Any], deadline_us: int, done: Any) -> None:
            def lose(outcomes: Sequence[Any]) -> None:
                done([msgspec.structs.replace(outcome, degraded=True) for outcome in outcomes])

            super().charge_later(charges, deadline_us, lose)

    async def main(raises: bool) -> RateLimitResult:
        later = Later(raise_when_degraded=raises)
        store = Lost(MemoryStore(clock=later.clock, call_soon=later.scheduler.call_soon), later.scheduler.call_soon)
        later.limiter = RateLimitingCacheAdapter(store=store, config=later.limiter.config, clock=later.clock)
        return await later.of(later.limiter.check_rate_limit("user", 1, 60_000))

    assert run(main(raises=False)).degraded
    with pytest.raises(RateLimitStoreLost):
        run(main(raises=True))


def test_the_logger_is_told_once_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """Not once per check."""
    clock = ManualClock()
    config = RateLimitConfig(redis=parse_store_url(AWAY))
    limiter = RateLimitingCacheAdapter(config=config, clock=clock, logger=logging.getLogger("app"))

    async def main() -> None:
        for _ in range(3):
            await limiter.check_rate_limit("user", 100, 60_000)
        clock.advance(10 * SECOND_US)
        await limiter.check_rate_limit("user", 100, 60_000)

    with caplog.at_level(logging.WARNING, "app"):
        run(main())

    assert [record.name for record in caplog.records] == ["app", "app"]
    assert "failure mode Share" in caplog.records[0].getMessage()


# Reset.


def test_a_reset_forgets_every_algorithm_and_window_of_a_key() -> None:
    """And nothing of other keys; a key that was never counted is told of."""
    limiter = Bench().limiter
    checks = [("a", algorithm, window_ms) for algorithm in ALGORITHMS for window_ms in (1_000, 60_000)]
    for key, algorithm, window_ms in (*checks, ("b", "fixed_window", 1_000)):
        at_once(limiter.check_rate_limit(key, 1, window_ms, algorithm=algorithm))

    assert at_once(limiter.reset_rate_limit("a")) is True
    assert at_once(limiter.reset_rate_limit("a")) is False
    assert all(
        at_once(limiter.check_rate_limit(key, 1, window_ms, algorithm=algorithm)).allowed
        for key, algorithm, window_ms in checks
    )
    assert not at_once(limiter.check_rate_limit("b", 1, 1_000, algorithm="fixed_window")).allowed
    with pytest.raises(InvalidRateLimit, match="key"):
        at_once(limiter.reset_rate_limit(""))
