"""How many exact orders a second one process carries to Redis in group commits, and how long one takes.

python -m tests.benchmarks.bench_group_commit [--out build/bench]

A closed loop of orders that are always under way, one process for the replica and one for Redis, on a loopback. Exact
takes of one hit, granted; `hot` is one key, `zipf` is 10,000 by Zipf.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.clock import Clock
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.redis.batch import GroupCommit
from ratelimit_service.quota.takes import Ask, CountedKey, Take
from support.redis_nodes import COMMAND_US, address_of, running_topology
from support.redis_servers import RedisServer, running_server
from tests.benchmarks import machine

KEYS = 10_000
UNDER_WAY = (1, 64, 512)
WINDOW_US = 60_000_000


class Row(msgspec.Struct, frozen=True):
    """Figures of one load.

    Attributes:
        under_way: Orders that wait for an answer at any time.
        orders_per_s: Answered.
        batch: Entries of a round trip, in the mean.
        cpu_us: Processor time of the replica's process per order.
        p50_us, p99_us: From submission to answer.
    """

    algorithm: str
    keys: str
    under_way: int
    orders_per_s: int
    batch: float
    cpu_us: float
    p50_us: int
    p99_us: int


def takes(algorithm: Algorithm, keys: str) -> list[Take]:
    """Orders in the order in which they come."""
    limit = Limit(algorithm, 4_000_000_000, WINDOW_US, 4_000_000_000)
    asks = (Ask(algorithm.value.encode(), limit, 1),)
    count = 1 if keys == "hot" else KEYS
    weights = list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))
    drawn = random.Random(1).choices(range(count), cum_weights=weights, k=50_000)
    return [Take(CountedKey(b"rule", b"key-%09d" % number), asks, 1, 0) for number in drawn]


class Load:
    """Submits the next order whenever one is answered."""

    def __init__(self, commits: GroupCommit, orders: list[Take]) -> None:
        self._commits = commits
        self._orders = itertools.cycle(orders)
        self.answered = 0
        self.waits_ns: list[int] = []

    def next(self) -> None:
        begun_ns = time.perf_counter_ns()

        def done(answered: Answered) -> None:
            assert answered.grants is not None
            self.answered += 1
            self.waits_ns.append(time.perf_counter_ns() - begun_ns)
            self.next()

        self._commits.submit(next(self._orders), 2**60, done)


async def measure(server: RedisServer, algorithm: Algorithm, keys: str, under_way: int, seconds: float) -> Row:
    """One row; the orders still under way in the end are not counted."""
    async with running_topology(address_of("redis", [server])) as topology:
        commits = GroupCommit(topology, b"tg:", Clock(), command_us=COMMAND_US)
        load = Load(commits, takes(algorithm, keys))
        for _ in range(under_way):
            load.next()
        await asyncio.sleep(seconds / 4)
        load.answered, load.waits_ns = 0, []
        stats, begun, begun_cpu = commits.stats, time.perf_counter(), time.process_time()
        before = (stats.batches, stats.orders - stats.coalesced)
        await asyncio.sleep(seconds)
        spent, spent_cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        batches, entries = stats.batches - before[0], stats.orders - stats.coalesced - before[1]
        waits, answered = sorted(load.waits_ns), load.answered
        load.next = lambda: None  # type: ignore[method-assign]
        await commits.close()
    return Row(
        algorithm=algorithm.value,
        keys=keys,
        under_way=under_way,
        orders_per_s=round(answered / spent),
        batch=round(entries / max(1, batches), 1),
        cpu_us=round(spent_cpu * 1e6 / max(1, answered), 1),
        p50_us=waits[len(waits) // 2] // 1_000,
        p99_us=waits[len(waits) * 99 // 100] // 1_000,
    )


def runner() -> Callable[..., Row]:
    """Runs a measurement on the loop that the service uses."""
    try:
        import uvloop
    except ImportError:
        return lambda *asked: asyncio.run(measure(*asked))
    return lambda *asked: uvloop.run(measure(*asked))


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    run, rows = runner(), []
    with running_server() as server:
        for algorithm in Algorithm:
            for keys, under_way in itertools.product(("hot", "zipf"), UNDER_WAY):
                rows.append(run(server, algorithm, keys, under_way, options.seconds))
    table = Table(title="Exact orders in group commits")
    for name in Row.__struct_fields__:
        table.add_column(name.replace("_", " "), justify="left" if name in {"algorithm", "keys"} else "right")
    for row in rows:
        table.add_row(*(str(value) for value in msgspec.structs.astuple(row)))
    Console(width=120).print(table)
    machine.write(options.out / "group_commit.json", {"rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
