"""What the memory store alone promises: room, shares, slices, statistics (DECISIONS 19)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ratelimit_service.algorithms.limit import FailureMode
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.store import Charge, Outcome, Role
from support.clocks import ManualClock
from support.schedulers import ManualScheduler
from support.store_harness import SECOND_US, START_WALL_US, WINDOW_US, charge, fixed, in_force

LONG_US = 100 * WINDOW_US
NOISY = charge(fixed(2, LONG_US), rule=b"noisy")
QUIET = charge(fixed(2, LONG_US), rule=b"quiet")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_us=START_WALL_US)


def make(clock: ManualClock, max_keys: int = 160, max_bytes: int = 200 * 1024 * 1024) -> MemoryStore:
    return MemoryStore(
        clock=clock,
        max_keys=max_keys,
        max_bytes=max_bytes,
        hash_key=b"key",
        call_soon=ManualScheduler().call_soon,
    )


def keyed(each: Charge, number: int) -> Charge:
    return msgspec.structs.replace(each, key=b"%d" % number)


def flood(store: MemoryStore, clock: ManualClock, each: Charge, count: int) -> list[Outcome]:
    return [store.charge([keyed(each, number)], clock.read())[0] for number in range(count)]


def exact_keys(store: MemoryStore, each: Charge) -> int:
    return len(store._books[each.identity].ledger)


def test_sole_rule_may_fill_all_but_the_part_for_hashed_counters(clock: ManualClock) -> None:
    """One rule in force: seven eighths are its keys, the last eighth its hashed counters."""
    store = make(clock)
    store.apply(in_force(NOISY))
    flood(store, clock, NOISY, 2_000)

    assert exact_keys(store, NOISY) == 140
    assert store.stats().shared_keys == 20
    assert store.stats().keys == 160


def test_first_rule_leaves_a_quarter_for_those_to_come(clock: ManualClock) -> None:
    """While others are in force and hold nothing, a rule may hold three quarters."""
    store = make(clock)
    store.apply(in_force(NOISY, QUIET))
    flood(store, clock, NOISY, 2_000)

    assert exact_keys(store, NOISY) == 120


def test_rule_holds_half_while_another_holds_anything(clock: ManualClock) -> None:
    """With another rule's key in the store, a rule stops at half, and at half of the hashed counters."""
    store = make(clock)
    store.apply(in_force(NOISY, QUIET))
    flood(store, clock, QUIET, 1)
    flood(store, clock, NOISY, 2_000)

    assert exact_keys(store, NOISY) == 80
    assert store.stats().shared_keys == 10


def test_shares_are_by_rule_and_not_by_limit(clock: ManualClock) -> None:
    """Two limits of one rule share its half."""
    store = make(clock)
    second = charge(fixed(2, 2 * LONG_US), rule=b"noisy")
    store.apply(in_force(NOISY, second, QUIET))
    flood(store, clock, QUIET, 1)
    flood(store, clock, NOISY, 60)
    flood(store, clock, second, 60)

    assert exact_keys(store, NOISY) + exact_keys(store, second) == 80


def test_rule_that_has_filled_its_share_is_closed_at_all_its_limits(clock: ManualClock) -> None:
    """However many limits it has, none of them makes a key more, and all may again when there is room."""
    store = make(clock)
    others = [charge(fixed(2, number * LONG_US), rule=b"noisy") for number in range(2, 12)]
    store.apply(in_force(NOISY, *others, QUIET))
    for each in (*others, QUIET):
        flood(store, clock, each, 1)
    flood(store, clock, NOISY, 100)
    full = [exact_keys(store, each) for each in (NOISY, *others)]
    denied = [store.charge([keyed(each, 1)], clock.read())[0] for each in others]

    assert sum(full) == 80
    assert [exact_keys(store, each) for each in (NOISY, *others)] == full
    assert not any(outcome.before for outcome in denied)
    clock.advance(LONG_US)
    store.reclaim(clock.read(), 10_000)
    for each in others:
        flood(store, clock, each, 3)
    assert [exact_keys(store, each) for each in others] == [3] * 10


