"""What an operator asks of counters that envoyproxy/ratelimit's keys name: give back, forget, list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ratelimit_service.quota.redis.calls import Command, Script, ScriptCall
from ratelimit_service.quota.redis.faults import LossReason, StoreLost
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


async def forget(servers: Servers, prefix: bytes, stem: bytes, now_us: int) -> bool | None:
    """Delete a stem's counters in the current windows of all units; whether there was one, None: not known."""
    keys = {upstream_key(prefix, stem, unit_s * _SECOND_US, now_us) for unit_s in UNIT_SECONDS}
    calls = [(key, Command(("DEL", key))) for key in sorted(keys)]
    replies = [reply for topology in servers.all() for reply in await scatter(topology, calls, servers.timeout_us)]
    deleted = [reply for reply in replies if isinstance(reply, int)]
    return any(deleted) if len(deleted) == len(replies) else None


async def list_counters(servers: Servers, head: bytes, page: int) -> list[Usage] | None:
    """One page of the counters whose keys begin with `head`, by key, with what is left of their expiry as `wait_us`.

    All keys are looked through each time: Redis's own order changes while it resizes its table, and pages would
    lose keys. None: a server did not answer.
    """
    found: dict[bytes, Node] = {}
    try:
        for topology in servers.all():
            for node in topology.nodes():
                await _scan(node, head, servers.timeout_us, found)
    except StoreLost:
        return None
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
    """Add a node's keys.

    Raises:
        StoreLost: It did not answer.
    """
    pattern = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in head) + b"*"
    cursor: Reply = b"0"
    while len(found) < _MOST_KEYS:
        assert isinstance(cursor, bytes)
        (reply,) = await node.ask([Command(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_KEYS))], timeout_us)
        if not isinstance(reply, list):
            raise StoreLost(LossReason.DENIED, f"SCAN answered {reply!r}")
        cursor, keys = reply
        for key in keys if isinstance(keys, list) else ():
            if isinstance(key, bytes):
                found[key] = node
        if cursor == b"0":
            return
