"""Plain calls for several keys: each to the node that counts its key, all nodes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ratelimit_service.quota.redis.calls import Call
from ratelimit_service.quota.redis.faults import LossReason, StoreLost
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.topology import Topology

__all__ = ["scatter"]


async def scatter(topology: Topology, calls: Sequence[tuple[bytes, Call]], timeout_us: int) -> list[Reply | StoreLost]:
    """Ask for (key, call) pairs, one pipeline per node; a node that is lost answers its calls with why."""
    answers: list[Reply | StoreLost] = [StoreLost(LossReason.ABSENT)] * len(calls)
    by_node: dict[Node, list[int]] = {}
    for index, (key, _) in enumerate(calls):
        node = topology.node_for(key)
        if node is not None:
            by_node.setdefault(node, []).append(index)

    async def ask(node: Node, indexes: list[int]) -> None:
        replies: Sequence[Reply | StoreLost]
        try:
            replies = await node.ask([calls[index][1] for index in indexes], timeout_us)
        except StoreLost as lost:
            replies = [lost] * len(indexes)
        for index, reply in zip(indexes, replies, strict=True):
            answers[index] = reply

    if len(by_node) == 1:
        # The usual case, without a task.
        ((node, indexes),) = by_node.items()
        await ask(node, indexes)
    else:
        await asyncio.gather(*(ask(node, indexes) for node, indexes in by_node.items()))
    return answers
