"""Fixed and sliding windows by example."""

from __future__ import annotations

import pytest

from ratelimit_service.algorithms import fixed_window, sliding_window
from ratelimit_service.algorithms.judgement import COUNT_MAX, NEVER_US, Judgement

MINUTE_US = 60_000_000
PART_US = 1_000_000


@pytest.mark.parametrize(
    ("used", "hits", "expected"),
    [
        (0, 0, Judgement(over=False, remaining=5, wait_us=0, before=0)),
        (0, 1, Judgement(over=False, remaining=4, wait_us=70, before=0)),
        (4, 0, Judgement(over=False, remaining=1, wait_us=70, before=4)),
        (4, 1, Judgement(over=False, remaining=0, wait_us=70, before=4)),
        (4, 2, Judgement(over=True, remaining=0, wait_us=70, before=4)),
        (5, 0, Judgement(over=True, remaining=0, wait_us=70, before=5)),
        (9, 1, Judgement(over=True, remaining=0, wait_us=70, before=9)),
        (0, 6, Judgement(over=True, remaining=0, wait_us=NEVER_US, before=0)),
    ],
)
def test_fixed_window_of_five(used: int, hits: int, expected: Judgement) -> None:
    """Below, at and above the limit, 70 µs before the window ends."""
    assert fixed_window.judge(5, used, hits, 70) == expected


def test_fixed_windows_are_aligned_to_the_epoch() -> None:
    """An instant at an edge is in the window that begins there."""
    assert fixed_window.window_at(10, 19) == (10, 20)
    assert fixed_window.window_at(10, 20) == (20, 30)


def test_fixed_count_saturates_and_never_goes_below_zero() -> None:
    """At 2**63 - 1, and at 0."""
    assert fixed_window.spend(1, 2**64 - 1) == COUNT_MAX
    assert fixed_window.give_back(3, 4) == 0


@pytest.mark.parametrize(("window_us", "width_us"), [(60, 1), (61, 2), (1, 1), (MINUTE_US, PART_US)])
def test_parts_are_rounded_up(window_us: int, width_us: int) -> None:
    """Sixty of them cover the window."""
    assert sliding_window.part_width_us(window_us) == width_us


def test_sliding_window_forgets_when_the_sixty_first_part_begins() -> None:
    """A hit of part 7 still counts in part 67, and no more in part 68."""
    state = sliding_window.spend((), 7, 5)

    assert sliding_window.judge(5, MINUTE_US, state, 67, 1, 67 * PART_US).wait_us == PART_US
    assert not sliding_window.judge(5, MINUTE_US, state, 68, 1, 68 * PART_US).over
    assert sliding_window.live(state, 68) == ()


def test_sliding_window_waits_for_as_many_parts_as_the_hits_need() -> None:
    """Two in part 0 and three in part 10: two more fit when part 0 has left, four when part 10 has too."""
    state, now_us = ((0, 2), (10, 3)), 20 * PART_US
    waits_us = [sliding_window.judge(5, MINUTE_US, state, 20, hits, now_us).wait_us for hits in (0, 2, 3, 5, 6)]

    assert waits_us == [41 * PART_US, 41 * PART_US, 51 * PART_US, 51 * PART_US, NEVER_US]


def test_sliding_window_is_full_when_its_newest_part_has_left() -> None:
    """Hits that fit count in the current part; a check looks at what is there."""
    state, now_us = ((10, 3),), 20 * PART_US
    waits_us = [sliding_window.judge(5, MINUTE_US, state, 20, hits, now_us).wait_us for hits in (0, 1)]

    assert waits_us == [51 * PART_US, 61 * PART_US]
    assert sliding_window.judge(5, MINUTE_US, (), 20, 0, now_us).wait_us == 0


def test_sliding_count_saturates() -> None:
    """The sum over all parts stays an integer that every store can hold."""
    state = sliding_window.spend(((1, 5),), 2, 2**64)

    assert sum(count for _, count in state) == COUNT_MAX
    assert sliding_window.spend(state, 3, 1) == state


def test_sliding_refund_takes_the_newest_first() -> None:
    """Three of (2, 2): the newer part goes, the older keeps one."""
    assert sliding_window.give_back(((1, 2), (2, 2)), 2, 3) == ((1, 1),)
    assert sliding_window.give_back(((1, 2), (2, 2)), 2, 2) == ((1, 2),)
    assert sliding_window.give_back(((1, 2),), 2, 2**64 - 1) == ()
