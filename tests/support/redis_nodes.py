"""Topologies of a test: made, connected, closed, and what they told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from ratelimit_service.clock import Clock
from ratelimit_service.quota.redis.calls import Call, Command, RoundTrip, Script, ScriptCall
from ratelimit_service.quota.redis.faults import StoreLost
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.topologies import make_topology
from ratelimit_service.quota.redis.topology import Topology
from ratelimit_service.redis_server.address import RedisAddress, parse_store_url
from support.redis_servers import RedisServer

PATIENCE_SECONDS: Final = 20.0
COMMAND_US: Final = 10_000_000
"""Time for a round trip that is not meant to miss it, on a machine that has other things to do."""

_INCREMENT: Final = b"return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2]}"
INCREMENT: Final = Script("increment", hashlib.sha1(_INCREMENT).hexdigest(), _INCREMENT)


def increment(key: bytes, by: int = 1, text: bytes = b"") -> ScriptCall:
    """Adds to a key, answers the sum and a text."""
    return ScriptCall(INCREMENT, (key,), (by, text))


def get(key: bytes) -> Command:
    """Reads a key."""
    return Command(("GET", key))


class Told:
    """Keeps what a topology tells."""

    def __init__(self) -> None:
        self.boots: list[Node] = []
        self.turns: list[bool] = []

    def on_new_boot(self, node: Node) -> None:
        self.boots.append(node)

    def on_turn(self, node: Node) -> None:
        self.turns.append(node.ready)


def address_of(
    scheme: str, servers: Sequence[RedisServer], *, login: str = "", path: str = "", **options: str
) -> RedisAddress:
    """An address of servers; round trips get all the time they need unless a test says otherwise."""
    files = servers[0].certificates
    given = {"connect_timeout": "10s", "command_timeout": "10s", **options}
    if files is not None:
        scheme = scheme.replace("redis", "rediss", 1)
        given = {"ca": str(files.ca), "cert": str(files.cert), "key": str(files.key), **given}
    hosts = ",".join(server.endpoint for server in servers)
    query = "&".join(f"{name}={value}" for name, value in given.items() if value)
    return parse_store_url(f"{scheme}://{login}{hosts}{path}?{query}")


@contextlib.asynccontextmanager
async def running_topology(
    address: RedisAddress, told: Told | None = None, *, wait: bool = True
) -> AsyncIterator[Topology]:
    """A topology that is started, and ready if it is waited for."""
    topology = make_topology(address, told or Told(), Clock())
    await topology.start()
    try:
        if wait:
            await ready(topology)
        yield topology
    finally:
        await topology.close()


async def ready(topology: Topology) -> None:
    """Wait until every slot has a node and every node all its connections."""

    def holds() -> bool:
        stats = [node.stats() for node in topology.nodes()]
        return bool(stats) and not topology.problems() and all(each.links == each.pool_size for each in stats)

    await eventually(holds, topology)


async def eventually(holds: Callable[[], bool], topology: Topology | None = None) -> None:
    """Poll; what a topology complains of is in the failure."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():  # noqa: ASYNC110 — what is awaited happens in another process
                await asyncio.sleep(0.01)
    except TimeoutError:
        problems = topology.problems() if topology is not None else []
        raise AssertionError(f"not within {PATIENCE_SECONDS:g} s; {problems}") from None


def node_of(topology: Topology, key: bytes = b"key") -> Node:
    """The node that counts a key."""
    node = topology.node_for(key)
    assert node is not None
    return node


async def run(topology: Topology, *calls: Call, key: bytes = b"key") -> RoundTrip:
    """One round trip to the node of a key."""
    return await node_of(topology, key).run(calls, COMMAND_US)


async def run_until_answered(topology: Topology, call: Call, key: bytes = b"key") -> RoundTrip:
    """The first round trip that is answered, its call too; those before it are lost."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(StoreLost):
                node = topology.node_for(key)
                answered = None if node is None else await node.run([call], COMMAND_US)
                if answered is not None and isinstance(answered.replies[0], list | bytes):
                    return answered
            await asyncio.sleep(0.01)


async def lost(topology: Topology, call: Call, timeout_us: int = COMMAND_US) -> StoreLost:
    """The loss that a round trip ends in."""
    try:
        answered = await node_of(topology).run([call], timeout_us)
    except StoreLost as loss:
        return loss
    raise AssertionError(f"answered {answered}")
