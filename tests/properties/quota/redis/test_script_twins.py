"""The scripts in a real Redis and their twin: for any schedule the same answers and the same states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.quota.redis.packing import key_name
from ratelimit_service.quota.redis.twin import Answer, Refusal, SharedState
from ratelimit_service.quota.redis.twin_state import Entry, State, mark_of
from ratelimit_service.quota.takes import CountedKey, Grant, Order, Reset, Return, Take
from support.counted_keys import (
    BUCKET_LIMIT,
    DAYS,
    FIXED_LIMIT,
    LIMITS,
    MINUTE_US,
    SLIDING_LIMIT,
    WHERE,
    ask,
    orders,
    some_limits,
    take,
)
from support.redis_servers import running_server
from support.scripted_store import PREFIX, ScriptedStore, named
from support.strategies import START_US

Batch = tuple[int, list[Order]]
gaps_us = st.one_of(st.integers(0, 9), st.integers(-60, 260), st.sampled_from([60_000_000, 86_400_000_000, 10**12]))
one_server = settings(
    max_examples=settings().max_examples * 3 // 10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def schedules(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[Batch]:
    """Batches of orders on a few keys, of one to three limits, with the clock's step before each."""
    in_turn: list[Limit] = draw(st.lists(some_limits, min_size=1, max_size=3))
    batch = st.tuples(gaps_us, st.lists(orders(in_turn), max_size=4))
    drawn: list[Batch] = draw(st.lists(batch, max_size=6))
    return drawn


@pytest.fixture(scope="module")
def server_store() -> Iterator[ScriptedStore]:
    with running_server() as server, redis.Redis(port=server.port) as client:
        yield ScriptedStore(client)


@pytest.fixture
def store(server_store: ScriptedStore) -> ScriptedStore:
    server_store.forget_all()
    return server_store


class Executing(Protocol):
    """A store that is asked synchronously."""

    def execute(self, orders: Sequence[Order], now_us: int, listed_us: int | None = None) -> list[Answer]: ...


def filled(order: Order, grants: Sequence[Grant]) -> Order:
    """The order; a return names one of the grants so far, if there is one and it does not name one at random."""
    if not isinstance(order, Return) or not grants or order.window == 0:
        return order
    grant = grants[-1 - order.number % min(3, len(grants))]
    return msgspec.structs.replace(order, number=grant.number, epoch=grant.epoch, window=grant.window)


def told(left: Executing, right: Executing, schedule: Sequence[Batch]) -> tuple[list[Any], list[Any]]:
    """What both stores answer to one schedule, batch by batch."""
    now_us, grants = START_US, list[Grant]()
    lefts, rights = [], []
    for gap_us, batch in schedule:
        now_us += gap_us
        asked = [filled(order, grants) for order in batch]
        lefts.append([plain(answer) for answer in left.execute(asked, now_us)])
        rights.append([plain(answer) for answer in right.execute(asked, now_us)])
        grants += [grant for answer in lefts[-1] for grant in answer if isinstance(grant, Grant) and grant.granted]
    return lefts, rights


def plain(answer: Answer) -> tuple[Grant | Refusal, ...]:
    return (answer,) if isinstance(answer, Refusal) else tuple(answer)


@one_server
@given(schedule=schedules())
def test_script_does_what_its_twin_does(store: ScriptedStore, schedule: list[Batch]) -> None:
    """Answers field by field after every batch, and all states at the end."""
    store.forget_all()
    twin = SharedState()
    expected, seen = told(twin, store, schedule)

    assert seen == expected
    assert store.states() == named(twin.keys)


