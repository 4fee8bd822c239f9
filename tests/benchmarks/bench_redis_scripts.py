"""What a decision costs Redis: processor time of the server by algorithm and by orders in one script call.

python -m tests.benchmarks.bench_redis_scripts [--out build/bench]

Starts a redis-server of its own on loopback. `script` is the time that Redis spent in the script (`commandstats`),
`server` the processor time of the whole process, reading and answering included. No coalescing.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.quota.redis.packing import key_name, pack_call
from ratelimit_service.quota.redis.scripts import ORDERS
from ratelimit_service.quota.takes import Ask, CountedKey, Take
from support.redis_servers import running_server
from tests.benchmarks import machine

BATCHES = (1, 16, 64, 256)
ROUNDS = 10
PLAIN = b"""
for i = 1, #KEYS do
  if redis.call('INCRBY', KEYS[i], 1) == 1 then redis.call('PEXPIRE', KEYS[i], 60000) end
end
"""
"""What a limiter without leases, returns or any law but one does: for comparison in the same run."""
KEYS = 10_000
WINDOW_US = 60_000_000
STEP_US = 1_000
"""The store's clock moves so far with each call, so that sliding windows fill part after part."""
START_US = 1_700_000_000_000_000


class Row(msgspec.Struct, frozen=True):
    """Figures of one algorithm and size of batch.

    Attributes:
        script_us, server_us: Per order that is granted: one read and one write.
        denied_us: The script's time of an order that is denied.
        plain_us: The script's time of INCRBY, and PEXPIRE for the first, on as many keys.
        bytes_per_key: Memory of a key that was taken from once in each of 3 parts of a window, its name included.
    """

    algorithm: str
    batch: int
    script_us: float
    server_us: float
    denied_us: float
    plain_us: float
    bytes_per_key: int


Call = tuple[list[bytes], list[Any]]
"""Keys and arguments."""


def takes(limit: Limit, count: int, seed: int) -> list[Take]:
    """Takes of one hit over the keys, evenly."""
    chance = random.Random(seed)
    asks = (Ask(b"identity", limit, 1),)
    return [Take(CountedKey(b"rule", b"key-%09d" % chance.randrange(KEYS)), asks, 1, 0) for _ in range(count)]


def calls(orders: Sequence[Take], batch: int) -> Iterator[Call]:
    """Keys and arguments of script calls that carry out the orders."""
    now_us = START_US
    for first in range(0, len(orders), batch):
        some = orders[first : first + batch]
        now_us += STEP_US * batch
        names = [key_name(b"tg:", order.where) for order in some]
        yield names, [now_us, pack_call(names, [(order, 1) for order in some], now_us)]


def run(client: redis.Redis, sha1: str, prepared: Sequence[Call]) -> tuple[float, float]:
    """Time of the script and of the server per order, µs; the best of several parts, as on a quiet core."""
    size = -(-len(prepared) // ROUNDS)
    scripts, servers = [], []
    for first in range(0, len(prepared), size):
        part = prepared[first : first + size]
        orders = sum(len(keys) for keys, _ in part)
        client.config_resetstat()
        begun = _processor_s(client)
        for keys, args in part:
            client.evalsha(sha1, len(keys), *keys, *args)
        servers.append((_processor_s(client) - begun) * 1e6 / orders)
        stats: dict[str, Any] = client.info("commandstats")
        scripts.append(stats["cmdstat_evalsha"]["usec"] / orders)
    return min(scripts), min(servers)


def _processor_s(client: redis.Redis) -> float:
    times: dict[str, Any] = client.info("cpu")
    return float(times["used_cpu_user"]) + float(times["used_cpu_sys"])


def memory(client: redis.Redis, limit: Limit) -> int:
    """Bytes of a key with hits in three parts of its window."""
    client.flushall()
    sparse = [Take(CountedKey(b"rule", b"key-%09d" % number), (Ask(b"i", limit, 1),), 1, 0) for number in range(KEYS)]
    before: dict[str, Any] = client.info("memory")
    for time_us in (START_US, START_US + 5_000_000, START_US + 9_000_000):
        for keys, args in calls(sparse, 100):
            client.evalsha(ORDERS.sha1, len(keys), *keys, time_us, *args[1:])
    after: dict[str, Any] = client.info("memory")
    return int(after["used_memory"] - before["used_memory"]) // KEYS


def measure(client: redis.Redis, algorithm: Algorithm, batch: int, count: int) -> Row:
    """One row."""
    generous, spent = Limit(algorithm, 10_000_000, WINDOW_US, 10_000_000), Limit(algorithm, 1, 86_400_000_000, 1)
    sha1, plain = client.script_load(ORDERS.source), client.script_load(PLAIN)
    client.flushall()
    run(client, sha1, list(calls(takes(generous, KEYS * 4, 1), 256)))
    script_us, server_us = run(client, sha1, list(calls(takes(generous, count, 2), batch)))
    client.flushall()
    run(client, sha1, list(calls(takes(spent, KEYS * 4, 1), 256)))
    denied_us, _ = run(client, sha1, list(calls(takes(spent, count, 2), batch)))
    client.flushall()
    plain_us, _ = run(client, plain, [(keys, []) for keys, _ in calls(takes(spent, count * 4, 2), batch)])
    size = memory(client, Limit(algorithm, 100, WINDOW_US, 100))
    figures = [round(figure, 2) for figure in (script_us, server_us, denied_us, plain_us)]
    return Row(algorithm.value, batch, *figures, bytes_per_key=size)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--orders", type=int, default=100_000)
    options = parser.parse_args()
    rows = []
    with running_server() as server, redis.Redis(port=server.port) as client:
        for algorithm in Algorithm:
            rows += [measure(client, algorithm, batch, max(5_000, options.orders * batch // 256)) for batch in BATCHES]
    table = Table(title=f"Orders in Redis: {KEYS:,} keys, evenly")
    for name in Row.__struct_fields__:
        table.add_column(name.replace("_", " "), justify="left" if name == "algorithm" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in msgspec.structs.astuple(row)))
    Console(width=120).print(table)
    machine.write(options.out / "redis_scripts.json", {"rows": msgspec.to_builtins(rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
