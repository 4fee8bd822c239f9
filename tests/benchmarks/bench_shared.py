"""The service over gRPC with shared counts beside the same with its own: calls, latency, and what both cost.

python -m tests.benchmarks.bench_shared [--calls 100000] [--steady-seconds 61] [--out build/bench]

The first core is the service's, the last one the generator's and Redis's together; with two cores there is no third.
Processor time is what the kernel says of each process, so it tells more than calls per second do of a machine that
others use too. A `cold` row has a fixed number of calls, the first ones of a new service: what a replica learns of its
keys costs as much on a slow machine as on a fast one. A `steady` row follows on the same service: after some seconds
that are not counted, a whole window and more, so that its edge is in it. Deadlines are long here: `tests.chaos` is
about those that are missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.redis_servers import RedisServer, running_server
from tests.benchmarks import loadgen, machine, processes, tables
from tests.benchmarks.service_load import Server, server

CLOSED: Final = ("-conns", "4", "-streams", "64")
HOT: Final = (*CLOSED, "-keys", "1", "-zipf", "0")
OPEN: Final = ("-conns", "4", "-streams", "1024", "-rate", "10000")
ENOUGH: Final = 1_000_000_000
MINUTE: Final = 10_000
WARM_S: Final = 5
MEMORY_S: Final = 10
"""How long the memory store is measured, to which one second is like another."""
FLAGS: Final = ("--deadline", "5s", "--log-level", "error")


class Load(msgspec.Struct, frozen=True):
    """A named load: the store's mode, the limit for each key and minute, the generator's arguments.

    Attributes:
        steady: It is measured for a whole window too.
    """

    name: str
    mode: str
    algorithm: str
    requests: int
    arguments: tuple[str, ...]
    reach: str = ""
    steady: bool = False


LOADS: Final = (
    Load("Zipf, 10,000/min", "memory", "FixedWindow", MINUTE, CLOSED, steady=True),
    Load("Zipf, 10,000/min", "Leased", "FixedWindow", MINUTE, CLOSED, "90 % of memory's", steady=True),
    Load("one key", "memory", "FixedWindow", ENOUGH, HOT),
    Load("one key", "Exact", "FixedWindow", ENOUGH, HOT, "100,000/s"),
    Load("Zipf", "memory", "FixedWindow", ENOUGH, CLOSED),
    Load("Zipf", "Exact", "FixedWindow", ENOUGH, CLOSED, "60,000/s; Redis 2 us"),
    Load("Zipf", "Exact", "SlidingWindow", ENOUGH, CLOSED, "Redis 6 us"),
    Load("Zipf", "Exact", "TokenBucket", ENOUGH, CLOSED, "Redis 4 us"),
    Load("open loop 10,000/s", "memory", "FixedWindow", ENOUGH, OPEN),
    Load("open loop 10,000/s", "Leased", "FixedWindow", ENOUGH, OPEN, "p99 1 ms over memory's; Redis 0.1 us"),
    Load("open loop 10,000/s", "Exact", "FixedWindow", ENOUGH, OPEN, "p99 3 ms over memory's"),
)


class Row(msgspec.Struct, frozen=True):
    """One load.

    Attributes:
        phase: cold: the first calls of a new service; steady: later ones, over a window and more.
        service_us, redis_us: Processor time for each decision, kernel side included.
        core_calls_per_s: What a core could answer: 1 s / `service_us`.
        batch: Orders of a round trip to Redis.
        local_percent: Decisions without a round trip.
    """

    load: str
    mode: str
    algorithm: str
    reach: str
    phase: str
    calls_per_s: int
    core_calls_per_s: int
    service_us: float
    redis_us: float
    batch: float
    local_percent: float
    p50_ms: float
    p99_ms: float


def policies(load: Load, redis: RedisServer) -> str:
    """One rule on every user."""
    profile = "" if load.mode == "memory" else "\n  cacheProfileRef: {name: shared}"
    policy = f"""\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: bench, namespace: bench}}
spec:
  domain: bench{profile}
  rules:
  - name: per-user
    match: [{{key: user, type: Any}}]
    limits: [{{requests: {load.requests}, window: 1m, algorithm: {load.algorithm}}}]