def test_request_of_many_new_keys_stays_within_the_bound(clock: ManualClock) -> None:
    """All keys that one request makes are counted before any is made."""
    store = make(clock, max_keys=16)
    outcomes = store.charge(
        [msgspec.structs.replace(keyed(NOISY, number), unit=number) for number in range(40)], clock.read()
    )

    assert sum(outcome.degraded for outcome in outcomes) > 0
    assert store.stats().keys == 0
    flood(store, clock, NOISY, 13)
    store.charge([keyed(NOISY, number) for number in (100, 101)], clock.read())
    assert store.stats().keys <= 16


def test_bytes_bound_new_keys_too(clock: ManualClock) -> None:
    """A store short of bytes gives out hashed counters, then none, and stays below the bound."""
    store = make(clock, max_keys=1_000_000, max_bytes=40_000)
    store.apply(in_force(NOISY, QUIET))
    flood(store, clock, QUIET, 1)
    outcomes = flood(store, clock, NOISY, 2_000)

    assert store.stats().bytes <= 40_000
    assert store.stats().shared_decisions > 0
    assert any(outcome.degraded for outcome in outcomes)


def test_identities_are_bounded_by_bytes(clock: ManualClock) -> None:
    """Not even empty books are made without end: an identity that finds no room is refused."""
    store = make(clock, max_bytes=20_000)
    outcomes = [
        store.charge([charge(fixed(1, LONG_US + number), rule=b"r%d" % number)], clock.read())[0]
        for number in range(100)
    ]
    observed = store.charge([charge(fixed(1), rule=b"new", role=Role.OBSERVE)], clock.read())

    assert outcomes[-1].degraded
    assert observed[0].degraded
    assert store.stats().bytes <= 20_000


def test_key_of_its_own_begins_with_what_its_hashed_counter_saw(clock: ManualClock) -> None:
    """When room comes back the key is no richer than before."""
    store = make(clock, max_keys=16)
    short, long = charge(fixed(1), rule=b"short"), charge(fixed(2, LONG_US), b"mine", rule=b"long")
    flood(store, clock, short, 14)
    store.charge([long], clock.read())
    shared = store.stats().shared_keys
    clock.advance(WINDOW_US)
    store.reclaim(clock.read(), 100)
    outcomes = [store.charge([long], clock.read())[0] for _ in range(2)]

    assert shared == 1
    assert store._books[long.identity].ledger.holds(b"mine")
    assert [(outcome.over, outcome.before) for outcome in outcomes] == [(False, 1), (True, 2)]


def test_hashed_counter_answers_peeks_checks_and_refunds(clock: ManualClock) -> None:
    """A crowded key is peeked at, checked and refunded where its hits are."""
    store = make(clock, max_keys=16)
    flood(store, clock, NOISY, 14)
    crowded = keyed(NOISY, 99)
    store.charge([msgspec.structs.replace(crowded, hits=2)], clock.read())
    answers: list[Outcome] = []
    store.peek([crowded], clock.read(), answers.extend)
    answers += store.charge([msgspec.structs.replace(crowded, hits=0)], clock.read())
    store.refund([crowded], clock.read(), answers.extend)

    assert [(answer.over, answer.before) for answer in answers] == [(True, 2), (True, 2), (False, 1)]


def test_check_of_an_unknown_key_needs_no_room(clock: ManualClock) -> None:
    """A check with 0 hits makes no key, so a full store answers it."""
    store = make(clock, max_keys=16)
    flood(store, clock, NOISY, 200)
    outcome = store.charge([msgspec.structs.replace(NOISY, key=b"unknown", hits=0)], clock.read())[0]

    assert (outcome.degraded, store.stats().keys) == (False, 16)


def test_expired_keys_make_room_without_background_work(clock: ManualClock) -> None:
    """Requests pay for reclaiming: a stream of new keys, window after window, is never short of room."""
    store = make(clock, max_keys=1_000)
    limit = charge(fixed(1))
    outcomes = []
    for window in range(10):
        outcomes += [store.charge([keyed(limit, window * 400 + number)], clock.read())[0] for number in range(400)]
        clock.advance(WINDOW_US)

    assert not any(outcome.degraded for outcome in outcomes)
    assert store.stats().shared_decisions == 0
    assert store.stats().created == 4_000


