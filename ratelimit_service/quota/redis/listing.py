"""Goes through the counters of a domain in Redis, for `Store.usage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit_service.algorithms.limit import LimitSettings
from ratelimit_service.quota.redis.calls import Command
from ratelimit_service.quota.redis.faults import LossReason, StoreLost
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.packing import group_pattern, key_of
from ratelimit_service.quota.redis.state_bytes import read_state
from ratelimit_service.quota.redis.topology import Topology
from ratelimit_service.quota.redis.twin import Refusal
from ratelimit_service.quota.redis.usage import usages
from ratelimit_service.quota.store import Usage
from ratelimit_service.quota.takes import CountedKey

__all__ = ["MOST_LISTED", "list_usage"]

MOST_LISTED: Final = 100_000
"""Counters of a domain that are listed; a busier one shows the first that are found."""

_SCAN_KEYS: Final = 200
_TIMEOUT_US: Final = 1_000_000

Groups = Mapping[bytes, Mapping[bytes, LimitSettings]]
"""Limits by identity, by the group of their rule (`CountedKey.group`)."""


async def list_usage(topology: Topology, prefix: bytes, groups: Groups) -> list[Usage]:
    """All live counters of some rules, each once.

    Raises:
        StoreLost: A node did not answer.
    """
    found: dict[tuple[bytes, bytes], Usage] = {}
    for node in topology.nodes():
        for group, limits in groups.items():
            for usage in await _of_group(node, prefix, group, limits):
                found.setdefault((usage.identity, usage.key), usage)
                if len(found) >= MOST_LISTED:
                    return list(found.values())
    return list(found.values())


async def _of_group(node: Node, prefix: bytes, group: bytes, limits: Mapping[bytes, LimitSettings]) -> list[Usage]:
    """The counters of one rule on one node."""
    found: list[Usage] = []
    cursor = b"0"
    while len(found) < MOST_LISTED:
        scan = Command(("SCAN", cursor, "MATCH", group_pattern(prefix, group), "COUNT", _SCAN_KEYS))
        page, time = await node.ask([scan, Command(("TIME",))], _TIMEOUT_US)
        if not (isinstance(page, list) and isinstance(time, list)):
            raise StoreLost(LossReason.DENIED, f"SCAN answered {page!r}")
        names = [name for name in page[1] if isinstance(name, bytes)]  # type: ignore[union-attr]
        now_us = int(time[0]) * 1_000_000 + int(time[1])  # type: ignore[arg-type]
        states = await node.ask([Command(("GET", name)) for name in names], _TIMEOUT_US) if names else []
        for name, raw in zip(names, states, strict=True):
            state = read_state(raw) if isinstance(raw, bytes) else Refusal.DAMAGED
            if not isinstance(state, Refusal):
                found += usages(CountedKey(group, key_of(prefix, name)), state, limits, now_us)
        cursor = page[0]  # type: ignore[assignment]
        if cursor == b"0":
            break
    return found
