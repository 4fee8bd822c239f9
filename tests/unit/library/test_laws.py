"""The limits that a program uses: found again, bounded, let go of when idle."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ratelimit_service.algorithms.limit import FailureMode, LimitSettings
from ratelimit_service.library import laws
from ratelimit_service.library.laws import LawBook, counted
from ratelimit_service.library.results import InvalidRateLimit


class Applied:
    """What a store was told to bring into force."""

    def __init__(self) -> None:
        self.limits: Mapping[bytes, LimitSettings] = {}

    def __call__(self, limits: Mapping[bytes, LimitSettings]) -> None:
        self.limits = limits


def book() -> tuple[LawBook, Applied]:
    applied = Applied()
    return LawBook("shop", FailureMode.OPEN, applied), applied


def test_a_limit_is_made_once_and_brought_into_force() -> None:
    """Numbers share the identity of their algorithm and window."""
    made, applied = book()
    first, again = (made.law(5, 1_000, "fixed_window", None, 0) for _ in range(2))
    other = made.law(6, 1_000, "fixed_window", None, 0)

    assert first is again
    assert first.identity == other.identity
    assert list(applied.limits) == [first.identity]
    assert applied.limits[first.identity].failure is FailureMode.OPEN
    assert made.names() == ["fixed_window/1000 ms"]
    assert made.newest() == [other]


def test_numbers_that_a_program_computes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made is forgotten as a whole, and made again."""
    monkeypatch.setattr(laws, "_MOST_LAWS", 10)
    made, applied = book()
    for limit in range(1, 100):
        made.law(limit, 1_000, "sliding_window", None, 0)

    assert len(made.laws) <= 10
    assert len(applied.limits) == 1


def test_more_windows_than_are_counted_at_a_time_are_refused_unless_some_are_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An idle one counts for nothing any more when it goes."""
    monkeypatch.setattr(laws, "MOST_FAMILIES", 3)
    made, applied = book()
    for window_ms in (1, 2, 3):
        made.law(5, window_ms, "token_bucket", None, 0)

    with pytest.raises(InvalidRateLimit, match="window_ms"):
        made.law(5, 4, "token_bucket", None, 1_999)
    made.law(5, 4, "token_bucket", None, 2_001)
    assert made.names() == ["token_bucket/2 ms", "token_bucket/3 ms", "token_bucket/4 ms"]
    assert len(applied.limits) == 3
    assert made.drop_idle(2_001) == 0


def test_checks_of_limits_that_are_gone_are_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a limit that was used since it was looked at last is not idle."""
    made, _ = book()
    used, unused = (made.law(5, window_ms, "fixed_window", None, 0) for window_ms in (1, 2))
    used.allowed, unused.denied = 3, 1
    made.note_use(0)
    used.denied = 2

    assert made.drop_idle(10_000) == 1
    assert made.names() == ["fixed_window/1 ms"]
    totals = made.tallies()["fixed_window"]
    assert (totals.allowed, totals.denied) == (3, 3)


def test_keys_are_texts_or_bytes() -> None:
    """Both are counted by their bytes."""
    assert counted("é") == counted("é".encode())
    with pytest.raises(InvalidRateLimit, match="key"):
        counted(5)
