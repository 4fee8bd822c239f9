"""Grants that survive the loss of a master: each batch waits until replicas of the server have it (DECISIONS 17).

`WAIT` goes out in the batch's own pipeline, so it costs no round trip. Where too few replicas confirm, what was granted
is not spent, and the failure mode decides; a master that is cut off from its replicas grants nothing that counts.
Calls that a cluster redirects while a slot moves are not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ratelimit_service.quota.redis.calls import Call, Command, RoundTrip
from ratelimit_service.quota.redis.faults import StoreLost
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.topology import Topology

__all__ = ["DurableNode", "DurableTopology"]

MOST_WAIT_MS: Final = 4
"""How long replicas may take: half of what a round trip may."""


class DurableNode:
    """A node whose grants are good once enough replicas have them; a `BatchNode`."""

    __slots__ = ("_node", "_replicas")

    def __init__(self, node: Node, replicas: int) -> None:
        """Wait for `replicas` of them, at least 1."""
        self._node = node
        self._replicas = replicas

    @property
    def ready(self) -> bool:
        """See `Node.ready`."""
        return self._node.ready

    def begin(self, calls: Sequence[Call], timeout_us: int, heard: Callable[[RoundTrip | StoreLost], None]) -> None:
        """As `Node.begin`; `same_memory` is False too where replicas lack what was granted."""

        def waited(trip: RoundTrip | StoreLost) -> None:
            if isinstance(trip, StoreLost):
                heard(trip)
                return
            *replies, confirmed = trip.replies
            is_durable = isinstance(confirmed, int) and confirmed >= self._replicas
            heard(msgspec.structs.replace(trip, replies=replies, same_memory=trip.same_memory and is_durable))

        self._node.begin([*calls, Command(("WAIT", self._replicas, MOST_WAIT_MS))], timeout_us, waited)


class DurableTopology:
    """A topology of `DurableNode`s; a `BatchTopology`."""

    def __init__(self, topology: Topology, replicas: int) -> None:
        """See `DurableNode`."""
        self._topology = topology
        self._replicas = replicas
        self._nodes: dict[Node, DurableNode] = {}

    def node_for(self, key: bytes) -> DurableNode | None:
        """See `Topology.node_for`."""
        node = self._topology.node_for(key)
        if node is None:
            return None
        durable = self._nodes.get(node)
        if durable is None:
            known = set(self._topology.nodes())
            self._nodes = {each: wrapped for each, wrapped in self._nodes.items() if each in known}
            durable = self._nodes[node] = DurableNode(node, self._replicas)
        return durable

    def slot_of(self, key: bytes) -> int:
        """See `Topology.slot_of`."""
        return self._topology.slot_of(key)
