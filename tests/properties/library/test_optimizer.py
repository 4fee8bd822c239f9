"""Keys never meet and share a slot; lifetimes are never too short; windows are those of the law."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.adapter import (
    InvalidRateLimit,
    RateLimitingCacheAdapter,
    RateLimitingPerformanceOptimizer,
    RateLimitRequest,
)
from ratelimit_service.algorithms import fixed_window
from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.library.laws import ALGORITHMS
from ratelimit_service.quota.memory.ledger import ledger_for
from ratelimit_service.redis_server.slots import slot_of
from support.clocks import ManualClock

OPTIMIZER = RateLimitingPerformanceOptimizer()
identifiers = st.one_of(
    st.text(min_size=1, max_size=6, alphabet="ab{}=#:s1"),
    st.text(min_size=1, max_size=80),
    st.sampled_from(("}", "{}")),
)
arguments = st.tuples(identifiers, st.sampled_from(tuple(ALGORITHMS)), st.integers(1, 100))


@given(arguments, arguments)
@example(("a", "sliding_window", 1), ("a}s1", "sliding_window", 1))
def test_keys_meet_only_where_everything_is_the_same(one: Any, other: Any) -> None:
    """Whatever stands in an identifier."""
    assert (OPTIMIZER.generate_optimized_key(*one) == OPTIMIZER.generate_optimized_key(*other)) == (one == other)


@given(identifiers, arguments, arguments)
def test_all_limits_of_an_identifier_are_in_one_slot(identifier: str, one: Any, other: Any) -> None:
    """So that a script may touch all of them."""
    keys = [OPTIMIZER.generate_optimized_key(identifier, *rest[1:]) for rest in (one, other)]

    assert len({slot_of(key.encode(errors="surrogatepass")) for key in keys}) == 1
    assert all(len(key) <= 60 for key in keys)


@given(
    st.sampled_from(tuple(ALGORITHMS)),
    st.integers(1, 500),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 1_000),
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 9)), min_size=1, max_size=6),
)
def test_after_its_lifetime_a_counter_counts_for_nothing(
    algorithm: str, window_ms: int, limit: int, burst: int, begins_ms: int, hits: list[tuple[int, int]]
) -> None:
    """It would say the same if it had been dropped: the lifetime is set at the last hit."""
    kind = ALGORITHMS[algorithm]
    depth = burst if kind is Algorithm.TOKEN_BUCKET else limit
    numbers = Limit(kind, limit, window_ms * 1_000, depth)
    ledger, clock = ledger_for(numbers), ManualClock(wall_us=(1_000_000 + begins_ms) * 1_000)
    counted_us = clock.wall_us
    for gap_ms, count in hits:
        now = clock.advance(gap_ms * 1_000)
        if not ledger.take(numbers, b"key", count, now).over:
            counted_us = now.wall_us
    ttl_ms = OPTIMIZER.calculate_optimal_ttl(
        window_ms, algorithm=algorithm, now_ms=counted_us // 1_000, limit=limit, burst=depth
    )
    clock.wall_us = max(clock.wall_us, counted_us + ttl_ms * 1_000)

    assert ledger.judge(numbers, b"key", 0, clock.read()).before == 0
    assert ttl_ms <= OPTIMIZER.calculate_optimal_ttl(
        window_ms, 7, algorithm=algorithm, now_ms=None, limit=limit, burst=depth
    )


def test_a_short_key_is_as_it_is_described() -> None:
    """Plain where it can be."""
    assert OPTIMIZER.generate_optimized_key("user:42", "sliding_window", 60_000) == "{=user:42}s1aao"


def test_lifetimes_are_aligned_for_fixed_windows_and_buffered() -> None:
    """A planted floor, the window alone, would be too short for a sliding one."""
    assert OPTIMIZER.calculate_optimal_ttl(60_000, 500) == 61_500
    assert OPTIMIZER.calculate_optimal_ttl(60_000, 5, algorithm="fixed_window", now_ms=90_000) == 30_005
    assert OPTIMIZER.calculate_optimal_ttl(60_000, algorithm="fixed_window") == 60_000
    assert OPTIMIZER.calculate_optimal_ttl(1_000, algorithm="token_bucket", limit=10, burst=30) == 3_003


@given(st.integers(1, 10_000), st.integers(0, 2**53))
def test_a_time_is_in_the_window_that_it_is_aligned_to(window_ms: int, now_ms: int) -> None:
    """The law's window, to the millisecond."""
    window_id, ttl_ms = OPTIMIZER.align_to_fixed_window(window_ms, now_ms)

    assert window_id * window_ms <= now_ms < (window_id + 1) * window_ms
    assert now_ms + ttl_ms == (window_id + 1) * window_ms
    assert fixed_window.window_at(window_ms * 1_000, now_ms * 1_000).end_us == (now_ms + ttl_ms) * 1_000


def test_batches_are_checked_in_order_by_a_limiter() -> None:
    """Without one that is said."""
    requests = [RateLimitRequest("a", 1, 1_000), RateLimitRequest("a", 1, 1_000)]
    optimizer = RateLimitingPerformanceOptimizer(RateLimitingCacheAdapter.in_memory())

    assert [result.allowed for result in asyncio.run(optimizer.batch_rate_limit_checks(requests))] == [True, False]
    with pytest.raises(InvalidRateLimit, match="limiter"):
        asyncio.run(OPTIMIZER.batch_rate_limit_checks(requests))


def test_bad_arguments_are_named() -> None:
    """All at once."""
    with pytest.raises(InvalidRateLimit) as refused:
        OPTIMIZER.generate_optimized_key("", "leaky", 0)
    assert set(refused.value.problems) == {"identifier", "algorithm", "window_ms"}
    with pytest.raises(InvalidRateLimit) as refused:
        OPTIMIZER.calculate_optimal_ttl(1, -1, now_ms=-1, burst=0)
    assert set(refused.value.problems) == {"buffer_ms", "now_ms", "burst"}
    with pytest.raises(InvalidRateLimit, match="now_ms"):
        OPTIMIZER.align_to_fixed_window(1, 1.5)  # type: ignore[arg-type]
