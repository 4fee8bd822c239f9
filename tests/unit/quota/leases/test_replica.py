"""One replica and its store, move by move: what is asked for, what is kept, what is sent back."""

from __future__ import annotations

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.store import NEVER_US, Charge, Outcome, Role, Source
from ratelimit_service.quota.takes import Return, Spend, Take
from support.replicas import Rig, SharedStore
from support.store_harness import charge, fixed, in_force, limit_of

WINDOW_US = 10_000_000
MS = 1_000

each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@pytest.fixture
def rig() -> Rig:
    """A store, a clock, no replicas yet."""
    return Rig()


def takes(replica: SharedStore) -> list[Take]:
    """The takes that a replica has sent."""
    return [order for order in replica.orders.sent if isinstance(order, Take)]


def returns(replica: SharedStore) -> list[Return]:
    """The returns that a replica has sent."""
    return [order for order in replica.orders.sent if isinstance(order, Return)]


def counted(rig: Rig, asked: Charge) -> int:
    """Hits that the store has counted, leases included."""
    fresh = rig.replica()
    look: list[Outcome] = []
    fresh.peek([msgspec.structs.replace(asked, hits=0)], rig.clock.read(), look.extend)
    rig.scheduler.run()
    return look[0].before


# Leases.


@each_algorithm
def test_slices_grow_with_demand_and_spare_the_store(rig: Rig, algorithm: Algorithm) -> None:
    """A busy key is asked for far less often than it is charged, and its answers say that a lease decided."""
    replica, asked = rig.replica(), charge(limit_of(algorithm, 10_000))
    outcomes = []
    for _ in range(2_000):
        outcomes += rig.ask(replica, asked)
        rig.advance(50, replica)

    assert not any(outcome.over for outcome in outcomes)
    assert len(takes(replica)) < 300
    assert outcomes[-1].source is Source.LEASE
    assert replica.stats().spent == 2_000


@each_algorithm
def test_requests_that_wait_for_one_key_are_taken_for_together(rig: Rig, algorithm: Algorithm) -> None:
    """A crowd that comes before anything is known of its demand costs two takes, and the law still holds."""
    replica, asked = rig.replica(), charge(limit_of(algorithm, 150))
    outcomes: list[Outcome] = []
    for _ in range(200):
        now = rig.clock.read()
        alone = (asked,)
        assert replica.charge(alone, now) is None
        replica.charge_later(alone, now.boot_us + WINDOW_US, outcomes.extend)
    rig.scheduler.run()

    # A bucket's lease is charged as if it were spent at its end, which costs a few hits.
    assert 140 <= sum(not outcome.over for outcome in outcomes) <= 150
    assert len(outcomes) == 200
    assert len(takes(replica)) <= 4


def test_a_lease_can_be_in_hand_before_anybody_asks(rig: Rig) -> None:
    """Once: what is in hand, exact or away is not asked for; a store that has nothing left says so."""
    replica, asked = rig.replica(), charge(fixed(100), hits=10)
    told: list[bool | None] = []
    for each in (asked, asked, charge(fixed(5), rule=b"small")):
        replica.take_ahead(each, told.append)
        rig.scheduler.run()
    replica.orders.up = False
    replica.take_ahead(charge(fixed(100), b"other"), told.append)
    replica.orders.up = True
    rig.ask(rig.replica(), charge(fixed(100), b"spent", hits=100))
    replica.take_ahead(charge(fixed(100), b"spent"), told.append)
    rig.scheduler.run()

    assert told == [True, None, None, False, False]
    assert rig.ask(replica, charge(fixed(100)))[0].source is Source.LEASE


