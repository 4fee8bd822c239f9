"""Heartbeats: keep a replica's slot, count the replicas that are alive, and read the store's clock."""

from __future__ import annotations

import hashlib
import importlib.resources
import secrets
from typing import Final

from ratelimit_service.quota.leases.allowances import StoreTime
from ratelimit_service.quota.leases.membership import SLOT_TTL_US, Beat, Membership, form_of
from ratelimit_service.quota.redis.calls import Script, ScriptCall
from ratelimit_service.quota.redis.faults import LossReason, StoreLost
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.topology import Topology

__all__ = ["PLACES", "Pulse"]

PLACES: Final = 64
"""Slots that are kept where nobody said how many replicas there will be: replicas beyond them are not counted."""

_MILLION: Final = 1_000_000
_FIELDS: Final = 7
_BEAT_US: Final = 200_000
"""How long a heartbeat is waited for: it is in nobody's way."""


def _read_script() -> Script:
    folder = importlib.resources.files("ratelimit_service.quota.redis").joinpath("lua")
    source = folder.joinpath("membership.lua").read_bytes()
    return Script("membership", hashlib.sha1(source, usedforsecurity=False).hexdigest(), source)


class Pulse:
    """A replica's heartbeats.

    Attributes:
        name: The replica's, unique: 32 hexadecimal digits, another one at every start.
    """

    def __init__(self, topology: Topology, prefix: bytes, slots: int | None, percent: int, clock: Clock) -> None:
        """Beat for a replica that goes by so many slots and such a standing share."""
        self.name = secrets.token_hex(16).encode()
        self._topology = topology
        self._clock = clock
        self._script = _read_script()
        places = PLACES if slots is None else slots
        # One hash tag: all of them are in one slot of a cluster.
        names = (b"form", b"owned", *(b"%d" % place for place in range(places)))
        self._keys = tuple(b"%b{slots}%b" % (prefix, name) for name in names)
        self._form = form_of(slots or 0, percent)
        self._owns = b"1" if slots and percent else b"0"

    async def beat(self, membership: Membership, time: StoreTime) -> None:
        """Renew, or take, a slot.

        Raises:
            StoreLost: The store did not answer; the slot lasts as long as it did.
        """
        sent_us = self._clock.read().boot_us
        beat = await self._call(leave=False)
        received_us = self._clock.read().boot_us
        membership.take_in(beat, sent_us, received_us)
        time.observe(beat.wall_us, sent_us, received_us)

    async def leave(self) -> None:
        """Give the slot up.

        Raises:
            StoreLost: The store did not answer; the slot ends by itself.
        """
        await self._call(leave=True)

    async def _call(self, *, leave: bool) -> Beat:
        node = self._topology.node_for(self._keys[0])
        if node is None or not node.ready:
            raise StoreLost(LossReason.ABSENT)
        args = (self.name, self._form, SLOT_TTL_US // 1_000, b"1" if leave else b"0", self._owns)
        (reply,) = await node.ask([ScriptCall(self._script, self._keys, args)], _BEAT_US)
        return _read_beat(reply)


def _read_beat(reply: Reply) -> Beat:
    if not isinstance(reply, list) or len(reply) != _FIELDS:
        raise StoreLost(LossReason.DENIED, f"heartbeat answered {reply!r}")
    slot, rank, live, in_form, seconds, micros, other_us = (int(field) for field in reply)  # type: ignore[arg-type]
    return Beat(slot, rank, live, bool(in_form), seconds * _MILLION + micros, other_us)
