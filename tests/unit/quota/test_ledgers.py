"""Ledgers by example: memory, slices of reclaiming, changes of the limit, calendars."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, Instant, Limit
from ratelimit_service.quota.memory.ledger import Ledger, ledger_for
from ratelimit_service.quota.store import NEVER_US
from support.strategies import START_US

FIXED, SLIDING, BUCKET = Algorithm
MINUTE_US = 60_000_000
LIMITS = [Limit(algorithm, 5, MINUTE_US, 5) for algorithm in Algorithm]
NOW = Instant(START_US, 0)

over_limits = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.algorithm.value)


def at(us: int) -> Instant:
    return Instant(START_US + us, 0)


def filled(limit: Limit, keys: int, gap_us: int = 0) -> Ledger:
    """A ledger whose keys were each seen once, `gap_us` apart."""
    ledger = ledger_for(limit)
    for number in range(keys):
        ledger.take(limit, b"key-%09d" % number, 1, at(number * gap_us))
    return ledger


@over_limits
@pytest.mark.parametrize("gap_us", [0, 1_000])
def test_bytes_are_estimated_within_a_quarter(limit: Limit, gap_us: int) -> None:
    """At 20,000 keys, all at once or over 20 seconds."""
    filled(limit, 100)
    gc.collect()
    tracemalloc.start()
    ledger = filled(limit, 20_000, gap_us)
    allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert ledger.bytes_used == pytest.approx(allocated, rel=0.25)


@over_limits
def test_slices_drop_all_that_has_expired(limit: Limit) -> None:
    """Ten keys at a time, never more than the budget, and then nothing is left to look at."""
    ledger = filled(limit, 95)
    seen = [ledger.reclaim(at(2 * MINUTE_US), 10) for _ in range(12)]

    assert seen == [10] * 9 + [5, 0, 0]
    assert (len(ledger), ledger.bytes_used) == (0, 0)


@over_limits
def test_nothing_is_left_of_keys_that_come_and_go(limit: Limit) -> None:
    """A thousand keys that are forgotten and met again: no queue grows."""
    ledger = ledger_for(limit)
    for round_ in range(1_000):
        ledger.take(limit, b"%d" % (round_ % 7), 1, NOW)
        ledger.forget(b"%d" % (round_ % 7))
    ledger.reclaim(NOW, 7)

    assert (len(ledger), ledger.bytes_used) == (0, 0)
    assert ledger.reclaim(NOW, 10) == 0


@over_limits
def test_unknown_key_is_not_there(limit: Limit) -> None:
    """Neither held nor forgotten, and giving back what it never took changes nothing."""
    ledger = ledger_for(limit)
    ledger.give_back(limit, b"k", 3, NOW)
    ledger.reclaim(NOW, 10)

    assert (ledger.holds(b"k"), ledger.forget(b"k"), len(ledger)) == (False, False, 0)
    assert ledger.judge(limit, b"k", 5, NOW).remaining == 0


@over_limits
def test_page_of_keys_starts_where_asked(limit: Limit) -> None:
    """Three keys in pages of two."""
    ledger = filled(limit, 3)

    assert [len(ledger.keys(start, 2)) for start in (0, 2, 4)] == [2, 1, 0]
    assert {*ledger.keys(0, 2), *ledger.keys(2, 2)} == {b"key-%09d" % number for number in range(3)}


@over_limits
def test_more_than_can_ever_fit_is_never(limit: Limit) -> None:
    """One more than the limit, and all that the wire carries; neither makes a key."""
    ledger = ledger_for(limit)
    outcomes = [ledger.take(limit, b"k", hits, NOW) for hits in (6, 2**64 - 1)]

    assert [(outcome.over, outcome.wait_us) for outcome in outcomes] == [(True, NEVER_US)] * 2
    assert not ledger.holds(b"k")


@pytest.mark.parametrize("algorithm", [FIXED, SLIDING])
def test_limit_of_zero_is_always_over(algorithm: Algorithm) -> None:
    """As `requests_per_unit: 0` of upstream's YAML, a check with 0 hits included."""
    limit = Limit(algorithm, 0, MINUTE_US, 0)
    outcomes = [ledger_for(limit).take(limit, b"k", hits, NOW) for hits in (0, 1)]

    assert [(outcome.over, outcome.wait_us) for outcome in outcomes] == [(True, NEVER_US)] * 2


def test_sliding_calls_drop_more_than_they_make() -> None:
    """Without any reclaiming, what left the window goes with the calls that follow."""
    limit = Limit(SLIDING, 5, MINUTE_US, 5)
    ledger = filled(limit, 100)
    for number in range(50):
        ledger.take(limit, b"new-%09d" % number, 1, at(2 * MINUTE_US))

    assert len(ledger) == 50


