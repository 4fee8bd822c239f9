"""Slots, the store's clock and what a slot entitles to, case by case."""

from __future__ import annotations

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, FailureMode, Instant, Limit
from ratelimit_service.quota.leases.allowances import Allowances, StoreTime
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.membership import SLOT_TTL_US, Beat, Membership, form_of
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.store import Charge, Outcome, Role, Source
from ratelimit_service.quota.takes import Take
from support.replicas import Rig, SharedStore
from support.store_harness import charge, fixed, in_force, limit_of

WINDOW_US = 10_000_000
MS = 1_000

each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@pytest.fixture
def rig() -> Rig:
    """A store, a clock, no replicas yet."""
    return Rig()


def beat(rig: Rig, replica: SharedStore, slot: int = 0, *, in_form: bool = True, other_until_us: int = 0) -> None:
    """A heartbeat that takes no time."""
    now = rig.clock.read()
    told = Beat(slot, slot, 2, in_form, now.wall_us, other_until_us)
    replica.membership.take_in(told, now.boot_us, now.boot_us)
    replica.allowances.time.observe(now.wall_us, now.boot_us, now.boot_us)


def standing_replica(rig: Rig, **settings: int) -> SharedStore:
    """A replica with a fifth of every limit for two slots, after a window in its slot."""
    leases = LeaseSettings(max_keys=settings.get("max_keys", 1_000))
    replica = rig.replica(ReplicaSettings(leases=leases, slots=2, standing_percent=20))
    beat(rig, replica)
    for _ in range(11):
        rig.clock.advance(1_000 * MS)
        beat(rig, replica)
    rig.clock.advance(100 * MS)
    beat(rig, replica)
    return replica


def standing(rig: Rig, replica: SharedStore, asked: Charge, times: int = 30) -> int:
    """How many of as many requests are decided from the standing allowance, at once."""
    outcomes = [replica.charge([asked], rig.clock.read()) for _ in range(times)]
    return sum(each is not None and each[0].source is Source.STANDING for each in outcomes)


@each_algorithm
def test_first_requests_of_a_key_need_no_store(rig: Rig, algorithm: Algorithm) -> None:
    """A = 100 · 20 / (100 · 2) = 10 of them."""
    replica = standing_replica(rig)

    assert standing(rig, replica, charge(limit_of(algorithm, 100))) == 10
    assert replica.orders.sent == []
    assert replica.stats().decisions[Source.STANDING] == 10


