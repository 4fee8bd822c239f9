"""h2load against the service: 1, 100 and 1,000 connections with 1, 16 and 100 calls in flight on each.

    python -m tests.benchmarks.bench_h2load [--calls 100000]

h2load sends one fixed request and reads no `grpc-status`; that every call was decided is checked in the metrics.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import msgspec

from tests.benchmarks import h2load, machine, processes, tables
from tests.benchmarks.service_load import Server, server

CONNECTIONS = (1, 100, 1_000)
STREAMS = (1, 16, 100)
ONE_AT_A_TIME_SHARE = 0.1
"""Of the calls, where only one is in flight at a time: each costs a way there and back."""


class Row(msgspec.Struct, frozen=True):
    """One pair of numbers.

    Attributes:
        connections, streams: Calls in flight are the product.
        calls: Sent, over all connections.
        not_200: Calls that did not end with status 200, or not at all.
        undecided: Calls that the service did not decide.
        cpu_us: Processor time of the server per call, that of opening the connections included.
        mean_ms, max_ms: From a request's first byte to its answer's end.
        rss_mib: Of the server afterwards.
    """

    connections: int
    streams: int
    calls: int
    not_200: int
    undecided: int
    calls_per_s: int
    cpu_us: float
    mean_ms: float
    max_ms: float
    rss_mib: float


def measure(target: Server, connections: int, streams: int, calls: int) -> Row:
    """One cell."""
    in_flight = connections * streams
    sent = max(round(calls * (ONE_AT_A_TIME_SHARE if in_flight == 1 else 1)), in_flight)
    decided, cpu_s = target.metric("tidegate_decisions_total"), processes.cpu_s(target.pid)
    core = processes.cores().load
    figures = h2load.run(target.grpc_port, calls=sent, connections=connections, streams=streams, core=core)
    cpu_us = (processes.cpu_s(target.pid) - cpu_s) * 1e6 / sent
    return Row(
        connections=connections,
        streams=streams,
        calls=sent,
        not_200=figures.failed,
        undecided=sent - round(target.metric("tidegate_decisions_total") - decided),
        calls_per_s=round(figures.calls_per_s),
        cpu_us=round(cpu_us, 2),
        mean_ms=figures.mean_ms,
        max_ms=figures.max_ms,
        rss_mib=processes.rss_mib(target.pid),
    )


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000, help="of each pair")
    parser.add_argument("--transport", default="native")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    if not h2load.is_here():
        print(f"bench_h2load {h2load.MISSING}", file=sys.stderr)
        return 0
    with server(options.transport, core=processes.cores().server) as target:
        rows = [measure(target, *pair, options.calls) for pair in itertools.product(CONNECTIONS, STREAMS)]
    tables.show(f"{options.transport} under h2load, one server for all rows", rows)
    machine.write(options.out / "h2load.json", {"transport": options.transport, "rows": msgspec.to_builtins(rows)})
    return 0 if all(row.not_200 == row.undecided == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
