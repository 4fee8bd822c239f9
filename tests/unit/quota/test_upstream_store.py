"""The compat store counts like envoyproxy/ratelimit on Redis (reference vectors of its §2.4 to §2.6)."""

from __future__ import annotations

import asyncio

import pytest

from ratelimit_service.algorithms.limit import (
    Algorithm,
    Calendar,
    CalendarUnit,
    FailureMode,
    Instant,
    Limit,
    LimitSettings,
)
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.store import Charge, Outcome, Role, Usage
from ratelimit_service.quota.upstream import UpstreamMemoryStore, upstream_stem
from support.clocks import ManualClock
from support.schedulers import ManualScheduler

SECOND_US = 1_000_000
STEM = upstream_stem(b"domain", [(b"key", b"value")])
NOON = Instant(wall_us=1_234 * SECOND_US, boot_us=0)


def windowed(requests: int, window_s: int = 60) -> Limit:
    return Limit(Algorithm.FIXED_WINDOW, requests=requests, window_us=window_s * SECOND_US, burst=requests)


def charge(hits: int = 1, *, limit: Limit | None = None, stem: bytes = STEM, role: Role = Role.ENFORCE) -> Charge:
    return Charge(identity=b"any", limit=limit or windowed(5), key=stem, hits=hits, role=role)


def at(second: int) -> Instant:
    return Instant(wall_us=second * SECOND_US, boot_us=0)


@pytest.fixture
def scheduler() -> ManualScheduler:
    return ManualScheduler()


@pytest.fixture
def store(scheduler: ManualScheduler) -> UpstreamMemoryStore:
    return UpstreamMemoryStore(clock=ManualClock(wall_us=NOON.wall_us), call_soon=scheduler.call_soon)


def test_denied_hits_are_counted(store: UpstreamMemoryStore) -> None:
    """An addend that crosses the limit is charged in full, so a smaller one after it is over too."""
    first, second = store.charge([charge(100)], NOON), store.charge([charge(1)], NOON)

    assert (first[0].over, first[0].before) == (True, 0)
    assert (second[0].over, second[0].before, second[0].remaining) == (True, 100, 0)


def test_companions_are_charged_beside_a_denied_charge(store: UpstreamMemoryStore) -> None:
    """Each descriptor counts alone."""
    other = upstream_stem(b"domain", [(b"other", b"value")])
    store.charge([charge(6), charge(2, stem=other)], NOON)

    assert store.charge([charge(0, stem=other)], NOON)[0].before == 2


def test_check_at_the_limit_is_not_over(store: UpstreamMemoryStore) -> None:
    """A check with 0 hits is over only when the count exceeds the limit."""
    store.charge([charge(5)], NOON)
    at_limit = store.charge([charge(0)], NOON)[0]
    store.charge([charge(1)], NOON)
    past_limit = store.charge([charge(0)], NOON)[0]

    assert (at_limit.over, at_limit.remaining) == (False, 0)
    assert past_limit.over


def test_limit_of_zero_lets_a_check_pass(store: UpstreamMemoryStore) -> None:
    """`requests_per_unit: 0` is over at the first hit, and not for a check before it."""
    assert not store.charge([charge(0, limit=windowed(0))], NOON)[0].over
    assert store.charge([charge(1, limit=windowed(0))], NOON)[0].over


def test_same_key_twice_counts_in_order(store: UpstreamMemoryStore) -> None:
    """Two equal descriptors see one after the other."""
    outcomes = store.charge([charge(3), charge(3)], NOON)

    assert [(each.over, each.before) for each in outcomes] == [(False, 0), (True, 3)]


@pytest.mark.parametrize("role", [Role.ENFORCE, Role.SHADOW, Role.QUOTA, Role.PENALTY])
def test_every_role_but_observe_counts(store: UpstreamMemoryStore, role: Role) -> None:
    """Shadow and quota rules count like all others."""
    store.charge([charge(2, role=role), charge(9, role=Role.OBSERVE)], NOON)

    assert store.charge([charge(0)], NOON)[0].before == 2


