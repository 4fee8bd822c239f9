"""What a check of the library's limiter costs, beside what users have now.

python -m tests.benchmarks.bench_adapter [--out build/bench] [--short]

CPU is process time of the process that checks, best of several rounds; calls per second are what one core would do at
that cost. Over Redis, with 100 keys, the wall time of rivals is their round trips, so both are told. The others are
installed from the package index into an environment of their own (`compare_histories`).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.adapter import RateLimitConfig, RateLimitingCacheAdapter, RateLimitRequest
from ratelimit_service.library.measures import DURATION_BOUNDS_US, percentiles
from ratelimit_service.telemetry.histogram import Histogram
from support.redis_servers import running_server
from tests.benchmarks import figures, machine, tables
from tests.benchmarks.compare_histories import RIVALS, rivals

CALLERS = Path(__file__).with_name("adapter_callers.py")
KEYS = 1_000
REQUESTS = 1_000_000
SPARSE_KEYS = 100_000
CONCURRENT = 50_000
CROWD_KEYS = 100
SHARED_KEYS = 100

Contender = tuple[str, str]
"""Limiter, its name for the algorithm."""

OURS = (("tidegate", "fixed_window"), ("tidegate", "sliding_window"), ("tidegate", "token_bucket"))
THEIRS = (
    ("limits", "FixedWindowRateLimiter"),
    ("limits", "SlidingWindowCounterRateLimiter"),
    ("throttled-py", "fixed_window"),
    ("throttled-py", "sliding_window"),
    ("throttled-py", "token_bucket"),
)


class Cost(msgspec.Struct, frozen=True):
    """One limiter: CPU and wall microseconds per check, and checks per second of a core at that CPU."""

    limiter: str
    version: str
    algorithm: str
    store: str
    cpu_us: float
    core_checks_per_s: int
    wall_us: float
    checks_per_round_trip: float | None = None


class Scale(msgspec.Struct, frozen=True):
    """Several processes on one Redis and the same keys, leased."""

    processes: int
    cpu_us: float
    checks_per_s_by_cpu: int
    checks_per_s_by_wall: int
    degraded: int


class Crowd(msgspec.Struct, frozen=True):
    """Concurrent checks: how long until all were answered, and the limiter's own percentiles."""

    store: str
    checks: int
    wall_ms: int
    cpu_ms: int
    p50_us: int
    p95_us: int
    p99_us: int
    degraded: int


class Memory(msgspec.Struct, frozen=True):
    """What a key takes: Python's own account of all that was allocated, by key."""

    algorithm: str
    keys: int
    key_characters: int
    bytes_per_key: int
    mib: float


