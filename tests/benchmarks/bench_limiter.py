"""What a decision costs inside the limiter, from request bytes to response bytes: microseconds, no socket.

python -m tests.benchmarks.bench_limiter [--out build/bench] [--calls 200000]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.limiter.engine import OWN_STORE, Limiter
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.compile import compile as compile_set
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.wire.grpc.status import Answer
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from tests.benchmarks import machine

CALLS_PER_READ = 32
"""Calls that share one reading of the clocks, as the calls of a read batch do."""
CALL_US = 10
"""Time between two calls: 100,000 a second."""
RUNS = 3
"""The best of these is told."""

POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: bench, namespace: shop}
spec:
  domain: shop
  rules:
  - {name: fixed, match: [{key: fixed, type: Any}],
     limits: [{requests: 1000000, window: 1h, algorithm: FixedWindow}]}
  - {name: sliding, match: [{key: sliding, type: Any}], limits: [{requests: 1000000, window: 1h}]}
  - {name: bucket, match: [{key: bucket, type: Any}],
     limits: [{requests: 1000000, window: 1h, algorithm: TokenBucket}]}
  - {name: new-fixed, match: [{key: new-fixed, type: Any}],
     limits: [{requests: 10, window: 1s, algorithm: FixedWindow}]}
  - {name: new-sliding, match: [{key: new-sliding, type: Any}], limits: [{requests: 10, window: 1s}]}
  - {name: new-bucket, match: [{key: new-bucket, type: Any}],
     limits: [{requests: 10, window: 1s, algorithm: TokenBucket}]}
  - {name: user, match: [{key: user, type: Any}],
     limits: [{requests: 1000000, window: 1h}, {requests: 1000000, window: 1m, algorithm: TokenBucket}]}
  - {name: plan, match: [{key: plan, type: Any}],
     limits: [{requests: 4000000000, window: 1h}, {requests: 4000000000, window: 24h}]}
  - {name: denied, match: [{key: denied, type: Any}], limits: [{requests: 1, window: 8784h}]}
"""


class Clock:
    """Reads what the benchmark says."""

    def __init__(self) -> None:
        self.now = Instant(1_700_000_000_000_000, 1_000_000)

    def read(self) -> Instant:
        """The time of the present batch."""
        return self.now


class Scenario(NamedTuple):
    """A name and the calls to make."""

    name: str
    bodies: Sequence[bytes]


def body(*keys: str, value: int) -> bytes:
    """A request of one descriptor a key."""
    entry = b"user-%012d" % value
    return encode_request(Request(b"shop", tuple(Descriptor(((key.encode(), entry),)) for key in keys)))


def zipf(calls: int, *keys: str) -> list[bytes]:
    """Calls over 10,000 values, the most frequent first."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, 10_001)))
    drawn = random.Random(1).choices(range(10_000), cum_weights=weights, k=calls)
    bodies = [body(*keys, value=value) for value in range(10_000)]
    return [bodies[value] for value in drawn]


def scenarios(calls: int) -> list[Scenario]:
    """What is measured."""
    kinds = ("fixed", "sliding", "bucket")
    return [
        *(Scenario(f"remembered, {kind}", zipf(calls, kind)) for kind in kinds),
        *(Scenario(f"every key new, {kind}", [body(f"new-{kind}", value=n) for n in range(calls)]) for kind in kinds),
        Scenario("two descriptors, two limits each", zipf(calls, "user", "plan")),
        Scenario("denied", zipf(calls, "denied")),
        Scenario("no rule", zipf(calls, "other")),
    ]


def limiter() -> Limiter:
    """A limiter over memory with the benchmark's policies."""
    snapshot, problems = compile_set(decode([SourceFile("bench.yaml", POLICY.encode())])[0], CompileOptions())
    assert not problems, problems
    made = Limiter({OWN_STORE: MemoryStore(clock=Clock())}, LimiterSettings(), CounterTable())
    made.apply(snapshot)
    return made


def decide_us(bodies: Sequence[bytes]) -> float:
    """Microseconds of processor time a decision, garbage collection included; the first tenth is not measured."""
    decide = limiter().decide

    def reply(_: Answer) -> None:
        raise AssertionError("a memory store answers at once")

    batches = [
        (Instant(1_700_000_000_000_000 + start * CALL_US, start * CALL_US), bodies[start : start + CALLS_PER_READ])
        for start in range(0, len(bodies), CALLS_PER_READ)
    ]
    warm = len(batches) // 10
    for now, batch in batches[:warm]:
        for each in batch:
            decide(each, now, 0, reply)
    gc.collect()
    begun_ns = time.thread_time_ns()
    for now, batch in batches[warm:]:
        for each in batch:
            decide(each, now, 0, reply)
    spent_ns = time.thread_time_ns() - begun_ns
    return spent_ns / 1000 / (len(bodies) - warm * CALLS_PER_READ)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--calls", type=int, default=200_000)
    options = parser.parse_args()
    table = Table("request", "µs a decision", "decisions/s on a core", title="limiter, bytes to bytes")
    rows = []
    for scenario in scenarios(options.calls):
        spent_us = min(decide_us(scenario.bodies) for _ in range(RUNS))
        rows.append({"request": scenario.name, "decide_us": round(spent_us, 3)})
        table.add_row(scenario.name, f"{spent_us:.2f}", f"{1e6 / spent_us:,.0f}")
    Console().print(table)
    target = options.out / "limiter.json"
    machine.write(target, {"calls": options.calls, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
