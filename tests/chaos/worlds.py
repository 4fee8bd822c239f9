"""Replicas, the Redis that they share, and a proxy on each one's way to it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Iterator
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

OPTIONS: Final = RedisOptions(dead_after_ms=1_000)


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
    def name(self) -> str:
        """For people and test ids."""
        kind = "services" if self.services else "stores"
        own = [each for each in (self.new_master, self.durability) if each not in {"Learn", "Marks"}]
        return "-".join([self.redis.value, kind, *(each.lower() for each in own)])


class World(msgspec.Struct):
    """What a fault is done to.

    Attributes:
        replicas: Three.
        proxies: The way of each to a single server; empty otherwise.
        servers: All that count; the first is a master at the start.
        setup: Sentinels or cluster; None: a single server.
    """

    setting: Setting
    replicas: list[Replica]
    proxies: list[FaultProxy]
    servers: list[RedisServer]
    setup: SentinelSetup | ClusterSetup | None

    def master(self) -> RedisServer:
        """The server that counts now; of a cluster, the first that does."""
        if isinstance(self.setup, SentinelSetup):
            return self.setup.primary()
        return next(server for server in self.servers if server.answers("ROLE").startswith("master"))


@contextlib.asynccontextmanager
async def running(setting: Setting, folder: Path) -> AsyncIterator[World]:
    """A world whose replicas are connected."""
    with _redis(setting.redis) as (servers, setup):
        async with contextlib.AsyncExitStack() as stack:
            proxies = []
            if setup is None:
                proxies = [await stack.enter_async_context(FaultProxy(servers[0].port)) for _ in range(SLOTS)]
            replicas = [
                _replica(setting, folder / f"replica{number}", proxies[number].port if proxies else 0, servers, setup)
                for number in range(SLOTS)
            ]
            try:
                await asyncio.gather(*(replica.start() for replica in replicas))
                yield World(setting, replicas, proxies, servers, setup)
            finally:
                for proxy in proxies:
                    proxy.heal()
                for replica in replicas:
                    await replica.close()


def _replica(
    setting: Setting, folder: Path, port: int, servers: list[RedisServer], setup: SentinelSetup | ClusterSetup | None
) -> Replica:
    match setup:
        case None:
            kind, endpoints, tail, url = "Redis", [f"127.0.0.1:{port}"], "", "redis://{}/0"
        case SentinelSetup():
            kind, tail, url = "RedisSentinel", ", masterName: main", "redis+sentinel://{}/main"
            endpoints = [server.endpoint for server in setup.sentinels]
        case ClusterSetup():
            kind, tail, url = "RedisCluster", "", "redis+cluster://{}"
            endpoints = [server.endpoint for server in servers]
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
            with running_server() as server:
                yield [server], None
        case Redis.SENTINEL:
            with running_sentinels(OPTIONS) as sentinels:
                yield sentinels.servers, sentinels
        case Redis.CLUSTER:
            with running_cluster(OPTIONS) as cluster:
                yield cluster.servers, cluster
