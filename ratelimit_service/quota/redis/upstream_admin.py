"""What an operator asks of counters that envoyproxy/ratelimit's keys name: give back, forget, list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ratelimit_service.quota.redis.calls import Command, Script, ScriptCall
from ratelimit_service.quota.redis.faults import StoreLost
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.scatter import scatter
from ratelimit_service.quota.redis.upstream_counting import Counted, Servers, UpstreamFailed
from ratelimit_service.quota.store import Source, Usage
from ratelimit_service.quota.upstream import PAGE_COUNTERS, UNIT_SECONDS, upstream_key, upstream_outcome

__all__ = ["forget", "list_counters", "take_back"]

_TAKE_BACK: Final = b"""
-- KEYS[1] counter; ARGV[1] hits to give back. Never below 0; an expired counter stays expired. Returns the count.
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
local back = math.min(count, tonumber(ARGV[1]))
if back > 0 then
  return redis.call('DECRBY', KEYS[1], string.format('%.0f', back))
end
return count
"""
_TAKE_BACK_SCRIPT: Final = Script("take_back", hashlib.sha1(_TAKE_BACK, usedforsecurity=False).hexdigest(), _TAKE_BACK)

_SECOND_US: Final = 1_000_000
_SCAN_KEYS: Final = "1000"
"""Keys that one SCAN looks at: it holds Redis for well under a millisecond."""

_MOST_KEYS: Final = 100_000
"""Keys of a domain that are listed at the most."""


async def take_back(servers: Servers, charges: Sequence[Counted]) -> None:
    """Take each charge's hits off its counter and give it the outcome of a look at what is left."""
    for each in charges:
        topology = servers.per_second if each.per_second and servers.per_second is not None else servers.main
        call = ScriptCall(_TAKE_BACK_SCRIPT, (each.key,), (each.hits or 0,))
        (reply,) = await scatter(topology, [(each.key, call)], servers.timeout_us)
        if isinstance(reply, int):
            each.outcome = upstream_outcome(each.charge.limit, reply, 0, each.now_us, Source.EXACT)
        else:
            each.outcome = UpstreamFailed(str(reply))


async def forget(servers: Servers, prefix: bytes, stem: bytes, now_us: int) -> bool:
    """Delete a stem's counters in the current windows of all units; whether there was one."""
    keys = {upstream_key(prefix, stem, unit_s * _SECOND_US, now_us) for unit_s in UNIT_SECONDS}
    calls = [(key, Command(("DEL", key))) for key in sorted(keys)]
    deleted = 0
    for topology in servers.all():
        for reply in await scatter(topology, calls, servers.timeout_us):
            deleted += reply if isinstance(reply, int) else 0
    return deleted > 0


async def list_counters(servers: Servers, head: bytes, page: int) -> list[Usage]:
    """One page of the counters whose keys begin with `head`, by key, with what is left of their expiry as `wait_us`.

    All keys are looked through each time: Redis's own order changes while it resizes its table, and pages would
    lose keys.
    """
    found: dict[bytes, Node] = {}
    for topology in servers.all():
        for node in topology.nodes():
            await _scan(node, head, servers.timeout_us, found)
    usages = []
    for key in sorted(found)[page * PAGE_COUNTERS : (page + 1) * PAGE_COUNTERS]:
        try:
            used, left_ms = await found[key].ask([Command(("GET", key)), Command(("PTTL", key))], servers.timeout_us)
        except StoreLost:
            continue
        if isinstance(used, bytes) and used.isdigit() and isinstance(left_ms, int):
            wait_us = max(0, left_ms) * 1_000
            usages.append(Usage(identity=b"", key=key, used=int(used), remaining=0, wait_us=wait_us))
    return usages


async def _scan(node: Node, head: bytes, timeout_us: int, found: dict[bytes, Node]) -> None:
    """Add a node's keys; those of a node that is lost are missing."""
    pattern = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in head) + b"*"
    cursor: Reply = b"0"
    while len(found) < _MOST_KEYS:
        assert isinstance(cursor, bytes)
        try:
            (reply,) = await node.ask([Command(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_KEYS))], timeout_us)
        except StoreLost:
            return
        if not isinstance(reply, list):
            return
        cursor, keys = reply
        for key in keys if isinstance(keys, list) else ():
            if isinstance(key, bytes):
                found[key] = node
        if cursor == b"0":
            return
