"""What `--workers` and traces cost a call: processor time of every process of the service, by the kernel's count.

python -m tests.benchmarks.bench_workers [--calls 40000] [--rounds 3] [--out build/bench]

Workers share a real Redis. Traces are sent to a real collector in this process, whose own work is not counted; each row
of them is beside one without, in the same round, and the middle one of all rounds is told.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.otlp_collector import collecting
from support.redis_servers import running_server
from tests.benchmarks import loadgen, machine, processes, tables
from tests.benchmarks.bench_shared import FLAGS, wait_until_connected
from tests.benchmarks.service_load import Server, server

POLICY: Final = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: bench, namespace: bench}
spec:
  domain: bench
  rules:
  - name: per-user
    match: [{key: user, type: Any}]
    limits: [{requests: 1000000, window: 1m}]
"""
CONNECTIONS: Final = 8
LOAD: Final = ("-conns", str(CONNECTIONS), "-streams", "32", "-keys", "1000")
TRACED: Final = ("-traceparent",)
UNSAMPLED: Final = ("-traceparent", "-unsampled")


class Row(msgspec.Struct, frozen=True):
    """One way to run the service.

    Attributes:
        processes: Of the service, a parent included.
        cpu_us: Processor time of all of them for each call, kernel side included; the middle of all rounds.
        least_us, most_us: Of all rounds.
        calls_per_s: As the generator saw it, on cores that service, generator and others share.
        rss_mib: Memory of all processes together, as each counts it.
    """

    what: str
    processes: int
    cpu_us: float
    least_us: float
    most_us: float
    calls_per_s: int
    rss_mib: float


class _Run(msgspec.Struct, frozen=True):
    processes: int
    cpu_us: float
    calls_per_s: int
    rss_mib: float


def run(flags: Sequence[str], load: Sequence[str], calls: int) -> _Run:
    """Start a service, load it, and see what it used."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        path = Path(folder) / "policies.yaml"
        path.write_text(POLICY)
        with server("native", core=None, policies=(path,), flags=(*FLAGS, *flags)) as target:
            if "--store" in flags:
                wait_until_connected(target)
            pids = [target.pid, *_workers(target)]
            before = sum(map(processes.cpu_s, pids))
            figures = loadgen.run(("-addr", target.grpc, "-calls", str(calls), *LOAD, *load), core=None, timeout_s=300)
            used_s = sum(map(processes.cpu_s, pids)) - before
            return _Run(
                processes=len(pids),
                cpu_us=used_s * 1e6 / max(1, figures.answered),
                calls_per_s=figures.calls_per_s,
                rss_mib=sum(map(processes.rss_mib, pids)),
            )


def _workers(target: Server) -> list[int]:
    """Processes of the workers; none where the service is one process."""
    try:
        with urllib.request.urlopen(f"http://{target.admin}/debug/workers", timeout=10) as answer:
            return [each["pid"] for each in json.load(answer)]
    except urllib.error.HTTPError:
        return []


def rows_of(ways: Sequence[tuple[str, Callable[[], _Run]]], rounds: int) -> list[Row]:
    """Each way in each round, one after the other, so that they compare."""
    runs = [[way() for _, way in ways] for _ in range(rounds)]
    rows = []
    for place, (what, _) in enumerate(ways):
        of_way = sorted((each[place] for each in runs), key=lambda found: found.cpu_us)
        middle = of_way[rounds // 2]
        rows.append(
            Row(
                what=what,
                processes=middle.processes,
                cpu_us=round(middle.cpu_us, 2),
                least_us=round(of_way[0].cpu_us, 2),
                most_us=round(of_way[-1].cpu_us, 2),
                calls_per_s=middle.calls_per_s,
                rss_mib=round(middle.rss_mib, 1),
            )
        )
    return rows


def workers(calls: int, rounds: int) -> list[Row]:
    """One process, and workers, over one Redis."""
    with running_server() as redis:
        store = ("--store", f"redis://{redis.endpoint}?command_timeout=2s")
        ways = [
            ("one process", lambda: run(store, (), calls)),
            *(
                (f"--workers {count}", lambda count=count: run((*store, "--workers", str(count)), (), calls))
                for count in (1, 2, 4)
            ),
        ]
        return rows_of(ways, rounds)


def traces(calls: int, rounds: int) -> list[Row]:
    """Off and on, with and without the sampled flag; counts in memory, so that nothing else takes part."""
    with collecting() as collector:
        on = ("--traces-endpoint", collector.endpoint)
        ways = [
            ("off, no traceparent", lambda: run((), (), calls)),
            ("on, no traceparent", lambda: run(on, (), calls)),
            ("off, traceparent", lambda: run((), TRACED, calls)),
            ("on, traceparent not sampled", lambda: run(on, UNSAMPLED, calls)),
            ("on, every call sampled", lambda: run(on, TRACED, calls)),
        ]
        return rows_of(ways, rounds)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=40_000, help="for each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    try:
        loadgen.binary()
    except loadgen.NoGoCompiler as missing:
        print(missing, file=sys.stderr)
        return 1
    by_workers = workers(options.calls, options.rounds)
    by_traces = traces(options.calls, options.rounds)
    tables.show("what workers cost", by_workers)
    tables.show("what traces cost", by_traces)
    kept = {"workers": msgspec.to_builtins(by_workers), "traces": msgspec.to_builtins(by_traces)}
    machine.write(options.out / "processes.json", kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
