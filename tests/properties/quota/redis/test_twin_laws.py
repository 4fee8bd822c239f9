"""The twin of the scripts: what the memory store decides, and never more than the law, however leases are spent."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.quota.memory.ledger import ledger_for
from ratelimit_service.quota.redis.twin import EMPTY, Answer, Refusal, SharedState, apply
from ratelimit_service.quota.redis.twin_state import State
from ratelimit_service.quota.store import Outcome
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Order, Refund, Reset, Return, Spend, Take
from support.counted_keys import WHERE, ask, orders, some_limits
from support.strategies import START_US, limits

over_algorithms = pytest.mark.parametrize("algorithm", list(Algorithm))
forward_us = st.one_of(st.integers(0, 9), st.integers(0, 260))
wants = st.one_of(st.integers(0, 4), st.sampled_from([9, 10, 1_000]))
exact_steps = st.lists(
    st.tuples(st.sampled_from("tttsrp"), st.sampled_from([b"a", b"b"]), wants, forward_us), max_size=40
)


def as_outcome(grant: Grant, want: int) -> Outcome:
    """What a request of `want` hits is told, from what the store said of its exact take."""
    over = grant.granted < want if want else grant.remaining < 1
    return Outcome(over, 0 if over else grant.remaining, grant.wait_us, grant.before)


def told(answer: Answer) -> list[Grant]:
    """The grants of an answer that is no refusal."""
    assert not isinstance(answer, Refusal)
    return list(answer)


class Pair:
    """A ledger of the memory store and the twin, asked the same."""

    def __init__(self, limit: Limit) -> None:
        self.limit, self.ledger, self.shared = limit, ledger_for(limit), SharedState()

    def step(self, operation: str, key: bytes, want: int, wall_us: int) -> tuple[Outcome, Outcome]:
        """One step; what both say of it, or, where nothing is said, what they then say of a look."""
        now, where = Instant(wall_us, 0), CountedKey(b"rule", key)
        match operation:
            case "t":
                outcome = self.ledger.take(self.limit, key, want, now)
                return outcome, as_outcome(self.ask(Take(where, self.asks(want), want, 0), wall_us), want)
            case "s":
                said = self.ledger.judge(self.limit, key, want, now)
                self.ledger.spend(self.limit, key, want, now)
                return said, as_outcome(self.ask(Spend(where, self.asks(want)), wall_us), want)
            case "r":
                self.ledger.give_back(self.limit, key, want, now)
                self.ask(Refund(where, self.asks(want)), wall_us)
        grant = self.ask(Take(where, self.asks(0), 0, 0), wall_us)
        return self.ledger.judge(self.limit, key, 0, now), as_outcome(grant, 0)

    def asks(self, want: int) -> tuple[Ask, ...]:
        return (Ask(b"limit", self.limit, want),)

    def ask(self, order: Order, wall_us: int) -> Grant:
        return told(self.shared.execute([order], wall_us)[0])[0]


@over_algorithms
@given(data=st.data())
def test_without_leases_the_twin_is_the_memory_store(algorithm: Algorithm, data: st.DataObject) -> None:
    """Takes, debts, refunds and looks: the same outcomes as the ledger's, field by field."""
    pair, wall_us = Pair(data.draw(limits(algorithm))), START_US
    pair.step("p", b"a", 0, wall_us)
    for operation, key, want, gap_us in data.draw(exact_steps):
        wall_us += gap_us
        expected, seen = pair.step(operation, key, want, wall_us)

        assert seen.remaining == expected.remaining
        assert (seen.over, seen.before) == (expected.over, expected.before)
        assert seen.wait_us == expected.wait_us or (operation == "s" and seen.over)


# No interval holds more than the law, however a grant is spent.


class Lease(NamedTuple):
    """A grant, and how long it was good for, by the store's clock."""

    taken_us: int
    until_us: int
    grant: Grant


