"""The memory level: what a call costs, how often it hits, and what an entry takes, by policy.

python -m tests.benchmarks.bench_cache_l1 [--out build/bench] [--short] [--rivals]

Times are processor time of this thread, the best of several runs. With `--rivals` the program starts itself again in an
environment of its own, build/rivals-l1, into which it installs cachetools, cachebox, aiocache and cashews: all are
measured in one run. They are no dependencies.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
import venv
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.cache.l1 import L1, Eviction
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.service import CacheService
from support.rival_growth import CACHES
from support.rival_growth import KEYS as GROWTH_KEYS
from tests.benchmarks import machine

KEYS = 10_000
"""Entries that a level may hold, in all measurements but that of memory."""
RUNS = 5
VALUE = b"v" * 20
LATER_US = 10**15
ACCOUNTS = (("bytes", 10, 100_000), ("bytes", 350, 50_000), ("bytes", 1_700, 30_000), ("bytes", 1_000_000, 100))

HOME = Path("build/rivals-l1")
RIVALS = ("cachetools==8.0.2", "cachebox==6.2.10", "aiocache==0.12.3", "cashews==7.6.0")
OUR_NEEDS = ("msgspec>=0.19,<1", "PyYAML>=6.0.1,<7", "tzdata", "rich>=13.7", "zstandard>=0.23")

Call = Callable[[str], object]


class Cost(msgspec.Struct, frozen=True):
    """Nanoseconds of a call, the loop around it included.

    Attributes:
        get_ns: A hit.
        fill_ns: A put of a new key while there is room.
        replace_ns: A put of a key that is there.
        evict_ns: A put of a new key that another one has to go for.
    """

    cache: str
    get_ns: int
    fill_ns: int
    replace_ns: int
    evict_ns: int


class Held(msgspec.Struct, frozen=True):
    """Memory of 100,000 entries, a small number by a key of 43 characters, by what a process grows by."""

    cache: str
    bytes_per_key: float
    all_mib: float


class Ratio(msgspec.Struct, frozen=True):
    """Hits, of all requests; `behind_best` is what the default policy is behind the best one, in points."""

    trace: str
    s3_fifo: float
    sieve: float
    clock: float
    lru: float
    behind_best: float


class Account(msgspec.Struct, frozen=True):
    """Memory of an entry with a key of 43 characters: what the process grew by, and what the account says."""

    value: str
    entries: int
    grown_bytes_per_entry: float
    accounted_bytes_per_entry: float
    error_percent: float


def timed_ns(call: Call, keys: Sequence[str]) -> int:
    """Time of one call for each key."""
    begun_ns = time.thread_time_ns()
    for key in keys:
        call(key)
    return (time.thread_time_ns() - begun_ns) // len(keys)


def cost(name: str, new: Callable[[], tuple[Call, Call]]) -> Cost:
    """All figures of one cache, whose get and put `new` makes."""
    keys = [f"key-{number:09}" for number in range(3 * KEYS)]
    rows = []
    for _ in range(RUNS):
        get, put = new()
        fill = timed_ns(put, keys[:KEYS])
        replace = timed_ns(put, keys[:KEYS])
        hit = timed_ns(get, keys[:KEYS])
        rows.append((hit, fill, replace, timed_ns(put, keys[KEYS:])))
    return Cost(name, *(min(column) for column in zip(*rows, strict=True)))


def ours(policy: Eviction) -> tuple[Call, Call]:
    """A level of this policy, called as a cache calls it."""
    level: L1[bytes] = L1(KEYS, policy=policy)
    put, get = level.put, level.get
    return lambda key: get(key, 1), lambda key: put(key, VALUE, now_us=1, expires_us=LATER_US)


def rival(module: str, name: str, *arguments: int) -> tuple[Call, Call]:
    """A cache that is a mapping."""
    cache = getattr(importlib.import_module(module), name)(KEYS, *arguments)
    return cache.get, lambda key: cache.__setitem__(key, VALUE)


async def timed_async_ns(call: Callable[[str], Awaitable[object]], keys: Sequence[str]) -> int:
    """`timed_ns` of coroutines."""
    begun_ns = time.thread_time_ns()
    for key in keys:
        await call(key)
    return (time.thread_time_ns() - begun_ns) // len(keys)


AsyncCalls = tuple[Callable[[str], Awaitable[object]], Callable[[str], Awaitable[object]]]


async def async_cost(name: str, new: Callable[[], Awaitable[AsyncCalls]]) -> Cost:
    """`cost` of a cache with coroutines."""
    keys = [f"key-{number:09}" for number in range(3 * KEYS)]
    rows = []
    for _ in range(RUNS):
        get, put = await new()
        fill = await timed_async_ns(put, keys[:KEYS])
        replace = await timed_async_ns(put, keys[:KEYS])
        hit = await timed_async_ns(get, keys[:KEYS])
        rows.append((hit, fill, replace, await timed_async_ns(put, keys[KEYS:])))
    return Cost(name, *(min(column) for column in zip(*rows, strict=True)))


async def our_service() -> AsyncCalls:
    """The whole cache, memory alone."""
    cache: CacheService[bytes] = CacheService(CacheSettings(max_entries=KEYS))
    return cache.get, lambda key: cache.set(key, VALUE)


async def of_aiocache() -> AsyncCalls:
    """Without a bound: its released version has none."""
    cache = importlib.import_module("aiocache").SimpleMemoryCache()
    return cache.get, lambda key: cache.set(key, VALUE)


async def of_cashews() -> AsyncCalls:
    """In memory, bounded, with a lifetime, as its users write it."""
    cache = importlib.import_module("cashews").Cache()
    cache.setup("mem://", size=KEYS)
    return cache.get, lambda key: cache.set(key, VALUE, expire=3_600)


def async_costs() -> Iterable[Cost]:
    """Ours with all that is above the memory level, and what rivals there are."""
    yield asyncio.run(async_cost("CacheService, awaited", our_service))
    for module, new in (("aiocache", of_aiocache), ("cashews", of_cashews)):
        if importlib.util.find_spec(module) is not None:
            yield asyncio.run(async_cost(f"{module} in memory, awaited", new))


def held() -> Iterable[Held]:
    """Ours, and what rivals there are."""
    for cache in CACHES:
        if cache.startswith("L1") or importlib.util.find_spec(cache.partition(" ")[0]) is not None:
            answer = in_process("rival_growth", cache)
            each = answer["bytes_per_key"]
            yield Held(cache, each, round(each * GROWTH_KEYS / 2**20, 1))


def costs() -> Iterable[Cost]:
    """Ours by policy, and what rivals there are."""
    for policy in Eviction:
        yield cost(f"L1 {policy.value}", lambda policy=policy: ours(policy))  # type: ignore[misc]
    for module, name, arguments in (
        ("cachetools", "LRUCache", ()),
        ("cachetools", "TTLCache", (60,)),
        ("cachebox", "LRUCache", ()),
        ("cachebox", "TTLCache", (60,)),
    ):
        if importlib.util.find_spec(module) is not None:
            yield cost(f"{module} {name}", lambda m=module, n=name, a=arguments: rival(m, n, *a))  # type: ignore[misc]


def zipf(draw: random.Random, keys: int, exponent: float, count: int) -> list[int]:
    """Requests for keys of which the most frequent is the first."""
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return draw.choices(range(keys), cum_weights=weights, k=count)


def traces(count: int) -> Iterable[tuple[str, list[int]]]:
    """What is asked for, in order; numbers from ten million on are asked for once, or come with a scan."""
    draw = random.Random(7)
    far = 10_000_000
    yield "the service's own: Zipf 1.1, 10,000 keys", zipf(draw, 10_000, 1.1, count)
    yield "Zipf 0.8, 1,000,000 keys", zipf(draw, 1_000_000, 0.8, count)
    yield "Zipf 1.0, 1,000,000 keys", zipf(draw, 1_000_000, 1.0, count)
    usual = zipf(draw, 100_000, 1.0, count)
    yield "30 % asked for once", [far + at if draw.random() < 0.3 else key for at, key in enumerate(usual)]
    shifted = count // 6
    yield "popularity shifts 6 times", [(key + at // shifted * 37_000) % 100_000 for at, key in enumerate(usual)]
    yield "popularity drifts", [(key + at // 20) % 1_000_000 for at, key in enumerate(zipf(draw, 100_000, 0.9, count))]
    scans = [[key] if at % shifted else [key, *range(far + at, far + at + KEYS)] for at, key in enumerate(usual)]
    yield "scans of 10,000 between", list(itertools.chain.from_iterable(scans))
    yield "loop of 15,000 between", [far + at // 2 % (KEYS * 3 // 2) if at % 2 else key for at, key in enumerate(usual)]
    yield "loop of 13,000", [at % (KEYS * 13 // 10) for at in range(count)]


def hit_ratio(policy: Eviction, names: Sequence[str]) -> float:
    """Hits of a level that is filled at each miss."""
    level: L1[None] = L1(KEYS, policy=policy)
    for name in names:
        if level.get(name, 1) is None:
            level.put(name, None, now_us=1, size_bytes=0)
    return level.hits / len(names)


def ratio(trace: str, requests: Sequence[int]) -> Ratio:
    """Hit ratios of all policies on one trace."""
    names = [f"k{number}" for number in requests]
    found = {policy: round(hit_ratio(policy, names), 4) for policy in Eviction}
    behind = round(100 * (max(found.values()) - found[Eviction.S3FIFO]), 2)
    return Ratio(trace, *(found[policy] for policy in Eviction), behind)


def in_process(program: str, *arguments: str) -> dict[str, float]:
    """What a program of tests/support prints."""
    command = [sys.executable, "-m", f"support.{program}", *arguments]
    path = f"{machine.ROOT}:{machine.ROOT / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def account(kind: str, size_bytes: int, entries: int) -> Account:
    """Fill a level in a process of its own."""
    answer = in_process("memory_growth", kind, str(size_bytes), str(entries))
    grown, accounted = answer["grown_bytes"], answer["accounted_bytes"]
    return Account(
        f"{size_bytes:,} B",
        entries,
        round(grown / entries, 1),
        round(accounted / entries, 1),
        round(100 * (accounted - grown) / grown, 2),
    )


def show(title: str, rows: Sequence[msgspec.Struct]) -> None:
    """Print rows as a table."""
    table = Table(title=title)
    for at, name in enumerate(rows[0].__struct_fields__):
        table.add_column(name.replace("_", " "), justify="right" if at else "left")
    for row in rows:
        table.add_row(*(str(value) for value in msgspec.structs.astuple(row)))
    Console(width=130).print(table)


def among_rivals() -> int:
    """Run again where all of them are."""
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *RIVALS, *OUR_NEEDS]
    subprocess.run(install, check=True)
    command = [python, "-m", "tests.benchmarks.bench_cache_l1", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, "RIVALS": "here"}, check=False).returncode


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--short", action="store_true", help="a tenth of the requests")
    parser.add_argument("--rivals", action="store_true", help="in an environment that has them")
    options = parser.parse_args()
    if options.rivals and "RIVALS" not in os.environ:
        return among_rivals()
    count = 60_000 if options.short else 600_000
    measured = {
        "costs": [*costs(), *async_costs()],
        "held": list(held()),
        "ratios": [ratio(name, requests) for name, requests in traces(count)],
        "accounts": [account(*each) for each in ACCOUNTS],
    }
    show(f"A call, {KEYS:,} entries", measured["costs"])
    show(f"Hit ratio, {KEYS:,} entries, {count:,} requests", measured["ratios"])
    show("Memory of 100,000 entries", measured["held"])
    show("Memory of an entry, key of 43 characters", measured["accounts"])
    machine.write(options.out / "cache_l1.json", {name: msgspec.to_builtins(rows) for name, rows in measured.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
