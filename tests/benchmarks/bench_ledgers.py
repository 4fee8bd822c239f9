"""What a take of each ledger costs: nanoseconds a call and bytes a key, keys by Zipf and all new.

python -m tests.benchmarks.bench_ledgers [--out build/bench]

Times are processor time of this thread, the best of several runs: what a call costs on a quiet core.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.quota.memory.ledger import Ledger, ledger_for
from tests.benchmarks import machine

KEYS = 100_000
CALLS = 200_000
RUNS = 5
START_US = 1_700_000_000_000_000
WINDOW_US = 60_000_000
CALLS_PER_BATCH = 32
"""Calls that share one reading of the clock."""


Call = Callable[[Limit, bytes, int, Instant], object]


class Row(msgspec.Struct, frozen=True):
    """Figures of one algorithm; keys are of 13 bytes, limits of 100 a minute.

    Attributes:
        zipf_ns: A take over 10,000 keys, the most frequent ones most often, mostly denied once they are spent.
        admitted_ns: The same, every take admitted.
        new_ns: A take of a key never seen before.
        judge_ns: A judgement that counts nothing, over the same keys.
        bytes_per_key: Allocated for each of 100,000 keys that were seen once within a second.
        estimated_bytes_per_key: The same by the ledger's own account.
    """

    algorithm: str
    zipf_ns: int
    admitted_ns: int
    new_ns: int
    judge_ns: int
    bytes_per_key: int
    estimated_bytes_per_key: int


def limit_of(algorithm: Algorithm, requests: int = 100) -> Limit:
    """So many a minute, all of them at once if need be."""
    return Limit(algorithm, requests, WINDOW_US, requests)


def zipf_keys() -> list[bytes]:
    """Calls over 10,000 keys, the most frequent first."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, 10_001)))
    drawn = random.Random(1).choices(range(10_000), cum_weights=weights, k=CALLS)
    names = new_keys()
    return [names[number] for number in drawn]


def new_keys() -> list[bytes]:
    """Every key once."""
    return [b"key-%09d" % number for number in range(CALLS)]


def call_ns(limit: Limit, method: str, keys: Sequence[bytes]) -> int:
    """Time of one call, the loop around it included; the clock moves 200 µs with each batch."""
    nows = [Instant(START_US + index // CALLS_PER_BATCH * 200, 0) for index in range(len(keys))]
    return min(run_ns(getattr(ledger_for(limit), method), limit, keys, nows) for _ in range(RUNS)) // len(keys)


def run_ns(call: Call, limit: Limit, keys: Sequence[bytes], nows: Sequence[Instant]) -> int:
    """Time of one call for each key."""
    gc.collect()
    begun_ns = time.thread_time_ns()
    for key, now in zip(keys, nows, strict=True):
        call(limit, key, 1, now)
    return time.thread_time_ns() - begun_ns


def filled(limit: Limit) -> Ledger:
    """A ledger of `KEYS` keys."""
    ledger = ledger_for(limit)
    for number in range(KEYS):
        ledger.take(limit, b"key-%09d" % number, 1, Instant(START_US + number * 10, 0))
    return ledger


def measure(algorithm: Algorithm) -> Row:
    """All figures of one algorithm."""
    limit, zipf = limit_of(algorithm), zipf_keys()
    gc.collect()
    tracemalloc.start()
    ledger = filled(limit)
    allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return Row(
        algorithm=algorithm.value,
        zipf_ns=call_ns(limit, "take", zipf),
        admitted_ns=call_ns(limit_of(algorithm, 4_000_000), "take", zipf),
        new_ns=call_ns(limit, "take", new_keys()),
        judge_ns=call_ns(limit, "judge", zipf),
        bytes_per_key=round(allocated / KEYS),
        estimated_bytes_per_key=round(ledger.bytes_used / KEYS),
    )


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    out: Path = parser.parse_args().out
    rows = [measure(algorithm) for algorithm in Algorithm]
    table = Table(title=f"Ledgers: {CALLS:,} calls, {KEYS:,} keys of 13 bytes")
    for name in Row.__struct_fields__:
        table.add_column(name.replace("_", " "), justify="left" if name == "algorithm" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in msgspec.structs.astuple(row)))
    Console(width=120).print(table)
    target = out / "ledgers.json"
    machine.write(target, {"rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
