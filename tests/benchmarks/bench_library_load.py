"""Load scenarios of the library: memory over an hour of churn, warming on and off, compression on and off.

python -m tests.benchmarks.bench_library_load [--out build/bench] [--short]

(50,000 concurrent checks and several processes on one Redis are in `bench_adapter`.) Each prints a table, writes JSON
and draws a plot.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
import tracemalloc
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.adapter import RateLimitConfig, RateLimitingCacheAdapter, RateLimitRequest
from ratelimit_service.cache import CompressionEngine, Method
from support.clocks import ManualClock
from support.redis_servers import running_server
from tests.benchmarks import figures, machine, tables
from tests.benchmarks.bench_adapter import connected

SECONDS = 3_600
NEW_KEYS_PER_S = 300
COLD_KEYS = 300
SECOND_US = 1_000_000


class Held(msgspec.Struct, frozen=True):
    """After so many minutes of the limiter's time: what Python has allocated, and how many counters are held."""

    algorithm: str
    minute: int
    mib: float
    keys: int


class Warmth(msgspec.Struct, frozen=True):
    """First checks of keys over leased Redis: share that asked nobody, and their latency, µs."""

    warming: str
    keys: int
    at_once: float
    p50_us: int
    p95_us: int


class Packed(msgspec.Struct, frozen=True):
    """Values of JSON: bytes after packing by bytes before, and what packing and unpacking cost."""

    method: str
    value_bytes: int
    packed_bytes: int
    ratio: float
    compress_us: float
    decompress_us: float


def held(algorithm: str, seconds: int) -> list[Held]:
    """Traffic of keys that come and go, an hour of it in virtual time."""
    clock = ManualClock()
    limiter = RateLimitingCacheAdapter(clock=clock)
    chance = random.Random(7)
    regulars = [f"regular:{number}" for number in range(2_000)]
    rows = []
    number = 0
    tracemalloc.start()
    for second in range(seconds):
        clock.advance(SECOND_US)
        for _ in range(NEW_KEYS_PER_S):
            number += 1
            limiter.check_now(f"visitor:{number}", 100, 60_000, algorithm=algorithm)
        for key in chance.choices(regulars, k=50):
            limiter.check_now(key, 100, 60_000, algorithm=algorithm)
        if second % (seconds // 12) == 0:
            gc.collect()
            rows.append(
                Held(
                    algorithm, second // 60, round(tracemalloc.get_traced_memory()[0] / 2**20, 2), limiter.stats().keys
                )
            )
    tracemalloc.stop()
    return rows


async def warmth(url: str, namespace: str, *, warm: bool) -> Warmth:
    """Check keys for the first time, in batches as a program wakes up, warmed just before or not."""
    config = RateLimitConfig(namespace=namespace, horizon_ms=2_000, deadline_ms=5_000)
    async with RateLimitingCacheAdapter.from_url(f"{url}?command_timeout=4s", config) as limiter:
        await connected(limiter)
        keys = [f"user:{number}" for number in range(COLD_KEYS)]
        took: list[int] = []
        at_once = 0
        for start in range(0, COLD_KEYS, 100):
            some = keys[start : start + 100]
            if warm:
                wanted = [RateLimitRequest(key, 1_000, 60_000, hits=10) for key in some]
                await limiter.warmup_rate_limit_keys(wanted, per_second=5_000)
            for key in some:
                began_ns = time.perf_counter_ns()
                result = limiter.check_now(key, 1_000, 60_000)
                at_once += result is not None
                if result is None:
                    await limiter.check_rate_limit(key, 1_000, 60_000)
                took.append((time.perf_counter_ns() - began_ns) // 1_000)
        took.sort()
        return Warmth(
            warming="on" if warm else "off",
            keys=COLD_KEYS,
            at_once=round(at_once / COLD_KEYS, 3),
            p50_us=took[len(took) // 2],
            p95_us=took[len(took) * 95 // 100],
        )


def packed(method: Method, level: int | None, size: int, *, rounds: int) -> Packed:
    """Rows of a JSON API, by one engine."""
    chance = random.Random(3)
    rows: list[dict[str, object]] = []
    while len(value := msgspec.json.encode(rows)) < size:
        number = chance.randrange(10**6)
        rows.append({"id": number, "name": f"user {number}", "plan": chance.choice(["free", "gold"]), "active": True})
    engine = CompressionEngine(method, level=level, threshold_bytes=0)
    small = engine.compress(value)
    began_s = time.process_time()
    for _ in range(rounds):
        engine.compress(value)
    compress_s = time.process_time() - began_s
    began_s = time.process_time()
    for _ in range(rounds):
        engine.decompress(small)
    decompress_s = time.process_time() - began_s
    return Packed(
        method=method.name.lower() if level is None else f"{method.name.lower()} {level}",
        value_bytes=len(value),
        packed_bytes=len(small),
        ratio=round(len(value) / len(small), 2),
        compress_us=round(compress_s / rounds * 1e6, 1),
        decompress_us=round(decompress_s / rounds * 1e6, 1),
    )


def main() -> int:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--short", action="store_true", help="to see that it runs, not to quote")
    options = parser.parse_args()
    seconds = 240 if options.short else SECONDS
    kept = [row for name in ("fixed_window", "sliding_window", "token_bucket") for row in held(name, seconds)]
    tables.show("memory over an hour of churn", kept)
    with running_server() as server:
        url = f"redis://{server.endpoint}"
        warm = [asyncio.run(warmth(url, f"bench-{on}", warm=on)) for on in (False, True)]
    tables.show("first checks over leased Redis", warm)
    engines = ((Method.STORED, None), (Method.GZIP, 4), (Method.GZIP, 6), (Method.ZSTD, 3))
    packs = [packed(*each, size, rounds=200) for size in (356, 1_700, 10_000) for each in engines]
    tables.show("values of JSON, packed", packs)
    found = {"memory": kept, "warming": warm, "compression": packs}
    machine.write(options.out / "library-load.json", {name: msgspec.to_builtins(rows) for name, rows in found.items()})
    series: dict[str, list[tuple[float, float]]] = {}
    for row in kept:
        series.setdefault(row.algorithm, []).append((row.minute, row.mib))
    images = options.out / "images"
    figures.lines(
        images / "library-memory.svg",
        "An hour of keys that come and go",
        "MiB allocated",
        "minute",
        series,
    )
    figures.bars(
        images / "library-warming.svg",
        "First check of a key over leased Redis",
        "median, µs",
        [(f"warming {row.warming}", row.p50_us) for row in warm],
    )
    figures.bars(
        images / "library-compression.svg",
        "JSON of 1.7 KB in the cache",
        "bytes",
        [(row.method, row.packed_bytes) for row in packs if 1_500 < row.value_bytes < 3_000],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