def test_pressed_store_recovers_by_its_requests(clock: ManualClock) -> None:
    """Charges that found no room reclaim as well: with the old keys expired, new ones are exact again."""
    store = make(clock, max_keys=160)
    limit = charge(fixed(1))
    flood(store, clock, limit, 500)
    clock.advance(2 * WINDOW_US)
    flood(store, clock, limit, 300)
    crowded_before = store.stats().shared_decisions
    outcomes = [store.charge([keyed(limit, 0)], clock.read())[0] for _ in range(2)]

    assert not any(outcome.degraded for outcome in outcomes)
    clock.advance(2 * WINDOW_US)
    store.reclaim(clock.read(), 1_000)
    assert (store.stats().keys, store.stats().bytes) == (0, 0)
    flood(store, clock, limit, 50)
    assert store.stats().shared_decisions == crowded_before


def test_slice_looks_at_no_more_than_its_budget(clock: ManualClock) -> None:
    """A slice is bounded, and slices one after the other reach every key of every limit."""
    store = make(clock, max_keys=10_000)
    limits = [charge(fixed(1), rule=b"r%d" % number) for number in range(5)]
    for each in limits:
        flood(store, clock, each, 100)
    clock.advance(WINDOW_US)
    looked = [store.reclaim(clock.read(), 30) for _ in range(40)]

    assert max(looked) <= 30
    assert store.stats().keys == 0
    assert store.stats().reclaimed == 500


def test_slice_goes_to_few_limits_where_there_are_thousands(clock: ManualClock) -> None:
    """Going from limit to limit takes time too: where each has one key, a slice reaches an eighth of its budget."""
    store = make(clock, max_keys=10_000)
    for number in range(1_000):
        flood(store, clock, charge(fixed(1), rule=b"r%d" % number), 1)
    clock.advance(WINDOW_US)
    looked = [store.reclaim(clock.read(), 160) for _ in range(60)]

    assert max(looked) <= 160 // 8
    assert sum(looked) == 1_000
    assert store.stats().keys == 0


def test_counters_of_a_limit_that_is_gone_are_dropped_in_slices(clock: ManualClock) -> None:
    """After `apply` without them, live keys go too, a slice at a time; overrides, never in force, stay."""
    store = make(clock, max_keys=10_000)
    override = charge(fixed(1, LONG_US), rule=b"override")
    store.apply(in_force(NOISY, QUIET))
    for each in (NOISY, QUIET, override):
        flood(store, clock, each, 100)
    store.apply(in_force(QUIET))
    first = store.reclaim(clock.read(), 20)
    after_first = store.stats().keys
    for _ in range(40):
        store.reclaim(clock.read(), 20)

    assert 0 < first <= 20
    assert 280 <= after_first <= 300
    assert set(store._books) == {QUIET.identity, override.identity}
    assert store.stats().keys == 200


def test_limit_that_returns_before_its_slices_keeps_its_counts(clock: ManualClock) -> None:
    """Gone and back between two slices: nothing was lost."""
    store = make(clock)
    store.apply(in_force(NOISY))
    flood(store, clock, NOISY, 10)
    store.apply({})
    store.apply(in_force(NOISY))
    store.reclaim(clock.read(), 100)

    assert exact_keys(store, NOISY) == 10


def test_hashed_counters_of_a_limit_that_is_gone_go_too(clock: ManualClock) -> None:
    """Nothing of a dropped limit remains."""
    store = make(clock, max_keys=16)
    store.apply(in_force(NOISY))
    flood(store, clock, NOISY, 200)
    store.apply({})
    for _ in range(4):
        store.reclaim(clock.read(), 10)

    assert (store.stats().keys, store.stats().bytes, store.stats().shared_keys) == (0, 0, 0)


def test_reset_of_a_crowded_key_leaves_the_hashed_counter(clock: ManualClock) -> None:
    """Other keys' hits are in it: the answer is that nothing of its own was there."""
    store = make(clock, max_keys=16)
    flood(store, clock, NOISY, 14)
    crowded = keyed(NOISY, 99)
    store.charge([crowded], clock.read())
    answers: list[bool] = []
    store.reset(crowded.identity, crowded.key, answers.append)

    assert answers == [False]
    assert store.charge([crowded], clock.read())[0].before == 1


