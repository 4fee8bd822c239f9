"""A limit that exists is valid."""

from __future__ import annotations

import pytest

from ratelimit_service.algorithms.limit import MAX_REQUESTS, Algorithm, Calendar, CalendarUnit, InvalidLimit, Limit

FIXED, SLIDING, BUCKET = Algorithm
DAY = Calendar(CalendarUnit.DAY)


@pytest.mark.parametrize(
    "fields",
    [
        (FIXED, -1, 10, -1),
        (FIXED, MAX_REQUESTS + 1, 10, MAX_REQUESTS + 1),
        (BUCKET, 1, 10, MAX_REQUESTS + 1),
        (FIXED, 1, 0, 1),
        (FIXED, 1, -1, 1),
        (FIXED, 1, 10, 1, DAY),
        (SLIDING, 1, 0, 1, DAY),
        (BUCKET, 1, 0, 1, DAY),
        (SLIDING, 1, 10, 2),
        (FIXED, 1, 10, 2),
        (BUCKET, 0, 10, 1),
        (BUCKET, 1, 10, 0),
    ],
)
def test_contradiction_is_refused(fields: tuple) -> None:
    """Out of range, a window and a calendar, neither, a burst where there is none, an empty bucket."""
    with pytest.raises(InvalidLimit):
        Limit(*fields)


@pytest.mark.parametrize(
    "fields",
    [
        (FIXED, 0, 1, 0),
        (SLIDING, MAX_REQUESTS, 1, MAX_REQUESTS),
        (BUCKET, 1, 1, MAX_REQUESTS),
        (FIXED, 1, 0, 1, DAY),
    ],
)
def test_edges_of_the_ranges_are_limits(fields: tuple) -> None:
    """Zero for windows, the greatest for all."""
    assert Limit(*fields).requests == fields[1]