def started(contender: Contender, url: str, python: Path, *, short: bool) -> subprocess.Popen[bytes]:
    """A process that measures one limiter."""
    limiter, strategy = contender
    is_slow = bool(url) and limiter != "tidegate"
    plan = {
        "limiter": limiter,
        "strategy": strategy,
        "url": url,
        "requests": REQUESTS * (1_000 if limiter == "tidegate" and url else 1),
        "keys": SHARED_KEYS if url else KEYS,
        "times": 2 if is_slow else (100 if short else 300) if url else 10 if short else 50,
        "rounds": 3 if short else 5,
        "settle_s": 1.0 if url else 0.0,
    }
    command = [sys.executable if limiter == "tidegate" else str(python), str(CALLERS)]
    environment = {"PYTHONPATH": str(machine.ROOT), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    process.stdin.write(json.dumps(plan).encode())
    process.stdin.close()
    return process


def ended(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """What a process found."""
    assert process.stdout is not None
    found: dict[str, float] = json.load(process.stdout)
    if process.wait():
        raise RuntimeError("a caller failed")
    return found


def costs(contenders: Sequence[Contender], url: str, python: Path, *, short: bool) -> list[Cost]:
    """Every contender, one after the other."""
    rows = []
    for contender in contenders:
        found = ended(started(contender, url, python, short=short))
        limiter, algorithm = contender
        trips = found.get("round_trips")
        rows.append(
            Cost(
                limiter=limiter,
                version=next((pin.partition("==")[2] for pin in RIVALS if pin.startswith(limiter)), "this"),
                algorithm=algorithm,
                store=("Redis, leased" if limiter == "tidegate" else "Redis") if url else "memory",
                cpu_us=round(found["cpu_us"], 3),
                core_checks_per_s=round(1e6 / found["cpu_us"]),
                wall_us=round(found["wall_us"], 2),
                checks_per_round_trip=round(found["checks"] / trips, 1) if trips else None,
            )
        )
    return rows


def scaled(url: str, *, short: bool) -> list[Scale]:
    """One, two and four processes."""
    rows = []
    for count in (1, 2, 4):
        running = [started(OURS[1], url, Path(sys.executable), short=short) for _ in range(count)]
        found = [ended(process) for process in running]
        rows.append(
            Scale(
                processes=count,
                cpu_us=round(sum(each["cpu_us"] for each in found) / count, 3),
                checks_per_s_by_cpu=round(sum(1e6 / each["cpu_us"] for each in found)),
                checks_per_s_by_wall=round(sum(1e6 / each["wall_us"] for each in found)),
                degraded=round(sum(each["degraded"] for each in found)),
            )
        )
    return rows


async def connected(limiter: RateLimitingCacheAdapter) -> None:
    """Wait until the store is there."""
    for _ in range(1_000):
        if limiter.health().levels["quota"].up:
            return
        await asyncio.sleep(0.01)


async def crowd(store: str, limiter: RateLimitingCacheAdapter, *, warm: bool = False) -> Crowd:
    """All at once, over 100 keys that were checked once; warm: the hits were taken ahead."""
    async with limiter:
        await connected(limiter)
        await asyncio.gather(*(limiter.check_rate_limit(*_check(number)) for number in range(CROWD_KEYS)))
        if warm:
            key, limit, window_ms = zip(*(_check(number) for number in range(CROWD_KEYS)), strict=True)
            wanted = map(RateLimitRequest, key, limit, window_ms)
            ahead = [msgspec.structs.replace(each, hits=2 * CONCURRENT // CROWD_KEYS) for each in wanted]
            await limiter.warmup_rate_limit_keys(ahead, per_second=100_000)
        before = Histogram(DURATION_BOUNDS_US)
        before.counts = list(limiter._checks.durations.counts)
        degraded = limiter.stats().degraded
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        results = await asyncio.gather(*(limiter.check_rate_limit(*_check(number)) for number in range(CONCURRENT)))
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        after = Histogram(DURATION_BOUNDS_US)
        after.counts = [now - then for now, then in zip(limiter._checks.durations.counts, before.counts, strict=True)]
        spent = percentiles(after)
        return Crowd(
            store=store,
            checks=len(results),
            wall_ms=round(wall_s * 1_000),
            cpu_ms=round(cpu_s * 1_000),
            p50_us=spent.p50_us,
            p95_us=spent.p95_us,
            p99_us=spent.p99_us,
            degraded=limiter.stats().degraded - degraded,
        )


def _check(number: int) -> tuple[str, int, int]:
    return f"user:{number % CROWD_KEYS}", REQUESTS * 1_000, 3_600_000


def memory(algorithm: str, characters: int) -> Memory:
    """Sparse keys, each checked once; the last 13 characters vary."""
    limiter = RateLimitingCacheAdapter.in_memory()
    limiter.check_now("first", 100, 3_600_000, algorithm=algorithm)
    head = "k" * (characters - 13)
    gc.collect()
    tracemalloc.start()
    for number in range(SPARSE_KEYS):
        limiter.check_now(f"{head}{number:013d}", 100, 3_600_000, algorithm=algorithm)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Memory(algorithm, SPARSE_KEYS, characters, used // SPARSE_KEYS, round(used / 2**20, 1))


def found_contenders() -> tuple[Path, Sequence[Contender]]:
    """Ours and the rivals, with the interpreter that has them; ours alone where they cannot be installed."""
    try:
        return rivals(), (*OURS, *THEIRS)
    except subprocess.CalledProcessError:
        print("the rivals could not be installed: ours alone", file=sys.stderr)
        return Path(sys.executable), OURS


def main() -> int:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--short", action="store_true", help="to see that it runs, not to quote")
    options = parser.parse_args()
    python, contenders = found_contenders()
    in_memory = costs(contenders, "", python, short=options.short)
    tables.show("a check, in memory", in_memory)
    with running_server() as server:
        url = f"redis://{server.endpoint}"
        over_redis = costs(contenders, url, python, short=options.short)
        tables.show("a check, over Redis", over_redis)
        scales = scaled(url, short=options.short)
        tables.show("processes on one Redis, sliding window", scales)
        crowds = [asyncio.run(crowd("memory", RateLimitingCacheAdapter.in_memory()))]
        for warm, name in ((False, "Redis, nothing in hand"), (True, "Redis, warmed")):
            # A horizon in which warming and the checks fit on a busy machine.
            config = RateLimitConfig(namespace=name, deadline_ms=10_000, horizon_ms=10_000)
            shared = RateLimitingCacheAdapter.from_url(f"{url}?command_timeout=8s", config)
            crowds.append(asyncio.run(crowd(name, shared, warm=warm)))
    tables.show(f"{CONCURRENT:,} concurrent checks", crowds)
    takes = [memory(algorithm, characters) for _, algorithm in OURS for characters in (13, 43)]
    tables.show("memory of keys", takes)
    found = {"memory": in_memory, "redis": over_redis, "processes": scales, "concurrent": crowds, "keys": takes}
    machine.write(options.out / "adapter.json", {name: msgspec.to_builtins(rows) for name, rows in found.items()})
    bars = [(f"{row.limiter}\n{row.algorithm.removesuffix('RateLimiter')}", row.cpu_us) for row in in_memory]
    figures.bars(options.out / "images" / "adapter-check.svg", "A check in memory", "CPU µs per check", bars)
    figures.bars(
        options.out / "images" / "adapter-processes.svg",
        "Processes on one Redis, sliding window, leased",
        "checks per second by CPU",
        [(str(row.processes), row.checks_per_s_by_cpu) for row in scales],
    )
    figures.bars(
        options.out / "images" / "adapter-concurrent.svg",
        f"{CONCURRENT:,} concurrent checks",
        "ms until all are answered, CPU",
        [(row.store, row.cpu_ms) for row in crowds],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
