"""`make bench`: every measurement, as tables here and as JSON in build/bench.

Figures of one run belong together; compare ratios, not absolute values of different machines.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.progress import track

from ratelimit_service.assembly.transports import TRANSPORTS
from tests.benchmarks import loadgen, machine, processes, published, tables
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.service_load import Row, measure

PARTS = {
    "bench_disturbed": ("--seconds", "2", "--rounds", "1"),
    "bench_c_server": ("--seconds", "1", "--rounds", "1"),
    "bench_h2load": ("--calls", "20000"),
    "bench_memory": ("--calls", "200000"),
    "bench_abuse": ("--seconds", "3", "--rounds", "1"),
    "bench_ledgers": (),
    "bench_redis_scripts": ("--orders", "20000"),
    "bench_group_commit": ("--seconds", "0.5"),
    "bench_shared": ("--calls", "20000", "--steady-seconds", "2"),
    "bench_growth": ("--requests", "1000"),
    "bench_replicas": ("--calls", "4000"),
    "bench_workers": ("--calls", "4000", "--rounds", "1"),
    "bench_limiter": ("--calls", "20000"),
    "bench_reload": ("--policies", "100"),
    "bench_scrape": ("--series", "5000"),
    "bench_cache_l1": ("--short", "--rivals"),
    "bench_cache_parts": (),
    "bench_adapter": ("--short",),
    "bench_library_load": ("--short",),
}
"""Programs that can be run alone too and keep a file of figures each, with what makes them quick."""
QUIET_LOAD = 0.5
SHOWN = (
    "transport", "scenario", "reach", "calls_per_s", "cpu_us", "core_calls_per_s", "allowed", "denied", "refused",
    "shared", "grpc_errors", "p50_ms", "p95_ms", "p99_ms", "rss_mib",
)  # fmt: skip


def service(seconds: float | None, only: str, rounds: int, transports: Sequence[str]) -> list[Row]:
    """Every scenario over some transports; those of one scenario one after the other, so that they compare."""
    cores = processes.cores()
    asked = [scenario for scenario in SCENARIOS if only in scenario.name]
    rows = []
    for scenario in track(asked, description="service"):
        runs = [
            [measure(scenario, transport, seconds=seconds, cores=cores) for transport in transports]
            for _ in range(rounds)
        ]
        rows += [middle(transport_runs) for transport_runs in zip(*runs, strict=True)]
    return rows


def middle(runs: Sequence[Row]) -> Row:
    """The run in the middle by p99: one whole run, no mixture."""
    return sorted(runs, key=lambda row: row.p99_ms)[len(runs) // 2]


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=None, help="measured time of each scenario (default: its own)")
    parser.add_argument("--rounds", type=int, default=1, help="told is the one in the middle by p99")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="this one only (default: all)")
    parser.add_argument("--service-only", action="store_true", help="leave the other programs out")
    parser.add_argument("--quick", action="store_true", help="a second each: to see that it runs, not to quote")
    parser.add_argument("--long", action="store_true", help="50,000,000 calls where memory is measured")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    try:
        loadgen.binary()
    except loadgen.NoGoCompiler as missing:
        print(missing, file=sys.stderr)
        return 1
    if machine.LOAD_BEFORE > QUIET_LOAD:
        print(f"this machine is busy (load {machine.LOAD_BEFORE:.1f}): latencies will tell of that", file=sys.stderr)
    seconds = 1 if options.quick else options.seconds
    rows = service(seconds, options.only, options.rounds, options.transport or list(TRANSPORTS))
    tables.show("service over gRPC: server on one core, generator on another, a server for each row", rows, SHOWN)
    tables.show(f"others, {published.SOURCE}", published.TABLE)
    others = {"source": published.SOURCE, "rows": msgspec.to_builtins(published.TABLE)}
    machine.write(
        options.out / "service.json", {"rounds": options.rounds, "rows": msgspec.to_builtins(rows), "published": others}
    )
    for name, quickly in PARTS.items() if not options.service_only else ():
        how = quickly if options.quick else ("--long",) if options.long and name == "bench_memory" else ()
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--out", str(options.out), *how]
        subprocess.run(command, check=True)
    print(f"written: {options.out}/*.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
