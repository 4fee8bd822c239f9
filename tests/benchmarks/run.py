"""`make bench`: every measurement, as tables here and as JSON in build/bench.

Figures of one run belong together; compare ratios, not absolute values of different machines.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from ratelimit_service.app import TRANSPORTS
from tests.benchmarks import loadgen, machine, service_load

MICRO = ("bench_ledgers", "bench_limiter", "bench_reload", "bench_scrape")


def service(seconds: int | None, only: str) -> list[dict[str, object]]:
    """Every scenario over every transport."""
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    rows: list[dict[str, object]] = []
    for transport in TRANSPORTS:
        with service_load.server(transport, core=server_core) as target:
            idle = target.rss_mib()
            for scenario in track(service_load.SCENARIOS, description=f"{transport}"):
                if only and only not in scenario.name:
                    continue
                figures = service_load.measure(scenario, target, seconds=seconds or scenario.seconds, core=load_core)
                facts = {"transport": transport, "scenario": scenario.name, "note": scenario.note}
                rows.append({**facts, "idle_rss_mib": round(idle, 1), **figures})
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Print the rows as a table."""
    table = Table(title="service over gRPC (server on one core, generator on another)")
    latencies = ("p50_ms", "p95_ms", "p99_ms")
    columns = ("transport", "scenario", "calls_per_s", "ok", "over", "grpc_errors", *latencies, "rss_mib")
    for column in columns:
        table.add_column(column, justify="left" if column in ("transport", "scenario") else "right")
    for row in rows:
        table.add_row(*(f"{row[c]:,}" if isinstance(row[c], int | float) else str(row[c]) for c in columns))
    Console(width=150).print(table)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=None, help="measured time of each scenario (default: its own)")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--skip-micro", action="store_true", help="service only")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    try:
        rows = service(options.seconds, options.only)
    except loadgen.NoGoCompiler as missing:
        print(missing, file=sys.stderr)
        return 1
    show(rows)
    target = options.out / "service.json"
    machine.write(target, {"rows": rows})
    if not options.skip_micro:
        for name in MICRO:
            subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=True)
    print(f"written: {options.out}/*.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
