"""Requests that a leasing store decides from what it has in hand, without its `charge`."""

from __future__ import annotations

from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.compile import compile as compile_set
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.quota.leases.replica import ReplicaSettings
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.grpc.status import Answer
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.clocks import ManualClock
from support.replicas import Rig, SharedOrders, SharedStore
from support.schedulers import ManualScheduler

POLICY = b"""\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: shop, namespace: shop}
spec:
  domain: shop
  rules:
  - name: user
    match: [{key: user, type: Any}]
    limits: [{requests: 60, window: 10s, algorithm: FixedWindow}]
"""
STEP_US = 20_000
BODY = encode_request(Request(b"shop", (Descriptor(((b"user", b"ann"),)),)))


class ByTheBook(SharedStore):
    """A replica that decides nothing at a glance."""

    def __init__(
        self, settings: ReplicaSettings, orders: SharedOrders, clock: ManualClock, scheduler: ManualScheduler
    ) -> None:
        super().__init__(settings, orders, clock, scheduler)
        self.at_hand = lambda counted, key, hits, now: None


class Shop:
    """A limiter over one replica."""

    def __init__(self, made: type[SharedStore]) -> None:
        self.rig = Rig()
        clock, scheduler = self.rig.clock, self.rig.scheduler
        clock.advance(10_000_000 - clock.wall_us % 10_000_000)
        self.replica = made(ReplicaSettings(), SharedOrders(self.rig.state, clock, scheduler), clock, scheduler)
        self.table = CounterTable(100)
        self.limiter = Limiter({OWN_STORE: self.replica}, LimiterSettings(), self.table)
        snapshot, problems = compile_set(decode([SourceFile("shop.yaml", POLICY)])[0], CompileOptions())
        assert not problems
        self.limiter.apply(snapshot)

    def decide(self) -> Answer:
        """One call, answered."""
        late: list[Answer] = []
        now = self.rig.clock.read()
        answer = self.limiter.decide(BODY, now, now.boot_us + 10_000, late.append)
        self.rig.scheduler.run()
        self.rig.advance(STEP_US, self.replica)
        (only,) = late if answer is None else (*late, answer)
        return only


def test_answers_and_sources_are_those_of_the_long_way() -> None:
    """Through a window and into the next: allowed from a lease, denied, denials asked about, allowed again."""
    short, long = Shop(SharedStore), Shop(ByTheBook)
    answers = [(short.decide(), long.decide()) for _ in range(600)]

    assert [one for one, _ in answers] == [other for _, other in answers]
    for name in ("lease", "batch"):
        assert getattr(short.table.sources, name) == getattr(long.table.sources, name) > 0
    assert short.replica.stats() == long.replica.stats()
    assert short.table.sources.lease > 500