class Step(NamedTuple):
    """A take, of which `unspent` hits go back and the rest is spent at once or late.

    `late` is the share of the lease's time, in quarters, that passes before it is spent.
    """

    gap_us: int
    want: int
    lease_us: int
    unspent: int
    late: int


steps = st.lists(
    st.builds(
        Step, forward_us, st.integers(1, 9), st.sampled_from([0, 0, 1, 20, 100]), st.sampled_from([0, 0, 1, 3]),
        st.integers(0, 4),
    ),
    max_size=25,
)  # fmt: skip

Applied = Callable[[State, Order, int], tuple[State, list[Grant]]]


def faithful(state: State, order: Order, now_us: int) -> tuple[State, list[Grant]]:
    after, answer = apply(state, order, now_us)
    return after, told(answer)


def charged_at_once(state: State, order: Order, now_us: int) -> tuple[State, list[Grant]]:
    """Planted: leases are charged when they are taken, not when they end."""
    if not isinstance(order, Take):
        return faithful(state, order, now_us)
    _, answer = apply(state, order, now_us)
    after, _ = apply(state, msgspec.structs.replace(order, lease_us=0), now_us)
    return after, told(answer)


def returns_twice(state: State, order: Order, now_us: int) -> tuple[State, list[Grant]]:
    """Planted: a return is sent again."""
    after, grants = faithful(state, order, now_us)
    return faithful(after, order, now_us) if isinstance(order, Return) else (after, grants)


def spent(limit: Limit, schedule: list[Step], applied: Applied) -> list[tuple[int, int]]:
    """When how many hits were spent: all of every grant but what was returned before it was."""
    state, now_us = EMPTY, START_US
    spends: list[tuple[int, int]] = []
    for step in schedule:
        now_us += step.gap_us
        order = Take(WHERE, (ask(limit, step.want),), 1, step.lease_us)
        state, (grant,) = applied(state, order, now_us)
        unspent = min(step.unspent, grant.granted)
        # "Until" leaves the last instant out: in a fixed window it is the next one's first.
        at_us = now_us + max(0, grant.spend_us - 1) * step.late // 4
        spends.append((at_us, grant.granted - unspent))
        if unspent:
            now_us = max(now_us, at_us)
            back = Return(WHERE, ask(limit, unspent), grant.number, grant.epoch, grant.window)
            state, _ = applied(state, back, now_us)
    return sorted(spends)


def excess(limit: Limit, spends: list[tuple[int, int]]) -> int:
    """The greatest excess over the law in any interval, times the window's length."""
    worst = 0
    for first, last in itertools.combinations_with_replacement(range(len(spends)), 2):
        begun_us, ended_us = spends[first][0], spends[last][0]
        total = sum(hits for _, hits in spends[first : last + 1]) * limit.window_us
        match limit.algorithm:
            case Algorithm.FIXED_WINDOW:
                applies = begun_us // limit.window_us == ended_us // limit.window_us
                allowed = limit.requests * limit.window_us
            case Algorithm.SLIDING_WINDOW:
                applies, allowed = ended_us - begun_us < limit.window_us, limit.requests * limit.window_us
            case Algorithm.TOKEN_BUCKET:
                applies, allowed = True, limit.burst * limit.window_us + (ended_us - begun_us) * limit.requests
        worst = max(worst, total - allowed if applies else 0)
    return worst


@over_algorithms
@given(data=st.data())
def test_no_interval_holds_more_than_the_law_however_leases_are_spent(
    algorithm: Algorithm, data: st.DataObject
) -> None:
    """Spent at once, late or at the last instant; unspent rests go back while they are good."""
    limit, schedule = data.draw(limits(algorithm)), data.draw(steps)

    assert excess(limit, spent(limit, schedule, faithful)) == 0


SLOW_BUCKET = Limit(Algorithm.TOKEN_BUCKET, 5, 100, 5)
SLIDING = Limit(Algorithm.SLIDING_WINDOW, 5, 120, 5)
FIXED = Limit(Algorithm.FIXED_WINDOW, 5, 1_000, 5)