def test_bound_is_exact_until_an_open_rule_lets_pass_uncounted(clock: ManualClock) -> None:
    """Only Open admits beyond a limit, and only while there is no room; 10 s later the bound is 0 again."""
    store = make(clock, max_keys=2)
    store.apply(in_force(NOISY, failure=FailureMode.OPEN) | in_force(QUIET))
    before = store.bound("noisy")
    flood(store, clock, NOISY, 10)
    during = (store.bound("noisy"), store.bound("quiet"))
    clock.advance(11 * SECOND_US)

    assert (before, during, store.bound("noisy")) == (0, (MAX_HITS, 0), 0)
    assert store.stats().uncounted > 0


def test_refused_charges_are_counted(clock: ManualClock) -> None:
    """Denials for want of room are a number of their own."""
    store = make(clock, max_keys=2)
    outcomes = flood(store, clock, NOISY, 10)

    assert store.stats().refused == sum(outcome.degraded for outcome in outcomes) > 0


def test_statistics_count_charges_by_role(clock: ManualClock) -> None:
    """Every role has its number, whatever path decided."""
    store = make(clock)
    other = charge(fixed(9), rule=b"other")
    for request in (
        [NOISY],
        [NOISY, other],
        [NOISY, other],
        [msgspec.structs.replace(QUIET, role=role) for role in Role],
    ):
        store.charge(request, clock.read())
    stats = store.stats()

    assert (stats.enforce_charges, stats.penalty_charges, stats.shadow_charges) == (6, 1, 1)
    assert (stats.quota_charges, stats.observe_charges) == (1, 1)
    assert (stats.max_keys, stats.max_bytes) == (160, 200 * 1024 * 1024)


def test_several_enforced_limits_take_the_short_way(clock: ManualClock) -> None:
    """Known books, different limits: decided in one pass, with the answers of the long way."""
    store = make(clock)
    other = charge(fixed(1), rule=b"other", unit=1)
    first, second = store.charge([NOISY, other], clock.read()), store.charge([NOISY, other], clock.read())
    third = store.charge([NOISY, msgspec.structs.replace(other, hits=0)], clock.read())
    fourth = store.charge([NOISY, charge(fixed(5), b"new", rule=b"other", hits=0)], clock.read())

    assert [outcome.remaining for outcome in first] == [1, 0]
    assert [(outcome.over, outcome.remaining) for outcome in second] == [(False, 1), (True, 0)]
    assert [(outcome.over, outcome.remaining) for outcome in third] == [(False, 1), (True, 0)]
    assert [(outcome.over, outcome.remaining) for outcome in fourth] == [(False, 0), (False, 5)]


def test_request_without_charges_has_no_outcomes(clock: ManualClock) -> None:
    """Nothing asked, nothing answered."""
    assert list(make(clock).charge([], clock.read())) == []


def test_hash_key_is_random_by_default(clock: ManualClock) -> None:
    """Which keys meet in a hashed counter is not for clients to know."""
    one, two = MemoryStore(clock=clock), MemoryStore(clock=clock)

    assert one._hash_key != two._hash_key


def test_start_and_close_leave_an_empty_store(clock: ManualClock) -> None:
    """Closing ends the background work and lets go of every counter."""
    store = make(clock)
    flood(store, clock, NOISY, 10)
    store._sweep_slice()

    async def run() -> None:
        await store.start()
        await store.close()

    asyncio.run(run())

    assert (store.stats().keys, store.stats().bytes) == (0, 0)
    assert not store.charge([NOISY], clock.read())[0].over


def test_late_charge_takes_the_running_loop(clock: ManualClock) -> None:
    """Without a scheduler of its own, the store defers to the loop that it runs on."""
    store = MemoryStore(clock=clock)

    async def ask() -> list[Outcome]:
        answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        store.charge_later([NOISY], 0, lambda outcomes: answer.set_result(list(outcomes)))
        assert not answer.done()
        return await answer

    assert [outcome.over for outcome in asyncio.run(ask())] == [False]
