"""Whole replicas on a virtual clock, a seeded network and a store that fails: one seed, one run, always the same.

The replicas are the real ones; only the clocks, the carrier of orders and the store are simulated. A run is judged by
the history of its calls: what was admitted beyond the law is at most what the replicas say that it may be.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit, LimitSettings
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.masters import NewMasterRule
from ratelimit_service.quota.leases.membership import HEARTBEAT_US, Beat, form_of
from ratelimit_service.quota.leases.replica import Replica, ReplicaSettings
from ratelimit_service.quota.store import Charge, Outcome
from support.history import Call, Excess, excess
from support.simulated_network import Link, NetworkOrders, Process, Timeline
from support.simulated_store import EPOCH_US, SimulatedStore

SECOND_US: Final = 1_000_000
DEADLINE_US: Final = 10_000
FAULTS: Final = ("cut", "cut", "cut one way", "stop", "crash", "restart", "join", "lose", "fail over", "clock back")
RULE: Final = "rule"
KEYS: Final = (b"a", b"b")


PlannedCall = tuple[int, int, bytes, int]
"""True time, replica, key, hits."""


class Plan(NamedTuple):
    """What a seed makes of a run.

    Attributes:
        limit: The limit of both keys.
        mode: Of its rule.
        replicas: How many.
        slots: Most of them that hold a slot; with more there are some without.
        standing_percent: Share of the slots.
        horizon_us: How far ahead they lease.
        new_master: The rule for a new memory.
        loses: Share of messages that are lost.
        slow: Share of messages that take up to 0.3 s.
        faults: (time, fault, replica), true time.
        calls: In order.
        length_us: Of the run.
    """

    limit: Limit
    mode: FailureMode
    replicas: int
    slots: int
    standing_percent: int
    horizon_us: int
    new_master: NewMasterRule
    loses: float
    slow: float
    faults: list[tuple[int, str, int]]
    calls: list[PlannedCall]
    length_us: int


class Verdict(NamedTuple):
    """How a run ended.

    Attributes:
        worst: The greatest excess over the law.
        bound: What the replicas said that it may be at the most.
        admitted: Hits admitted.
        calls: Calls made.
        plan: What was run.
    """

    worst: Excess
    bound: int
    admitted: int
    calls: int
    plan: Plan

    @property
    def is_good(self) -> bool:
        """Whether the bound holds."""
        return self.worst.hits <= self.bound


def plan_of(seed: int) -> Plan:
    """The run of a seed; seeds take the algorithms in turn, and every other three of them a calm sea."""
    seeded = random.Random(seed)
    algorithm = list(Algorithm)[seed % 3]
    return _calm(seeded, algorithm) if seed // 3 % 2 else _rough(seeded, algorithm)


def _rough(seeded: random.Random, algorithm: Algorithm) -> Plan:
    """Whatever can happen."""
    window_us = seeded.choice([1, 1, 1, 2, 5]) * SECOND_US
    # Limits below 20 are exact, the others leased.
    limit = _limit(seeded, algorithm, seeded.choice([seeded.randint(1, 12), *[seeded.randint(20, 60)] * 3]), window_us)
    replicas = seeded.randint(2, 3)
    length_us = max(4 * SECOND_US, 2 * window_us)
    faults = [
        (seeded.randint(100_000, length_us), seeded.choice(FAULTS), seeded.randrange(replicas))
        for _ in range(seeded.choice([0, 1, 1, 2, 3]))
    ]
    return Plan(
        limit=limit,
        mode=seeded.choice([FailureMode.CLOSED, FailureMode.RESERVED, FailureMode.RESERVED, FailureMode.SHARE]),
        replicas=replicas,
        slots=replicas + seeded.randint(0, 1),
        standing_percent=seeded.choice([0, 0, 20, 50]),
        horizon_us=seeded.choice([10_000, 100_000]),
        new_master=seeded.choice(list(NewMasterRule)),
        loses=seeded.choice([0.0, 0.0, 0.01, 0.1]),
        slow=seeded.choice([0.0, 0.002, 0.02, 0.1]),
        faults=sorted(faults),
        calls=_mixed_calls(seeded, limit, replicas, length_us),
        length_us=length_us,
    )


def _calm(seeded: random.Random, algorithm: Algorithm) -> Plan:
    """No faults but slow answers: leases are taken before an edge, and spent in a storm after it."""
    limit = _limit(seeded, algorithm, seeded.randint(20, 50), SECOND_US)
    calls = []
    # Of a sliding window the second storm comes just before the first has left it.
    later_us = 5 * SECOND_US
    if algorithm is Algorithm.SLIDING_WINDOW:
        later_us = 2 * SECOND_US + seeded.randint(900_000, SECOND_US)
    for edge_us in (2 * SECOND_US, later_us):
        earliest_us, latest_us = seeded.choice([(60_000, 1_000), (300_000, 1_000), (130_000, 90_000)])
        times = [edge_us - seeded.randint(latest_us, earliest_us) for _ in range(limit.burst // 2)]
        times += [edge_us + seeded.randint(0, 12_000) for _ in range(2 * limit.burst)]
        calls += [(at_us, seeded.randrange(3), KEYS[0], 1) for at_us in times]
    return Plan(
        limit=limit,
        mode=FailureMode.CLOSED,
        replicas=3,
        slots=3,
        standing_percent=seeded.choice([0, 0, 50]),
        horizon_us=seeded.choice([40_000, 200_000]),
        new_master=NewMasterRule.LEARN,
        loses=0.0,
        slow=seeded.choice([0.0, 0.1, 0.3]),
        faults=[],
        calls=sorted(calls),
        length_us=6 * SECOND_US,
    )


def _limit(seeded: random.Random, algorithm: Algorithm, requests: int, window_us: int) -> Limit:
    is_bucket = algorithm is Algorithm.TOKEN_BUCKET
    burst = max(1, requests + is_bucket * seeded.randint(-requests // 2, requests // 2))
    return Limit(algorithm, requests, window_us, burst)


def _mixed_calls(seeded: random.Random, limit: Limit, replicas: int, length_us: int) -> list[PlannedCall]:
    """Each window is quiet, or steady, or steady until a storm; storms come where a window has just begun, or later."""
    calls: list[PlannedCall] = []
    most = seeded.choice([1, 1, 2])
    favourite = seeded.randrange(replicas)
    for start_us in range(0, length_us, limit.window_us):
        steady, stormy = seeded.choice([(0.1, False), (0.7, False), (0.6, True), (0.6, True), (0.0, True)])
        storm_us = start_us + seeded.choice([0, 0, limit.window_us // 2, limit.window_us - 15_000])
        count = min(45, int(limit.burst * steady / most))
        times = [start_us + seeded.randint(0, limit.window_us) for _ in range(count)]
        count = stormy * min(90, 1 + 3 * limit.burst // 2 // most)
        times += [storm_us + seeded.randint(0, 15_000) for _ in range(count)]
        for at_us in times:
            replica = favourite if seeded.random() < 0.4 else seeded.randrange(replicas)
            calls.append((at_us, replica, KEYS[seeded.random() < 0.05], seeded.randint(1, most)))
    return sorted(calls)


class Member:
    """One process with its replica, from start to crash."""

    def __init__(self, run: Run, number: int, *, is_heard: bool = True) -> None:
        plan = run.plan
        self._run = run
        self.id = b"%d" % number
        self.process = Process(run.timeline, run.seeded)
        self.link = Link(run.timeline, run.seeded, plan.loses, plan.slow)
        self.orders = run.carry(self.process, self.link, run.store, run.seeded)
        self._slots = plan.slots
        self._form = form_of(plan.slots, plan.standing_percent)
        settings = ReplicaSettings(
            leases=LeaseSettings(horizon_us=plan.horizon_us),
            slots=plan.slots,
            standing_percent=plan.standing_percent,
            new_master=plan.new_master,
        )
        self.replica = run.replicate(settings, self.orders, self.process)
        self._owns = bool(plan.slots and plan.standing_percent)
        self.orders.on_new_memory = lambda: self.replica.on_new_master(lambda _: True)
        self.orders.on_found_memory = self._found
        self.replica.apply({b"limit": LimitSettings(plan.limit, "domain", RULE, plan.mode)})
        self.bound = 0
        self.is_gone = False
        # False: its heartbeats are lost, and nothing else is.
        self.is_heard = is_heard
        self._beat()

    def _beat(self) -> None:
        """A heartbeat now, and the next in half a second."""
        if self.is_gone:
            return
        self.process.after(HEARTBEAT_US, self._beat)
        if not self.is_heard:
            return
        sent_us = self.process.read().boot_us

        def arrive() -> None:
            beat, boot = self._beaten(), self._run.store.boot
            self.link.carry(1, lambda: self.process.after(0, functools.partial(heard, beat, boot)))

        def heard(beat: Beat, boot: int) -> None:
            if boot < self.orders.boot:
                return
            self.orders.knows(boot)
            now_us = self.process.read().boot_us
            self.replica.membership.take_in(beat, sent_us, now_us)
            self.replica.allowances.time.observe(beat.wall_us, sent_us, now_us)
            self.replica.book.replicas = max(1, beat.live)

        self.link.carry(0, arrive)

    def _beaten(self) -> Beat:
        return self._run.store.beat(self.id, self._form, self._slots, owns=self._owns)

    def _found(self, age_us: int) -> None:
        since_us = self.process.read().boot_us - age_us
        self.replica.on_found_master(lambda _: True, since_us)

    def leave(self) -> None:
        """SIGTERM: it returns what it holds, and its slot, and deals with no more calls."""
        self.replica.release()
        self.is_gone = True
        self.link.carry(0, lambda: self._run.store.leave(self.id))

    def call(self, key: bytes, hits: int) -> None:
        """A call has come; it is dealt with when the process runs."""
        sent_us = self._run.timeline.now_us
        self.process.after(0, lambda: self._dealt_with(key, hits, sent_us))

    def _dealt_with(self, key: bytes, hits: int, sent_us: int) -> None:
        if self.is_gone:
            return
        now = self.process.read()
        charges = (Charge(b"limit", self._run.plan.limit, key, hits),)

        def done(outcomes: Sequence[Outcome]) -> None:
            self.bound = max(self.bound, self.replica.bound(RULE))
            answered_us = self._run.timeline.now_us
            self._run.calls.append(Call(sent_us, answered_us, hits, not outcomes[0].over, key))

        outcomes = self.replica.charge(charges, now)
        if outcomes is None:
            self.replica.charge_later(charges, now.boot_us + DEADLINE_US, done)
        else:
            done(outcomes)


Carry = Callable[[Process, Link, SimulatedStore, random.Random], NetworkOrders]
Replicate = Callable[[ReplicaSettings, NetworkOrders, Process], Replica]


def plainly(settings: ReplicaSettings, orders: NetworkOrders, process: Process) -> Replica:
    """A replica as it is."""
    return Replica(settings, orders=orders, clock=process, turns=process, group_of=lambda identity: identity)


class Run:
    """One run of a plan; what stands in for a part may be given, to plant a bug."""

    def __init__(
        self,
        seed: int,
        *,
        carry: Carry = NetworkOrders,
        store: Callable[[Callable[[], int]], SimulatedStore] = SimulatedStore,
        replicate: Replicate = plainly,
        plan: Plan | None = None,
    ) -> None:
        self.plan = plan_of(seed) if plan is None else plan
        self.seeded = random.Random(-seed - 1)
        self.timeline = Timeline()
        self.store = store(lambda: self.timeline.now_us)
        self.carry = carry
        self.replicate = replicate
        self.calls: list[Call] = []
        self._started = 0
        self._bound = 0
        self.members = [self._start() for _ in range(self.plan.replicas)]

    def _start(self, *, is_heard: bool = True) -> Member:
        self._started += 1
        return Member(self, self._started, is_heard=is_heard)

    def join(self, *, standing_percent: int | None = None, is_heard: bool = True) -> Member:
        """One more replica; if a share is given, that is the form that it and all after it go by."""
        if standing_percent is not None:
            self.plan = self.plan._replace(standing_percent=standing_percent)
        self.members.append(self._start(is_heard=is_heard))
        return self.members[-1]

    def worst(self) -> Excess:
        """The greatest excess of the calls so far over the law."""
        return excess(self.plan.limit, self._stamped())

    def _stamped(self) -> list[Call]:
        """The calls by the store's clock: windows are of it."""
        return [
            call._replace(sent_us=call.sent_us + EPOCH_US, answered_us=call.answered_us + EPOCH_US)
            for call in self.calls
        ]

    def judged(self) -> Verdict:
        """Run it."""
        for at_us, replica, key, hits in self.plan.calls:
            self.timeline.at(at_us, functools.partial(self._call, replica, key, hits))
        for at_us, fault, replica in self.plan.faults:
            self.timeline.at(at_us, functools.partial(self._strike, fault, replica))
        self.timeline.run(self.plan.length_us + SECOND_US)
        for member in self.members:
            self._bound = min(MAX_HITS, self._bound + member.bound)
        calls = self._stamped()
        admitted = sum(call.hits for call in calls if call.admitted)
        limit, bound = self.plan.limit, self._bound
        if limit.algorithm is Algorithm.TOKEN_BUCKET and 0 < bound < MAX_HITS:
            # What a share refills is its part of the rate, however long the interval.
            limit, bound = widened(limit, bound), 0
        return Verdict(excess(limit, calls), bound, admitted, len(calls), self.plan)

    def _call(self, replica: int, key: bytes, hits: int) -> None:
        # Replicas that joined take their part of the calls.
        joined = len(self.members) - self.plan.replicas
        if joined and self.seeded.random() < 0.4:
            replica = self.plan.replicas + self.seeded.randrange(joined)
        self.members[replica].call(key, hits)

    def _strike(self, fault: str, at: int) -> None:
        member, later_us = (
            self.members[at],
            self.timeline.now_us + self.seeded.choice([5_000, 200_000, 1_500_000, 4_500_000]),
        )
        match fault:
            case "cut" | "cut one way":
                both = fault == "cut"
                way = self.seeded.randrange(2)
                member.link.is_cut = [both or way == 0, both or way == 1]
                self.timeline.at(later_us, lambda: setattr(member.link, "is_cut", [False, False]))
            case "stop":
                member.process.stop(later_us - self.timeline.now_us)
            case "crash":
                self._end(member, at)
            case "restart":
                member.leave()
                self.timeline.at(self.timeline.now_us + self.seeded.randint(0, 3_000), lambda: self._end(member, at))
            case "join":
                self.join()
            case "lose":
                self.store.lose()
            case "fail over":
                self.store.replicate()
                self.timeline.at(self.timeline.now_us + self.seeded.randint(0, 300_000), self.store.fail_over)
            case "clock back":
                # A fixed window's history is judged by the store's windows, so there it stays.
                if self.plan.limit.algorithm is not Algorithm.FIXED_WINDOW:
                    self.store.step_us -= self.seeded.randint(1_000, 3_000_000)

    def _end(self, member: Member, at: int) -> None:
        if member.process.is_dead:
            return
        member.process.is_dead = True
        self._bound = min(MAX_HITS, self._bound + member.bound)
        self.members[at] = self._start()


def widened(limit: Limit, hits: int) -> Limit:
    """A bucket that is as much faster as it is deeper by these hits."""
    # A bound is of both, what shares hold and what they refill in a window.
    faster = limit.requests + -(-limit.requests * hits // (limit.burst + limit.requests))
    return Limit(limit.algorithm, faster, limit.window_us, limit.burst + hits)


def simulate(seed: int) -> Verdict:
    """Run a seed."""
    return Run(seed).judged()