def test_reset_is_the_end_of_the_aligned_window(store: UpstreamMemoryStore) -> None:
    """Wait is what is left of the window, over or not (vector: 1234 s, MINUTE: 26 s)."""
    assert [store.charge([charge(hits)], NOON)[0].wait_us for hits in (1, 100)] == [26 * SECOND_US] * 2


def test_next_window_begins_at_zero(store: UpstreamMemoryStore) -> None:
    """The window's start is in the key."""
    store.charge([charge(5)], at(1_259))

    assert store.charge([charge(1)], at(1_260))[0] == Outcome(over=False, remaining=4, wait_us=60 * SECOND_US, before=0)


def test_units_whose_windows_start_together_share_a_counter(store: UpstreamMemoryStore) -> None:
    """The unit is not in the key: in a day's first hour, HOUR and DAY of one chain meet."""
    store.charge([charge(3, limit=windowed(5, 3_600))], at(86_400 + 10))

    assert store.charge([charge(1, limit=windowed(9, 86_400))], at(86_400 + 20))[0].before == 3


def test_a_shared_counter_expires_by_the_unit_that_touched_it_last(store: UpstreamMemoryStore) -> None:
    """EXPIRE goes with every INCRBY, so an HOUR charge shortens the life of the DAY counter that it shares."""
    day, hour = windowed(9, 86_400), windowed(5, 3_600)
    store.charge([charge(3, limit=day)], at(86_400))
    store.charge([charge(1, limit=hour)], at(86_401))

    assert store.charge([charge(0, limit=day)], at(86_401 + 3_599))[0].before == 4
    store.charge([charge(0, limit=hour, stem=b"other_")], at(86_402))
    assert store.charge([charge(1, limit=day)], at(86_401 + 3_599 + 86_400))[0].before == 0


def test_chains_whose_text_is_equal_share_a_counter(store: UpstreamMemoryStore) -> None:
    """(a, b_c) and (a_b, c) are one key."""
    store.charge([charge(2, stem=upstream_stem(b"d", [(b"a", b"b_c")]))], NOON)

    assert store.charge([charge(0, stem=upstream_stem(b"d", [(b"a_b", b"c")]))], NOON)[0].before == 2


def test_counts_saturate(store: UpstreamMemoryStore) -> None:
    """Huge hits stop at 2**64-1."""
    for _ in range(2):
        store.charge([charge(MAX_HITS)], NOON)

    assert store.charge([charge(0)], NOON)[0].before == MAX_HITS


def test_calendar_window_counts_as_its_unit(store: UpstreamMemoryStore) -> None:
    """Upstream knows lengths only: a calendar month is 30 days here."""
    limit = Limit(Algorithm.FIXED_WINDOW, 5, 0, 5, Calendar(CalendarUnit.MONTH, "Europe/Berlin"))

    assert store.charge([charge(limit=limit)], at(0))[0].wait_us == 2_592_000 * SECOND_US


def test_peek_and_refund_answer_from_the_count(store: UpstreamMemoryStore) -> None:
    """Peeking changes nothing; a refund takes off, not below 0; unknown counters stay unknown."""
    answers: list[Outcome] = []
    store.charge([charge(3)], NOON)

    store.peek([charge(3)], NOON, answers.extend)
    store.refund([charge(2)], NOON, answers.extend)
    store.refund([charge(9)], NOON, answers.extend)
    store.refund([charge(9, stem=b"none_")], NOON, answers.extend)

    assert [(each.over, each.before) for each in answers] == [(True, 3), (False, 1), (False, 0), (False, 0)]


def test_reset_forgets_the_stems_current_windows(store: UpstreamMemoryStore) -> None:
    """Reset says whether something was there, and the next charge begins at 0."""
    answers: list[bool] = []
    store.charge([charge(5)], NOON)

    store.reset(b"any", STEM, answers.append)
    store.reset(b"any", STEM, answers.append)

    assert answers == [True, False]
    assert store.charge([charge(1)], NOON)[0].before == 0


