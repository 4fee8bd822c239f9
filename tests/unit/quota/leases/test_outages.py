"""What a replica does without its store: failure modes, debts afterwards, new masters."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, FailureMode, Limit
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.leases.allowances import share_of
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.masters import Masters, NewMasterRule
from ratelimit_service.quota.leases.membership import Beat
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.store import Charge, Role, Source
from ratelimit_service.quota.takes import CountedKey, Spend
from support.replicas import Rig, SharedStore
from support.store_harness import charge, fixed, in_force, limit_of

WINDOW_US = 10_000_000
MS = 1_000

each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@pytest.fixture
def rig() -> Rig:
    """A store, a clock, no replicas yet."""
    return Rig()


def cut_off(rig: Rig, asked: Charge, failure: FailureMode, slots: int | None = 4) -> SharedStore:
    """A replica whose breaker is open."""
    replica = rig.replica(ReplicaSettings(slots=slots))
    replica.apply(in_force(asked, failure=failure))
    replica.orders.up = False
    return replica


def admitted(rig: Rig, replica: SharedStore, asked: Charge, times: int) -> int:
    """How many of as many requests pass."""
    return sum(rig.admitted(replica, asked) for _ in range(times))


@pytest.mark.parametrize(
    ("failure", "passed"),
    [(FailureMode.CLOSED, 0), (FailureMode.RESERVED, 0), (FailureMode.SHARE, 5), (FailureMode.OPEN, 50)],
)
def test_failure_mode_decides_at_once_while_the_breaker_is_open(rig: Rig, failure: FailureMode, passed: int) -> None:
    """Nothing is sent, nobody waits, and answers say that they are degraded."""
    asked = charge(fixed(20))
    replica = cut_off(rig, asked, failure)
    outcomes = [outcome for _ in range(50) for outcome in replica.charge([asked], rig.clock.read()) or ()]

    assert sum(not outcome.over for outcome in outcomes) == passed
    assert {(outcome.source, outcome.degraded) for outcome in outcomes} == {(Source.FALLBACK, True)}
    assert {outcome.wait_us for outcome in outcomes if outcome.over} <= {1_000_000}
    assert replica.orders.sent == []


@each_algorithm
def test_share_is_this_replicas_part_of_a_window(rig: Rig, algorithm: Algorithm) -> None:
    """And comes again with the next one."""
    asked = charge(limit_of(algorithm, 100))
    replica = cut_off(rig, asked, FailureMode.SHARE)
    first = admitted(rig, replica, asked, 60)
    rig.clock.advance(2 * WINDOW_US)

    assert (first, admitted(rig, replica, asked, 60)) == (25, 25)


@pytest.mark.parametrize("hits", range(12))
@pytest.mark.parametrize("slots", [1, 3, 5])
def test_shares_add_up_to_the_limit(hits: int, slots: int) -> None:
    """Of all ranks, for every key; without a rank nobody has a part of the rest."""
    for key in (b"a", b"b", b"c"):
        assert sum(share_of(hits, key, slots, rank) for rank in range(slots)) == hits
        assert share_of(hits, key, slots, None) == hits // slots


def test_share_goes_by_who_was_last_seen_alive(rig: Rig) -> None:
    """Two live replicas share by two, whatever the number of slots says."""
    asked = charge(fixed(20))
    replica = cut_off(rig, asked, FailureMode.SHARE, slots=8)
    replica.membership.take_in(Beat(3, 1, 2, in_form=True, wall_us=rig.clock.wall_us), rig.clock.boot_us, 1)

    assert admitted(rig, replica, asked, 30) == 10


def test_spent_share_is_charged_with_the_first_take_after_the_outage(rig: Rig) -> None:
    """So that the rest of the window admits less, and the law is kept from there on."""
    asked = charge(fixed(100))
    replica = cut_off(rig, asked, FailureMode.SHARE)
    shared = admitted(rig, replica, asked, 60)
    replica.orders.up = True
    later = admitted(rig, replica, asked, 200)

    assert (shared, shared + later) == (25, 100)
    assert [order.asks[0].want for order in replica.orders.sent if isinstance(order, Spend)] == [25]


def test_share_of_a_window_that_is_over_is_not_charged(rig: Rig) -> None:
    """Its hits count nowhere any more."""
    asked = charge(fixed(100))
    replica = cut_off(rig, asked, FailureMode.SHARE)
    admitted(rig, replica, asked, 60)
    replica.orders.up = True
    rig.clock.advance(WINDOW_US)

    assert admitted(rig, replica, asked, 200) == 100


def test_share_survives_a_store_that_flaps(rig: Rig) -> None:
    """A second outage in one window gives no second share."""
    asked = charge(fixed(100))
    replica = cut_off(rig, asked, FailureMode.SHARE)
    first = admitted(rig, replica, asked, 60)
    for up in (True, False) * 5:
        replica.orders.up = up
        admitted(rig, replica, asked, 1)

    assert (first, admitted(rig, replica, asked, 60)) == (25, 0)


def test_charging_what_was_shared_is_repeated_until_it_is_known(rig: Rig) -> None:
    """An answer that is lost leaves the debt; it may be charged twice, never not at all."""
    asked = charge(fixed(100))
    replica = cut_off(rig, asked, FailureMode.SHARE)
    admitted(rig, replica, asked, 60)
    replica.orders.up, replica.orders.reachable = True, False
    rig.ask(replica, asked)
    replica.orders.reachable = True

    assert admitted(rig, replica, asked, 200) == 75


@each_algorithm
def test_what_is_in_hand_is_spent_in_every_mode(rig: Rig, algorithm: Algorithm) -> None:
    """A lease is as good without the store as with it."""
    asked = charge(limit_of(algorithm, 1_000))
    replica = rig.replica()
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    for _ in range(100):
        rig.ask(replica, asked)
        rig.advance(10, replica)
    in_hand = replica.book.find(asked.identity, asked.key).held(rig.clock.boot_us)
    replica.orders.up = False

    assert in_hand > 0
    assert admitted(rig, replica, asked, 100) == in_hand


def test_penalty_of_an_outage_is_charged_afterwards(rig: Rig) -> None:
    """A debt is a debt, in every mode."""
    asked = charge(fixed(10), role=Role.PENALTY, hits=30)
    replica = cut_off(rig, asked, FailureMode.CLOSED)
    assert not rig.admitted(replica, asked)
    replica.orders.up = True

    assert not rig.admitted(replica, charge(fixed(10), role=Role.PENALTY, hits=0))
    assert not rig.admitted(replica, charge(fixed(10)))


def test_limit_that_a_descriptor_carries_fails_as_its_charge_says(rig: Rig) -> None:
    """It is in force nowhere, so its own mode decides."""
    asked = msgspec.structs.replace(charge(fixed(20)), failure=FailureMode.OPEN)
    replica = rig.replica()
    replica.orders.up = False

    assert admitted(rig, replica, asked, 50) == 50


def test_one_lost_store_refuses_a_request_of_two(rig: Rig) -> None:
    """All or nothing, degraded or not; only what is cut off is marked."""
    known, lost = charge(fixed(1_000)), charge(fixed(5), unit=1, rule=b"lost")
    replica = rig.replica()
    replica.apply(in_force(known, lost, failure=FailureMode.CLOSED))
    for _ in range(40):
        rig.ask(replica, known)
        rig.advance(10, replica)
    replica.orders.reachable = False
    outcomes = rig.ask(replica, known, lost)

    assert [(outcome.over, outcome.degraded) for outcome in outcomes] == [(False, False), (True, True)]


def test_time_in_outages_is_counted(rig: Rig) -> None:
    """From the first decision of a failure mode to the last, gaps of more than a second left out."""
    asked = charge(fixed(20))
    replica = cut_off(rig, asked, FailureMode.CLOSED)
    for _ in range(11):
        rig.ask(replica, asked)
        rig.clock.advance(100 * MS)
    rig.clock.advance(60_000 * MS)
    rig.ask(replica, asked)

    assert replica.stats().degraded_us == 1_000 * MS


# The bound.


@pytest.mark.parametrize(
    ("failure", "slots", "bound"),
    [
        (FailureMode.CLOSED, 4, 0),
        (FailureMode.RESERVED, 4, 0),
        (FailureMode.SHARE, 4, 25),
        (FailureMode.SHARE, None, MAX_HITS),
        (FailureMode.OPEN, 4, MAX_HITS),
    ],
)
def test_bound_is_what_this_replica_may_have_added(
    rig: Rig, failure: FailureMode, slots: int | None, bound: int
) -> None:
    """While its failure mode decides, and until what it admitted is over; of this rule only."""
    asked = charge(fixed(100))
    replica = cut_off(rig, asked, failure, slots)
    before = replica.bound("rule")
    rig.ask(replica, asked)
    during = (replica.bound("rule"), replica.bound("other"))
    rig.clock.advance(WINDOW_US + 10_000 * MS + 1)

    assert (before, during, replica.bound("rule")) == (0, (bound, 0), 0)


# New masters.


def granted_again(rig: Rig, replica: SharedStore, asked: Charge) -> Callable[[], bool]:
    """Whether a request is decided by the store once more."""
    return lambda: not rig.ask(replica, asked)[0].degraded


def lost_memory(rig: Rig, rule: NewMasterRule, spent: int = 60) -> tuple[SharedStore, Charge]:
    """A replica that has spent some hits of 100, and a store that has forgotten them."""
    asked = charge(fixed(100))
    replica = rig.replica(ReplicaSettings(leases=LeaseSettings(exact=True), new_master=rule))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    admitted(rig, replica, asked, spent)
    rig.state.keys.clear()
    replica.on_new_master(lambda where: True)
    rig.scheduler.run()
    return replica, asked


def test_new_master_learns_what_was_counted(rig: Rig) -> None:
    """For a second its grants are not spent; then it knows."""
    replica, asked = lost_memory(rig, NewMasterRule.LEARN)
    during = admitted(rig, replica, asked, 10)
    rig.clock.advance(1_001 * MS)

    assert (during, admitted(rig, replica, asked, 100)) == (0, 40)
    assert replica.stats().masters == 1


def test_new_master_in_quarantine_grants_from_the_next_window_on(rig: Rig) -> None:
    """Nothing of the window in which it happened."""
    replica, asked = lost_memory(rig, NewMasterRule.QUARANTINE)
    rig.clock.advance(WINDOW_US - rig.clock.wall_us % WINDOW_US - 1)
    during = admitted(rig, replica, asked, 10)
    rig.clock.advance(WINDOW_US + WINDOW_US // 60)

    assert (during, admitted(rig, replica, asked, 200), replica.bound("rule")) == (0, 100, 0)


def test_trusted_new_master_grants_at_once(rig: Rig) -> None:
    """And the bound says what that may cost."""
    replica, asked = lost_memory(rig, NewMasterRule.TRUST)

    assert (admitted(rig, replica, asked, 200), replica.bound("rule")) == (100, 100)


def test_bound_of_a_new_master_that_learns_is_the_largest_grant(rig: Rig) -> None:
    """What was granted at one instant, for nothing else can be lost; it goes with the window."""
    replica, _ = lost_memory(rig, NewMasterRule.LEARN)
    during = replica.bound("rule")
    rig.clock.advance(WINDOW_US + 10_000 * MS)

    assert (during, replica.bound("rule")) == (60, 0)


def test_grants_of_a_batch_whose_memory_is_doubtful_are_not_spent(rig: Rig) -> None:
    """They are forfeited, and the failure mode decides."""
    asked = charge(fixed(100))
    replica = rig.replica()
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    replica.orders.good = False

    assert rig.ask(replica, asked)[0].degraded
    assert replica.stats().forfeited == 1


def test_only_keys_of_the_new_master_are_affected() -> None:
    """A cluster's other nodes go on."""
    masters, limit = Masters(NewMasterRule.LEARN), fixed(9)
    masters.changed(lambda where: where.key == b"moved", 1_000)

    assert not masters.allows(CountedKey(b"rule", b"moved"), limit, 2_000)
    assert masters.allows(CountedKey(b"rule", b"other"), limit, 2_000)


