"""How long to wait before an operator is asked again."""

from __future__ import annotations

import pytest

from ratelimit_service.sources.xds.backoff import wait_s


@pytest.mark.parametrize(
    ("failures", "whole_s"), [(0, 0.5), (1, 1.0), (2, 2.0), (4, 8.0), (5, 15.0), (50, 15.0), (10**9, 15.0)]
)
def test_it_doubles_to_a_bound_and_is_spread_over_its_half(failures: int, whole_s: float) -> None:
    """From half of it to all of it."""
    assert wait_s(failures, 0.0) == whole_s / 2
    assert wait_s(failures, 1.0) == whole_s
