"""Whole replicas of a shared store in this process, on a clock and a network that a test moves by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from ratelimit_service.algorithms.limit import LimitSettings
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.leases.replica import Replica, ReplicaSettings
from ratelimit_service.quota.redis.twin import Refusal, SharedState
from ratelimit_service.quota.redis.usage import PAGE_COUNTERS, usages
from ratelimit_service.quota.store import Charge, Outcome, Usage
from ratelimit_service.quota.takes import CountedKey, Order
from support.clocks import ManualClock
from support.schedulers import ManualScheduler


def group_of(identity: bytes) -> bytes:
    """The rule of an identity as the tests write it: `rule/algorithm/window`."""
    return identity.split(b"/")[0]


class ManualTurns:
    """Callbacks of a replica: soon ones by a scheduler, late ones when `run_until` reaches their time."""

    def __init__(self, scheduler: ManualScheduler) -> None:
        self._scheduler = scheduler
        self._late: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0

    def soon(self, callback: Callable[[], None]) -> None:
        """Keep it for the scheduler's next run."""
        self._scheduler.call_soon(callback)

    def at(self, boot_us: int, callback: Callable[[], None]) -> None:
        """Keep it for that time."""
        self._sequence += 1
        heapq.heappush(self._late, (boot_us, self._sequence, callback))

    def run_until(self, clock: ManualClock, boot_us: int) -> None:
        """Move the clock to a time, stopping on the way at every callback that is due."""
        self._scheduler.run()
        while self._late and self._late[0][0] <= boot_us:
            at_us, _, callback = heapq.heappop(self._late)
            clock.advance(max(0, at_us - clock.boot_us))
            callback()
            self._scheduler.run()
        clock.advance(max(0, boot_us - clock.boot_us))
        self._scheduler.run()


class SharedOrders:
    """Carries orders to a `SharedState`, at once or, `held`, when the test delivers them.

    Attributes:
        state: The shared store.
        up: False: the breaker is open, so to speak.
        reachable: False: nothing arrives, which is known at once.
        silent: Answers are kept until `speak`.
        answers: False: orders are carried out, and their answers are lost.
        good: False: the store says that its memory is not the one that it was.
        sent: Every order that was submitted.
    """

    def __init__(self, state: SharedState, clock: ManualClock, scheduler: ManualScheduler) -> None:
        self.state = state
        self.up = self.answers = self.good = self.reachable = True
        self.silent = False
        self.sent: list[Order] = []
        self._kept: list[Callable[[], None]] = []
        self._clock = clock
        self._scheduler = scheduler

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        """Carry out an order on the scheduler's next run."""
        self.sent.append(order)
        sent_us = self._clock.boot_us
        self._scheduler.call_soon(lambda: self._carry(order, sent_us, done))

    def speak(self) -> None:
        """Let the answers arrive that were kept."""
        kept, self._kept = self._kept, []
        for answer in kept:
            answer()
        self._scheduler.run()

    def is_up(self, where: CountedKey) -> bool:
        """Whether the breaker is closed, so to speak."""
        return self.up

    def _carry(self, order: Order, sent_us: int, done: Callable[[Answered], None]) -> None:
        if not self.reachable:
            done(Answered(None, sent_us))
            return
        (answer,) = self.state.execute([order], self._clock.wall_us)
        if self.silent:
            assert not isinstance(answer, Refusal)
            grants = answer
            self._kept.append(lambda: done(Answered(grants, sent_us, self.good)))
        elif not self.answers or isinstance(answer, Refusal):
            done(Answered(None, sent_us))
        else:
            done(Answered(answer, sent_us, self.good))