@pytest.mark.parametrize(
    ("planted", "limit", "schedule"),
    [
        (charged_at_once, SLOW_BUCKET, [Step(0, 5, 100, 0, 4), Step(100, 5, 0, 0, 0)]),
        (charged_at_once, SLIDING, [Step(0, 5, 100, 0, 4), Step(122, 5, 0, 0, 0)]),
        (returns_twice, FIXED, [Step(0, 5, 0, 1, 0), Step(0, 5, 0, 0, 0)]),
        (returns_twice, SLIDING, [Step(0, 5, 0, 1, 0), Step(0, 5, 0, 0, 0)]),
        (returns_twice, SLOW_BUCKET, [Step(0, 5, 0, 1, 0), Step(0, 5, 0, 0, 0)]),
    ],
)
def test_law_catches_planted_leases(planted: Applied, limit: Limit, schedule: list[Step]) -> None:
    """What each planted bug admits is more than the law; the twin's own schedule is not."""
    assert excess(limit, spent(limit, schedule, planted)) > 0
    assert excess(limit, spent(limit, schedule, faithful)) == 0


# What may be forgotten.


@settings(max_examples=25)
@given(data=st.data())
def test_a_forgotten_state_would_have_answered_the_same(data: st.DataObject) -> None:
    """From `until_us` on a take is told the same by the state and by none, but for its number and epoch."""
    limit = data.draw(some_limits)
    state, now_us = EMPTY, START_US
    for order in data.draw(st.lists(orders([limit]), max_size=8)):
        now_us += data.draw(forward_us)
        state, _ = apply(state, order, now_us)
    assume(state.entries)
    later_us = max(state.until_us, now_us) + data.draw(forward_us)
    asked = Take(WHERE, (Ask(b"limit 0", limit, data.draw(wants)),), 1, data.draw(st.integers(0, 50)))
    _, kept = faithful(state, asked, later_us)
    _, fresh = faithful(EMPTY, asked, later_us)

    assert [timeless(grant) for grant in kept] == [timeless(grant) for grant in fresh]


def timeless(grant: Grant) -> Grant:
    return msgspec.structs.replace(grant, number=0, epoch=0)


@given(data=st.data())
def test_numbers_only_grow(data: st.DataObject) -> None:
    """Even over a state that was forgotten in between, as long as the store's clock does not go back."""
    shared, now_us, numbers = SharedState(), START_US, [0]
    limit = data.draw(some_limits)
    for gap_us in data.draw(st.lists(st.sampled_from([0, 1, 5, 10**13]), max_size=10)):
        now_us += gap_us
        shared.expire(now_us)
        (grant,) = told(shared.execute([Take(WHERE, (ask(limit, 1),), 1, 0)], now_us)[0])
        numbers += [grant.number] * grant.granted

    assert numbers == sorted(set(numbers))


@over_algorithms
@given(data=st.data())
def test_a_reset_begins_anew_under_the_next_epoch(algorithm: Algorithm, data: st.DataObject) -> None:
    """The whole budget is there, returns of before are passed over, and the epoch is one more."""
    limit = data.draw(limits(algorithm))
    state, (granted,) = faithful(EMPTY, Take(WHERE, (ask(limit, data.draw(st.integers(1, 9))),), 1, 20), START_US)
    assume(granted.granted)
    state, (reset,) = faithful(state, Reset(WHERE), START_US)
    late = Return(WHERE, ask(limit, granted.granted), granted.number, granted.epoch, granted.window)
    after, (returned,) = faithful(state, late, START_US)
    _, (look,) = faithful(after, Take(WHERE, (ask(limit, 0),), 0, 0), START_US)

    assert (reset.granted, reset.epoch, returned.granted, look.epoch) == (1, 1, 0, 1)
    assert (look.remaining, look.before, after) == (limit.burst, 0, state)