def test_many_changes_are_taken_together() -> None:
    """A store that changes its master again and again fills no memory."""
    masters = Masters(NewMasterRule.QUARANTINE)
    for number in range(200):
        masters.changed(lambda where, key=b"%d" % number: where.key == key, number)  # type: ignore[misc]
    bucket = Limit(Algorithm.TOKEN_BUCKET, requests=1, window_us=WINDOW_US, burst=5)

    assert not masters.allows(CountedKey(b"rule", b"0"), bucket, 5 * WINDOW_US)
    assert masters.allows(CountedKey(b"rule", b"0"), bucket, 6 * WINDOW_US)


@pytest.mark.parametrize(
    ("limit", "span_us"),
    [
        (fixed(20), 10_166_667),
        (limit_of(Algorithm.SLIDING_WINDOW, 20), 10_166_666 + 1_250_001),
        (limit_of(Algorithm.SLIDING_WINDOW, 20, 100 * MS), 101_666 + 50_001),
        (Limit(Algorithm.TOKEN_BUCKET, 20, WINDOW_US, 40), 20_333_333 + 2_500_001),
    ],
)
def test_quarantine_outlasts_what_was_leased_before(limit: Limit, span_us: int) -> None:
    """A slice of a sliding window or bucket may be spent for an eighth of its time after the memory was lost."""
    masters = Masters(NewMasterRule.QUARANTINE)
    masters.changed(lambda _: True, 0)
    key = CountedKey(b"rule", b"key")

    assert [masters.allows(key, limit, at_us) for at_us in (span_us - 1, span_us)] == [False, True]


