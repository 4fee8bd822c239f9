"""Compression by method and size, and the disk level in clear and sealed.

python -m tests.benchmarks.bench_cache_parts [--out build/bench]

Times are processor time of this thread, the best of several runs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.cache.compression import CompressionEngine, Method
from ratelimit_service.cache.dictionaries import train
from ratelimit_service.cache.l3 import L3, KeyRing, SealingKey
from support.sessions import session
from tests.benchmarks import machine
from tests.benchmarks.bench_cache_l1 import show

RUNS = 5
CALLS = 300
MIB = 1024 * 1024


class Compressed(msgspec.Struct, frozen=True):
    """What a way of compressing does to JSON of one size."""

    way: str
    raw_bytes: int
    ratio: float
    compress_us: float
    decompress_us: float


class Disk(msgspec.Struct, frozen=True):
    """Microseconds of the disk level's calls, 1,700 B, one transaction each; `batched` is a put among 100 in one."""

    records: str
    put_us: float
    batched_us: float
    get_us: float


def us(call: Callable[[], object], calls: int) -> float:
    """Time of one call."""
    best = float("inf")
    for _ in range(RUNS):
        begun_ns = time.thread_time_ns()
        for _ in range(calls):
            call()
        best = min(best, (time.thread_time_ns() - begun_ns) / calls / 1_000)
    return round(best, 1)


def compressions() -> list[Compressed]:
    """Each way on each size."""
    draw = random.Random(1)
    dictionary = train([json.dumps(session(draw)).encode() for _ in range(1_000)])
    ways = {
        "gzip 4": CompressionEngine(Method.GZIP, level=4, threshold_bytes=0),
        "gzip 6": CompressionEngine(Method.GZIP, level=6, threshold_bytes=0),
        "zstd 3": CompressionEngine(Method.ZSTD, level=3, threshold_bytes=0),
        "zstd 3, dictionary": CompressionEngine(Method.ZSTD, level=3, threshold_bytes=0, dictionaries=[dictionary]),
    }
    rows = []
    for count in (1, 5, 28):
        value = [session(draw) for _ in range(count)]
        data = json.dumps(value[0] if count == 1 else value).encode()
        for way, engine in ways.items():
            packed = engine.pack(data)
            rows.append(
                Compressed(
                    way,
                    len(data),
                    round(len(data) / len(packed.data), 2),
                    us(lambda engine=engine, data=data: engine.pack(data), CALLS),  # type: ignore[misc]
                    us(lambda engine=engine, packed=packed: engine.unpack(packed), CALLS),  # type: ignore[misc]
                )
            )
    return rows


def disk(name: str, keys: KeyRing | None) -> Disk:
    """The calls of one level."""
    payload = random.Random(1).randbytes(1_700)
    numbers = iter(range(10**9))
    with tempfile.TemporaryDirectory() as folder, L3(Path(folder), 256 * MIB, keys=keys) as level:

        def batch() -> None:
            level.put_many([(f"key-{next(numbers)}", payload, 2**62) for _ in range(100)])

        put_us = us(lambda: level.put(f"key-{next(numbers)}", payload), 1_000)
        return Disk(name, put_us, round(us(batch, 10) / 100, 1), us(lambda: level.get("key-7"), 3_000))


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    out: Path = parser.parse_args().out
    compressed = compressions()
    disks = [disk("in clear", None), disk("sealed", KeyRing([SealingKey(b"k" * 32)]))]
    show("Compression of JSON", compressed)
    show("Disk level, records of 1,700 B", disks)
    figures = {"compression": msgspec.to_builtins(compressed), "disk": msgspec.to_builtins(disks)}
    machine.write(out / "cache_parts.json", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