def test_usage_lists_a_domains_keys(store: UpstreamMemoryStore) -> None:
    """Usage shows keys as upstream writes them, of the domain asked for."""
    shown: list[Usage] = []
    store.charge([charge(2), charge(1, stem=b"domain2_key_value_")], NOON)

    store.usage("domain", 0, shown.extend)
    store.usage("domain", 1, shown.extend)

    assert [(each.key, each.used) for each in shown] == [(b"domain_key_value_1200", 2)]


def test_charge_later_never_answers_before_it_returns(store: UpstreamMemoryStore, scheduler: ManualScheduler) -> None:
    """A late charge is decided on a later turn."""
    answers: list[Outcome] = []
    store.charge_later([charge()], 0, answers.extend)
    before = len(answers)
    scheduler.run()

    assert (before, len(answers)) == (0, 1)


@pytest.mark.parametrize(("failure", "over"), [(FailureMode.SHARE, True), (FailureMode.OPEN, False)])
def test_full_store_answers_new_keys_by_their_failure_mode(failure: FailureMode, over: bool) -> None:
    """No live counter is dropped: a key that finds no room is denied, or passes under Open, and is marked."""
    store = UpstreamMemoryStore(clock=ManualClock(wall_us=0), max_keys=1)
    store.apply({b"any": LimitSettings(windowed(5), "domain", "rule", failure)})
    store.charge([charge(5)], NOON)

    outcome = store.charge([charge(1, stem=b"new_")], NOON)[0]

    assert (outcome.over, outcome.degraded) == (over, True)
    assert store.charge([charge(0)], NOON)[0].before == 5
    assert (store.stats().keys, store.stats().refused) == (1, 1)


def test_byte_bound_holds_too() -> None:
    """A key that would exceed the bytes finds no room either."""
    store = UpstreamMemoryStore(clock=ManualClock(wall_us=0), max_bytes=300)

    assert not store.charge([charge(1)], NOON)[0].degraded
    assert store.charge([charge(1, stem=b"new_")], NOON)[0].degraded


def test_expired_counters_make_room() -> None:
    """A new key reclaims expired ones on its way."""
    store = UpstreamMemoryStore(clock=ManualClock(wall_us=0), max_keys=1)
    store.charge([charge(5)], at(0))

    assert not store.charge([charge(1, stem=b"new_")], at(61))[0].degraded
    assert store.stats().reclaimed == 1


def test_background_slices_empty_an_idle_store() -> None:
    """Expired counters go without any request, and closing drops the rest."""
    clock = ManualClock(wall_us=0)
    store = UpstreamMemoryStore(clock=clock)
    store.charge([charge(5), charge(5, limit=windowed(9, 86_400), stem=b"long_")], at(0))
    clock.advance(61 * SECOND_US)
    store._sweep_slice()
    kept = store.stats().keys
    asyncio.run(start_and_close(store))

    assert (kept, store.stats().keys, store.stats().bytes) == (1, 0, 0)


async def start_and_close(store: UpstreamMemoryStore) -> None:
    await store.start()
    await store.close()


def test_late_charge_takes_the_running_loop() -> None:
    """Without a scheduler of its own, the store defers to the loop that it runs on."""
    store = UpstreamMemoryStore(clock=ManualClock(wall_us=0))

    async def ask() -> list[Outcome]:
        answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        store.charge_later([charge()], 0, lambda outcomes: answer.set_result(list(outcomes)))
        assert not answer.done()
        return await answer

    assert [outcome.over for outcome in asyncio.run(ask())] == [False]


def test_bound_is_exact(store: UpstreamMemoryStore) -> None:
    """One process admits nothing beyond its counts."""
    assert store.bound("rule") == 0
