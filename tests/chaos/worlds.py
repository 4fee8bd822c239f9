"""Replicas, the Redis that they share, and proxies on each one's way to every server and sentinel of it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from chaos.laws import SLOTS, policies
from chaos.replicas import Replica, ServiceReplica, StoreReplica

from support.fault_proxy import FaultProxy
from support.redis_servers import (
    ClusterSetup,
    RedisOptions,
    RedisServer,
    SentinelSetup,
    running_cluster,
    running_sentinels,
    running_server,
)

OPTIONS: Final = RedisOptions(dead_after_ms=1_000, own_clock=True)


class Redis(enum.Enum):
    """How Redis is set up."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Setting(msgspec.Struct, frozen=True):
    """One world.

    Attributes:
        redis: How Redis is set up.
        services: Whether replicas are processes that are asked over gRPC; else they are stores in this one.
        new_master, durability: As in a CacheProfile.
        apart: Planted: each replica counts under a prefix of its own.
    """

    redis: Redis
    services: bool
    new_master: str = "Learn"
    durability: str = "Marks"
    apart: bool = False

    @property
    def has_usual_rules(self) -> bool:
        """Whether a lost memory is met as it is unless told otherwise."""
        return (self.new_master, self.durability) == ("Learn", "Marks")

    @property
    def name(self) -> str:
        """For people and test ids."""
        kind = "services" if self.services else "stores"
        own = [each for each in (self.new_master, self.durability) if each not in {"Learn", "Marks"}]
        return "-".join([self.redis.value, kind, *(each.lower() for each in own)])


class Access:
    """One replica's way to Redis: a proxy before each server and sentinel; none of them tells where it really is."""

    def __init__(self) -> None:
        self._by_port: dict[int, FaultProxy] = {}
        self._stand_ins: dict[int, int] = {}

    async def begin(self, servers: Sequence[RedisServer], stack: contextlib.AsyncExitStack) -> None:
        """Stand before every server until the stack is left."""
        for server in servers:
            proxy = await stack.enter_async_context(FaultProxy(server.port, self._stand_ins))
            self._by_port[server.port] = proxy
            self._stand_ins[server.port] = proxy.port

    @property
    def proxies(self) -> Iterable[FaultProxy]:
        """All of them."""
        return self._by_port.values()

    def endpoints(self, servers: Sequence[RedisServer]) -> list[str]:
        """Where these servers are, as the replica is to see it."""
        return [f"127.0.0.1:{self._by_port[server.port].port}" for server in servers]


class World(msgspec.Struct):
    """What a fault is done to.

    Attributes:
        replicas: Three.
        ways: The way of each to Redis.
        servers: All that count; the first is a master at the start.
        setup: Sentinels or cluster; None: a single server.
    """

    setting: Setting
    replicas: list[Replica]
    ways: list[Access]
    servers: list[RedisServer]
    setup: SentinelSetup | ClusterSetup | None

    def masters(self) -> list[RedisServer]:
        """The servers that count now."""
        if isinstance(self.setup, SentinelSetup):
            return [self.setup.primary()]
        return [server for server in self.servers if server.answers("ROLE").startswith("master")]

    def master(self) -> RedisServer:
        """The server that counts now; of a cluster, the first that does."""
        return self.masters()[0]


@contextlib.asynccontextmanager
async def running(setting: Setting, folder: Path) -> AsyncIterator[World]:
    """A world whose replicas are connected."""
    with _redis(setting.redis) as (servers, setup):
        async with contextlib.AsyncExitStack() as stack:
            ways = [Access() for _ in range(SLOTS)]
            for way in ways:
                await way.begin(servers if setup is None else setup.all(), stack)
            replicas = [
                _replica(setting, folder / f"replica{number}", way, servers, setup) for number, way in enumerate(ways)
            ]
            try:
                await asyncio.gather(*(replica.start() for replica in replicas))
                yield World(setting, replicas, ways, servers, setup)
            finally:
                for way in ways:
                    for proxy in way.proxies:
                        proxy.heal()
                for replica in replicas:
                    await replica.close()


def _replica(
    setting: Setting,
    folder: Path,
    way: Access,
    servers: list[RedisServer],
    setup: SentinelSetup | ClusterSetup | None,
) -> Replica:
    reached: Sequence[RedisServer] = servers
    match setup:
        case None:
            kind, tail, url = "Redis", "", "redis://{}/0"
        case SentinelSetup():
            kind, tail, url = "RedisSentinel", ", masterName: main", "redis+sentinel://{}/main"
            reached = setup.sentinels
        case ClusterSetup():
            kind, tail, url = "RedisCluster", "", "redis+cluster://{}"
    endpoints = way.endpoints(reached)
    if setting.services:
        quoted = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
        store = f"type: {kind}, endpoints: [{quoted}]{tail}"
        return ServiceReplica(folder, policies(setting.new_master, setting.durability, store))
    address = url.format(",".join(endpoints)) + (f"?key_prefix={folder.name}." if setting.apart else "")
    return StoreReplica(address, setting.new_master, wait_replicas=int(setting.durability == "Wait"))


@contextlib.contextmanager
def _redis(kind: Redis) -> Iterator[tuple[list[RedisServer], SentinelSetup | ClusterSetup | None]]:
    match kind:
        case Redis.SINGLE:
            with running_server(OPTIONS) as server:
                yield [server], None
        case Redis.SENTINEL:
            with running_sentinels(OPTIONS) as sentinels:
                yield sentinels.servers, sentinels
        case Redis.CLUSTER:
            with running_cluster(OPTIONS) as cluster:
                yield cluster.servers, cluster