@pytest.mark.parametrize(
    ("rule", "is_free"),
    [(NewMasterRule.LEARN, True), (NewMasterRule.QUARANTINE, False), (NewMasterRule.TRUST, True)],
)
def test_memory_that_is_met_young_is_granted_from_unless_in_quarantine(
    rig: Rig, rule: NewMasterRule, is_free: bool
) -> None:
    """A fresh start is like a loss: only where nothing may go beyond, its window is waited for."""
    asked = charge(fixed(100))
    replica = rig.replica(ReplicaSettings(new_master=rule))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    replica.on_found_master(lambda _: True, rig.clock.boot_us)
    young = rig.admitted(replica, asked)
    rig.clock.advance(WINDOW_US + WINDOW_US // 60 + 1)

    assert (young, rig.admitted(replica, asked), replica.bound("rule")) == (is_free, True, 0)


def test_memory_that_is_met_old_is_granted_from_in_quarantine_too(rig: Rig) -> None:
    """Whatever was spent before it began counts no more."""
    asked = charge(fixed(100))
    replica = rig.replica(ReplicaSettings(new_master=NewMasterRule.QUARANTINE))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    replica.on_found_master(lambda _: True, rig.clock.boot_us - WINDOW_US - WINDOW_US // 60 - 1)

    assert rig.admitted(replica, asked)


@pytest.mark.parametrize(("requests", "burst", "bound"), [(100, 100, 50), (10, 100, 28), (9, 5, 5)])
def test_bound_of_a_bucket_has_what_its_share_refills(rig: Rig, requests: int, burst: int, bound: int) -> None:
    """In a window a quarter of what is refilled comes to a quarter of what it holds, each rounded up."""
    asked = charge(Limit(Algorithm.TOKEN_BUCKET, requests, WINDOW_US, burst))
    replica = cut_off(rig, asked, FailureMode.SHARE, 4)
    rig.ask(replica, asked)

    assert replica.bound("rule") == bound


@pytest.mark.parametrize("unit", list(CalendarUnit))
def test_calendar_windows_are_shared_too(rig: Rig, unit: CalendarUnit) -> None:
    """By the windows of their time zone."""
    limit = Limit(Algorithm.FIXED_WINDOW, 40, 0, 40, Calendar(unit, "Europe/Berlin"))
    asked = Charge(b"rule/calendar", limit, b"key", 1)
    replica = rig.replica(ReplicaSettings(slots=4))
    replica.apply(in_force(asked))
    replica.orders.up = False
    shared = admitted(rig, replica, asked, 30)
    replica.orders.up = True

    assert (shared, shared + admitted(rig, replica, asked, 60)) == (10, 40)
