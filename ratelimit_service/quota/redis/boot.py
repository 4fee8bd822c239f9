"""How a replica notices that a server has lost its memory (DECISIONS 17).

Each node holds a *boot key*. Its value names a memory: 16 random bytes, the run id of the server that it was made on,
and when. It is read after every batch. A flushed or emptied server has none; one that was restarted, or took over from
a master that failed, may hold its predecessor's, with another run id, and gets a new one from the first that connects.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.quota.redis.faults import LossReason, ScriptError, StoreLost, loss_of_reply
from ratelimit_service.quota.redis.link import Link, Reply

__all__ = ["ServerFacts", "age_us", "boot_began_us", "boot_key", "ensure_boot", "identify"]

_ENSURE: Final = b"""
-- KEYS[1] boot key; ARGV[1] random text, ARGV[2] run id of this server, or nothing where it does not say.
-- Returns the value in force: the one that is there, if it was made on this very run of the server.
local found = redis.call('GET', KEYS[1])
if found then
  local made_on = string.match(found, '^%x+:(%x*):%d+$')
  if made_on and (ARGV[2] == '' or made_on == ARGV[2]) then
    return found
  end
end
local time = redis.call('TIME')
local made = ARGV[1] .. ':' .. ARGV[2] .. ':' .. time[1] .. string.format('%06d', time[2])
redis.call('SET', KEYS[1], made)
return made
"""

_NO_EVICTION: Final = "noeviction"


class ServerFacts(msgspec.Struct, frozen=True):
    """What a server says of itself when a connection is made.

    Attributes:
        run_id: Changes with every start of the server; empty where it does not say.
        is_master: It takes writes.
        version: Of Redis, for people.
        eviction: `maxmemory-policy`; anything but `noeviction` may drop counters. Empty where it does not say.
        wall_us: Its clock as it answered; 0 where it does not say.
    """

    run_id: str = ""
    is_master: bool = True
    version: str = ""
    eviction: str = ""
    wall_us: int = 0

    @property
    def may_evict(self) -> bool:
        """Whether it may drop counters when it is full."""
        return self.eviction not in {"", _NO_EVICTION}


def boot_key(prefix: bytes, tag: bytes) -> bytes:
    """Name of a node's boot key; `tag` puts it into a slot of that node."""
    return b"%b{%b}boot" % (prefix, tag)


def age_us(boot: bytes, facts: ServerFacts) -> int:
    """How old the memory of a boot value was when the server told of itself; 0 where that cannot be known."""
    began_us = boot_began_us(boot)
    return max(0, facts.wall_us - began_us) if began_us and facts.wall_us else 0


def boot_began_us(boot: bytes) -> int:
    """When the memory that a boot value names began, in microseconds of the server's wall clock; 0 if it is foreign."""
    began = boot.rpartition(b":")[2]
    return int(began) if began.isdigit() else 0


async def identify(link: Link, timeout_us: int) -> ServerFacts:
    """Ask a server who it is.

    Raises:
        StoreLost: It does not answer, or refuses.
    """
    fields: dict[str, str] = {}
    for reply in await link.exchange([("INFO", "server"), ("INFO", "replication"), ("INFO", "memory")], timeout_us):
        fields.update(_fields(reply))
    wall = fields.get("server_time_usec", "")
    return ServerFacts(
        run_id=fields.get("run_id", ""),
        is_master=fields.get("role", "master") == "master",
        version=fields.get("redis_version", ""),
        eviction=fields.get("maxmemory_policy", ""),
        wall_us=int(wall) if wall.isdigit() else 0,
    )


async def ensure_boot(link: Link, key: bytes, random_text: str, run_id: str, timeout_us: int) -> bytes:
    """Read a server's boot value, or make one.

    Raises:
        StoreLost: It does not answer, or refuses.
    """
    (reply,) = await link.exchange([("EVAL", _ENSURE, 1, key, random_text, run_id)], timeout_us)
    if isinstance(reply, ScriptError):
        raise StoreLost(loss_of_reply(reply) or LossReason.DENIED, f"{reply.code} {reply.message}")
    assert isinstance(reply, bytes)
    return reply


def _fields(reply: Reply) -> dict[str, str]:
    """Read the lines `name:value` of an INFO reply."""
    if not isinstance(reply, bytes):
        return {}
    pairs = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}
