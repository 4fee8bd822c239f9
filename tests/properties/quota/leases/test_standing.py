"""Standing allowances: what slots own and what the store grants are together at most the limit, whatever happens.

The adversary has clocks that are off and drift, slow heartbeats, replicas that crash and come back, and slots that
expire. Each rule of the protocol is needed: a mutant without it is caught.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Instant, Limit
from ratelimit_service.quota.leases.allowances import StoreTime
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.membership import SLOT_TTL_US, Beat, form_of
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.leases.replica import Replica, ReplicaSettings
from ratelimit_service.quota.redis.twin import Refusal, SharedState
from ratelimit_service.quota.store import Charge, Outcome, Source
from ratelimit_service.quota.takes import CountedKey, Order, Take
from support.clocks import ManualClock
from support.history import Call, excess
from support.replicas import ManualTurns
from support.schedulers import ManualScheduler
from support.store_harness import START_WALL_US

SLOTS: Final = 3
PERCENT: Final = 50
REQUESTS: Final = 20
WINDOWS_US: Final = (2_000_000, 20_000_000)
"""Shorter and longer than a slot lives."""

DEADLINE_US: Final = 10_000


class OwnClock:
    """A replica's clocks: its wall is off by some seconds, its boot time runs up to 400 ppm off."""

    def __init__(self, store: ManualClock, chance: random.Random) -> None:
        self._store = store
        self._off_us = chance.randint(-3_000_000, 3_000_000)
        self._ppm = chance.choice([-400, 0, 400])

    def read(self) -> Instant:
        boot_us = self._store.boot_us + self._store.boot_us * self._ppm // 1_000_000
        return Instant(self._store.wall_us + self._off_us, boot_us)