@one_server
@given(data=st.data())
def test_takes_sent_as_one_are_takes_one_after_another(store: ScriptedStore, data: st.DataObject) -> None:
    """Each gets what it would have got alone; only the time until the budget is full is the last one's for all."""
    store.forget_all()
    twin, now_us = SharedState(), START_US
    in_turn = data.draw(st.lists(some_limits, min_size=1, max_size=2))
    # On a bucket the leases of takes one after another each put the arrival time off; see `packing.read_answers`.
    has_bucket = any(limit.algorithm is Algorithm.TOKEN_BUCKET for limit in in_turn)
    leases_us = st.just(0) if has_bucket else st.sampled_from([0, 7])
    drawn = st.lists(st.tuples(st.integers(1, 4), st.integers(2, 6), leases_us, gaps_us), max_size=6)
    for want, times, lease_us, gap_us in data.draw(drawn):
        now_us += gap_us
        asks = tuple(ask(limit, want, identity=b"%d" % nth) for nth, limit in enumerate(in_turn))
        order = Take(WHERE, asks, want, lease_us)
        expected = twin.execute([order] * times, now_us)
        (seen,) = store.execute_times([(order, times)], now_us)

        assert [unhurried(answer) for answer in seen] == [unhurried(answer) for answer in expected]
    assert counts(store.states()) == counts(named(twin.keys))


def counts(states: Mapping[bytes, State | Refusal]) -> dict[bytes, list[Entry]]:
    """States but for how long they are kept: what is charged at once is kept for other than what is charged in turn."""
    return {
        name: [msgspec.structs.replace(entry, until_us=0) for entry in state.entries]
        for name, state in states.items()
        if isinstance(state, State)
    }


def unhurried(answer: Answer) -> list[Grant]:
    """An answer but for how long the passed ones wait for a full budget, and for the window of the others."""
    return [
        msgspec.structs.replace(
            grant, wait_us=0 if grant.granted else grant.wait_us, window=grant.window if grant.granted else 0
        )
        for grant in plain(answer)
        if isinstance(grant, Grant)
    ]


def test_leased_takes_of_a_bucket_sent_as_one_are_a_take_of_their_sum(store: ScriptedStore) -> None:
    """Granted and charged as that one: which the law allows, and one after another would not pass."""
    bucket = Limit(Algorithm.TOKEN_BUCKET, 1, 1, 4)
    ((first, second),) = store.execute_times([(take(bucket, 2, least=2, lease_us=1), 2)], START_US)
    twin = SharedState()
    twin.execute([take(bucket, 4, least=4, lease_us=1)], START_US)

    assert [grant.granted for answer in (first, second) for grant in unhurried(answer)] == [2, 2]
    assert counts(store.states()) == counts(named(twin.keys))


# The law catches what is wrong: each of these is one line less in the twin.


class Planted(SharedState):
    """A twin with a bug: `change` rewrites what it is asked, or what it keeps."""

    def __init__(self, change: Callable[[SharedState, Order, int], Order]) -> None:
        super().__init__()
        self._change = change

    def execute(self, orders: Sequence[Order], now_us: int, listed_us: int | None = None) -> list[Answer]:
        answers = []
        for order in orders:
            answers += super().execute([self._change(self, order, now_us)], now_us, listed_us)
        return answers


def charges_at_once(twin: SharedState, order: Order, now_us: int) -> Order:
    return msgspec.structs.replace(order, lease_us=0) if isinstance(order, Take) else order


def deletes(twin: SharedState, order: Order, now_us: int) -> Order:
    twin.keys.pop(order.where, None) if isinstance(order, Reset) else None
    return order


def reopens_windows(twin: SharedState, order: Order, now_us: int) -> Order:
    state = twin.keys.get(order.where)
    if state and state.number > now_us:
        del twin.keys[order.where]
    return order


def takes_any_return(twin: SharedState, order: Order, now_us: int) -> Order:
    state = twin.keys.get(order.where)
    return msgspec.structs.replace(order, number=state.number) if isinstance(order, Return) and state else order


def forgets_epochs(twin: SharedState, order: Order, now_us: int) -> Order:
    state = twin.keys.get(order.where)
    return msgspec.structs.replace(order, epoch=state.epoch) if isinstance(order, Return) and state else order


def forgets_reserves(twin: SharedState, order: Order, now_us: int) -> Order:
    asks = tuple(msgspec.structs.replace(ask, reserve=0) for ask in getattr(order, "asks", ()))
    return msgspec.structs.replace(order, asks=asks) if isinstance(order, Take) else order


