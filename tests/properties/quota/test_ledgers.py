"""Ledgers against the pure laws: whatever the schedule, the same answers, and reclaiming changes none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.algorithms.sliding_window import SUB_BUCKETS
from ratelimit_service.quota.memory.ledger import Ledger, ledger_for
from ratelimit_service.quota.memory.ledger_bucket import BucketLedger
from ratelimit_service.quota.memory.ledger_fixed import FixedLedger
from ratelimit_service.quota.memory.ledger_sliding import SlidingLedger
from support.law_ledgers import law_for, perform, run
from support.laws import is_rest_exact, is_wait_exact, over_admissions
from support.strategies import START_US, Step, hits, limits, rollouts, schedules, schedules_of

FIXED, SLIDING, BUCKET = Algorithm
FIRST = Step("judge", b"a", 0, 0)
"""Begins every schedule, for it gives a ledger its time: before it, reclaiming has none to remember."""

over_algorithms = pytest.mark.parametrize("algorithm", list(Algorithm))


def replayed(limit: Limit, steps: list[Step]) -> Ledger:
    ledger = ledger_for(limit)
    run(ledger, [limit], steps)
    return ledger


@over_algorithms
@given(data=st.data())
def test_ledger_answers_as_the_law_does(algorithm: Algorithm, data: st.DataObject) -> None:
    """Debt, refunds, checks, clock steps, reclaiming and limits that take turns included."""
    in_turn = data.draw(rollouts(algorithm, most=2))
    steps = [FIRST, *data.draw(schedules)]

    assert run(ledger_for(in_turn[0]), in_turn, steps) == run(law_for(in_turn[0]), in_turn, steps)


@over_algorithms
@given(data=st.data())
def test_no_interval_holds_more_than_the_greatest_limit_in_force(algorithm: Algorithm, data: st.DataObject) -> None:
    """By brute force over what the ledger admitted, reclaiming in between."""
    in_turn = data.draw(rollouts(algorithm))

    assert over_admissions(ledger_for(in_turn[0]), in_turn, [FIRST, *data.draw(schedules)]) == []


@over_algorithms
@given(data=st.data())
def test_wait_is_exact(algorithm: Algorithm, data: st.DataObject) -> None:
    """At now + wait the hits fit, or the budget is full, and one microsecond before not."""
    limit, steps, asked = data.draw(limits(algorithm)), data.draw(schedules), data.draw(hits)
    now = Instant(START_US + sum(step.gap_us for step in steps), 0)

    assert is_wait_exact(lambda: replayed(limit, steps), limit, b"a", asked, now)


@over_algorithms
@given(data=st.data())
def test_rest_is_exact(algorithm: Algorithm, data: st.DataObject) -> None:
    """`remaining` more hits fit, and one more does not."""
    limit, steps, asked = data.draw(limits(algorithm)), data.draw(schedules), data.draw(hits)
    now = Instant(START_US + sum(step.gap_us for step in steps), 0)

    assert is_rest_exact(lambda: replayed(limit, steps), limit, b"a", asked, now)


# What a ledger holds.


@over_algorithms
@given(data=st.data())
def test_size_is_what_is_held(algorithm: Algorithm, data: st.DataObject) -> None:
    """After each call `keys`, `holds`, the length and the bytes agree; a key that counts is held."""
    limit, wall_us = data.draw(limits(algorithm)), START_US
    ledger = ledger_for(limit)
    for step in [FIRST, *data.draw(schedules)]:
        wall_us += step.gap_us
        now = Instant(wall_us, 0)
        ledger.reclaim(now, 0)
        perform(ledger, limit, step, now)
        listed = ledger.keys(0, 9)

        assert sorted(listed) == [key for key in (b"a", b"b") if ledger.holds(key)]
        assert len(listed) <= len(ledger)
        assert (ledger.bytes_used > 0) == (len(ledger) > 0)
        assert all(ledger.holds(key) for key in (b"a", b"b") if ledger.judge(limit, key, 0, now).before)


@over_algorithms
@given(data=st.data())
def test_forgotten_key_begins_anew_and_the_other_goes_on(algorithm: Algorithm, data: st.DataObject) -> None:
    """As if the forgotten key had never been met."""
    limit, steps, more = data.draw(limits(algorithm)), data.draw(schedules), data.draw(schedules)
    forgetful = replayed(limit, [FIRST, *steps])
    fresh = replayed(limit, [FIRST, *(step._replace(hits=0) if step.key == b"a" else step for step in steps)])
    held = forgetful.holds(b"a")
    forgetful.reclaim(Instant(START_US, 0), 0)

    assert forgetful.forget(b"a") == held
    assert not forgetful.holds(b"a")
    begin = Step("judge", b"b", 0, sum(step.gap_us for step in steps))
    assert run(forgetful, [limit], [begin, *more]) == run(fresh, [limit], [begin, *more])


@over_algorithms
@given(data=st.data())
def test_ledger_is_empty_once_all_has_expired(algorithm: Algorithm, data: st.DataObject) -> None:
    """Nothing is left of keys, also of forgotten ones, and nothing of the limits that took turns but one."""
    in_turn = data.draw(rollouts(algorithm))
    operations = ("take", "take", "give_back", "forget", "reclaim")
    ledger, wall_us = ledger_for(in_turn[0]), START_US
    for step in [FIRST, *data.draw(schedules_of(*operations))]:
        wall_us += step.gap_us
        perform(ledger, in_turn[step.limit % len(in_turn)], step, Instant(wall_us, 0))
    late = Instant(START_US + 10**9, 0)
    for _ in range(3):
        ledger.reclaim(late, 1_000)

    assert (len(ledger), ledger.bytes_used, list(ledger.keys(0, 9))) == (0, 0, [])
    assert most_inside(ledger) <= 1


def most_inside(ledger: Ledger) -> int:
    """Length of the longest thing that a ledger keeps inside; an empty current part or rate is one."""
    inner = (getattr(ledger, name) for name in vars(type(ledger))["__slots__"])
    return max(len(each) for each in inner if hasattr(each, "__len__"))


@over_algorithms
@given(data=st.data())
def test_reclaim_looks_at_no_more_than_its_budget(algorithm: Algorithm, data: st.DataObject) -> None:
    """However much has expired; and says how many it dropped at least."""
    limit, count, budget = data.draw(limits(algorithm)), data.draw(st.integers(0, 30)), data.draw(st.integers(0, 40))
    ledger = ledger_for(limit)
    for number in range(count):
        ledger.take(limit, b"%d" % number, 1, Instant(START_US + number, 0))
    before, seen = len(ledger), ledger.reclaim(Instant(START_US + 10**6, 0), budget)

    assert before - len(ledger) <= seen <= budget


# Planted bugs.


class ForgetfulLedger(FixedLedger):
    """Planted: reclaim drops live keys."""

    def reclaim(self, now: Instant, budget: int) -> int:
        self._counts.clear()
        return 0


class BackwardLedger(FixedLedger):
    """Planted: the window follows a clock that steps back."""

    def judge(self, limit: Limit, key: bytes, hits: int, now: Instant):
        if now.wall_us < self._end_us - limit.window_us:
            self._turn(now.wall_us)
        return super().judge(limit, key, hits, now)


class HastyLedger(BucketLedger):
    """Planted: a bucket that is full at the rate it was filled at is dropped, though a slower one is in force."""

    def __init__(self, limit: Limit) -> None:
        super().__init__()

    def _is_full(self, buckets, arrival: int) -> bool:
        return arrival <= self._latest_us << buckets.rate.shift


class EarlyLedger(SlidingLedger):
    """Planted: a part leaves the window one part too early."""

    def _turn(self, wall_us: int) -> None:
        super()._turn(wall_us)
        while self._parts[0].number <= self._current.number - SUB_BUCKETS:
            self._leaving.append(self._parts.popleft())


SLOWED = [Limit(BUCKET, 9, 90, 9), Limit(BUCKET, 1, 90, 9)]


def take(gap_us: int = 0, hits: int = 1) -> Step:
    return Step("take", b"a", hits, gap_us)


def elsewhere(gap_us: int, limit: int = 0) -> Step:
    """A check of another key."""
    return Step("judge", b"b", 0, gap_us, limit)


def reclaim(gap_us: int = 0) -> Step:
    return Step("reclaim", b"a", 9, gap_us)


@pytest.mark.parametrize(
    ("planted", "in_turn", "steps"),
    [
        (ForgetfulLedger, [Limit(FIXED, 1, 10, 1)], [take(), reclaim(), take()]),
        (BackwardLedger, [Limit(FIXED, 1, 10, 1)], [take(), elsewhere(-30), take()]),
        (HastyLedger, SLOWED, [take(hits=9), elsewhere(0, limit=1), reclaim(90), Step("judge", b"a", 0, 0, 1)]),
        (EarlyLedger, [Limit(SLIDING, 1, 60, 1)], [take(), take(gap_us=60)]),
    ],
)
def test_planted_ledger_is_seen(planted: Callable[[Limit], Ledger], in_turn: list[Limit], steps: list[Step]) -> None:
    """The check of `test_ledger_answers_as_the_law_does`."""
    by_law = run(law_for(in_turn[0]), in_turn, [FIRST, *steps])

    assert run(planted(in_turn[0]), in_turn, [FIRST, *steps]) != by_law
    assert run(ledger_for(in_turn[0]), in_turn, [FIRST, *steps]) == by_law
