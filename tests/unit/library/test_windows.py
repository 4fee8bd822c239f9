"""The algorithms for themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.adapter import (
    FixedWindowRateLimit,
    InvalidRateLimit,
    RateLimitConfig,
    SlidingWindowRateLimit,
    TokenBucketRateLimit,
)
from ratelimit_service.library.laws import MOST_WINDOW_MS
from ratelimit_service.library.windows import refill_of
from ratelimit_service.redis_server.address import parse_store_url
from support.clocks import ManualClock
from support.limiters_of_library import AWAY

MAKES: dict[str, Callable[[ManualClock], Any]] = {
    "fixed_window": lambda clock: FixedWindowRateLimit(2, 60_000, clock=clock),
    "sliding_window": lambda clock: SlidingWindowRateLimit(2, 60_000, clock=clock),
    "token_bucket": lambda clock: TokenBucketRateLimit(2, 0.1, clock=clock),
}


@pytest.mark.parametrize("name", MAKES)
def test_each_counts_alone_and_forgets_when_told(name: str) -> None:
    """Two fit, the third waits as long as it says, a reset begins anew."""
    clock = ManualClock()
    limit = MAKES[name](clock)
    results = [limit.check("user") for _ in range(3)]

    assert [result.allowed for result in results] == [True, True, False]
    assert results[0].algorithm == name
    assert limit.check("other", hits=0).remaining == 2
    assert (limit.reset("user"), limit.reset("user")) == (True, False)
    assert limit.check("user", hits=2).allowed
    clock.advance(limit.check("user").retry_after_ms * 1_000)
    assert limit.check("user").allowed


def test_each_works_by_the_machines_clock_and_never_in_redis() -> None:
    """A configuration is taken for its bounds."""
    limit = FixedWindowRateLimit(1, 60_000, config=RateLimitConfig(redis=parse_store_url(AWAY)))

    assert not limit.check("user").degraded
    assert (limit.limit, limit.window_ms) == (1, 60_000)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: FixedWindowRateLimit(-1, 0), {"limit", "window_ms"}),
        (lambda: SlidingWindowRateLimit(1, 1.5), {"window_ms"}),  # type: ignore[arg-type]
        (lambda: TokenBucketRateLimit(0, 0), {"capacity", "refill_rate"}),
        (lambda: TokenBucketRateLimit(1, float("nan")), {"refill_rate"}),
        (lambda: TokenBucketRateLimit(1, True), {"refill_rate"}),
        (lambda: TokenBucketRateLimit(4_000_000_000, 0.001), {"burst"}),
        (lambda: FixedWindowRateLimit(1, 1).check(""), {"key"}),
        (lambda: FixedWindowRateLimit(1, 1).reset(""), set()),
    ],
)
def test_what_is_wrong_is_named(make: Callable[[], object], named: set[str]) -> None:
    """All of it at once; a key that was never counted is no error before the first check."""
    if not named:
        assert make() is False
        return
    with pytest.raises(InvalidRateLimit) as refused:
        make()

    assert set(refused.value.problems) == named


@pytest.mark.parametrize(
    ("rate", "refill"), [(100 / 3, (1, 30)), (0.1, (1, 10_000)), (2.5, (1, 400)), (1e6, (1_000, 1)), (5, (1, 200))]
)
def test_rates_that_have_a_window_are_exact(rate: float, refill: tuple[int, int]) -> None:
    """As people write them."""
    assert refill_of(rate) == refill


@given(st.floats(1_000 / MOST_WINDOW_MS, 4e9))
@example(1e-7 * 3.3333)
@example(1e-4 + 1e-11)
def test_a_rate_is_never_rounded_up(rate: float) -> None:
    """And is off by at most a thousandth and a hit in 1,000 s."""
    hits, window_ms = refill_of(rate)

    assert hits >= 1
    assert window_ms >= 1
    assert hits * 1_000 / window_ms <= rate * (1 + 1e-12)
    assert hits * 1_000 / window_ms >= rate * 0.999 - 0.001
