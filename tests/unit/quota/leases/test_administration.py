"""Looks, refunds and resets of a replica, also where the store does not answer."""

from __future__ import annotations

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, FailureMode, Limit
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.masters import NewMasterRule
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.store import NEVER_US, Charge, Outcome
from ratelimit_service.quota.takes import Spend
from support.replicas import Rig, SharedStore
from support.store_harness import charge, fixed, in_force, limit_of

WINDOW_US = 10_000_000
MS = 1_000

each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@pytest.fixture
def rig() -> Rig:
    """A store, a clock, no replicas yet."""
    return Rig()


def peek(rig: Rig, replica: SharedStore, *charges: Charge) -> list[Outcome]:
    """Look."""
    answers: list[Outcome] = []
    replica.peek(charges, rig.clock.read(), answers.extend)
    rig.scheduler.run()
    return answers


def reset(rig: Rig, replica: SharedStore, asked: Charge) -> bool | None:
    """Reset, and say whether something was there."""
    answers: list[bool | None] = []
    replica.reset(asked.identity, asked.key, answers.append)
    rig.scheduler.run()
    (answer,) = answers
    return answer


@each_algorithm
@pytest.mark.parametrize("hits", [1, 4, 5, 6])
def test_peek_tells_what_a_charge_would(rig: Rig, algorithm: Algorithm, hits: int) -> None:
    """The same answer; of hits that do not fit a sliding window the wait is at least as long."""
    replica, asked = rig.replica(), charge(limit_of(algorithm, 5), hits=hits)
    rig.ask(rig.replica(), charge(asked.limit, hits=3))
    rig.clock.advance(300 * MS)
    (said,) = peek(rig, replica, asked)
    (decided,) = rig.ask(replica, asked)

    assert msgspec.structs.replace(said, wait_us=decided.wait_us) == decided
    assert said.wait_us >= decided.wait_us
    assert said.wait_us == decided.wait_us or algorithm is Algorithm.SLIDING_WINDOW


@each_algorithm
def test_peek_of_a_full_counter_says_when_hits_fit(rig: Rig, algorithm: Algorithm) -> None:
    """After that wait they do; more than the limit never."""
    replica, limit = rig.replica(), limit_of(algorithm, 5)
    rig.ask(replica, charge(limit, hits=5))
    full, never = peek(rig, replica, charge(limit, hits=3), charge(limit, hits=6))
    rig.clock.advance(full.wait_us)

    assert never.wait_us == NEVER_US
    assert rig.admitted(replica, charge(limit, hits=3))


def test_peek_of_a_calendar_window_ends_with_it(rig: Rig) -> None:
    """At midnight in its time zone."""
    limit = Limit(Algorithm.FIXED_WINDOW, 9, 0, 9, Calendar(CalendarUnit.DAY))
    asked = Charge(b"rule/day", limit, b"key", 1)
    (said,) = peek(rig, rig.replica(), asked)

    assert (rig.clock.wall_us + said.wait_us) % (86_400_000 * MS) == 0