"""
    if load.mode == "memory":
        return policy
    timeouts = "timeouts: {connect: 2s, command: 2s}"
    return f"""\
apiVersion: tidegate.dev/v1alpha1
kind: CacheProfile
metadata: {{name: shared, namespace: bench}}
spec:
  store: {{type: Redis, endpoints: ["{redis.endpoint}"], {timeouts}}}
  leases: {{mode: {load.mode}, slots: 4}}
---
{policy}"""


class Meter:
    """What a service and its Redis have done so far, to be told apart from what they do next."""

    def __init__(self, target: Server, redis_pid: int) -> None:
        self._target = target
        self._redis_pid = redis_pid

    def read(self) -> tuple[float, ...]:
        """Processor seconds of service and Redis; batches, orders, decisions here, all decisions."""
        target = self._target
        return (
            processes.cpu_s(target.pid),
            processes.cpu_s(self._redis_pid),
            target.metric("tidegate_store_batches_total"),
            target.metric("tidegate_store_orders_total"),
            target.metric('tidegate_decision_sources_total{source="(?:memory|lease|standing)"}'),
            target.metric("tidegate_decision_sources_total"),
        )


def measure(load: Load, redis: RedisServer, calls: int, steady_s: int) -> Iterator[Row]:
    """One row or two, with a service of its own."""
    cores, redis_pid = processes.cores(), pid_of(redis)
    if cores.load is not None:
        subprocess.run(["taskset", "-acp", str(cores.load), str(redis_pid)], capture_output=True, check=False)
    redis.cli("FLUSHALL")
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        (Path(folder) / "policies.yaml").write_text(policies(load, redis))
        with server("native", core=cores.server, policies=(Path(folder),), flags=FLAGS) as target:
            if load.mode != "memory":
                wait_until_connected(target)
            meter, asked = Meter(target, redis_pid), ("-addr", target.grpc, *load.arguments)
            yield _row(load, "cold", meter, (*asked, "-calls", str(calls)))
            if load.steady and steady_s:
                loadgen.run((*asked, "-warmup", "0s", "-duration", f"{WARM_S}s"), core=cores.load, timeout_s=300)
                measured_s = steady_s if load.mode != "memory" else min(steady_s, MEMORY_S)
                yield _row(load, "steady", meter, (*asked, "-warmup", "0s", "-duration", f"{measured_s}s"))


def _row(load: Load, phase: str, meter: Meter, arguments: Sequence[str]) -> Row:
    before = meter.read()
    figures = loadgen.run(arguments, core=processes.cores().load, timeout_s=600)
    service_s, redis_s, batches, orders, local, decided = (
        now - then for now, then in zip(meter.read(), before, strict=True)
    )
    answered = max(1, figures.answered)
    return Row(
        load=load.name,
        mode=load.mode,
        algorithm=load.algorithm,
        reach=load.reach,
        phase=phase,
        calls_per_s=figures.calls_per_s,
        core_calls_per_s=round(answered / max(1e-6, service_s)),
        service_us=round(service_s * 1e6 / answered, 2),
        redis_us=round(redis_s * 1e6 / answered, 3),
        batch=round(orders / max(1.0, batches), 1),
        local_percent=round(100 * local / max(1.0, decided), 2),
        p50_ms=figures.p50_ms,
        p99_ms=figures.p99_ms,
    )


def pid_of(redis: RedisServer) -> int:
    """Of the server's process."""
    return int(next(line for line in redis.cli("INFO", "server").splitlines() if line.startswith("process_id:"))[11:])


def wait_until_connected(target: Server) -> None:
    """Until a service's store has its server; at most 30 s."""
    deadline = time.monotonic() + 30
    while target.metric("tidegate_store_node_up") < 1:
        if time.monotonic() > deadline:
            raise TimeoutError("the service did not reach Redis")
        time.sleep(0.05)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--steady-seconds", type=int, default=61, help="0: no steady rows")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    try:
        loadgen.binary()
    except loadgen.NoGoCompiler as missing:
        print(missing, file=sys.stderr)
        return 1
    with running_server() as redis:
        rows = [row for load in LOADS for row in measure(load, redis, options.calls, options.steady_seconds)]
    tables.show("shared counts over gRPC: service on one core, generator and Redis on another", rows)
    machine.write(options.out / "shared.json", {"rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
