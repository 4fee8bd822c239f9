"""Fills a memory level and compares its account with what the process grew by.

python -m support.memory_growth KIND SIZE_BYTES ENTRIES
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ratelimit_service.cache.l1 import L1

GIB = 1024**3
KINDS: dict[str, Callable[[int, int], object]] = {
    "bytes": lambda _, size: os.urandom(size),
    "text": lambda number, size: str(number).ljust(size, "x"),
    "record": lambda number, size: {
        "id": 1_000 + number,
        "name": f"user-{number}",
        "tags": [f"a{number}"],
        "score": 0.5,
    },
}


def resident_bytes() -> int:
    """Memory of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no Rss")


def main() -> None:
    """Fill, compare, print."""
    kind, size_bytes, entries = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make = KINDS[kind]
    level: L1[object] = L1(1_000_000, 4 * GIB)
    first = L1[object](1_000)
    for number in range(2_000):
        first.put(str(number), make(number, min(size_bytes, 1_000)), now_us=0)
    del first
    gc.collect()
    # What the interpreter freed while it started would else be reused, and the growth look smaller than it is.
    ctypes.CDLL(None).malloc_trim(0)
    before, empty = resident_bytes(), level.used_bytes
    for number in range(entries):
        value = make(number, size_bytes)
        level.put(f"rl:default:tenant_{number:06}:path_/v1/items:GET", value, now_us=0, expires_us=10**15)
    grown = resident_bytes() - before
    print(json.dumps({"grown_bytes": grown, "accounted_bytes": level.used_bytes - empty, "entries": len(level)}))


if __name__ == "__main__":
    main()