def test_peek_does_not_count_what_is_in_hand(rig: Rig) -> None:
    """Unspent hits of this replica are not used."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    for _ in range(50):
        rig.ask(replica, asked)
        rig.advance(100, replica)
    (said,) = peek(rig, replica, msgspec.structs.replace(asked, hits=0))

    assert (said.before, said.remaining) == (50, 950)


def test_lost_store_answers_degraded(rig: Rig) -> None:
    """Looks and refunds have no failure mode but to say so; resets say that nothing is known."""
    replica, asked = rig.replica(), charge(fixed(9))
    rig.ask(replica, asked)
    replica.orders.reachable = False
    refunded: list[Outcome] = []
    replica.refund([asked], rig.clock.read(), refunded.extend)

    assert [outcome.degraded for outcome in (*peek(rig, replica, asked), *refunded)] == [True, True]
    assert reset(rig, replica, asked) is None


def test_nothing_asked_is_answered_with_nothing(rig: Rig) -> None:
    """A look at no counters."""
    assert peek(rig, rig.replica()) == []


def test_refund_ends_a_denial(rig: Rig) -> None:
    """What was given back here can be had here at once."""
    replica, asked = rig.replica(), charge(fixed(2))
    for _ in range(3):
        rig.ask(replica, asked)
    answers: list[Outcome] = []
    replica.refund([asked], rig.clock.read(), answers.extend)
    rig.scheduler.run()

    assert (answers[0].remaining, answers[0].over) == (1, False)
    assert rig.admitted(replica, asked)


def test_reset_takes_the_leases_of_this_replica(rig: Rig) -> None:
    """They are forfeited; other replicas spend theirs: at most the limit and what was out."""
    replica, other, asked = rig.replica(), rig.replica(), charge(fixed(1_000))
    for each in (replica, other):
        for _ in range(50):
            rig.ask(each, asked)
            rig.advance(100, each)
    in_hand = replica.book.find(asked.identity, asked.key).held(rig.clock.boot_us)
    was_there = reset(rig, replica, asked)

    assert was_there
    assert replica.stats().forfeited == in_hand > 0
    assert peek(rig, replica, msgspec.structs.replace(asked, hits=0))[0].before == 0


def test_reset_covers_all_limits_of_the_rule(rig: Rig) -> None:
    """They are one counted key; a second reset finds nothing."""
    replica, short, long = rig.replica(), charge(fixed(5)), charge(fixed(9, 6 * WINDOW_US))
    replica.apply(in_force(short, long))
    rig.ask(replica, short, long)

    assert [reset(rig, rig.replica(), short), reset(rig, replica, short)] == [True, False]
    assert [each.before for each in peek(rig, replica, short, long)] == [0, 0]


def test_return_of_before_a_reset_is_passed_over(rig: Rig) -> None:
    """It names the epoch under which it was granted."""
    replica, other, asked = rig.replica(), rig.replica(), charge(fixed(1_000))
    for _ in range(50):
        rig.ask(other, asked)
        rig.advance(100, other)
    reset(rig, replica, asked)
    rig.ask(replica, msgspec.structs.replace(asked, hits=100))
    before = peek(rig, rig.replica(), asked)[0].before
    other.release()
    rig.scheduler.run()

    assert peek(rig, rig.replica(), asked)[0].before == before


def test_reset_of_a_limit_in_force_that_was_never_seen_here(rig: Rig) -> None:
    """Its numbers are those in force."""
    replica, asked = rig.replica(), charge(fixed(5))
    rig.ask(rig.replica(), asked)
    replica.apply(in_force(asked))

    assert [reset(rig, replica, asked), reset(rig, replica, asked)] == [True, False]


@pytest.mark.parametrize("passed_us", [0, 11_000_000])
def test_new_master_is_told_only_what_still_counts(rig: Rig, passed_us: int) -> None:
    """Cells that were never answered, or long ago, say nothing."""
    asked, unknown = charge(fixed(100)), charge(fixed(100), b"unknown")
    replica = rig.replica(ReplicaSettings(leases=LeaseSettings(exact=True), new_master=NewMasterRule.LEARN))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    for _ in range(7):
        rig.ask(replica, asked)
    replica.orders.answers = False
    rig.ask(replica, unknown)
    replica.orders.answers = True
    rig.state.keys.clear()
    rig.clock.advance(passed_us)
    replica.on_new_master(lambda where: True)
    rig.scheduler.run()

    spends = [order.asks[0].want for order in replica.orders.sent if isinstance(order, Spend)]
    assert spends == [7] * (passed_us == 0)


def test_teaching_a_store_that_does_not_answer_changes_nothing(rig: Rig) -> None:
    """It may be gone again."""
    asked = charge(fixed(100))
    replica = rig.replica()
    rig.ask(replica, asked)
    replica.orders.reachable = False
    replica.on_new_master(lambda where: True)
    rig.scheduler.run()

    assert not any(isinstance(order, Spend) for order in replica.orders.sent)


def test_many_cells_are_taught_a_few_at_a_time(rig: Rig) -> None:
    """So that no request waits for it."""
    replica = rig.replica(ReplicaSettings(leases=LeaseSettings(exact=True)))
    for number in range(450):
        rig.ask(replica, charge(fixed(9), b"%d" % number))
    rig.state.keys.clear()
    replica.on_new_master(lambda where: True)
    rig.scheduler.run()
    first = sum(isinstance(order, Spend) for order in replica.orders.sent)
    rig.advance(100 * MS, replica)

    assert first == 200
    assert sum(isinstance(order, Spend) for order in replica.orders.sent) == 450