def test_answers_from_a_lease_count_what_was_spent(rig: Rig) -> None:
    """What is in hand counts as not used yet, and what the store has left counts as left."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    for _ in range(60):
        outcome = rig.ask(replica, asked)[0]
        rig.advance(10, replica)

    assert (outcome.before, outcome.remaining) == (59, 940)
    assert 0 < outcome.wait_us <= WINDOW_US


def test_refill_comes_before_the_slice_is_spent(rig: Rig) -> None:
    """At a steady rate the next slice is there before the last hit of this one: nobody waits."""
    replica, asked = rig.replica(), charge(fixed(100_000))
    waited = []
    for number in range(4_000):
        decided = replica.charge([asked], rig.clock.read())
        if decided is None:
            waited.append(number)
            rig.ask(replica, asked)
        rig.advance(20, replica)

    assert waited[-1] < 2_000


def test_small_limits_are_exact(rig: Rig) -> None:
    """Below 20 hits every request asks for itself, and nothing stays in hand."""
    replica, asked = rig.replica(), charge(fixed(19))
    outcomes = [rig.ask(replica, asked)[0] for _ in range(20)]

    assert [outcome.over for outcome in outcomes] == [False] * 19 + [True]
    assert {outcome.source for outcome in outcomes} == {Source.EXACT}
    assert len(takes(replica)) == 20


@pytest.mark.parametrize(
    ("limit", "exact_profile", "exact_rule"),
    [(fixed(1_000, 999_999), False, False), (fixed(1_000), True, False), (fixed(1_000), False, True)],
)
def test_exact_is_what_is_quick_or_says_so(rig: Rig, limit: Limit, exact_profile: bool, exact_rule: bool) -> None:
    """Windows under a second, a profile that says Exact, and rules with refunds or debts take nothing in advance."""
    replica, asked = rig.replica(ReplicaSettings(leases=LeaseSettings(exact=exact_profile))), charge(limit)
    replica.apply({key: msgspec.structs.replace(of, exact=exact_rule) for key, of in in_force(asked).items()})
    for _ in range(3):
        rig.ask(replica, asked)

    assert [take.asks[0].want for take in takes(replica)] == [1, 1, 1]
    assert replica.stats().decisions[Source.EXACT] == 3


def test_idle_hits_go_back_after_the_horizon(rig: Rig) -> None:
    """What nobody spends for the horizon is returned, once, and somebody else can have it."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    for _ in range(50):
        rig.ask(replica, asked)
        rig.advance(100, replica)
    in_hand = counted(rig, asked) - 50
    rig.advance(600 * MS, replica)

    assert in_hand > 0
    assert sum(order.ask.want for order in returns(replica)) == in_hand
    assert counted(rig, asked) == 50
    assert replica.stats().returned == in_hand


def test_close_returns_all(rig: Rig) -> None:
    """A replica that stops leaves nothing stranded."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    for _ in range(50):
        rig.ask(replica, asked)
        rig.advance(100, replica)
    replica.release()
    rig.scheduler.run()

    assert counted(rig, asked) == 50


def test_lease_of_a_window_that_is_over_is_forfeited(rig: Rig) -> None:
    """A fixed window's slice ends with it, and there is nothing to return."""
    replica, asked = rig.replica(ReplicaSettings(leases=LeaseSettings(horizon_us=5_000_000))), charge(fixed(1_000))
    for _ in range(50):
        rig.ask(replica, asked)
        rig.advance(100, replica)
    rig.clock.advance(2 * WINDOW_US)
    rig.ask(replica, asked)

    assert returns(replica) == []
    assert replica.stats().forfeited == replica.stats().stranded > 0


def test_several_limits_of_a_rule_are_one_take(rig: Rig) -> None:
    """They are granted the same number, and are spent together."""
    replica, short, long = rig.replica(), charge(fixed(100)), charge(fixed(1_000, 6 * WINDOW_US))
    for _ in range(30):
        assert rig.admitted(replica, short, long)
        rig.advance(100, replica)

    assert all(len(take.asks) == 2 and take.equal for take in takes(replica))
    assert len(takes(replica)) < 30
    assert rig.ask(replica, short, long)[0].source is Source.LEASE


# Waiting.


def test_one_take_serves_all_that_wait_for_its_key(rig: Rig) -> None:
    """While a take is under way nobody else asks for the key; its answer decides the others too."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    done: list[Outcome] = []
    for _ in range(5):
        assert replica.charge([asked], rig.clock.read()) is None
        replica.charge_later([asked], rig.clock.boot_us + 10 * MS, done.extend)
    assert len(takes(replica)) == 1
    rig.scheduler.run()

    assert [outcome.over for outcome in done] == [False] * 5
    assert counted(rig, asked) >= 5


def test_those_who_wait_are_answered_in_the_order_of_their_coming(rig: Rig) -> None:
    """The budget goes to the first."""
    replica, asked = rig.replica(), charge(fixed(20))
    answered: list[int] = []
    over: list[bool] = []

    def ask(number: int) -> None:
        def done(outcomes: object) -> None:
            answered.append(number)
            over.extend(outcome.over for outcome in outcomes)  # type: ignore[attr-defined]

        replica.charge_later([asked], rig.clock.boot_us + 10 * MS, done)

    for number in range(25):
        ask(number)
    rig.scheduler.run()

    assert answered == list(range(25))
    assert over == [False] * 20 + [True] * 5


def test_answer_never_comes_before_charge_later_returns(rig: Rig) -> None:
    """Even where everything is in hand."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    rig.ask(replica, asked)
    rig.ask(replica, charge(fixed(1_000), hits=30))
    done: list[Outcome] = []
    replica.charge_later([asked], rig.clock.boot_us + 10 * MS, done.extend)

    assert done == []
    rig.scheduler.run()
    assert len(done) == 1


