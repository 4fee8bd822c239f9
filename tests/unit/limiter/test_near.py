"""Near-limit hits, by upstream's vectors and at the edges."""

from __future__ import annotations

import pytest

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.limiter.near import near_hits, near_hits_over, near_threshold


def fixed(requests: int) -> Limit:
    return Limit(Algorithm.FIXED_WINDOW, requests, 1_000_000, requests)


@pytest.mark.parametrize(
    ("requests", "ratio", "threshold"),
    [(15, 0.8, 12), (5, 0.8, 4), (10, 0.8, 8), (0, 0.8, 0), (20, 0.8, 16), (1, 0.8, 0), (10, 0.0, 0), (10, 1.0, 10)],
)
def test_the_threshold_is_the_floor_of_the_share(requests: int, ratio: float, threshold: int) -> None:
    """base_limiter_test.go has 15 → 12 and 5 → 4."""
    assert near_threshold(fixed(requests), ratio) == threshold


def test_the_threshold_is_computed_in_32_bit_floats() -> None:
    """2³²−1 becomes 2³² before it is multiplied, and 0.8 is a little more than 0.8."""
    assert near_threshold(fixed(2**32 - 1), 0.8) == 3_435_973_888


@pytest.mark.parametrize(
    ("before", "hits", "near"), [(11, 1, 0), (12, 1, 1), (11, 2, 1), (0, 15, 3), (13, 2, 2), (12, 0, 0), (14, 0, 0)]
)
def test_hits_above_the_threshold_are_near(before: int, hits: int, near: int) -> None:
    """Limit 15, threshold 12: at it, across it, beyond it."""
    assert near_hits(12, before, hits) == near


@pytest.mark.parametrize(("before", "near"), [(2, 1), (4, 1), (5, 0), (9, 0), (0, 1)])
def test_hits_counted_across_the_limit_are_near_up_to_it(before: int, near: int) -> None:
    """Limit 5, threshold 4."""
    assert near_hits_over(4, 5, before) == near
