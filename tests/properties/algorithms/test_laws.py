"""Each algorithm keeps its promise for any schedule, and each planted bug is seen by the very same check."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.algorithms import sliding_window, token_bucket
from ratelimit_service.algorithms.judgement import COUNT_MAX, Judgement
from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from support.law_ledgers import Answering, BucketLaw, Filled, FixedLaw, SlidingLaw, law_for, run
from support.laws import changes_nothing, is_rest_exact, is_wait_exact, over_admissions
from support.strategies import START_US, Step, gaps_us, hits, limits, rollouts, schedules_of

FIXED, SLIDING, BUCKET = Algorithm
CALLS = schedules_of("take", "take", "take", "take", "judge", "spend", "give_back")
NOW = Instant(START_US, 0)

over_algorithms = pytest.mark.parametrize("algorithm", list(Algorithm))


def fixed(requests: int, window_us: int) -> Limit:
    return Limit(FIXED, requests, window_us, requests)


def sliding(requests: int, window_us: int) -> Limit:
    return Limit(SLIDING, requests, window_us, requests)


def bucket(requests: int, window_us: int, burst: int) -> Limit:
    return Limit(BUCKET, requests, window_us, burst)


def take(hits: int = 1, gap_us: int = 0, limit: int = 0) -> Step:
    return Step("take", b"a", hits, gap_us, limit)


def replay(ledger: Answering, limits: list[Limit], steps: list[Step]) -> Answering:
    run(ledger, limits, steps)
    return ledger


# The laws.


@over_algorithms
@given(data=st.data())
def test_no_interval_holds_more_than_the_limit(algorithm: Algorithm, data: st.DataObject) -> None:
    """Several hits at once, debts, refunds and a clock that steps both ways included."""
    limit = data.draw(limits(algorithm))

    assert over_admissions(law_for(limit), [limit], data.draw(CALLS)) == []


@over_algorithms
@given(data=st.data())
def test_changing_limit_admits_at_most_the_greatest_in_force(algorithm: Algorithm, data: st.DataObject) -> None:
    """One to three limits take turns on one identity."""
    in_turn = data.draw(rollouts(algorithm))

    assert over_admissions(law_for(in_turn[0]), in_turn, data.draw(CALLS)) == []


@over_algorithms
@given(data=st.data())
def test_wait_is_exact(algorithm: Algorithm, data: st.DataObject) -> None:
    """After any schedule, whatever is asked."""
    limit, steps, asked = data.draw(limits(algorithm)), data.draw(CALLS), data.draw(hits)
    now = Instant(START_US + sum(step.gap_us for step in steps), 0)

    assert is_wait_exact(lambda: replay(law_for(limit), [limit], steps), limit, b"a", asked, now)


@over_algorithms
@given(data=st.data())
def test_rest_is_exact(algorithm: Algorithm, data: st.DataObject) -> None:
    """After any schedule, whatever is taken."""
    limit, steps, asked = data.draw(limits(algorithm)), data.draw(CALLS), data.draw(hits)
    now = Instant(START_US + sum(step.gap_us for step in steps), 0)

    assert is_rest_exact(lambda: replay(law_for(limit), [limit], steps), limit, b"a", asked, now)


@over_algorithms
@given(data=st.data())
def test_refund_undoes_its_take(algorithm: Algorithm, data: st.DataObject) -> None:
    """Hits that fitted and are given back at once leave nothing behind, now or later."""
    limit, steps = data.draw(limits(algorithm)), data.draw(CALLS)
    make, now, later_us = after_schedule(limit, steps, data.draw(st.lists(gaps_us.map(abs), max_size=9)))
    fitting = data.draw(st.integers(0, make().judge(limit, b"a", 0, now).remaining))

    assert changes_nothing(make, take_and_give_back(limit, fitting, now), limit, b"a", later_us)


@over_algorithms
@given(data=st.data())
def test_what_does_not_fit_is_not_counted(algorithm: Algorithm, data: st.DataObject) -> None:
    """A denied take and a check with 0 hits change nothing, now or later."""
    limit, steps = data.draw(limits(algorithm)), data.draw(CALLS)
    make, now, later_us = after_schedule(limit, steps, data.draw(st.lists(gaps_us.map(abs), max_size=9)))
    too_many = make().judge(limit, b"a", 0, now).remaining + 1

    assert changes_nothing(make, lambda ledger: ledger.take(limit, b"a", too_many, now), limit, b"a", later_us)
    assert changes_nothing(make, lambda ledger: ledger.take(limit, b"a", 0, now), limit, b"a", later_us)


def after_schedule(
    limit: Limit, steps: list[Step], gaps: list[int], law: type[FixedLaw | SlidingLaw | BucketLaw] | None = None
) -> tuple[Callable[[], Answering], Instant, list[int]]:
    """How to make a ledger that has seen the schedule, its last instant, and later ones."""
    now_us = START_US + sum(step.gap_us for step in steps)
    made = law_for if law is None else law
    later_us = [now_us + sum(gaps[: count + 1]) for count in range(len(gaps))]
    return lambda: replay(made(limit), [limit], [*steps, Step("judge", b"a", 0, 0)]), Instant(now_us, 0), later_us


def take_and_give_back(limit: Limit, hits: int, now: Instant) -> Callable[[Answering], object]:
    def asked(ledger: Answering) -> None:
        ledger.take(limit, b"a", hits, now)
        ledger.give_back(limit, b"a", hits, now)

    return asked


@over_algorithms
@given(data=st.data())
def test_counts_saturate(algorithm: Algorithm, data: st.DataObject) -> None:
    """Debts beyond every number stay debts, in integers that every store can hold."""
    limit = data.draw(limits(algorithm))
    ledger = law_for(limit)
    for _ in range(3):
        ledger.spend(limit, b"a", 2**64 - 1, NOW)
    said = ledger.judge(limit, b"a", 1, NOW)

    assert said.over
    assert said.before == COUNT_MAX


# Rounding.

DAY_US = 86_400_000_000
rates = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 200)),
    st.tuples(st.integers(1, 4_294_967_295), st.integers(100_000, 366 * DAY_US)),
).filter(lambda rate: rate[0] <= 1_000 * rate[1])


@given(rates)
@example((1, 366 * DAY_US))
@example((1_000_000, 1_000))
@example((4_294_967_295, 366 * DAY_US))
def test_interval_is_never_short_and_costs_a_thousandth_at_most(rate: tuple[int, int]) -> None:
    """One per 366 days to a million per millisecond."""
    requests, window_us = rate
    got = token_bucket.rate_of(requests, window_us)
    exact_units = window_us << got.shift

    assert exact_units <= got.interval * requests <= exact_units + exact_units // 1_000


@given(st.integers(100_000, 366 * DAY_US))
def test_parts_cover_the_window_and_cost_a_thousandth_at_most(window_us: int) -> None:
    """From the shortest window that a policy can have to the longest."""
    covered_us = sliding_window.part_width_us(window_us) * sliding_window.SUB_BUCKETS

    assert window_us <= covered_us <= window_us + window_us // 1_000


@pytest.mark.parametrize(("requests", "window_us"), [(7, 1_000_000), (999_983, 1_000), (3, 1_000_003)])
def test_bucket_sustains_its_rate_within_a_thousandth(requests: int, window_us: int) -> None:
    """An empty bucket that is asked whenever it says that one more hit fits; to what refills in a microsecond."""
    rate = token_bucket.rate_of(requests, window_us)
    arrival = token_bucket.spend(rate, 0, requests, 0)
    now_us = admitted = 0
    while admitted < 10_000:
        said = token_bucket.judge(rate, requests, arrival, 1, now_us)
        arrival = arrival if said.over else token_bucket.spend(rate, arrival, 1, now_us)
        admitted += not said.over
        now_us += said.wait_us * said.over
    allowed = requests * now_us // window_us

    assert admitted <= allowed <= admitted + admitted // 1_000 + requests // window_us + 1


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=40))
def test_bucket_forgotten_when_full_answers_as_one_that_was_not(calls: list[tuple[int, int]]) -> None:
    """An arrival time in the past means the same as none."""
    rate = token_bucket.rate_of(3, 10)
    kept = dropped = now_us = 0
    for count, gap_us in calls:
        now_us += gap_us
        dropped = dropped if dropped > now_us << rate.shift else 0
        assert token_bucket.judge(rate, 5, kept, count, now_us) == token_bucket.judge(rate, 5, dropped, count, now_us)
        kept, dropped = (token_bucket.spend(rate, arrival, count, now_us) for arrival in (kept, dropped))


# Planted bugs.


class FlooredInterval(BucketLaw):
    """Planted: whole microseconds, rounded down, so the bucket refills too fast."""

    def rate_of(self, limit: Limit) -> token_bucket.Rate:
        return token_bucket.Rate(0, limit.window_us // limit.requests)


class FullAfterChange(BucketLaw):
    """Planted: a limit that changes leaves the arrival time as it is, and so turns hits into time."""

    def arrival(self, limit: Limit, key: bytes, now_us: int) -> int:
        filled = self.filled.get(key, Filled(0, limit.requests))
        return filled.arrival >> self.rates[filled.requests].shift << self.rates[limit.requests].shift


class OnePartFewer(SlidingLaw):
    """Planted: the sum runs over as many parts as the window has, the current one among them."""

    def state(self, key: bytes) -> sliding_window.State:
        return tuple(entry for entry in super().state(key) if entry[0] > self.part - sliding_window.SUB_BUCKETS)


class PartsGoBack(SlidingLaw):
    """Planted: the part follows a clock that steps back; what was counted after it is lost."""

    def at(self, wall_us: int) -> None:
        self.part = wall_us // sliding_window.part_width_us(self.window_us)
        self.states = {
            key: tuple(entry for entry in state if entry[0] <= self.part) for key, state in self.states.items()
        }


class WindowGoesBack(FixedLaw):
    """Planted: the window follows a clock that steps back."""

    def at(self, limit: Limit, wall_us: int) -> None:
        self.end_us = min(self.end_us, wall_us) if wall_us < self.end_us - limit.window_us else self.end_us
        super().at(limit, wall_us)


class RefundBelowZero(FixedLaw):
    """Planted: hits that were never counted can be given back."""

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        self.at(limit, now.wall_us)
        self.used[key] = self.used.get(key, 0) - hits


class DebtForgiven(FixedLaw):
    """Planted: a debt is cut off at the limit, so a refund opens what is still owed."""

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        super().spend(limit, key, hits, now)
        self.used[key] = min(self.used[key], limit.requests)


@pytest.mark.parametrize(
    ("planted", "in_turn", "steps"),
    [
        (FlooredInterval, [bucket(2, 3, 1)], [take(), take(gap_us=1), take(gap_us=1), take(gap_us=1)]),
        (FullAfterChange, [bucket(9, 90, 9), bucket(1, 90, 9)], [take(9), take(8, limit=1)]),
        (OnePartFewer, [sliding(1, 120)], [take(gap_us=1), take(gap_us=119)]),
        (PartsGoBack, [sliding(1, 60)], [take(), Step("judge", b"a", 0, -5), take(gap_us=5)]),
        (WindowGoesBack, [fixed(1, 10)], [take(gap_us=10), Step("judge", b"a", 0, -10), take(gap_us=10)]),
        (RefundBelowZero, [fixed(1, 10)], [Step("give_back", b"a", 1, 0), take(), take()]),
        (DebtForgiven, [fixed(1, 10)], [Step("spend", b"a", 9, 0), Step("give_back", b"a", 1, 0), take()]),
    ],
)
def test_over_admission_is_seen(
    planted: type[FixedLaw | SlidingLaw | BucketLaw], in_turn: list[Limit], steps: list[Step]
) -> None:
    """The check of `test_no_interval_holds_more_than_the_limit`, on schedules that found the planted bugs."""
    assert over_admissions(planted(in_turn[0]), in_turn, steps) != []
    assert over_admissions(law_for(in_turn[0]), in_turn, steps) == []


class WaitShort(FixedLaw):
    """Planted: a microsecond early."""

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        said = super().say(limit, key, hits, wall_us)
        return Judgement(said.over, said.remaining, said.wait_us - (said.wait_us > 0), said.before)


class WaitLong(BucketLaw):
    """Planted: a microsecond late."""

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        said = super().say(limit, key, hits, wall_us)
        return Judgement(said.over, said.remaining, said.wait_us + (said.wait_us > 0), said.before)


class NeverWhileSpent(SlidingLaw):
    """Planted: what does not fit now is said never to fit."""

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        said = super().say(limit, key, hits, wall_us)
        return Judgement(said.over, said.remaining, -1 if said.over else said.wait_us, said.before)


@pytest.mark.parametrize(
    ("planted", "limit"), [(WaitShort, fixed(2, 10)), (WaitLong, bucket(2, 10, 2)), (NeverWhileSpent, sliding(2, 10))]
)
@pytest.mark.parametrize("spent", [1, 2])
def test_wrong_wait_is_seen(planted: type[FixedLaw | SlidingLaw | BucketLaw], limit: Limit, spent: int) -> None:
    """The check of `test_wait_is_exact`, for hits that fit and for hits that do not."""
    steps = [take(spent)]

    assert not all(is_wait_exact(lambda: replay(planted(limit), [limit], steps), limit, b"a", n, NOW) for n in (1, 2))
    assert all(is_wait_exact(lambda: replay(law_for(limit), [limit], steps), limit, b"a", n, NOW) for n in (1, 2))


class RestRoundedUp(BucketLaw):
    """Planted: a token that has begun to refill is shown as whole."""

    def say(self, limit: Limit, key: bytes, hits: int, wall_us: int) -> Judgement:
        said = super().say(limit, key, hits, wall_us)
        return Judgement(said.over, min(said.remaining + (not said.over), limit.burst), said.wait_us, said.before)


def test_wrong_rest_is_seen() -> None:
    """The check of `test_rest_is_exact`."""
    limit = bucket(2, 10, 2)

    assert not is_rest_exact(lambda: RestRoundedUp(limit), limit, b"a", 1, NOW)
    assert is_rest_exact(lambda: law_for(limit), limit, b"a", 1, NOW)


class RefundsOldest(SlidingLaw):
    """Planted: the oldest hits are given back, so the newest are remembered longer than they should be."""

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        self.at(now.wall_us)
        parts = sliding_window.live(self.state(key), self.part)
        self.states[key] = sliding_window.give_back(tuple(reversed(parts)), self.part, hits)[::-1]


def test_refund_of_the_oldest_is_seen() -> None:
    """The check of `test_refund_undoes_its_take`."""
    limit = sliding(3, 60)
    steps, gaps = [take(2), take(0, gap_us=50)], [11, 0, 0]
    planted, now, later_us = after_schedule(limit, steps, gaps, RefundsOldest)
    sound, _, _ = after_schedule(limit, steps, gaps)

    assert not changes_nothing(planted, take_and_give_back(limit, 1, now), limit, b"a", later_us)
    assert changes_nothing(sound, take_and_give_back(limit, 1, now), limit, b"a", later_us)


class CheckCounts(FixedLaw):
    """Planted: a check with 0 hits counts one."""

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        super().spend(limit, key, hits or 1, now)


class DenialCounts(FixedLaw):
    """Planted: what does not fit is counted all the same."""

    def take(self, limit: Limit, key: bytes, hits: int, now: Instant):
        outcome = self.judge(limit, key, hits, now)
        self.spend(limit, key, hits, now)
        return outcome


@pytest.mark.parametrize(("planted", "asked"), [(CheckCounts, 0), (DenialCounts, 9)])
def test_counting_what_is_not_taken_is_seen(planted: type[FixedLaw], asked: int) -> None:
    """The check of `test_what_does_not_fit_is_not_counted`."""
    limit = fixed(2, 10)

    assert not changes_nothing(
        lambda: planted(limit), lambda ledger: ledger.take(limit, b"a", asked, NOW), limit, b"a", [START_US] * 3
    )