def test_late_grant_becomes_a_lease(rig: Rig) -> None:
    """A request is answered at its deadline; what then arrives for it is spent by the next."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    replica.orders.silent = True
    (outcome,) = rig.ask(replica, asked)
    replica.orders.speak()
    replica.orders.silent = False

    assert (outcome.over, outcome.degraded, outcome.source) == (True, True, Source.FALLBACK)
    assert rig.ask(replica, asked)[0].source is Source.LEASE
    assert (replica.stats().late, replica.stats().takes) == (1, 1)


def test_late_grant_of_an_exact_take_goes_back(rig: Rig) -> None:
    """It was for one request, which is gone."""
    replica, asked = rig.replica(), charge(fixed(5))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    replica.orders.silent = True
    rig.ask(replica, asked)
    replica.orders.speak()
    replica.orders.silent = False
    rig.advance(100 * MS, replica)

    assert counted(rig, asked) == 0


def test_lost_take_is_asked_again_for_those_who_waited(rig: Rig) -> None:
    """Who waited for another's take has time left, and asks for itself."""
    replica, asked = rig.replica(), charge(fixed(1_000))
    replica.apply(in_force(asked, failure=FailureMode.CLOSED))
    done: list[Outcome] = []
    replica.orders.answers = False
    for _ in range(2):
        replica.charge_later([asked], rig.clock.boot_us + 10 * MS, done.extend)
    rig.scheduler.run()

    assert [outcome.degraded for outcome in done] == [True, True]
    assert len(takes(replica)) == 2
    assert replica.stats().lost == 2


# Denials.


def test_denial_is_remembered_for_a_second(rig: Rig) -> None:
    """Over the limit nothing is asked, and after a second one take asks again."""
    replica, asked = rig.replica(), charge(fixed(20))
    for _ in range(21):
        rig.ask(replica, asked)
    asked_before = len(takes(replica))
    outcomes = [rig.ask(replica, asked)[0] for _ in range(50)]
    rig.clock.advance(1_000 * MS)
    rig.ask(replica, asked)

    assert {(outcome.over, outcome.source) for outcome in outcomes} == {(True, Source.LEASE)}
    assert outcomes[0].before == 20
    assert len(takes(replica)) == asked_before + 1


def test_denial_of_a_busy_key_is_asked_about_ahead(rig: Rig) -> None:
    """A denied request near the end of a denial makes the replica ask, and waits for nothing itself."""
    replica, asked = rig.replica(), charge(fixed(20))
    for _ in range(21):
        rig.ask(replica, asked)
    before, sources = len(takes(replica)), []
    for _ in range(40):
        sources += [outcome.source for outcome in rig.ask(replica, asked)]
        rig.advance(100 * MS, replica)

    assert set(sources) == {Source.LEASE}
    assert 3 <= len(takes(replica)) - before <= 6


def test_hits_that_came_back_end_a_denial_by_themselves(rig: Rig) -> None:
    """What was asked ahead is in hand when the next request comes."""
    replica, asked = rig.replica(), charge(fixed(20))
    for _ in range(21):
        rig.ask(replica, asked)
    rig.advance(900 * MS, replica)
    other = rig.replica()
    other.refund([asked], rig.clock.read(), lambda outcomes: None)
    rig.scheduler.run()

    over = []
    for _ in range(3):
        over.append(rig.ask(replica, asked)[0].over)
        rig.advance(1, replica)
    assert over == [True, False, True]


def test_denial_of_many_hits_is_not_asked_about_ahead(rig: Rig) -> None:
    """It says nothing of one hit, so there is nothing to be in doubt of."""
    replica, asked = rig.replica(), charge(fixed(20), hits=15)
    for _ in range(2):
        rig.ask(replica, asked)
    before = len(takes(replica))
    for _ in range(9):
        rig.advance(100 * MS, replica)
        rig.ask(replica, asked)

    assert len(takes(replica)) == before


