"""What a decision costs as replicas and keys grow: whole services under gRPC load, over one Redis.

python -m tests.benchmarks.bench_replicas [--calls 40000] [--out build/bench] [--plot docs/images/replicas.svg]

Each service is asked by a generator of its own; together they make a fixed number of calls, the first ones included.
All share the cores of one machine, so calls per second say nothing: what is told is the processor time that the kernel
says services and Redis used for each decision. `bench_growth` goes on with the same by simulation.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.redis_servers import RedisServer, running_server
from tests.benchmarks import loadgen, machine, processes, tables
from tests.benchmarks.bench_shared import FLAGS, pid_of, wait_until_connected
from tests.benchmarks.service_load import Server, server

REPLICAS: Final = (1, 2, 4)
KEYS: Final = (1_000, 100_000, 1_000_000)
LIMIT: Final = 10_000
LOCAL: Final = 'tidegate_decision_sources_total{source="(?:lease|standing)"}'


class Row(msgspec.Struct, frozen=True):
    """One size.

    Attributes:
        service_us, redis_us: Processor time for each decision, kernel side included; of all services together.
        orders_per_decision: Takes and returns, before batches put them together.
        batch: Orders of a round trip.
        local_percent: Decisions without a round trip.
        p50_ms: Of the slowest generator; the machine's load is in it.
    """

    replicas: int
    keys: int
    calls: int
    service_us: float
    redis_us: float
    orders_per_decision: float
    batch: float
    local_percent: float
    p50_ms: float


def policies(redis: RedisServer) -> str:
    """One rule on every user; no standing share, which would begin a window later."""
    return f"""\
apiVersion: tidegate.dev/v1alpha1
kind: CacheProfile
metadata: {{name: shared, namespace: bench}}
spec:
  store: {{type: Redis, endpoints: ["{redis.endpoint}"], timeouts: {{connect: 2s, command: 2s}}}}
  leases: {{slots: {max(REPLICAS)}}}
---
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: bench, namespace: bench}}
spec:
  domain: bench
  cacheProfileRef: {{name: shared}}
  rules:
  - name: per-user
    match: [{{key: user, type: Any}}]
    limits: [{{requests: {LIMIT}, window: 1m, algorithm: FixedWindow}}]
"""


def measure(redis: RedisServer, replicas: int, keys: int, calls: int) -> Row:
    """One row, with services of its own."""
    redis.cli("FLUSHALL")
    redis_pid = pid_of(redis)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, contextlib.ExitStack() as stack:
        (Path(folder) / "policies.yaml").write_text(policies(redis))
        targets = [
            stack.enter_context(server("native", core=None, policies=(Path(folder),), flags=FLAGS))
            for _ in range(replicas)
        ]
        for target in targets:
            wait_until_connected(target)
        before = sum(processes.cpu_s(target.pid) for target in targets), processes.cpu_s(redis_pid)
        with ThreadPoolExecutor(replicas) as pool:
            figures = list(
                pool.map(lambda seed: _loaded(targets[seed], seed, keys, calls // replicas), range(replicas))
            )
        answered = max(1, sum(seen.answered for seen in figures))
        service_s = sum(processes.cpu_s(target.pid) for target in targets) - before[0]
        redis_s = processes.cpu_s(redis_pid) - before[1]
        batches, orders, local, decided = (
            sum(target.metric(name) for target in targets)
            for name in (
                "tidegate_store_batches_total",
                "tidegate_store_orders_total",
                LOCAL,
                "tidegate_decision_sources_total",
            )
        )
    return Row(
        replicas=replicas,
        keys=keys,
        calls=answered,
        service_us=round(service_s * 1e6 / answered, 1),
        redis_us=round(redis_s * 1e6 / answered, 2),
        orders_per_decision=round(orders / max(1.0, decided), 3),
        batch=round(orders / max(1.0, batches), 1),
        local_percent=round(100 * local / max(1.0, decided), 1),
        p50_ms=max(seen.p50_ms for seen in figures),
    )


def _loaded(target: Server, seed: int, keys: int, calls: int) -> loadgen.Figures:
    """Of the same keys as the others', in an order of its own."""
    asked = ("-addr", target.grpc, "-calls", str(calls), "-conns", "4", "-streams", "32", "-keys", str(keys))
    return loadgen.run((*asked, "-seed", str(seed + 1)), core=None, timeout_s=300)


def plot(rows: list[Row], target: Path) -> None:
    """Processor time and local decisions over replicas, a line for each number of keys."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tidegate"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, layout="constrained")
    told = (
        ("service_us", "services, µs of processor a decision"),
        ("redis_us", "Redis, µs of processor a decision"),
        ("local_percent", "decisions without a round trip, %"),
    )
    for each, (name, what) in zip(axes, told, strict=True):
        for keys in KEYS:
            some = [row for row in rows if row.keys == keys]
            heights = [getattr(row, name) for row in some]
            each.plot([row.replicas for row in some], heights, marker="o", label=f"{keys:,} keys")
        each.set_xticks(REPLICAS)
        each.set_xlabel("replicas")
        each.set_ylabel(what)
        each.set_ylim(bottom=0)
        each.grid(alpha=0.3)
    axes[0].legend(fontsize="x-small")
    figure.savefig(target, metadata={"Date": None})


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=40_000, help="by all generators together, for each row")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--plot", type=Path, default=None, help="an SVG of the rows")
    options = parser.parse_args()
    try:
        loadgen.binary()
    except loadgen.NoGoCompiler as missing:
        print(missing, file=sys.stderr)
        return 1
    with running_server() as redis:
        rows = [measure(redis, replicas, keys, options.calls) for keys, replicas in itertools.product(KEYS, REPLICAS)]
    tables.show("what a decision costs as replicas and keys grow", rows)
    machine.write(options.out / "replicas.json", {"rows": msgspec.to_builtins(rows)})
    if options.plot is not None:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
