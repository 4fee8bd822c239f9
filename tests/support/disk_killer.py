"""Kills writers of a disk level at random points, and says what the level had afterwards.

    python -m support.disk_killer FOLDER KILLS SEED

A writer is a fork of this process: it replaces values of fifty keys, now one, now several at once, and reports each
transaction when it has returned. After some of them it is killed. Then the level is opened by another fork, which holds
each value against what was reported. Values say for themselves whether they are whole.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ratelimit_service.cache.l3 import L3

CAP_BYTES = 64 * 1024 * 1024
KEYS = 50


def payload_of(key: int, version: int) -> bytes:
    """What a key has in a version: 8 to 8,000 bytes that name both."""
    mark = key.to_bytes(4, "big") + version.to_bytes(4, "big")
    return mark * (1 + random.Random(version).choice([0, 10, 200, 1_000]))


def version_of(key: int, payload: bytes) -> int | None:
    """Which version of the key this is; None: it is none."""
    version = int.from_bytes(payload[4:8], "big")
    return version if payload == payload_of(key, version) else None


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """Start a fork; return its id and where what it writes can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            work(writing)
        finally:
            os._exit(0)
    os.close(writing)
    return pid, reading


def write_for_ever(folder: Path, first: int, seed: int, out: int) -> None:
    """Replace values, and report each version once it is stored."""
    draw = random.Random(seed)
    level = L3(folder, CAP_BYTES)
    version = first
    while True:
        batch = []
        for key in draw.sample(range(KEYS), draw.choice([1, 1, 1, 5])):
            version += 1
            batch.append((key, version))
        level.put_many([(str(key), payload_of(key, made), 2**62) for key, made in batch])
        os.write(out, b"".join(b"%d %d\n" % pair for pair in batch))


def tell(folder: Path, out: int) -> None:
    """Report what the level has: key, version (none where the value is not whole), and the report of its opening."""
    level = L3(folder, CAP_BYTES)
    found = {str(record.key): version_of(int(record.key), record.payload) for record in level.items(0)}
    same = all(version_of(int(key), level.get(key) or b"") == version for key, version in found.items())
    os.write(out, json.dumps({"found": found, "same": same, "report": level.report}).encode())
    level.close()


def read_all(source: int) -> bytes:
    """All that is written until the other end is closed."""
    with os.fdopen(source, "rb") as file:
        return file.read()


def main() -> None:
    """Kill so many writers; print what was wrong, if anything was, and how much was written."""
    folder, kills, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    acknowledged: dict[str, int] = {}
    wrong: list[str] = []
    for number in range(kills):
        first = number * 1_000_000
        seed = draw.getrandbits(32)
        pid, source = forked(lambda out, first=first, seed=seed: write_for_ever(folder, first, seed, out))  # type: ignore[misc]
        seen = b""
        # At least one transaction; sometimes hundreds, and the kill falls wherever the writer is by then.
        for _ in range(draw.choice([1, 1, 2, 5, 20])):
            seen += os.read(source, draw.choice([16, 64, 512]))
        os.kill(pid, signal.SIGKILL)
        seen += read_all(source)
        os.waitpid(pid, 0)
        lines = seen.split(b"\n")[:-1]
        acknowledged.update((key.decode(), int(version)) for key, version in (line.split() for line in lines))
        pid, source = forked(lambda out: tell(folder, out))
        answer = json.loads(read_all(source) or "null")
        os.waitpid(pid, 0)
        if answer is None:
            wrong.append(f"kill {number}: the level could not be opened")
            break
        if answer["report"] is not None or not answer["same"]:
            wrong.append(f"kill {number}: {answer['report']}, same: {answer['same']}")
        for key, version in acknowledged.items():
            held = answer["found"].get(key)
            if held is None or held < version:
                wrong.append(f"kill {number}: key {key} has {held}, {version} was acknowledged")
    print(json.dumps({"wrong": wrong, "keys": len(acknowledged)}))


if __name__ == "__main__":
    main()
