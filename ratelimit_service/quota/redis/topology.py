"""Which node counts a key: one server, the master that sentinels name, or the owner of a cluster's slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ratelimit_service.quota.redis.connection import Dialer
from ratelimit_service.quota.redis.faults import LossReason
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.redis_server.address_model import Endpoint, RedisAddress

__all__ = ["SingleTopology", "Topology", "Watcher", "node_problems"]


class Watcher(Protocol):
    """Is told what happens to nodes; every call is on the loop, and short."""

    def on_new_boot(self, node: Node) -> None:
        """A node's memory is not the one that it had, or it took over: the rules for a new master apply."""

    def on_turn(self, node: Node) -> None:
        """A node has become ready, or is so no longer (`node.ready`; `node.stats().loss` says why)."""


class Topology(Protocol):
    """The nodes of a store."""

    def node_for(self, key: bytes) -> Node | None:
        """The node that counts a key; None: nobody knows yet. It may not be ready."""

    def slot_of(self, key: bytes) -> int:
        """The slot of a key; keys of one slot may be in one script call. 0 for all where there are no slots."""

    def nodes(self) -> Sequence[Node]:
        """Every node that is known."""

    def problems(self) -> list[str]:
        """What is wrong now, for people; no secrets."""

    async def start(self) -> None:
        """Begin to connect in the background; never fails for want of a server."""

    async def close(self) -> None:
        """Stop, and close every connection."""


def node_problems(node: Node) -> list[str]:
    """What is wrong with a node now."""
    stats = node.stats()
    problems = []
    if not stats.available:
        problems.append(f"{stats.endpoint or 'master'}: {stats.loss or 'not connected yet'}")
    if stats.may_evict:
        eviction = node.facts.eviction
        problems.append(f"{stats.endpoint}: maxmemory-policy {eviction} may drop counters; set noeviction")
    return problems


class SingleTopology:
    """One server, always at the same place."""

    def __init__(self, address: RedisAddress, watcher: Watcher, clock: Clock) -> None:
        self._watcher = watcher
        self._node = Node(Dialer(address), self, clock, endpoint=address.endpoints[0])

    def node_for(self, key: bytes) -> Node | None:
        """The one node."""
        return self._node

    def slot_of(self, key: bytes) -> int:
        """Always 0."""
        return 0

    def nodes(self) -> Sequence[Node]:
        """The one node."""
        return (self._node,)

    def problems(self) -> list[str]:
        """See `Topology.problems`."""
        return node_problems(self._node)

    async def start(self) -> None:
        """See `Topology.start`."""
        self._node.start()

    async def close(self) -> None:
        """See `Topology.close`."""
        await self._node.close()

    def on_new_boot(self, node: Node) -> None:
        """See `NodeOwner`."""
        self._watcher.on_new_boot(node)

    def on_turn(self, node: Node) -> None:
        """See `NodeOwner`."""
        self._watcher.on_turn(node)

    def on_lost(self, node: Node, reason: LossReason) -> None:
        """There is nowhere else to look."""

    def on_moved(self, slot: int, endpoint: Endpoint, *, asking: bool) -> Node | None:
        """Nothing to follow: a cluster's address is written redis+cluster://."""
        return None
