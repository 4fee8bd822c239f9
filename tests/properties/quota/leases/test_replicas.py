"""However several replicas' calls and messages interleave, what they admit together keeps the law of the limit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.quota.redis.twin import SharedState
from ratelimit_service.quota.store import Charge, Outcome
from ratelimit_service.quota.takes import Order, Return
from support.clocks import ManualClock
from support.history import Call, excess
from support.replicas import Network, NetworkOrders, SharedStore
from support.schedulers import ManualScheduler
from support.store_harness import START_WALL_US

REPLICAS: Final = 3
WINDOW_US: Final = 2_000_000
DEADLINE_US: Final = 10_000


class Event(NamedTuple):
    """Something that happens, `gap_us` after what happened before."""

    name: str
    replica: int
    number: int
    gap_us: int


GAPS_US: Final = (0, 0, 1_000, 1_000, 40_000, 60_000, 250_000, 900_000, 1_999_999)

events: Final = st.lists(
    st.builds(
        Event,
        st.sampled_from(["charge", "charge", "charge", "deliver", "deliver", "deliver", "lose", "crash"]),
        st.integers(0, REPLICAS - 1),
        st.integers(0, 12),
        st.one_of(st.integers(0, 20), st.integers(0, 20), st.sampled_from(GAPS_US)),
    ),
    max_size=80,
)


class World:
    """Replicas, a shared store, and the list of what was admitted."""

    def __init__(self, limits: Sequence[Limit], *, exact: bool, orders: type[NetworkOrders]) -> None:
        self.limits = limits
        self.exact = exact
        self.orders = orders
        self.clock = ManualClock(wall_us=START_WALL_US)
        self.network = Network(SharedState(), self.clock)
        self.replicas = [self._replica() for _ in range(REPLICAS)]
        self.calls: dict[Limit, list[Call]] = {limit: [] for limit in limits}

    def _replica(self) -> SharedStore:
        scheduler = ManualScheduler()
        chosen = ReplicaSettings(leases=LeaseSettings(exact=self.exact, horizon_us=100_000))
        return SharedStore(chosen, self.orders(self.network, self.clock), self.clock, scheduler)

    def pass_time(self, duration_us: int) -> None:
        until_us = self.clock.boot_us + duration_us
        for replica in self.replicas:
            replica.turns.run_until(self.clock, self.clock.boot_us)
        while duration_us > 0:
            step_us = min(duration_us, 5_000)
            self.clock.advance(step_us)
            duration_us -= step_us
            for replica in self.replicas:
                replica.turns.run_until(self.clock, self.clock.boot_us)
        assert self.clock.boot_us == until_us

    def charge(self, replica: SharedStore, hits: int) -> None:
        charges = [
            Charge(b"rule/%d" % number, limit, b"key", hits, failure=FailureMode.CLOSED)
            for number, limit in enumerate(self.limits)
        ]
        now = self.clock.read()

        def done(outcomes: Sequence[Outcome]) -> None:
            admitted = not any(outcome.over for outcome in outcomes)
            for charge in charges:
                self.calls[charge.limit].append(Call(now.wall_us, self.clock.wall_us, hits, admitted))

        outcomes = replica.charge(charges, now)
        if outcomes is None:
            replica.charge_later(charges, now.boot_us + DEADLINE_US, done)
        else:
            done(outcomes)

    def happen(self, event: Event) -> None:
        self.pass_time(event.gap_us)
        if event.name == "charge":
            self.charge(self.replicas[event.replica], event.number)
        elif event.name == "deliver":
            for _ in range(1 + event.number % 4):
                self.network.deliver(event.number)
        elif event.name == "lose":
            self.network.lose(event.number)
        else:
            self.replicas[event.replica] = self._replica()
        self.pass_time(0)

    def excesses(self) -> list[int]:
        return [excess(limit, calls).hits for limit, calls in self.calls.items()]


def limit_of(algorithm: Algorithm, requests: int, window_us: int = WINDOW_US) -> Limit:
    return Limit(algorithm, requests, window_us, requests)


def run(
    limits: Sequence[Limit], schedule: Sequence[Event], *, exact: bool, orders: type[NetworkOrders] = NetworkOrders
) -> World:
    world = World(limits, exact=exact, orders=orders)
    for event in schedule:
        world.happen(event)
    return world


class ClockFromTheAnswer(NetworkOrders):
    """Planted: how long a grant may be spent is measured from its answer."""

    def sent_us(self, at_us: int) -> int:
        return self.clock.boot_us


class ReturnsTwice(NetworkOrders):
    """Planted: a return is sent again, in case it was lost."""

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        super().submit(order, deadline_us, done)
        if isinstance(order, Return):
            super().submit(order, deadline_us, done)


class ReturnsTooMuch(NetworkOrders):
    """Planted: what was spent goes back as if it had not been."""

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        if isinstance(order, Return):
            order = msgspec.structs.replace(order, ask=msgspec.structs.replace(order.ask, want=order.ask.want + 1))
        super().submit(order, deadline_us, done)


each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))


@pytest.mark.parametrize("exact", [False, True])
@each_algorithm
@settings(max_examples=30, deadline=None)
@given(schedule=events)
def test_replicas_together_keep_the_law(algorithm: Algorithm, exact: bool, schedule: list[Event]) -> None:
    """Late, lost and overtaking messages, crashes and idle returns: never more than the limit, leased and exact."""
    assert run([limit_of(algorithm, 20)], schedule, exact=exact).excesses() == [0]


@pytest.mark.parametrize("exact", [False, True])
@each_algorithm
@settings(max_examples=20, deadline=None)
@given(schedule=events)
def test_requests_of_two_limits_keep_both(algorithm: Algorithm, exact: bool, schedule: list[Event]) -> None:
    """All or nothing over two counters: neither admits more than its limit, whatever became of the other."""
    limits = [limit_of(algorithm, 24), limit_of(Algorithm.FIXED_WINDOW, 20, 3_000_000)]

    assert run(limits, schedule, exact=exact).excesses() == [0, 0]


def schedule_of(seed: int, length: int = 150) -> list[Event]:
    """A schedule in which most messages arrive: soon (even seeds), or after a while."""
    chance = random.Random(seed)
    names = ["charge"] * 5 + ["deliver"] * 6
    gaps_us = (*[0] * (3 if seed % 2 else 12), 100, 1_000, 3_000, 40_000, 60_000, 250_000)
    return [
        Event(chance.choice(names), chance.randrange(REPLICAS), chance.randrange(13), chance.choice(gaps_us))
        for _ in range(length)
    ]


@pytest.mark.parametrize("exact", [False, True])
@each_algorithm
def test_budget_is_used(algorithm: Algorithm, exact: bool) -> None:
    """The law would hold for replicas that admit nothing."""
    limit = limit_of(algorithm, 100)
    worlds = [run([limit], schedule_of(seed), exact=exact) for seed in range(5)]

    assert sum(call.hits for world in worlds for call in world.calls[limit] if call.admitted) > 100


@pytest.mark.parametrize(
    ("orders", "algorithm", "known"),
    [
        (ClockFromTheAnswer, Algorithm.FIXED_WINDOW, 39),
        (ClockFromTheAnswer, Algorithm.SLIDING_WINDOW, 72),
        (ClockFromTheAnswer, Algorithm.TOKEN_BUCKET, 128),
        (ReturnsTwice, Algorithm.FIXED_WINDOW, 0),
        (ReturnsTwice, Algorithm.SLIDING_WINDOW, 0),
        (ReturnsTwice, Algorithm.TOKEN_BUCKET, 5),
        (ReturnsTooMuch, Algorithm.FIXED_WINDOW, 1),
        (ReturnsTooMuch, Algorithm.SLIDING_WINDOW, 0),
        (ReturnsTooMuch, Algorithm.TOKEN_BUCKET, 72),
    ],
)
def test_planted_bug_breaks_the_law(orders: type[NetworkOrders], algorithm: Algorithm, known: int) -> None:
    """The law has the power to tell: some schedule, one that is known or another, shows each bug."""
    limit = limit_of(algorithm, 20)
    seeds = (known, *range(200))

    assert any(run([limit], schedule_of(seed), exact=False, orders=orders).excesses() != [0] for seed in seeds)