def grants_apart(twin: SharedState, order: Order, now_us: int) -> Order:
    return msgspec.structs.replace(order, equal=False) if isinstance(order, Take) else order


def back(limit: Limit, want: int, later: int = 1) -> Return:
    """A return of a grant that was followed by `later` others (`filled`)."""
    return Return(WHERE, ask(limit, want), later, 0, 1)


BOTH = (ask(FIXED_LIMIT, 9), ask(Limit(Algorithm.FIXED_WINDOW, 3, MINUTE_US, 3), 9, identity=b"other"))


@pytest.mark.parametrize(
    ("change", "schedule"),
    [
        (charges_at_once, [(0, [take(BUCKET_LIMIT, 5, lease_us=10**6)])]),
        (charges_at_once, [(0, [take(SLIDING_LIMIT, 5, lease_us=10**7)])]),
        (deletes, [(0, [take(FIXED_LIMIT, 5)]), (0, [Reset(WHERE)])]),
        (reopens_windows, [(0, [take(FIXED_LIMIT, 9)]), (-MINUTE_US, [take(FIXED_LIMIT, 9)])]),
        (takes_any_return, [(0, [take(BUCKET_LIMIT, 3)]), (1, [take(BUCKET_LIMIT, 3)]), (1, [back(BUCKET_LIMIT, 3)])]),
        (forgets_epochs, [
            (0, [take(FIXED_LIMIT, 3)]),
            (0, [Reset(WHERE), take(FIXED_LIMIT, 3)]),
            (0, [back(FIXED_LIMIT, 3, later=2)]),
        ]),
        (forgets_reserves, [(0, [take(SLIDING_LIMIT, 9, reserve=4)]), (9, [take(SLIDING_LIMIT, 9)])]),
        (grants_apart, [(0, [Take(WHERE, BOTH, 1, 0)])]),
    ],
)  # fmt: skip
def test_law_catches_what_is_planted(
    store: ScriptedStore, change: Callable[[SharedState, Order, int], Order], schedule: list[Batch]
) -> None:
    """The planted twin says something else than the script, and the true one does not."""
    expected, seen = told(Planted(change), store, schedule)
    store.forget_all()
    true, again = told(SharedState(), store, schedule)

    assert seen != expected
    assert again == true


# What is refused.


def test_a_newer_form_is_left_alone(store: ScriptedStore) -> None:
    """The order is refused as such, and the bytes stay."""
    newer = b"\xb2" + bytes(60)
    store.client.set(key_name(PREFIX, WHERE), newer)

    assert store.execute([take(FIXED_LIMIT)], START_US) == [Refusal.NEWER]
    assert store.client.get(key_name(PREFIX, WHERE)) == newer


@pytest.mark.parametrize("foreign", [b"", b"17", b"x" * 60])
@pytest.mark.parametrize("limit", LIMITS)
def test_foreign_bytes_are_refused(store: ScriptedStore, limit: Limit, foreign: bytes) -> None:
    """Neither read as a state nor written over."""
    store.client.set(key_name(PREFIX, WHERE), foreign)

    assert store.execute([take(limit)], START_US) == [Refusal.DAMAGED]
    assert store.client.get(key_name(PREFIX, WHERE)) == foreign


def test_another_type_is_refused_and_the_batch_goes_on(store: ScriptedStore) -> None:
    """One bad key costs no other key's order."""
    store.client.rpush(key_name(PREFIX, WHERE), "x")
    other = Take(msgspec.structs.replace(WHERE, key=b"other"), (ask(FIXED_LIMIT),), 1, 0)
    refused, granted = store.execute([take(FIXED_LIMIT), other], START_US)

    assert refused is Refusal.DAMAGED
    assert [grant.granted for grant in unhurried(granted)] == [1]


