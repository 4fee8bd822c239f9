"""What the operator's own steps cost as policies grow: processor time in this process, without an API server; JSON.

    python -m tests.benchmarks.bench_operator_growth [--sizes 625 1250 2500 5000 10000]

Policies are those of `bench_operator`, five rules each. `decode` and `first_plan` happen once per policy; `change` is
what one changed policy costs beside all others: a plan, its publication, every answer of three replicas, and judging;
`status` is what is done after one written status, beside all others that wait: judging it and choosing the next.
"""

from __future__ import annotations

import argparse
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ratelimit_operator.api.objects import observe_policy
from ratelimit_operator.plan.judging import Evidence, Judge
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.pacing import Pacer
from ratelimit_operator.plan.planning import Plan, plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.statuses import Replicas, patience_s
from ratelimit_operator.plan.world import ObservedPolicy, Scope, World
from ratelimit_operator.xds.distributor import Distributor
from ratelimit_service.wire.xds.discovery import DiscoveryRequest
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE
from tests.benchmarks import machine, tables
from tests.benchmarks.bench_operator import policy

REPLICAS: Final = 3
CHANGES: Final = 9
NOW: Final = "2026-01-01T00:00:00Z"
Result = TypeVar("Result")


class Growth(msgspec.Struct, frozen=True):
    """One size; milliseconds of processor time, medians where a step is done more than once."""

    policies: int
    decode_ms: float
    first_plan_ms: float
    change_ms: float
    status_ms: float
    kept_mb: float


def observed(number: int, requests: int = 100, generation: int = 1) -> ObservedPolicy:
    """A policy as the API server gives it."""
    body = policy(number, requests)
    body["metadata"] |= {"uid": f"u{number}", "resourceVersion": str(generation), "generation": generation}
    body["metadata"]["creationTimestamp"] = NOW
    return observe_policy(body)


def timed(step: Callable[[], Result]) -> tuple[float, Result]:
    """Milliseconds of processor time, and what came of it."""
    began_s = time.process_time()
    found = step()
    return (time.process_time() - began_s) * 1e3, found


def resident_mb() -> float:
    """Of this process."""
    gc.collect()
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else 0.0


class Operator:
    """The pure parts of an operator, put together as `handlers.control` does."""

    def __init__(self, policies: dict[str, ObservedPolicy]) -> None:
        self.policies = policies
        self.distributor = Distributor()
        self.judge = Judge("tidegate")
        self.pacer = Pacer(0.0)
        self.now_s = 0.0
        self.planned: Plan | None = None
        self._contests = Contests()
        for stream in range(REPLICAS):
            self.distributor.open(stream)
            self.distributor.receive(stream, DiscoveryRequest(RESOURCE_TYPE, node_id=f"pod-{stream}"), 0.0)

    def plan(self) -> None:
        """Plan and publish."""
        live = Live() if self.planned is None else self.planned.live
        world = World(self.policies, {}, {}, Scope("tidegate-system"))
        self.planned = plan(world, live, self._contests)
        assert self.distributor.publish(self.planned.distribution, 0.0)

    def answer(self) -> None:
        """Every replica takes what it is sent."""
        for stream in range(REPLICAS):
            if self.distributor.next_response(stream, 0.0) is not None:
                nonce = self.distributor._own.subscriptions[stream].nonce
                self.distributor.receive(stream, DiscoveryRequest(RESOURCE_TYPE, response_nonce=nonce), 0.0)

    def look(self, only: set[str] | None = None) -> dict[str, Any]:
        """Judge what changed, None: everything."""
        assert self.planned is not None
        replicas = Replicas(self.distributor.acked(), REPLICAS, self.distributor.quarantined())
        evidence = Evidence(self.planned, self.policies, {}, {}, {}, replicas)
        return dict(self.judge.judge(evidence, NOW, only))

    def write(self, key: str, pending: dict[str, Any]) -> None:
        """One status is written and seen; what is next is chosen."""
        name = key.partition(" ")[2]
        self.policies[name] = msgspec.structs.replace(self.policies[name], status=pending[key].after)
        assert self.planned is not None
        evidence = Evidence(self.planned, {name: self.policies[name]}, {}, {}, {}, Replicas({}, REPLICAS, {}))
        left = self.judge.judge(evidence, NOW, {key})
        # Fifty a second may be written; what waits has waited for a while.
        self.now_s += 0.02
        patience = ((name, patience_s(each.before, each.after)) for name, each in left.items())
        self.pacer.choose(patience, self.now_s, 6)


def measure(size: int) -> Growth:
    """See the module."""
    before_mb = resident_mb()
    decode_ms, policies = timed(lambda: {each.key: each for each in map(observed, range(size))})
    operator = Operator(policies)
    first_ms, _ = timed(operator.plan)
    pending = operator.look()
    status = [timed(lambda key=key: operator.write(key, pending))[0] for key in list(pending)[:100]]  # type: ignore[misc]
    operator.answer()
    operator.look()
    kept_mb = resident_mb() - before_mb
    changes = []
    for number in range(CHANGES):
        one = observed(number * 37 % size, 1_000 + number, 2 + number)
        policies[one.key] = one

        def change() -> None:
            operator.plan()
            operator.look()
            operator.answer()
            operator.look()

        changes.append(timed(change)[0])
    return Growth(
        size,
        round(decode_ms, 1),
        round(first_ms, 1),
        round(statistics.median(changes), 2),
        round(statistics.median(status), 3),
        round(kept_mb, 1),
    )


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[625, 1_250, 2_500, 5_000, 10_000])
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    rows = [measure(size) for size in options.sizes]
    tables.show("the operator's own steps, ms of processor time", rows)
    machine.write(options.out / "operator_growth.json", {"rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
