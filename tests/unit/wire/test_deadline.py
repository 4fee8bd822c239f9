"""By when an answer is owed."""

from __future__ import annotations

import pytest

from ratelimit_service.wire.grpc.deadline import answer_by_us


@pytest.mark.parametrize(
    ("remaining_us", "expected"),
    [
        (None, 110),
        (1_000, 110),
        (13, 110),
        (12, 109),
        (10, 108),
        (1, 101),
        (0, None),
        (-5, None),
    ],
)
def test_the_lesser_of_the_cap_and_four_fifths_of_what_is_left(remaining_us: int | None, expected: int | None) -> None:
    """A deadline that has passed is None; one that has not always leaves at least a microsecond."""
    assert expected == answer_by_us(100, remaining_us, 10)