@st.composite
def damaged_states(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Bytes that begin as a state: at random, or a state that is cut off, or with a few bytes changed."""
    limit = draw(st.sampled_from(LIMITS))
    whole = bytearray(packed_state(limit))
    if draw(st.booleans()):
        return bytes(whole[:1]) + draw(st.binary(max_size=90))
    for _ in range(draw(st.integers(0, 3))):
        whole[draw(st.integers(1, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.integers(1, len(whole)))])


def packed_state(limit: Limit) -> bytes:
    """A state of two limits."""
    mark = mark_of(ask(limit).identity)
    until = (START_US + MINUTE_US).to_bytes(7, "little")
    bodies = {1: START_US.to_bytes(7, "little") + bytes(6), 2: bytes(7) + bytes(6), 3: bytes(20) + b"\x01"}
    kind = 1 + list(Algorithm).index(limit.algorithm)
    entries = [
        each_mark + bytes([kind]) + len(bodies[kind]).to_bytes(2, "little") + until + bodies[kind]
        for each_mark in (mark_of(b"another"), mark)
    ]
    return b"\xb1" + bytes(4) + START_US.to_bytes(7, "little") + b"".join(entries)


@one_server
@given(raw=damaged_states(), in_turn=st.lists(some_limits, min_size=1, max_size=2), data=st.data())
@example(raw=packed_state(FIXED_LIMIT)[:-3], in_turn=[FIXED_LIMIT], data=None)
@example(raw=b"\xb1" + bytes(60), in_turn=[BUCKET_LIMIT], data=None)
def test_a_damaged_state_costs_no_other_order_of_its_batch(
    store: ScriptedStore, raw: bytes, in_turn: list[Limit], data: st.DataObject | None
) -> None:
    """Whatever is asked of a key whose bytes only begin as a state, orders beside it go as if it were not there."""
    store.forget_all()
    damaged = CountedKey(b"damaged", b"")
    store.client.set(key_name(PREFIX, damaged), raw)
    some = orders(in_turn)
    asked: Order = Reset(damaged) if data is None else msgspec.structs.replace(data.draw(some), where=damaged)
    before: list[Order] = [] if data is None else data.draw(st.lists(some, max_size=2))
    after: list[Order] = [take(FIXED_LIMIT)] if data is None else data.draw(st.lists(some, max_size=2))
    twin = SharedState()

    seen = [plain(answer) for answer in store.execute([*before, asked, *after], START_US)]

    expected = [plain(answer) for answer in twin.execute([*before, *after], START_US)]
    assert [*seen[: len(before)], *seen[len(before) + 1 :]] == expected


def test_a_server_that_takes_no_writes_fails_the_call(store: ScriptedStore) -> None:
    """That is no damage of a key: the caller has to know that nothing was counted, and why."""
    store.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            store.execute([take(FIXED_LIMIT)], START_US)
    finally:
        store.client.config_set("maxmemory", 0)


def test_a_calendar_outside_the_list_asks_again(store: ScriptedStore) -> None:
    """A caller whose clock is a week off is told so, and nothing is counted."""
    week_us = 7 * 86_400_000_000

    assert store.execute([take(DAYS)], START_US, START_US - week_us) == [Refusal.AGAIN]
    assert SharedState().execute([take(DAYS)], START_US, START_US + week_us) == [Refusal.AGAIN]
    assert store.states() == {}


@pytest.mark.parametrize("limit", LIMITS)
def test_every_key_ends(store: ScriptedStore, limit: Limit) -> None:
    """A key lives at least as long as its counts matter, and not for ever."""
    store.execute([take(limit, lease_us=1_000_000)], START_US)
    left_ms = store.client.pttl(key_name(PREFIX, WHERE))
    store.execute([Reset(WHERE)], START_US)

    assert 60_000 < left_ms < 10 * 60_000
    assert 0 < store.client.pttl(key_name(PREFIX, WHERE)) <= left_ms


def test_the_server_s_own_time_is_taken_without_another(store: ScriptedStore) -> None:
    """An empty time argument is the clock of the server."""
    seconds, micros = store.client.time()

    assert store.server_time_us() >= seconds * 1_000_000 + micros
