"""Count one batch of requests in Redis as envoyproxy/ratelimit does: INCRBY and EXPIRE, each key for itself.

Source: src/redis/fixed_cache_impl.go of that project. Nothing is a transaction: what was counted before an error
stays counted, and with `stop_when_over` another replica may count between the look and the increment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.quota.redis.calls import Command
from ratelimit_service.quota.redis.faults import ScriptError, StoreLost
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.scatter import scatter
from ratelimit_service.quota.redis.topology import Topology
from ratelimit_service.quota.store import Charge, Outcome, Role, Source
from ratelimit_service.quota.upstream import upstream_outcome

__all__ = ["MOST_HITS", "Counted", "Servers", "UpstreamFailed", "count", "look"]

MOST_HITS: Final = 2**53 - 1
"""Hits of one INCRBY; Redis counts in 64 bits with a sign."""

_MOST_COUNT: Final = 2**63 - 1


class UpstreamFailed(msgspec.Struct, frozen=True):
    """A charge's key could not be counted or read; its request is answered UNKNOWN."""

    reason: str


class Servers(msgspec.Struct, frozen=True):
    """Where keys are.

    Attributes:
        main: Every key, but for
        per_second: those of limits per second; None: they are in `main` too.
        timeout_us: For a round trip.
    """

    main: Topology
    per_second: Topology | None
    timeout_us: int

    def all(self) -> tuple[Topology, ...]:
        """Main first."""
        return (self.main,) if self.per_second is None else (self.main, self.per_second)


class Counted(msgspec.Struct):
    """One charge on its way.

    Attributes:
        charge: What is asked.
        key: Its key in Redis.
        per_second: Its limit is per second.
        expiry_s: What EXPIRE is told.
        hits: What INCRBY is told; None: only look.
        now_us: Wall time of the request.
        outcome: The answer, when there is one.
    """

    charge: Charge
    key: bytes
    per_second: bool
    expiry_s: int
    hits: int | None
    now_us: int
    outcome: Outcome | UpstreamFailed | None = None

    def would_be_over(self, before: int) -> bool:
        """Whether its hits cross the limit."""
        return before + (self.hits or 0) > self.charge.limit.requests


async def count(servers: Servers, charges: Sequence[Counted]) -> None:
    """Give every charge its outcome: INCRBY and EXPIRE, GET where it is only judged."""
    replies = await _ask_all(servers, charges, [_commands(each) for each in charges])
    for each, (reply, *_) in zip(charges, replies, strict=True):
        value = _count(reply)
        if isinstance(value, UpstreamFailed):
            each.outcome = value
        elif each.hits is None:
            each.outcome = _judged(each, value, min(each.charge.hits, MOST_HITS))
        else:
            each.outcome = _judged(each, value - each.hits, each.hits)


async def look(servers: Servers, charges: Sequence[Counted]) -> list[int | UpstreamFailed]:
    """Read the counts of charges."""
    replies = await _ask_all(servers, charges, [(Command(("GET", each.key)),) for each in charges])
    return [_count(reply) for (reply,) in replies]


def _commands(each: Counted) -> tuple[Command, ...]:
    if each.hits is None or each.charge.role is Role.OBSERVE:
        return (Command(("GET", each.key)),)
    return Command(("INCRBY", each.key, each.hits)), Command(("EXPIRE", each.key, each.expiry_s))


def _judged(each: Counted, before: int, hits: int) -> Outcome:
    return upstream_outcome(each.charge.limit, before, hits, each.now_us, Source.EXACT)


def _count(reply: Reply | StoreLost) -> int | UpstreamFailed:
    if isinstance(reply, StoreLost):
        return UpstreamFailed(str(reply))
    if isinstance(reply, ScriptError):
        if "overflow" in reply.message:
            return _MOST_COUNT
        return UpstreamFailed(f"{reply.code} {reply.message}")
    if isinstance(reply, int):
        return reply
    if reply is None:
        return 0
    return int(reply) if isinstance(reply, bytes) and reply.lstrip(b"-").isdigit() else UpstreamFailed("not a count")


async def _ask_all(
    servers: Servers, charges: Sequence[Counted], commands: Sequence[tuple[Command, ...]]
) -> list[list[Reply | StoreLost]]:
    """Send each charge's commands to its server, in order; main and per-second servers at once."""
    answers: list[list[Reply | StoreLost]] = [[] for _ in charges]

    async def ask(topology: Topology, *, per_second: bool) -> None:
        flat = [
            (index, (charges[index].key, command))
            for index, of_charge in enumerate(commands)
            if (charges[index].per_second and servers.per_second is not None) is per_second
            for command in of_charge
        ]
        if flat:
            replies = await scatter(topology, [call for _, call in flat], servers.timeout_us)
            for (index, _), reply in zip(flat, replies, strict=True):
                answers[index].append(reply)

    if servers.per_second is None:
        await ask(servers.main, per_second=False)
    else:
        await asyncio.gather(ask(servers.main, per_second=False), ask(servers.per_second, per_second=True))
    return answers