def test_key_asked_for_now_and_then_takes_several_hits(rig: Rig) -> None:
    """A hit every half second costs an order in five, and what is left of the last slice goes back."""
    replica, asked = rig.replica(), charge(fixed(1_000, 6 * WINDOW_US))
    rig.clock.advance(6 * WINDOW_US - rig.clock.wall_us % (6 * WINDOW_US))
    for _ in range(60):
        rig.ask(replica, asked)
        rig.advance(500 * MS, replica)
    taken = len(takes(replica))
    rig.advance(8_000 * MS, replica)

    assert taken <= 12
    assert counted(rig, asked) == 60


def test_denial_ends_with_the_window(rig: Rig) -> None:
    """Where the budget comes back sooner than in a second, so does the asking."""
    replica, asked = rig.replica(), charge(fixed(2))
    rig.clock.advance(WINDOW_US - rig.clock.wall_us % WINDOW_US - 300 * MS)
    for _ in range(3):
        rig.ask(replica, asked)
    rig.clock.advance(300 * MS)

    assert rig.admitted(replica, asked)


def test_few_hits_may_pass_where_many_are_denied(rig: Rig) -> None:
    """A denial of many hits says nothing of fewer."""
    replica, limit = rig.replica(), fixed(5)
    rig.ask(replica, charge(limit, hits=3))

    assert not rig.admitted(replica, charge(limit, hits=3))
    assert rig.admitted(replica, charge(limit, hits=2))
    assert not rig.admitted(replica, charge(limit, hits=0))


def test_denial_ends_when_the_limit_changes(rig: Rig) -> None:
    """Another limit is another question."""
    replica = rig.replica()
    for _ in range(3):
        rig.ask(replica, charge(fixed(2)))

    assert rig.admitted(replica, charge(fixed(9)))


def test_attack_on_one_key_asks_nothing_of_its_companions(rig: Rig) -> None:
    """What is denied here already takes nothing, and says of the others what is known of them."""
    replica, full, other = rig.replica(), charge(fixed(1), rule=b"full"), charge(fixed(9), unit=1)
    rig.ask(replica, full)
    rig.ask(replica, full)
    asked_before = len(takes(replica))
    outcomes = rig.ask(replica, full, other)

    assert [outcome.over for outcome in outcomes] == [True, False]
    assert outcomes[1].remaining == 9
    assert len(takes(replica)) == asked_before


def test_more_than_the_limit_can_hold_never_fits(rig: Rig) -> None:
    """And says so, leased as well."""
    replica = rig.replica()

    assert rig.ask(replica, charge(fixed(100), hits=101))[0].wait_us == NEVER_US
    assert rig.ask(replica, charge(fixed(100), hits=101))[0].wait_us == NEVER_US
    assert rig.admitted(replica, charge(fixed(100), hits=100))


# Across keys.


@each_algorithm
def test_what_an_exact_loser_took_is_spent_first(rig: Rig, algorithm: Algorithm) -> None:
    """It stays for a moment, so that the next request for that key need not ask."""
    replica, full, other = rig.replica(), charge(fixed(1), rule=b"full"), charge(limit_of(algorithm, 9), unit=1)
    rig.ask(rig.replica(), full)
    rig.ask(replica, full, other)
    asked_before = len(takes(replica))

    assert rig.admitted(replica, msgspec.structs.replace(other, unit=0))
    assert len(takes(replica)) == asked_before
    assert returns(replica) == []


@each_algorithm
def test_what_an_exact_loser_took_goes_back_soon(rig: Rig, algorithm: Algorithm) -> None:
    """After 50 ms at the most it is returned: no net charge."""
    replica, full, other = rig.replica(), charge(fixed(1), rule=b"full"), charge(limit_of(algorithm, 9), unit=1)
    rig.ask(rig.replica(), full)
    rig.ask(replica, full, other)
    held = counted(rig, other)
    rig.advance(60 * MS, replica)

    assert (held > 0, counted(rig, other)) == (True, 0)
    assert len(returns(replica)) == 1


def test_penalty_is_charged_past_the_limit_at_once(rig: Rig) -> None:
    """What did not fit follows as a spend that nobody waits for."""
    replica, asked = rig.replica(), charge(fixed(100), role=Role.PENALTY, hits=250)
    (outcome,) = rig.ask(replica, asked)
    rig.scheduler.run()

    assert outcome.over
    assert [order.asks[0].want for order in replica.orders.sent if isinstance(order, Spend)] == [250]
    assert counted(rig, asked) == 250