@each_algorithm
def test_allowance_comes_back_with_the_next_window(rig: Rig, algorithm: Algorithm) -> None:
    """As any budget does."""
    replica, asked = standing_replica(rig), charge(limit_of(algorithm, 100))
    first = standing(rig, replica, asked)
    rig.clock.advance(WINDOW_US + WINDOW_US // 60 + 100 * MS)
    beat(rig, replica)
    for _ in range(11):
        rig.clock.advance(1_000 * MS)
        beat(rig, replica)

    assert (first, standing(rig, replica, asked)) == (10, 10)


def test_grants_leave_the_reserve_alone(rig: Rig) -> None:
    """Takes name what all slots own, and the store never grants it."""
    replica, asked = standing_replica(rig), charge(fixed(100))
    passed = sum(rig.admitted(replica, asked) for _ in range(200))

    takes = [order for order in replica.orders.sent if isinstance(order, Take)]
    assert {ask.reserve for take in takes for ask in take.asks} == {20}
    assert passed == 10 + 80


def test_standing_allowance_is_spent_beside_a_denial(rig: Rig) -> None:
    """What the store has no more of, the slot may still have."""
    replica, asked = standing_replica(rig), charge(fixed(100))
    other = rig.replica(ReplicaSettings(slots=2, standing_percent=20))
    standing(rig, replica, asked, times=5)
    for _ in range(120):
        rig.ask(other, asked)
    rig.ask(replica, msgspec.structs.replace(asked, hits=6))

    assert standing(rig, replica, asked) == 5
    assert [rig.ask(replica, asked)[0].over for _ in range(3)] == [True] * 3
    assert rig.ask(replica, asked)[0].source is Source.LEASE


def test_request_of_two_keys_spends_both_allowances_or_none(rig: Rig) -> None:
    """All or nothing, from standing allowances too."""
    replica = standing_replica(rig)
    one, two = charge(fixed(100), rule=b"one"), charge(fixed(100), rule=b"two", unit=1)
    outcomes = [rig.ask(replica, one, two) for _ in range(3)]

    assert {outcome.source for pair in outcomes for outcome in pair} == {Source.STANDING}
    assert (standing(rig, replica, one), standing(rig, replica, two)) == (7, 7)


@pytest.mark.parametrize("role", [Role.PENALTY, Role.SHADOW])
def test_other_roles_ask_the_store(rig: Rig, role: Role) -> None:
    """A penalty is the store's to count; what is judged together is decided together."""
    replica = standing_replica(rig)

    assert standing(rig, replica, charge(fixed(100), role=role, hits=0), times=1) == 0


@pytest.mark.parametrize("limit", [fixed(19), fixed(1_000, 500_000)])
def test_exact_limits_have_none(rig: Rig, limit: Limit) -> None:
    """Nor a reserve."""
    replica = standing_replica(rig)

    assert standing(rig, replica, charge(limit)) == 0
    assert replica.standing.reserve(b"rule", limit, rig.clock.read()) == 0


def reserve(rig: Rig, replica: SharedStore, limit: Limit) -> int:
    """What takes of a limit leave alone now."""
    return replica.standing.reserve(b"rule", limit, rig.clock.read())


@each_algorithm
@pytest.mark.parametrize("percent", [0, 20])
def test_most_is_reserved_while_another_form_may_own(rig: Rig, algorithm: Algorithm, percent: int) -> None:
    """And in the windows that began before it ended, by the store's clock; then one's own."""
    replica, limit = rig.replica(ReplicaSettings(slots=2, standing_percent=percent)), limit_of(algorithm, 100)
    ended_us = rig.clock.wall_us + 3_000 * MS
    beat(rig, replica, in_form=False, other_until_us=ended_us)
    reserved = [reserve(rig, replica, limit)]
    for _ in range(26):
        rig.clock.advance(1_000 * MS)
        beat(rig, replica, other_until_us=ended_us)
        reserved.append(reserve(rig, replica, limit))

    changes = sorted({(each, reserved.count(each)) for each in reserved}, reverse=True)
    assert [each for each, _ in changes] == [50, percent]
    assert changes[0][1] >= 4


def test_share_is_not_taken_for_the_most_after_the_form_may_have_changed(rig: Rig) -> None:
    """Nor before the store was heard: then a take leaves alone what any form may own."""
    replica, limit = rig.replica(ReplicaSettings(slots=2, standing_percent=20)), fixed(100)
    replica.membership.form_until_us = 0
    before = reserve(rig, replica, limit)
    beat(rig, replica, slot=-1)
    in_form = reserve(rig, replica, limit)
    rig.clock.advance(SLOT_TTL_US - SLOT_TTL_US * 500 // 1_000_000)

    assert (before, in_form, reserve(rig, replica, limit)) == (50, 20, 50)


@pytest.mark.parametrize("limit", [fixed(19), fixed(1_000, 500_000)])
def test_exact_limits_have_no_reserve_of_other_forms_either(rig: Rig, limit: Limit) -> None:
    """No form owns anything of them."""
    replica = rig.replica()
    beat(rig, replica, in_form=False, other_until_us=rig.clock.wall_us + 1)

    assert (reserve(rig, replica, limit), reserve(rig, replica, fixed(100))) == (0, 50)


@pytest.mark.parametrize("slots", [None, 2])
def test_nothing_is_reserved_where_nobody_has_a_share(rig: Rig, slots: int | None) -> None:
    """As long as its form is surely in force: the whole limit is granted."""
    replica, limit = rig.replica(ReplicaSettings(slots=slots)), fixed(100)
    beat(rig, replica)
    reserved = [reserve(rig, replica, limit)]
    rig.clock.advance(4 * SLOT_TTL_US // 5)
    reserved.append(reserve(rig, replica, limit))
    rig.clock.advance(SLOT_TTL_US // 5)
    unheard = reserve(rig, replica, limit)
    beat(rig, replica)

    assert [*reserved, reserve(rig, replica, limit)] == [0] * 3
    assert unheard == 50


def test_doubt_is_not_kept_by_the_store(rig: Rig) -> None:
    """A replica that owns nothing leaves alone what others may own, for as long as it is in doubt and no longer."""
    replica, asked = rig.replica(), charge(fixed(100), hits=50)
    replica.membership.form_until_us = 0
    rig.ask(replica, asked)
    (in_doubt,) = rig.ask(replica, asked)
    beat(rig, replica)
    rig.clock.advance(1_000_000)
    (sure,) = rig.ask(replica, asked)

    assert (in_doubt.over, sure.over) == (True, False)


@pytest.mark.parametrize("exact", [False, True])
def test_grant_that_left_too_little_alone_is_not_spent(rig: Rig, exact: bool) -> None:
    """Its take was sent before the replica was told of the other form."""
    asked = charge(fixed(100))
    replica = rig.replica(ReplicaSettings(leases=LeaseSettings(exact=exact)))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    replica.orders.silent = True
    told: list[Outcome] = []
    now = rig.clock.read()
    assert replica.charge([asked], now) is None
    replica.charge_later([asked], now.boot_us + 10 * MS, told.extend)
    rig.scheduler.run()
    beat(rig, replica, in_form=False, other_until_us=rig.clock.wall_us + 1)
    replica.orders.speak()

    assert [(outcome.over, outcome.degraded) for outcome in told] == [(True, True)]
    assert replica.stats().forfeited == 1


def test_slot_is_not_relied_on_after_it_may_have_expired(rig: Rig) -> None:
    """It is counted from the sending of the heartbeat, less the drift of clocks."""
    replica, asked = standing_replica(rig), charge(fixed(100, 100 * WINDOW_US))
    replica.membership.since_wall_us -= 200 * WINDOW_US
    rig.clock.advance(SLOT_TTL_US - SLOT_TTL_US * 500 // 1_000_000 - 1)
    before = standing(rig, replica, asked, times=1)
    rig.clock.advance(1)

    assert (before, standing(rig, replica, asked)) == (1, 0)


@each_algorithm
def test_new_holder_waits_for_its_first_whole_window(rig: Rig, algorithm: Algorithm) -> None:
    """Its predecessor may have spent the allowance in this one."""
    replica = rig.replica(ReplicaSettings(slots=2, standing_percent=20))
    beat(rig, replica)
    asked = charge(limit_of(algorithm, 100))

    assert standing(rig, replica, asked) == 0


def test_slot_that_was_lost_begins_anew(rig: Rig) -> None:
    """Even if it is the same one: somebody else may have had it in between."""
    replica, asked = standing_replica(rig), charge(fixed(100))
    rig.clock.advance(SLOT_TTL_US)
    beat(rig, replica)

    assert standing(rig, replica, asked) == 0


@pytest.mark.parametrize("lose", [{"in_form": False}, {"slot": -1}])
def test_replica_without_slot_or_form_has_none(rig: Rig, lose: dict[str, int]) -> None:
    """The others go by another share, or all slots are taken."""
    replica, asked = standing_replica(rig), charge(fixed(100))
    beat(rig, replica, **lose)  # type: ignore[arg-type]

    assert standing(rig, replica, asked) == 0


def test_lost_memory_of_the_store_takes_the_slot(rig: Rig) -> None:
    """Its keys are gone, and anybody can have it."""
    replica = standing_replica(rig)
    replica.on_new_master(lambda where: True)

    assert standing(rig, replica, charge(fixed(100))) == 0


def test_edges_of_windows_are_left_to_the_store(rig: Rig) -> None:
    """Within the error of the clocks nobody knows which window it is."""
    replica, asked = standing_replica(rig), charge(fixed(100))
    now = rig.clock.read()
    replica.allowances.time.observe(now.wall_us, now.boot_us - 20 * MS, now.boot_us + 20 * MS)
    to_edge_us = WINDOW_US - now.wall_us % WINDOW_US
    spent = []
    for step_us in (to_edge_us - 30 * MS, 20 * MS, 10 * MS, 15 * MS, 30 * MS):
        rig.clock.advance(step_us)
        replica.membership.valid_until_us = rig.clock.boot_us + 1
        spent.append(standing(rig, replica, asked, times=1))

    assert spent == [1, 0, 0, 0, 1]


def test_calendar_windows_have_allowances(rig: Rig) -> None:
    """By the store's clock, in their time zone."""
    replica = standing_replica(rig)
    minute = Charge(
        b"rule/calendar", Limit(Algorithm.FIXED_WINDOW, 100, 0, 100, Calendar(CalendarUnit.MINUTE)), b"k", 1
    )
    replica.membership.since_wall_us -= 120_000 * MS

    assert standing(rig, replica, minute) == 10


def test_key_without_room_has_none(rig: Rig) -> None:
    """What was spent is never forgotten before its time, so a full table has no allowance for newcomers."""
    replica = standing_replica(rig, max_keys=3)
    spent = [standing(rig, replica, charge(fixed(100), b"%d" % number)) for number in range(5)]

    assert spent == [10, 10, 10, 0, 0]


def test_room_comes_back_when_windows_are_over(rig: Rig) -> None:
    """In the background."""
    replica = standing_replica(rig, max_keys=3)
    for number in range(3):
        standing(rig, replica, charge(fixed(100), b"%d" % number))
    for _ in range(12):
        rig.clock.advance(1_000 * MS)
        beat(rig, replica)
    for _ in range(3):
        replica.reclaim()

    assert len(replica.allowances) == 0
    assert standing(rig, replica, charge(fixed(100), b"new")) == 10


@pytest.mark.parametrize(("failure", "passed"), [(FailureMode.RESERVED, 10), (FailureMode.SHARE, 50)])
def test_modes_without_a_store_include_the_allowance(rig: Rig, failure: FailureMode, passed: int) -> None:
    """Reserved admits it and no more; a share of two is half, the allowance included."""
    replica, asked = standing_replica(rig), charge(fixed(100))
    replica.apply(in_force(asked, failure=failure))
    replica.orders.up = False
    outcomes = [rig.ask(replica, asked)[0] for _ in range(80)]

    assert sum(not outcome.over for outcome in outcomes) == passed
    assert outcomes[0].source is Source.STANDING


def test_reserved_spends_the_allowance_of_several_hits(rig: Rig) -> None:
    """Where a request of several charges has to be decided without the store."""
    replica = standing_replica(rig)
    one, two = charge(fixed(100), rule=b"one", hits=4), charge(fixed(5), rule=b"two", unit=1, hits=0)
    replica.apply(in_force(one, two, failure=FailureMode.RESERVED))
    replica.orders.up = False
    overs = [[outcome.over for outcome in rig.ask(replica, one, two)] for _ in range(2)]

    assert overs == [[False, True], [False, True]]


def test_form_is_of_slots_and_share() -> None:
    """Whoever goes by other numbers goes by another form."""
    assert len({form_of(2, 10), form_of(3, 10), form_of(2, 11), form_of(2, 10)}) == 3


def test_parts_without_membership_are_the_slots() -> None:
    """Who was never told of others cuts by the setting, or is alone."""
    alone, set_up = Membership(None), Membership(4)

    assert (alone.shares(), alone.is_alone) == ((1, None), True)
    assert (set_up.shares(), set_up.is_alone) == ((4, None), False)


def test_store_time_is_off_by_half_the_round_trip_and_drift() -> None:
    """Before it was read it is the replica's own."""
    time = StoreTime()
    own = time.at(Instant(77, 5))
    time.observe(1_000_000, sent_us=100, received_us=300)
    later = Instant(0, 2_000_300)

    assert (own, time.at(Instant(0, 200)), time.error_us(Instant(0, 300))) == (77, 1_000_000, 101)
    assert (time.at(later), time.error_us(later)) == (3_000_100, 101 + 1_000)


def test_allowance_of_nothing_is_nothing() -> None:
    """Neither spent nor left, whatever the limit."""
    allowances, asked, now = Allowances(10), charge(fixed(100)), Instant(0, 0)
    allowances.spend(asked, 5, 0, 0, now)

    assert allowances.left(asked, 0, 0, now) == 0
    assert allowances.left(charge(limit_of(Algorithm.TOKEN_BUCKET, 9)), 3, 0, now) == 0


def test_many_parts_of_limits_are_not_all_remembered() -> None:
    """Limits that descriptors carry fill no memory."""
    allowances, now = Allowances(10), Instant(0, 0)

    assert [allowances.left(charge(fixed(100 + number)), 3, 3, now) for number in range(5_000)] == [3] * 5_000
