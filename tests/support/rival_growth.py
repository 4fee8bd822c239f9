"""What 100,000 keys of 43 characters take in a cache, by what the process grows by.

python -m support.rival_growth CACHE, in an environment that has it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

KEYS = 100_000
NUMBER = 7


def resident_bytes() -> int:
    """Memory of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no Rss")


def keys(first: int, count: int) -> Iterable[str]:
    """So many keys of 43 characters."""
    return (f"rl:default:tenant_{number:06}:path_/v1/items:GET" for number in range(first, first + count))


def level() -> Callable[[Iterable[str]], Any]:
    """The memory level."""
    from ratelimit_service.cache.l1 import L1

    held: L1[int] = L1(KEYS * 2)

    def fill(names: Iterable[str]) -> Any:
        for name in names:
            held.put(name, NUMBER, now_us=0, size_bytes=0, expires_us=10**15)
        return held

    return fill


def mapping(module: str, name: str, *arguments: float) -> Callable[[Iterable[str]], Any]:
    """A cache that is a mapping."""
    held = getattr(importlib.import_module(module), name)(KEYS * 2, *arguments)

    def fill(names: Iterable[str]) -> Any:
        for each in names:
            held[each] = NUMBER
        return held

    return fill


def aiocache() -> Callable[[Iterable[str]], Any]:
    """Its memory cache, with a lifetime."""
    from aiocache import SimpleMemoryCache

    held = SimpleMemoryCache()

    async def put(names: Iterable[str]) -> None:
        for each in names:
            await held.set(each, NUMBER, ttl=3_600)

    loop = asyncio.new_event_loop()

    def fill(names: Iterable[str]) -> Any:
        loop.run_until_complete(put(names))
        return held, loop

    return fill


def cashews() -> Callable[[Iterable[str]], Any]:
    """Its memory cache, with a lifetime."""
    from cashews import Cache

    held = Cache()
    held.setup("mem://", size=KEYS * 2)

    async def put(names: Iterable[str]) -> None:
        for each in names:
            await held.set(each, NUMBER, expire=3_600)

    loop = asyncio.new_event_loop()

    def fill(names: Iterable[str]) -> Any:
        loop.run_until_complete(put(names))
        return held, loop

    return fill


CACHES: dict[str, Callable[[], Callable[[Iterable[str]], Any]]] = {
    "L1 s3-fifo": level,
    "cachetools LRUCache": lambda: mapping("cachetools", "LRUCache"),
    "cachetools TTLCache": lambda: mapping("cachetools", "TTLCache", 3_600),
    "cachebox LRUCache": lambda: mapping("cachebox", "LRUCache"),
    "cachebox TTLCache": lambda: mapping("cachebox", "TTLCache", 3_600),
    "aiocache SimpleMemoryCache": aiocache,
    "cashews mem": cashews,
}


def main() -> None:
    """Fill, print bytes per key."""
    fill = CACHES[sys.argv[1]]()
    kept = fill(keys(10**6, 2_000))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_bytes()
    kept = fill(keys(0, KEYS))
    grown = resident_bytes() - before
    print(json.dumps({"bytes_per_key": round(grown / KEYS, 1)}))
    del kept


if __name__ == "__main__":
    main()
