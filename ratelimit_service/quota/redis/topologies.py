"""Makes the topology that an address asks for."""

from __future__ import annotations

from ratelimit_service.quota.redis.cluster import ClusterTopology
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.sentinel import SentinelTopology
from ratelimit_service.quota.redis.topology import SingleTopology, Topology, Watcher
from ratelimit_service.redis_server.address_model import Layout, RedisAddress

__all__ = ["make_topology"]


def make_topology(address: RedisAddress, watcher: Watcher, clock: Clock) -> Topology:
    """The nodes of an address; nothing is connected before `start`."""
    if address.layout is Layout.SENTINEL:
        return SentinelTopology(address, watcher, clock)
    if address.layout is Layout.CLUSTER:
        return ClusterTopology(address, watcher, clock)
    return SingleTopology(address, watcher, clock)