def test_sliding_debt_is_paid_part_by_part() -> None:
    """A debt from two parts: the wait runs to when enough of it has left."""
    limit = Limit(SLIDING, 5, MINUTE_US, 5)
    ledger = ledger_for(limit)
    begin = Instant(START_US - START_US % 1_000_000, 0)
    later = Instant(begin.wall_us + 10_000_000, 0)
    ledger.spend(limit, b"k", 4, begin)
    ledger.spend(limit, b"k", 4, later)

    assert [ledger.judge(limit, b"k", hits, later).wait_us for hits in (0, 1, 2, 5)] == [
        51_000_000,
        51_000_000,
        61_000_000,
        61_000_000,
    ]


def test_raised_and_lowered_limit_keeps_the_count() -> None:
    """Fixed and sliding: what was counted stays, what is left follows the limit in force."""
    for algorithm in (FIXED, SLIDING):
        low, high = (Limit(algorithm, requests, MINUTE_US, requests) for requests in (3, 10))
        ledger = ledger_for(low)
        ledger.take(high, b"k", 7, NOW)

        assert ledger.judge(low, b"k", 1, NOW).over
        assert ledger.judge(high, b"k", 0, NOW).remaining == 3


def test_limit_changed_and_changed_back_gives_no_second_burst() -> None:
    """Hits counted under the limit in between are still there, however long ago the first limit began."""
    fast, slow = (Limit(BUCKET, requests, 10_000_000, 10) for requests in (10, 5))
    ledger, later = ledger_for(fast), at(100_000_000)
    ledger.take(fast, b"other", 1, NOW)
    ledger.take(slow, b"k", 10, later)

    assert ledger.judge(fast, b"k", 1, later).over


def test_slower_bucket_is_not_reclaimed_at_the_pace_of_the_faster() -> None:
    """Drained under 10 a second, then limited to 1 a second: after a second it holds one token, not ten."""
    fast, slow = (Limit(BUCKET, requests, 1_000_000, 10) for requests in (10, 1))
    ledger = ledger_for(fast)
    ledger.take(fast, b"k", 10, NOW)
    ledger.judge(slow, b"other", 0, NOW)
    ledger.reclaim(at(1_000_000), 10)

    assert ledger.judge(slow, b"k", 0, at(1_000_000)).remaining == 1


def test_key_of_an_old_rate_is_listed_moved_and_forgotten() -> None:
    """Until it is met at the new rate it stays where it was; then it is there once."""
    old, new = (Limit(BUCKET, requests, MINUTE_US, 10) for requests in (10, 5))
    ledger = ledger_for(old)
    ledger.take(old, b"k", 5, NOW)
    ledger.take(old, b"gone", 5, NOW)
    ledger.take(new, b"k", 1, NOW)

    assert (ledger.forget(b"gone"), ledger.forget(b"gone")) == (True, False)
    assert (len(ledger), ledger.keys(0, 9)) == (1, [b"k"])
    assert ledger.judge(new, b"k", 0, NOW).before == 6


def test_bucket_refills_after_a_sweep_of_the_unused_ledger() -> None:
    """Reclaiming before the first hit does not move the ledger's time."""
    limit = Limit(BUCKET, 1, 10, 1)
    ledger = ledger_for(limit)
    ledger.reclaim(NOW, 10)
    ledger.take(limit, b"k", 1, NOW)

    assert not ledger.take(limit, b"k", 1, at(10)).over


def test_calendar_day_is_one_window() -> None:
    """Twenty-five hours long in Berlin on 27 October 2024: from 22:00 UTC to 23:00 UTC."""
    limit = Limit(FIXED, 1, 0, 1, Calendar(CalendarUnit.DAY, "Europe/Berlin"))
    ledger, begin_us = ledger_for(limit), 1_729_980_000_000_000
    hour_us = 3_600_000_000
    outcomes = [ledger.take(limit, b"k", 1, Instant(begin_us + us, 0)) for us in (0, 25 * hour_us - 1, 25 * hour_us)]

    assert [(outcome.over, outcome.wait_us) for outcome in outcomes] == [
        (False, 25 * hour_us),
        (True, 1),
        (False, 24 * hour_us),
    ]


def test_calendar_counts_while_the_clock_repeats_the_end_of_a_date() -> None:
    """St. John's went from 00:01 back to 23:01: what is taken in that hour is still counted once."""
    limit = Limit(FIXED, 1, 0, 1, Calendar(CalendarUnit.DAY, "America/St_Johns"))
    ledger, change_us = ledger_for(limit), 1_162_089_060_000_000
    overs = [ledger.take(limit, b"k", 1, Instant(change_us + us, 0)).over for us in (60_000_000, 1_800_000_000)]

    assert overs == [False, True]
