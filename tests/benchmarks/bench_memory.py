"""Memory of the service: idle, with 1,000 idle connections, and after many calls over 2,000,000 keys.

    python -m tests.benchmarks.bench_memory [--long]

Bounds of the store are as they are by default. `--long` makes 50,000,000 calls instead of 2,000,000. The keys' window
is 30 s, so once the load is over all of them end; how far the memory then goes back is told too.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from tests.benchmarks import loadgen, machine, processes, tables
from tests.benchmarks.idle_connections import idle_connections
from tests.benchmarks.scenarios import CLOSED
from tests.benchmarks.service_load import Server, server

CONNECTIONS = 1_000
KEYS = 2_000_000
CALLS, LONG_CALLS = 2_000_000, 50_000_000
LONGEST_WAIT_S = 150
"""For all keys to end: their window of 30 s, and the store's own look at each of them."""


class Row(msgspec.Struct, frozen=True):
    """Memory in one state.

    Attributes:
        reach: What the design asks for; empty: nothing.
        rss_mib: Resident memory of the process.
        peak_mib: The most that was ever resident.
        watcher_mib: Of the process beside it that reads policies.
        store_mib: What the store believes that its counters take; its bound in `reach`.
        store_keys: Counters that live.
    """

    state: str
    reach: str
    rss_mib: float
    peak_mib: float
    watcher_mib: float
    store_mib: float
    store_keys: int


def row(target: Server, state: str, reach: str = "") -> Row:
    """Memory now."""
    # Before the page is asked for.
    rss_mib, peak_mib = processes.rss_mib(target.pid), processes.peak_rss_mib(target.pid)
    watcher_mib = processes.children_rss_mib(target.pid)
    store_mib = round(target.metric("tidegate_store_bytes") / 2**20, 1)
    return Row(state, reach, rss_mib, peak_mib, watcher_mib, store_mib, round(target.metric("tidegate_store_keys")))


def wait_until_empty(target: Server) -> float:
    """Until no key lives, or `LONGEST_WAIT_S`; seconds."""
    began = time.monotonic()
    while target.metric("tidegate_store_keys") > 0 and time.monotonic() - began < LONGEST_WAIT_S:
        time.sleep(1)
    return time.monotonic() - began


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--long", dest="calls", action="store_const", const=LONG_CALLS, help=f"{LONG_CALLS:,} calls")
    parser.add_argument("--transport", default="native")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    calls, cores = options.calls, processes.cores()
    rows = []
    with server(options.transport, core=cores.server) as target:
        time.sleep(1)
        rows.append(row(target, "idle", "35 MiB"))
        with idle_connections(target.grpc_port, CONNECTIONS):
            rows.append(row(target, f"{CONNECTIONS:,} idle connections", "70 MiB"))
        arguments = ("-addr", target.grpc, *CLOSED, "-zipf", "0", "-keys", str(KEYS), "-descriptor", "session={}")
        figures = loadgen.run(("-calls", str(calls), *arguments), core=cores.load, timeout_s=7_200)
        bound = f"store {target.metric('tidegate_store_max_bytes') / 2**20:,.0f} MiB"
        rows.append(row(target, f"after {calls:,} calls over {KEYS:,} keys", bound))
        waited_s = wait_until_empty(target)
        rows.append(row(target, f"{waited_s:.0f} s later", bound))
    tables.show(f"memory, {options.transport}", rows)
    facts = {"transport": options.transport, "calls": calls, "keys": KEYS, "load": msgspec.to_builtins(figures)}
    machine.write(options.out / "memory.json", {**facts, "rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