def test_observer_goes_by_what_is_in_hand(rig: Rig) -> None:
    """The other side of a rollout asks nothing while its counter is leased."""
    replica = rig.replica()
    enforced, observed = charge(fixed(1_000)), charge(fixed(60), role=Role.OBSERVE)
    overs = []
    for _ in range(100):
        overs.append(rig.ask(replica, enforced, observed)[1].over)
        rig.advance(10, replica)

    assert overs == [False] * 60 + [True] * 40
    assert len(takes(replica)) < 60


def test_shadow_takes_what_fits_beside_the_enforced(rig: Rig) -> None:
    """Two shadow units on one counter: the first that fits counts, and what is left over goes back."""
    replica, limit = rig.replica(), fixed(4)
    first, second = (charge(limit, hits=3, role=Role.SHADOW, unit=unit) for unit in (0, 1))
    outcomes = rig.ask(replica, first, second)
    rig.advance(60 * MS, replica)

    assert [outcome.over for outcome in outcomes] == [False, True]
    assert counted(rig, first) == 3


# Bounded memory.


def test_key_without_room_is_asked_for_exactly(rig: Rig) -> None:
    """A full book forgets nothing that matters: the newcomer is limited all the same, and not remembered."""
    replica = rig.replica(ReplicaSettings(leases=LeaseSettings(max_keys=1)))
    held = charge(fixed(20), b"held")
    for _ in range(21):
        rig.ask(replica, held)
    verdicts = [rig.admitted(replica, charge(fixed(25), b"new")) for _ in range(30)]

    assert verdicts == [True] * 25 + [False] * 5
    assert (len(replica.book), replica.stats().overfull > 0) == (1, True)
    assert rig.ask(replica, held)[0].source is Source.LEASE


def test_idle_key_makes_room(rig: Rig) -> None:
    """What holds nothing is forgotten for what comes."""
    replica = rig.replica(ReplicaSettings(leases=LeaseSettings(max_keys=2)))
    for number in range(10):
        rig.ask(replica, charge(fixed(5), b"%d" % number))

    assert len(replica.book) == 2
    assert replica.stats().overfull == 0


# Limits that descriptors carry.


def test_identities_that_descriptors_carry_do_not_pile_up(rig: Rig) -> None:
    """Their names are forgotten, and their counts are not."""
    replica = rig.replica(ReplicaSettings(leases=LeaseSettings(max_keys=8)))
    for number in range(5_000):
        rig.ask(replica, charge(fixed(1), rule=b"%d" % number))

    assert not rig.admitted(replica, charge(fixed(1), rule=b"4999"))
    assert not rig.admitted(replica, charge(fixed(1), rule=b"0"))


def test_every_granted_hit_is_accounted_for(rig: Rig) -> None:
    """Granted hits are spent, returned, forfeited or still in hand."""
    replica = rig.replica()
    leased, small, full = charge(fixed(1_000)), charge(fixed(9), rule=b"small"), charge(fixed(1), rule=b"full")
    rig.ask(rig.replica(), full)
    for number in range(200):
        rig.ask(replica, leased)
        rig.ask(replica, leased, msgspec.structs.replace(small, unit=1))
        rig.ask(replica, msgspec.structs.replace(full, key=b"%d" % number))
        rig.ask(replica, small, msgspec.structs.replace(full, unit=1))
        rig.advance(7 * MS, replica)
    stats = replica.stats()
    in_hand = sum(cell.held(rig.clock.boot_us) for cell in replica.book)

    assert stats.granted == stats.spent + stats.returned + stats.forfeited + in_hand
    assert stats.spent > 400


def test_refill_that_was_denied_is_not_asked_again_at_once(rig: Rig) -> None:
    """What is in hand is spent to the end without a take for each hit of it."""
    replica, asked = rig.replica(), charge(fixed(100_000))
    for _ in range(2_000):
        rig.ask(replica, asked)
        rig.advance(20, replica)
    rig.ask(rig.replica(), msgspec.structs.replace(asked, hits=peek_remaining(rig, asked)))
    before = len(takes(replica))
    for _ in range(200):
        rig.ask(replica, asked)
        rig.advance(20, replica)

    assert len(takes(replica)) - before <= 2


def peek_remaining(rig: Rig, asked: Charge) -> int:
    """What the store could still grant."""
    look: list[Outcome] = []
    rig.replica().peek([msgspec.structs.replace(asked, hits=0)], rig.clock.read(), look.extend)
    rig.scheduler.run()
    return look[0].remaining
