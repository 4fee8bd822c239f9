"""The memory store against an unbounded model, and the law that no reclaiming, reset or reload refills a budget."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Instant, Limit, LimitSettings
from ratelimit_service.quota.decision import is_over
from ratelimit_service.quota.memory import placement, store
from ratelimit_service.quota.memory.bounds import Bounds
from ratelimit_service.quota.store import Charge, Outcome, Role
from support.clocks import ManualClock
from support.plain_reading import PlainReading
from support.store_harness import SECOND_US, START_WALL_US, charge, fixed, in_force, limit_of

MINUTE_US = 60 * SECOND_US
WINDOWS_US = (10 * SECOND_US, MINUTE_US)

HUNT = settings(
    max_examples=400,
    stateful_step_count=20,
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
)
"""How planted bugs are looked for: without shrinking, and the same every time."""

# A store with room enough answers as an unbounded dict of counts would.

Counter = tuple[bytes, bytes]


def counter_of(each: Charge) -> Counter:
    return each.identity, each.key


class StoreAgainstModel(RuleBasedStateMachine):
    """Fixed windows of two lengths; the model keeps (window, count) by counter and forgets nothing but by `reset`."""

    make_store: Callable[..., store.MemoryStore] = store.MemoryStore

    charges = st.builds(
        charge,
        limit=st.builds(fixed, requests=st.just(3), window_us=st.sampled_from(WINDOWS_US)),
        key=st.sampled_from([b"a", b"b"]),
        hits=st.integers(0, 3),
        role=st.sampled_from([Role.ENFORCE, Role.ENFORCE, *Role]),
        unit=st.integers(0, 1),
        rule=st.sampled_from([b"one", b"two"]),
    )

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(wall_us=START_WALL_US)
        self.store = type(self).make_store(clock=self.clock, max_keys=64, hash_key=b"key")
        self.model: dict[Counter, tuple[int, int]] = {}
        self.requests = 3
        self.seen: dict[Counter, Charge] = {}

    def used(self, each: Charge) -> int:
        window, count = self.model.get(counter_of(each), (0, 0))
        return count if window == self.clock.read().wall_us // each.limit.window_us else 0

    def put(self, each: Charge, count: int) -> None:
        self.model[counter_of(each)] = (self.clock.read().wall_us // each.limit.window_us, count)

    def in_force(self, each: Charge) -> Charge:
        return msgspec.structs.replace(each, limit=fixed(self.requests, each.limit.window_us))

    @rule(asked=st.lists(charges, min_size=1, max_size=4))
    def request(self, asked: list[Charge]) -> None:
        asked = [self.in_force(each) for each in asked]
        left: dict[Hashable, int] = {counter_of(each): self.requests - self.used(each) for each in asked}
        reading = PlainReading(asked, [counter_of(each) for each in asked], left)
        befores = [self.used(each) for each in asked]
        outcomes = self.store.charge(asked, self.clock.read())

        assert is_over(asked, outcomes) == reading.over
        assert [outcome.before for outcome in outcomes] == befores
        for index in reading.counted:
            self.put(asked[index], self.used(asked[index]) + asked[index].hits)
        self.seen |= {counter_of(each): each for each in asked}

    @rule(step_us=st.sampled_from([1, SECOND_US, 9_999_999, 10 * SECOND_US, MINUTE_US]))
    def advance(self, step_us: int) -> None:
        self.clock.advance(step_us)

    @rule(budget=st.integers(1, 20))
    def reclaim(self, budget: int) -> None:
        self.store.reclaim(self.clock.read(), budget)

    @rule(requests=st.integers(1, 5))
    def change_limits(self, requests: int) -> None:
        self.requests = requests
        applied = [
            charge(fixed(requests, window_us), rule=name) for window_us in WINDOWS_US for name in (b"one", b"two")
        ]
        self.store.apply(in_force(*applied))

    @rule(each=charges)
    def reset(self, each: Charge) -> None:
        self.store.reset(each.identity, each.key, lambda _: None)
        self.model.pop(counter_of(each), None)

    @rule(each=charges)
    def refund(self, each: Charge) -> None:
        each = self.in_force(each)
        self.put(each, max(0, self.used(each) - each.hits))
        self.store.refund([each], self.clock.read(), lambda _: None)

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        peeked: list[Outcome] = []
        asked = [msgspec.structs.replace(self.in_force(each), hits=0) for each in self.seen.values()]
        self.store.peek(asked, self.clock.read(), peeked.extend)

        assert [outcome.before for outcome in peeked] == [self.used(each) for each in asked]


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


class DropsALiveKey(store.MemoryStore):
    """Bug: reclaiming takes the first key that it finds."""

    def reclaim(self, now: Instant, budget: int) -> int:
        for book in self._books.values():
            for key in list(book.ledger.keys(0, 1)):
                book.ledger.forget(key)
                self._bounds.settle(book)
        return budget


class CountsHalfARequest(store.MemoryStore):
    """Bug: each charge of a request is decided by itself."""

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        return [super(CountsHalfARequest, self).charge([each], now)[0] for each in charges]


class ForgetsAtReload(store.MemoryStore):
    """Bug: new limits begin with new counters."""

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        asyncio.run(self.close())
        super().apply(limits)


class RefundsBelowZero(store.MemoryStore):
    """Bug: a refund of nothing makes budget."""

    def refund(self, charges: Sequence[Charge], now: Instant, done: Callable[[Sequence[Outcome]], None]) -> None:
        raised = [msgspec.structs.replace(each, hits=each.hits + 1) for each in charges]
        super().refund(raised, now, done)


class CountsRefused(store.MemoryStore):
    """Bug: what is refused is counted."""

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        return super().charge([msgspec.structs.replace(each, role=Role.PENALTY) for each in charges], now)


@pytest.mark.parametrize(
    "mutant", [DropsALiveKey, CountsHalfARequest, ForgetsAtReload, RefundsBelowZero, CountsRefused]
)
def test_model_catches_planted_bug(mutant: type[store.MemoryStore]) -> None:
    """Each planted bug makes the store differ from the model."""

    class Machine(StoreAgainstModel):
        make_store = mutant

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=HUNT)


# A crowded store never admits more than the limit for any key, and never holds more than its bounds.


class Step(msgspec.Struct, frozen=True):
    """What happens next: hits of one key, of `flood` keys of the short rule, time, slices, a reload."""

    key: int = 0
    hits: int = 0
    rule: int = 0
    flood: int = 0
    advance_us: int = 0
    reclaim: int = 0
    reload: bool = False
    twice: bool = False


steps = st.lists(
    st.one_of(
        st.builds(Step, key=st.integers(0, 9), hits=st.integers(1, 2), rule=st.integers(0, 1), twice=st.booleans()),
        st.builds(Step, flood=st.integers(4, 15)),
        st.builds(Step, advance_us=st.sampled_from([1, SECOND_US, 10 * SECOND_US, 20 * SECOND_US, 61 * SECOND_US])),
        st.builds(Step, reclaim=st.integers(1, 40)),
        st.just(Step(reload=True)),
    ),
    max_size=30,
)

CROWDING_ENDS = [
    Step(flood=14),
    *[Step(key=1, hits=1, rule=1)] * 3,
    Step(advance_us=20 * SECOND_US),
    Step(reclaim=40),
    *[Step(key=1, hits=1, rule=1)] * 3,
]
"""A key counts on a hashed counter, then room comes back within its window."""

TWICE_FOR_THE_LAST_ROOM = [Step(flood=6), Step(key=1, hits=1, rule=1, twice=True), Step(key=1, hits=2, rule=1)]
"""One request names a new key twice while there is room for exactly one."""

WINDOW_ENDS_WHILE_FULL = [
    Step(flood=6),
    Step(hits=1),
    Step(hits=1, rule=1),
    Step(advance_us=10 * SECOND_US),
    Step(flood=4),
]
"""Keys of the window that has ended still take room, and are made again in the next one."""

History = dict[Counter, list[tuple[int, int]]]


def law_of_limit(limit: Limit, admitted: Sequence[tuple[int, int]]) -> bool:
    """Whether hits admitted to one key, as (wall time, hits) in order, keep the limit's law."""
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        counts: defaultdict[int, int] = defaultdict(int)
        for when_us, hits in admitted:
            counts[when_us // limit.window_us] += hits
        return max(counts.values(), default=0) <= limit.requests
    refill = limit.requests if limit.algorithm is Algorithm.TOKEN_BUCKET else 0
    for first, (start_us, _) in enumerate(admitted):
        total = 0
        for when_us, hits in admitted[first:]:
            span_us = when_us - start_us
            total += hits
            counts_in_span = refill or span_us < limit.window_us
            if counts_in_span and (total - limit.burst) * limit.window_us > span_us * refill:
                return False
    return True


def requests_of(step: Step, algorithm: Algorithm) -> list[list[Charge]]:
    """The requests of one step, in order."""
    short, long = (limit_of(algorithm, 2, window_us) for window_us in WINDOWS_US)
    flood = [[charge(short, b"flood%d" % number, rule=b"short")] for number in range(step.flood)]
    limit, name = ((short, b"short"), (long, b"long"))[step.rule]
    one = charge(limit, b"%d" % step.key, hits=step.hits, rule=name)
    both = [one, msgspec.structs.replace(one, unit=1)]
    return flood + [both[: 1 + step.twice]] * bool(step.hits)


def crowding_keeps_the_law(
    make_store: Callable[..., store.MemoryStore], algorithm: Algorithm, max_keys: int, schedule: Sequence[Step]
) -> None:
    """The law: whatever happens, no key is admitted beyond its limit and no bound is exceeded."""
    clock = ManualClock(wall_us=START_WALL_US)
    subject = make_store(clock=clock, max_keys=max_keys, hash_key=b"key")
    history: History = defaultdict(list)
    limits: dict[bytes, Limit] = {}
    for step in schedule:
        clock.advance(step.advance_us)
        now = clock.read()
        subject.reclaim(now, step.reclaim)
        for asked in requests_of(step, algorithm):
            outcomes = subject.charge(asked, now)
            limits[asked[0].identity] = asked[0].limit
            passed = not is_over(asked, outcomes)
            history[counter_of(asked[0])] += [(now.wall_us, sum(each.hits for each in asked))] * passed
            assert subject.stats().keys <= max_keys
        known = [charge(limit, rule=identity.split(b"/")[0]) for identity, limit in limits.items()]
        subject.apply(in_force(*known) if step.reload else subject._places.limits)

    for (identity, _), admitted in history.items():
        assert law_of_limit(limits[identity], admitted)


@given(st.sampled_from(Algorithm), st.sampled_from([8, 9, 16]), steps)
@example(Algorithm.FIXED_WINDOW, 16, CROWDING_ENDS)
@example(Algorithm.SLIDING_WINDOW, 16, CROWDING_ENDS)
@example(Algorithm.TOKEN_BUCKET, 16, CROWDING_ENDS)
@example(Algorithm.FIXED_WINDOW, 8, WINDOW_ENDS_WHILE_FULL)
@example(Algorithm.FIXED_WINDOW, 8, TWICE_FOR_THE_LAST_ROOM)
@settings(max_examples=150, deadline=None)
def test_no_key_is_admitted_beyond_its_limit_however_crowded(
    algorithm: Algorithm, max_keys: int, schedule: list[Step]
) -> None:
    """Crowding, its end, reclaiming and reloads never give a key its budget back early."""
    crowding_keeps_the_law(store.MemoryStore, algorithm, max_keys, schedule)


def store_with(kind: type[placement.Placement]) -> Callable[..., store.MemoryStore]:
    """Make stores whose placement has a bug in it."""

    def make(**options: Any) -> store.MemoryStore:
        made = store.MemoryStore(**options)
        made._places = kind(made._bounds, b"key")
        made._books = made._places.books
        return made

    return make


class BeginsAnewAfterCrowding(placement.Placement):
    """Bug: when crowding ends a key begins at 0."""

    def _inherit(self, *_: object) -> None:
        """Inherit nothing."""


class HashesAnewEachTime(placement.Placement):
    """Bug: the hash is not stable, so a crowded key finds a fresh counter each time."""

    def _slot(self, key: bytes) -> bytes:
        self.turn = getattr(self, "turn", 0) + 1
        return self.turn.to_bytes(4, "big")


class DropsUnderPressure(placement.Placement):
    """Bug: where there is no room, a live key is dropped to make some."""

    def place(self, charge: Charge, now: Instant) -> placement.Place | None:
        if charge.identity in self.books and not self.bounds.has_room(self.books[charge.identity].share):
            book = self.books[charge.identity]
            for key in list(book.ledger.keys(0, 1)):
                book.ledger.forget(key)
            self.bounds.settle(book)
        return super().place(charge, now)


class ForgetsHashedCounters(placement.Placement):
    """Bug: every slice begins the hashed counters anew."""

    def reclaim(self, now: Instant, budget: int) -> int:
        for book in self.books.values():
            book.shared = None
            self.bounds.settle(book)
        return super().reclaim(now, budget)


class PlansNothing(placement.Placement):
    """Bug: a request that names a new key twice may be given two counters for it, or two rooms for one."""

    def _plan(self, *_: object) -> None:
        """Plan nothing."""
        self.bounds.planned += 1

    def forget_plan(self) -> None:
        self.bounds.planned = 0


class EndlessBounds(Bounds):
    """Bug: there is always room."""

    __slots__ = ()

    def has_room(self, share: object) -> bool:
        return True


def without_bounds(**options: Any) -> store.MemoryStore:
    """Make a store without bounds."""
    made = store.MemoryStore(**options)
    made._bounds = made._places.bounds = EndlessBounds(made._bounds.max_keys, made._bounds.max_bytes)
    return made


@pytest.mark.parametrize(
    "make_store",
    [
        store_with(BeginsAnewAfterCrowding),
        store_with(HashesAnewEachTime),
        store_with(DropsUnderPressure),
        store_with(ForgetsHashedCounters),
        store_with(PlansNothing),
        without_bounds,
    ],
    ids=["begins-anew", "hashes-anew", "drops-live", "forgets-hashed", "plans-nothing", "endless"],
)
def test_crowding_law_catches_planted_bug(make_store: Callable[..., store.MemoryStore]) -> None:
    """Each planted bug admits beyond the limit, or holds beyond the bound."""

    @HUNT
    @given(st.sampled_from([8, 9, 16]), steps)
    @example(16, CROWDING_ENDS)
    @example(8, TWICE_FOR_THE_LAST_ROOM)
    def law(max_keys: int, schedule: list[Step]) -> None:
        crowding_keeps_the_law(make_store, Algorithm.FIXED_WINDOW, max_keys, schedule)

    with pytest.raises(AssertionError):
        law()


# Between two identical requests anything of the store's own may happen (DECISIONS 26).


@given(
    st.sampled_from(Algorithm),
    st.lists(st.sampled_from(["reclaim", "reload", "raise", "lower", "late", "wait"]), min_size=4, max_size=24),
)
def test_nothing_between_identical_requests_admits_more_than_the_greatest_limit(
    algorithm: Algorithm, events: list[str]
) -> None:
    """Reclaiming, reloading or changing limits between requests never admits beyond the greatest limit in force."""
    clock = ManualClock(wall_us=START_WALL_US)
    subject = store.MemoryStore(clock=clock)
    requests = {"raise": 4, "lower": 2}
    limit, admitted = limit_of(algorithm, 3, MINUTE_US), []
    for event in events:
        clock.advance(SECOND_US if event == "wait" else 0)
        limit = limit_of(algorithm, requests.get(event, limit.requests), MINUTE_US)
        asked = charge(limit)
        subject.reclaim(clock.read(), 10 if event == "reclaim" else 0)
        subject.apply(in_force(asked, failure=FailureMode.CLOSED))
        admitted += [(clock.read().wall_us, 1)] * (not subject.charge([asked], clock.read())[0].over)

    assert law_of_limit(limit_of(algorithm, 4, MINUTE_US), admitted)


@given(st.sampled_from(Algorithm), st.integers(1, 4), st.integers(0, 5))
def test_reset_gives_one_budget_and_no_more(algorithm: Algorithm, requests: int, spent: int) -> None:
    """After a reset exactly the limit is admitted, however much was counted before."""
    clock = ManualClock(wall_us=START_WALL_US)
    subject = store.MemoryStore(clock=clock)
    asked = charge(limit_of(algorithm, requests))
    for _ in range(spent):
        subject.charge([asked], clock.read())
    subject.reset(asked.identity, asked.key, lambda _: None)
    admitted = sum(not subject.charge([asked], clock.read())[0].over for _ in range(requests + 3))

    assert admitted == requests