class SharedStore(Replica):
    """A replica as a `Store`, whose usage is read from the shared state itself."""

    def __init__(
        self,
        settings: ReplicaSettings,
        orders: SharedOrders | NetworkOrders,
        clock: ManualClock,
        scheduler: ManualScheduler,
    ) -> None:
        self.turns = ManualTurns(scheduler)
        self.orders = orders
        self._shared_clock = clock
        super().__init__(settings, orders=orders, clock=clock, turns=self.turns, group_of=group_of)
        self._be_sure()

    def _be_sure(self) -> None:
        """No heartbeats here but those that a test makes up: until then its form is in force."""
        self.membership.form_until_us = 2**62

    def on_new_master(self, affects: Callable[[CountedKey], bool]) -> None:
        super().on_new_master(affects)
        self._be_sure()

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage] | None], None]) -> None:
        limits: dict[bytes, dict[bytes, LimitSettings]] = {}
        for identity, settings in self._limits.items():
            if settings.domain == domain:
                limits.setdefault(group_of(identity), {})[identity] = settings
        now_us = self._shared_clock.wall_us
        found = [
            usage
            for where, state in self.orders.state.keys.items()
            for usage in usages(where, state, limits.get(where.group, {}), now_us)
        ]
        done(found[page * PAGE_COUNTERS : (page + 1) * PAGE_COUNTERS])

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        self._limits = limits
        super().apply(limits)

    async def start(self) -> None:
        """Nothing runs in the background that a test does not run."""

    async def close(self) -> None:
        self.release()


class Network:
    """Messages of many replicas to one shared store, delivered, held up or lost as a test says."""

    def __init__(self, state: SharedState, clock: ManualClock) -> None:
        self.state = state
        self._clock = clock
        self._messages: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def __len__(self) -> int:
        """Messages on their way."""
        return len(self._messages)

    def send(self, deliver: Callable[[], None], lose: Callable[[], None]) -> None:
        """Put a message on its way."""
        self._messages.append((deliver, lose))

    def deliver(self, index: int) -> None:
        """Let a message arrive, whichever: they overtake each other."""
        if self._messages:
            self._messages.pop(index % len(self._messages))[0]()

    def lose(self, index: int) -> None:
        """Lose a message; its sender is told that nothing is known."""
        if self._messages:
            self._messages.pop(index % len(self._messages))[1]()

    def execute(self, order: Order) -> Answered:
        """Carry out an order at the store, now."""
        (answer,) = self.state.execute([order], self._clock.wall_us)
        return Answered(None if isinstance(answer, Refusal) else answer, 0)


class NetworkOrders:
    """One replica's way to the store over a `Network`: every order is a message, and so is its answer."""

    def __init__(self, network: Network, clock: ManualClock) -> None:
        self._network = network
        self.clock = clock

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        """Send an order."""
        sent_us = self.clock.boot_us

        def unknown() -> None:
            done(Answered(None, sent_us))

        def arrive() -> None:
            grants = self._network.execute(order).grants
            self._network.send(lambda: done(Answered(grants, self.sent_us(sent_us))), unknown)

        self._network.send(arrive, unknown)

    def sent_us(self, at_us: int) -> int:
        """When an order was sent, as its answer tells."""
        return at_us

    def is_up(self, where: CountedKey) -> bool:
        """The breaker never opens."""
        return True


class Rig:
    """Replicas over one shared state on one clock, each with a way of its own to the store."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.state = SharedState()
        self.scheduler = ManualScheduler()

    def replica(self, settings: ReplicaSettings | None = None) -> SharedStore:
        """One more replica; `replica.orders` is its way to the store."""
        orders = SharedOrders(self.state, self.clock, self.scheduler)
        return SharedStore(settings or ReplicaSettings(), orders, self.clock, self.scheduler)

    def advance(self, duration_us: int, *replicas: SharedStore) -> None:
        """Let time pass, with all that happens meanwhile on some replicas."""
        until_us = self.clock.boot_us + duration_us
        for replica in replicas:
            replica.turns.run_until(self.clock, until_us)
        self.clock.advance(until_us - self.clock.boot_us)

    def ask(self, replica: SharedStore, *charges: Charge, within_us: int = 10_000) -> list[Outcome]:
        """Decide one request, waiting until its deadline if need be; the clock moves only then."""
        now = self.clock.read()
        outcomes = replica.charge(charges, now)
        if outcomes is not None:
            return list(outcomes)
        late: list[Outcome] = []
        replica.charge_later(charges, now.boot_us + within_us, late.extend)
        self.scheduler.run()
        if not late:
            self.advance(within_us, replica)
        assert len(late) == len(charges)
        return late

    def admitted(self, replica: SharedStore, *charges: Charge) -> bool:
        """Decide; True when nothing was over."""
        return not any(outcome.over for outcome in self.ask(replica, *charges))