class Slots:
    """Slots and form as `membership.lua` keeps them."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._held: dict[int, tuple[object, int]] = {}
        self._form: tuple[bytes, int] = (b"", 0)

    def beat(self, holder: object, form: bytes) -> Beat:
        now_us = self._clock.boot_us
        in_form = self._form[1] <= now_us or self._form[0] == form
        if in_form:
            self._form = (form, now_us + SLOT_TTL_US)
        live = {slot: held for slot, held in self._held.items() if held[1] > now_us}
        mine = next((slot for slot, held in live.items() if held[0] is holder), None)
        slot = mine if mine is not None else next((slot for slot in range(SLOTS) if slot not in live), -1)
        if slot >= 0:
            live[slot] = (holder, now_us + SLOT_TTL_US)
        self._held = live
        return Beat(slot, sum(each < slot for each in live), len(live), in_form, self._clock.wall_us)


class DirectOrders:
    """Carries orders out at once and answers on the next turn."""

    def __init__(self, world: World, clock: OwnClock, scheduler: ManualScheduler) -> None:
        self._world = world
        self._clock = clock
        self._scheduler = scheduler

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        sent_us = self._clock.read().boot_us
        (answer,) = self._world.state.execute([self._world.bug.order(order)], self._world.clock.wall_us)
        assert not isinstance(answer, Refusal)
        grants = answer
        self._scheduler.call_soon(lambda: done(Answered(grants, sent_us)))

    def is_up(self, where: CountedKey) -> bool:
        return True


class Rules:
    """The protocol as it is; subclasses break one rule each."""

    def order(self, order: Order) -> Order:
        """On its way to the store."""
        return order

    def after_birth(self, replica: Replica) -> None:
        """A replica has begun."""

    def after_beat(self, replica: Replica) -> None:
        """A heartbeat was answered."""


class NoReserve(Rules):
    """Planted: grants do not leave the standing allowances alone."""

    def order(self, order: Order) -> Order:
        if not isinstance(order, Take):
            return order
        asks = tuple(msgspec.structs.replace(ask, reserve=0) for ask in order.asks)
        return msgspec.structs.replace(order, asks=asks)


class _Sure(StoreTime):
    def error_us(self, now: Instant) -> int:
        return 0


class NoGuard(Rules):
    """Planted: the clocks are taken to agree at the edge of a window."""

    def after_birth(self, replica: Replica) -> None:
        replica.allowances.time = _Sure()


class SpendsAtOnce(Rules):
    """Planted: a new holder spends in the window in which it took the slot."""

    def after_beat(self, replica: Replica) -> None:
        replica.membership.since_us = replica.membership.since_wall_us = -(10**18)


class TrustsForEver(Rules):
    """Planted: a slot is relied on after it may have expired."""

    def after_beat(self, replica: Replica) -> None:
        replica.membership.valid_until_us = 10**18


class World:
    """A store, its slots and three or more replicas; `chance` is the adversary."""

    def __init__(self, algorithm: Algorithm, seed: int, bug: Rules) -> None:
        self.chance = random.Random(seed)
        self.bug = bug
        window_us = self.chance.choice(WINDOWS_US)
        self.clock = ManualClock(wall_us=START_WALL_US + self.chance.randint(0, window_us))
        self.state = SharedState()
        self.slots = Slots(self.clock)
        self.limit = Limit(algorithm, REQUESTS, window_us, REQUESTS)
        self.calls: list[Call] = []
        self.standing = 0
        self.replicas = [self._replica() for _ in range(SLOTS + 1)]

    def _replica(self) -> tuple[Replica, OwnClock, ManualScheduler]:
        scheduler, clock = ManualScheduler(), OwnClock(self.clock, self.chance)
        replica = Replica(
            ReplicaSettings(leases=LeaseSettings(horizon_us=100_000), slots=SLOTS, standing_percent=PERCENT),
            orders=DirectOrders(self, clock, scheduler),
            clock=clock,
            turns=ManualTurns(scheduler),
            group_of=lambda identity: identity,
        )
        self.bug.after_birth(replica)
        return replica, clock, scheduler

    def run(self, steps: int) -> int:
        """Let things happen; return by how much the law was broken."""
        for _ in range(steps):
            self.clock.advance(self.chance.choice([0, 0, 500, 20_000, self.chance.randint(0, 3_000_000)]))
            if self.chance.random() < 0.2:
                self._go_to_the_edge()
            index = self.chance.randrange(len(self.replicas))
            self.chance.choice([*[self._beat] * 6, *[self._rush] * 3, *[self._crash] * 2])(index)
        return excess(self.limit, self.calls).hits

    def _go_to_the_edge(self) -> None:
        left_us = self.limit.window_us - self.clock.wall_us % self.limit.window_us
        self.clock.advance(max(0, left_us - self.chance.choice([0, 1, 300, 5_000])))

    def _beat(self, index: int) -> None:
        """A heartbeat whose two ways are not equally long."""
        replica, clock, _ = self.replicas[index]
        sent_us = clock.read().boot_us
        self.clock.advance(self.chance.choice([0, 100, 10_000]))
        beat = self.slots.beat(replica, form_of(SLOTS, PERCENT))
        self.clock.advance(self.chance.choice([0, 100, 10_000]))
        received_us = clock.read().boot_us
        replica.membership.take_in(beat, sent_us, received_us)
        replica.allowances.time.observe(beat.wall_us, sent_us, received_us)
        self.bug.after_beat(replica)

    def _rush(self, index: int) -> None:
        """One replica after the other spends what it can, more or less, some of them."""
        for each in range(index, index + self.chance.randint(1, len(self.replicas))):
            self._spend(*self.replicas[each % len(self.replicas)], self.chance.choice([1, 4, 12]))

    def _spend(self, replica: Replica, clock: OwnClock, scheduler: ManualScheduler, times: int) -> None:
        for _ in range(times):
            asked = Charge(b"rule", self.limit, b"key", self.chance.choice([1, 1, 3]), failure=FailureMode.CLOSED)
            sent_us = self.clock.wall_us

            def done(outcomes: Sequence[Outcome], asked: Charge = asked, sent_us: int = sent_us) -> None:
                self.standing += outcomes[0].source is Source.STANDING
                self.calls.append(Call(sent_us, self.clock.wall_us, asked.hits, not outcomes[0].over))

            now = clock.read()
            outcomes = replica.charge([asked], now)
            if outcomes is None:
                replica.charge_later([asked], now.boot_us + DEADLINE_US, done)
                scheduler.run()
            else:
                done(outcomes)

    def _crash(self, index: int) -> None:
        self.replicas[index] = self._replica()


each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@each_algorithm
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
@example(seed=0)
def test_standing_allowances_and_grants_keep_the_law_together(algorithm: Algorithm, seed: int) -> None:
    """Drifting clocks, slow heartbeats, crashes and expired slots: never more than the limit."""
    assert World(algorithm, seed, Rules()).run(80) == 0


@each_algorithm
def test_standing_allowances_are_spent_at_all(algorithm: Algorithm) -> None:
    """The law would hold for a replica that never used them."""
    worlds = [World(algorithm, seed, Rules()) for seed in range(3)]
    for world in worlds:
        world.run(100)

    assert sum(world.standing for world in worlds) > 5


@pytest.mark.parametrize(
    ("bug", "algorithm", "known"),
    [
        (NoReserve(), Algorithm.FIXED_WINDOW, 1),
        (NoReserve(), Algorithm.SLIDING_WINDOW, 1),
        (NoReserve(), Algorithm.TOKEN_BUCKET, 1),
        (NoGuard(), Algorithm.FIXED_WINDOW, 1),
        (SpendsAtOnce(), Algorithm.FIXED_WINDOW, 27),
        (SpendsAtOnce(), Algorithm.SLIDING_WINDOW, 7),
        (TrustsForEver(), Algorithm.FIXED_WINDOW, 1),
        (TrustsForEver(), Algorithm.SLIDING_WINDOW, 1),
    ],
    ids=lambda value: str(getattr(value, "value", type(value).__name__)),
)
def test_planted_bug_breaks_the_law(bug: Rules, algorithm: Algorithm, known: int) -> None:
    """Every rule is there for a reason: without it some schedule, one that is known or another, breaks the law."""
    assert any(World(algorithm, seed, bug).run(100) for seed in (known, *range(100)))
