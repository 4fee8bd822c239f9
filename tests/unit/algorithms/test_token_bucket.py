"""Token buckets by example: 2 a second, 5 at once."""

from __future__ import annotations

import pytest

from ratelimit_service.algorithms import token_bucket
from ratelimit_service.algorithms.judgement import NEVER_US, Judgement
from ratelimit_service.algorithms.token_bucket import Rate

RATE = token_bucket.rate_of(2, 1_000_000)
BURST = 5
HALF_US = 500_000


@pytest.mark.parametrize(
    ("requests", "window_us", "expected"),
    [
        (2, 1_000_000, Rate(0, 500_000)),
        (1, 1_000, Rate(0, 1_000)),
        (1, 999, Rate(1, 1_998)),
        (3, 1_000, Rate(2, 1_334)),
        (1_000_000, 1_000, Rate(20, 1_049)),
        (1, 366 * 86_400_000_000, Rate(0, 31_622_400_000_000)),
    ],
)
def test_interval_has_at_least_a_thousand_units(requests: int, window_us: int, expected: Rate) -> None:
    """The unit is no finer than that takes."""
    assert token_bucket.rate_of(requests, window_us) == expected


@pytest.mark.parametrize(
    ("arrival", "hits", "expected"),
    [
        (0, 0, Judgement(over=False, remaining=5, wait_us=0, before=0)),
        (0, 5, Judgement(over=False, remaining=0, wait_us=5 * HALF_US, before=0)),
        (0, 6, Judgement(over=True, remaining=0, wait_us=NEVER_US, before=0)),
        (1, 5, Judgement(over=True, remaining=0, wait_us=1, before=1)),
        (4 * HALF_US, 1, Judgement(over=False, remaining=0, wait_us=5 * HALF_US, before=4)),
        (4 * HALF_US, 3, Judgement(over=True, remaining=0, wait_us=2 * HALF_US, before=4)),
        (5 * HALF_US, 0, Judgement(over=True, remaining=0, wait_us=HALF_US, before=5)),
        (9 * HALF_US, 1, Judgement(over=True, remaining=0, wait_us=5 * HALF_US, before=9)),
    ],
)
def test_bucket_of_five(arrival: int, hits: int, expected: Judgement) -> None:
    """Full, begun, empty and in debt, at time 0."""
    assert token_bucket.judge(RATE, BURST, arrival, hits, 0) == expected


def test_refund_fills_no_further_than_full() -> None:
    """More than was taken."""
    assert token_bucket.give_back(RATE, 3 * HALF_US, 2, 0) == HALF_US
    assert token_bucket.give_back(RATE, 3 * HALF_US, 2, 2 * HALF_US) == 2 * HALF_US


def test_backlog_drains_at_the_new_rate_from_the_change_on() -> None:
    """Four hits at 2 a second, then 1 a second: two seconds' worth becomes four."""
    slower = token_bucket.rate_of(1, 1_000_000)

    assert token_bucket.convert(4 * HALF_US, RATE, slower, BURST, 0, 0) == 4_000_000
    assert token_bucket.convert(4 * HALF_US, RATE, slower, BURST, HALF_US, HALF_US) == HALF_US + 3_000_000


def test_conversion_never_asks_for_more_than_an_empty_bucket_or_the_debt() -> None:
    """Five hits into a bucket of two, met when one and a half were left of them at the old rate."""
    slower = token_bucket.rate_of(1, 1_000_000)
    now_us = 5 * HALF_US - 3 * HALF_US // 2

    assert token_bucket.convert(5 * HALF_US, RATE, slower, 2, 0, now_us) == now_us + 2_000_000
