"""What caches over Redis do under races: ours and what users have now, by the same harness.

python -m tests.benchmarks.compare_caches [--only tidegate] [--check] [--out build/bench]

Three processes use one cache on one Redis. Keys are read while they are replaced, written by two at once, counted up
and read, loaded by thirty at once, and a waiter is cancelled. Then what each process has is compared. The others are
installed from the package index into environments of their own, in build/rivals-*; `cashews` twice, because its
invalidation depends on the redis-py beside it, and ours with the oldest and the newest redis-py that it allows.
With `--check` the exit code is 1 where ours has a flaw in any column.

Ours has to go through the first of these scenes in trouble too: every connection cut again and again, a server that
stands still now and then, one that is killed and comes back empty.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import venv
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.redis_servers import RedisServer, running_server
from tests.benchmarks import machine, tables

CALLERS = Path(__file__).with_name("cache_callers.py")
PROCESSES = 3
DELTA_MS = 100
STARTS_S = 1


class Contender(msgspec.Struct, frozen=True):
    """A cache, and what is installed for it; ours is taken from this folder."""

    cache: str
    version: str
    redis_py: str
    pins: tuple[str, ...]


OUR_NEEDS = ("hiredis>=3.2", "lmdb>=3.0", "msgspec>=0.19,<1", "PyYAML>=6.0.1,<7", "tzdata", "zstandard>=0.23")
CONTENDERS = (
    Contender("tidegate", "this", "5.2.0", ("redis==5.2.0", *OUR_NEEDS)),
    Contender("tidegate", "this", "8.1.0", ("redis==8.1.0", *OUR_NEEDS)),
    Contender("cashews", "7.6.0", "5.2.1", ("cashews[redis]==7.6.0", "redis==5.2.1")),
    Contender("cashews", "7.6.0", "8.1.0", ("cashews[redis]==7.6.0", "redis==8.1.0")),
    Contender("aiocache", "0.12.3", "5.2.1", ("aiocache[redis]==0.12.3", "redis==5.2.1")),
)


class Row(msgspec.Struct, frozen=True):
    """One cache.

    Attributes:
        stale_for_ever: Keys, of `raced`, that a process has an old value of, seconds after the last write.
        disagreeing: Keys, of `written`, that processes have different values of, seconds after the last write.
        staleness_p99_ms, staleness_most_ms: How long ago what was read had been replaced.
        loads_per_key, most_loads: Of keys that thirty tasks of three processes wanted at once.
        survivors: Of nine tasks that waited for a load with a tenth, which was cancelled.
    """

    cache: str
    version: str
    redis_py: str
    raced: int
    stale_for_ever: int
    written: int
    disagreeing: int
    staleness_p99_ms: float
    staleness_most_ms: float
    loads_per_key: float
    most_loads: int
    survivors: int


class TroubledRow(msgspec.Struct, frozen=True):
    """Ours, in trouble; of `raced` keys, how many a process has the old value of, seconds after the last write."""

    redis_py: str
    trouble: str
    times: int
    raced: int
    stale_for_ever: int


def cut(server: RedisServer) -> None:
    """Cut every connection."""
    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    server.cli("CLIENT", "KILL", "TYPE", "pubsub")


def stall(server: RedisServer) -> None:
    """Let the server stand still for longer than Δ."""
    server.stop()
    time.sleep(3 * DELTA_MS / 1_000)
    server.go_on()


def restart(server: RedisServer) -> None:
    """Kill the server, and start it again, empty."""
    server.kill()
    server.start()


TROUBLES: Mapping[str, tuple[Callable[[RedisServer], None], float]] = {
    "connections cut": (cut, 0.2),
    "server stands still": (stall, 0.7),
    "server killed": (restart, 1.5),
}
"""What is done, and how long afterwards it is done again, seconds."""


def interpreter(contender: Contender) -> str:
    """Python that has the cache."""
    home = Path(f"build/rivals-{contender.cache}-{contender.redis_py}")
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *contender.pins], check=True
    )
    return str(python)


def played(
    contender: Contender,
    python: str,
    port: int,
    scene: str,
    processes: int,
    begun: Callable[[float], None] = lambda _: None,
    **plan: Any,
) -> list[Any]:
    """What each process saw of a scene, which begins when all are connected; `begun` is told when that will be."""
    whole = {
        "cache": contender.cache, "port": port, "scene": scene, "delta_ms": DELTA_MS, "calm_s": 3, "gap_s": 0.01,
        "keys": 200, **plan,
    }  # fmt: skip
    running = []
    for role in range(processes):
        process = subprocess.Popen(
            [python, str(CALLERS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(machine.ROOT), "PATH": "/usr/bin:/bin"},
        )
        _tell(process, json.dumps({**whole, "role": role, "seed": role}))
        running.append(process)
    for process in running:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{contender.cache} {scene}: {process.communicate()[1].decode()[-2_000:]}")
    begins_s = time.time() + STARTS_S
    begun(begins_s)
    for process in running:
        _tell(process, str(begins_s))
    answers = []
    for process in running:
        output, errors = process.communicate(timeout=300)
        if not output:
            raise RuntimeError(f"{contender.cache} {scene}: {errors.decode()[-2_000:]}")
        answers.append(json.loads(output))
    return answers


def _tell(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()


def staleness_ms(seen: Sequence[Sequence[tuple[float, int]]]) -> list[float]:
    """How long ago what was read had been replaced, for every read, sorted."""
    written, *readers = seen
    # At which time a number was surely replaced: when the write of the next one had been answered.
    answered = {number: at_s for at_s, number in written}
    numbers = sorted(answered)
    found = []
    for began_s, number in (read for reads in readers for read in reads):
        after = bisect_right(numbers, number)
        replaced_s = answered[numbers[after]] if after < len(numbers) else began_s
        found.append(max(0.0, began_s - replaced_s) * 1_000)
    return sorted(found)


def measured(contender: Contender) -> Row:
    """All scenes of one cache, each on a server of its own."""
    python = interpreter(contender)

    def play(scene: str, processes: int = PROCESSES, **plan: Any) -> list[Any]:
        with running_server() as server:
            return played(contender, python, server.port, scene, processes, **plan)

    raced = play("race", keys=400)
    written = play("writers")
    stale = staleness_ms([each["seen"] for each in play("staleness", keys=400)])
    loads = [sum(each) for each in zip(*(seen["loads"] for seen in play("flights", keys=30, gap_s=0.25)), strict=True)]
    survivors = play("cancelled", processes=1)[0]["survivors"]
    return Row(
        cache=contender.cache,
        version=contender.version,
        redis_py=contender.redis_py,
        raced=400,
        stale_for_ever=sum(any(value != "new" for value in values) for values in _by_key(raced)),
        written=200,
        disagreeing=sum(len(set(values)) > 1 for values in _by_key(written)),
        staleness_p99_ms=round(stale[len(stale) * 99 // 100], 2),
        staleness_most_ms=round(stale[-1], 2),
        loads_per_key=round(sum(loads) / len(loads), 2),
        most_loads=max(loads),
        survivors=survivors,
    )


def troubled(contender: Contender, trouble: str) -> TroubledRow:
    """The first scene, while something is done to the server again and again, until the last key is written."""
    act, pause_s = TROUBLES[trouble]
    keys, gap_s = 400, 0.01
    times = 0

    def disturb(server: RedisServer, begins_s: float) -> None:
        nonlocal times
        while time.time() < begins_s + keys * gap_s:
            time.sleep(pause_s)
            act(server)
            times += 1

    with running_server() as server, ThreadPoolExecutor(1) as aside:
        raced = played(
            contender,
            interpreter(contender),
            server.port,
            "race",
            PROCESSES,
            lambda begins_s: aside.submit(disturb, server, begins_s),
            keys=keys,
            gap_s=gap_s,
            calm_s=8,
        )
    # A value that is gone with the server's memory is no old one.
    stale = sum("old" in values for values in _by_key(raced))
    return TroubledRow(contender.redis_py, trouble, times, keys, stale)


def _by_key(answers: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*(answer["last"] for answer in answers), strict=True))


def is_flawless(row: Row) -> bool:
    """Whether nobody kept an old value, read one past Δ, loaded twice, or fell with a cancelled waiter."""
    is_coherent = row.stale_for_ever == row.disagreeing == 0 and row.staleness_most_ms <= DELTA_MS
    return is_coherent and row.most_loads == 1 and row.survivors == 9


def main() -> int:
    """Compare, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="caches whose name contains this")
    parser.add_argument("--check", action="store_true", help="fail where ours has a flaw")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    options = parser.parse_args()
    rows = [measured(each) for each in CONTENDERS if options.only in each.cache]
    tables.show(f"caches over Redis under races, {PROCESSES} processes, Δ of ours {DELTA_MS} ms", rows)
    ours = [each for each in CONTENDERS if each.cache == "tidegate"]
    troubles = [troubled(each, trouble) for each in ours for trouble in TROUBLES]
    tables.show("ours in trouble", troubles)
    figures = {"processes": PROCESSES, "delta_ms": DELTA_MS, "rows": msgspec.to_builtins(rows)}
    figures["troubles"] = msgspec.to_builtins(troubles)
    machine.write(options.out / "cache_races.json", figures)
    has_flaw = any(row.stale_for_ever for row in troubles) or any(
        row.cache == "tidegate" and not is_flawless(row) for row in rows
    )
    return int(options.check and has_flaw)


if __name__ == "__main__":
    sys.exit(main())
