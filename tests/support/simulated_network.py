"""Time, processes and the network between replicas and the store, all of it drawn from one seed.

Messages are late, lost and out of order; takes are sent again and executed twice; links are cut, one way or both;
processes stop for a while, or for good.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.redis.twin import Answer, Refusal
from ratelimit_service.quota.takes import CountedKey, Order, Take
from support.simulated_store import EPOCH_US, SimulatedStore

Act = Callable[[], None]


class Timeline:
    """True time, microseconds from 0, and what is due."""

    def __init__(self) -> None:
        self.now_us = 0
        self._due: list[tuple[int, int, Act]] = []
        self._sequence = 0

    def at(self, time_us: int, act: Act) -> None:
        """Do something at a time; what is due at the same time is done in the order of this."""
        self._sequence += 1
        heapq.heappush(self._due, (max(time_us, self.now_us), self._sequence, act))

    def run(self, until_us: int) -> None:
        """Let time pass."""
        while self._due and self._due[0][0] <= until_us:
            self.now_us, _, act = heapq.heappop(self._due)
            act()
        self.now_us = until_us


class Process:
    """One process: its clocks, and its pauses. What is due while it is stopped, or dead, is done later, or never."""

    def __init__(self, timeline: Timeline, seeded: random.Random) -> None:
        self._timeline = timeline
        # Within what the design allows for: the store's clock is at most 500 ppm faster.
        self._drift_ppm = seeded.randint(-240, 240)
        self._boot_us = seeded.randint(10**6, 10**9)
        self._wall_us = seeded.randint(-3_000, 3_000)
        self._stopped_until_us = 0
        self.is_dead = False

    def read(self) -> Instant:
        """Its clocks, as a `Clock` does."""
        now_us = self._timeline.now_us
        return Instant(EPOCH_US + now_us + self._wall_us, self._boot_us + now_us + now_us * self._drift_ppm // 10**6)

    def soon(self, callback: Act) -> None:
        """Do it next, as `Turns` does."""
        self.after(0, callback)

    def at(self, boot_us: int, callback: Act) -> None:
        """Do it at a time of its boot clock, as `Turns` does."""
        true_us = (boot_us - self._boot_us) * 10**6 // (10**6 + self._drift_ppm) + 1
        self.after(true_us - self._timeline.now_us, callback)

    def after(self, wait_us: int, callback: Act) -> None:
        """Do it after a while of true time."""
        self._timeline.at(self._timeline.now_us + wait_us, lambda: self._do(callback))

    def stop(self, for_us: int) -> None:
        """SIGSTOP, for a while."""
        self._stopped_until_us = max(self._stopped_until_us, self._timeline.now_us + for_us)

    def _do(self, callback: Act) -> None:
        if self.is_dead:
            return
        if self._timeline.now_us < self._stopped_until_us:
            self._timeline.at(self._stopped_until_us, lambda: self._do(callback))
            return
        callback()


class Link:
    """How messages of one replica fare.

    Attributes:
        is_cut: Whether requests, and whether answers, are cut off.
    """

    def __init__(self, timeline: Timeline, seeded: random.Random, loses: float, slow: float) -> None:
        self._timeline = timeline
        self._seeded = seeded
        self._loses = loses
        self._slow = slow
        self.is_cut = [False, False]

    def carry(self, way: int, act: Act) -> None:
        """Deliver something: soon, late, or never."""
        if self.is_cut[way] or self._seeded.random() < self._loses:
            return
        took_us = self._seeded.randint(50, 400)
        if self._seeded.random() < self._slow:
            took_us = self._seeded.choice([self._seeded.randint(400, 9_000), self._seeded.randint(9_000, 300_000)])
        self._timeline.at(self._timeline.now_us + took_us, act)


class NetworkOrders:
    """The orders of one replica, carried over its link; the `Orders` that a `Replica` is given.

    Attributes:
        process: Whose orders they are.
        boot: The store's memory as this replica knows it; 0: it has not heard of it yet.
        on_new_memory: Called when that changes.
        on_found_memory: Called with its age when it is first heard of.
    """

    def __init__(self, process: Process, link: Link, store: SimulatedStore, seeded: random.Random) -> None:
        self.process = process
        self._link = link
        self._store = store
        self._seeded = seeded
        self._failures = 0
        self._down_until_us = 0
        self.boot = 0
        self.on_new_memory: Act = lambda: None
        self.on_found_memory: Callable[[int], None] = lambda age_us: None

    def is_up(self, where: CountedKey) -> bool:
        """False for a while after three orders without an answer."""
        return self.process.read().boot_us >= self._down_until_us

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        """Send it in a moment; give up at the deadline, or hear a late answer."""
        is_open = [True]

        def finish(answered: Answered) -> None:
            if is_open:
                is_open.pop()
                done(answered)

        def give_up() -> None:
            if is_open:
                self._failed()
                finish(Answered(None, deadline_us))

        # Some carriers hear late answers, most have given up by then.
        patience_us = self._seeded.choice([0, 300_000])
        self.process.at(deadline_us + patience_us, give_up)
        self.process.after(self._seeded.randint(0, 60), lambda: self._send(order, finish))

    def _send(self, order: Order, finish: Callable[[Answered], None]) -> None:
        sent_us = self.process.read().boot_us

        def arrive() -> None:
            answer, boot = self.executed(order), self._store.boot
            self._link.carry(1, lambda: self.process.after(0, lambda: hear(answer, boot)))

        def hear(answer: Answer, boot: int) -> None:
            self._failures = 0
            since_us, is_good = self.heard(answer, boot, sent_us)
            finish(Answered(None if isinstance(answer, Refusal) else answer, since_us, is_good))

        self._link.carry(0, arrive)
        if isinstance(order, Take) and self._seeded.random() < 0.05:
            # Its answer seems lost, and it is sent again; either answer may come first, each with its own sending.
            self.process.after(self._seeded.randint(200, 9_000), lambda: self._send(order, finish))

    def executed(self, order: Order) -> Answer:
        """What the store makes of an order."""
        return self._store.execute(order)

    def heard(self, answer: Answer, boot: int, sent_us: int) -> tuple[int, bool]:
        """When an answer's lease begins, and whether what it grants may be spent."""
        return sent_us, self.knows(boot)

    def knows(self, boot: int) -> bool:
        """Whether the store's memory is the one that it was."""
        if boot == self.boot:
            return True
        if boot < self.boot:
            return False
        is_first, self.boot = not self.boot, boot
        if is_first:
            self.on_found_memory(self._store.age_us())
        else:
            self.on_new_memory()
        return is_first

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= 3:
            self._failures = 0
            self._down_until_us = self.process.read().boot_us + self._seeded.randint(20_000, 400_000)
