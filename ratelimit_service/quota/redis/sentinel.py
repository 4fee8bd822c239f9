"""A master that sentinels watch: where it is now, and where it is after they have made another one.

Every sentinel is asked, and the answer with the greatest configuration epoch counts: one that was cut off during a
failover still names the old master. The news itself comes by subscription. Source: Redis, "Sentinel client spec".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.quota.redis.connection import Dialer
from ratelimit_service.quota.redis.faults import LossReason, ScriptError, StoreLost
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.link import Link, Reply
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.topology import Watcher, node_problems
from ratelimit_service.quota.redis.waiting import is_set_within
from ratelimit_service.redis_server.address_model import Endpoint, RedisAddress

__all__ = ["SentinelTopology"]

_CALM_US: Final = 10_000_000
"""Between two rounds of questions while all is well: the subscription is quicker anyway."""

_ALERT_US: Final = 200_000
"""Between two rounds at the least, jitter up to half off."""

_MOST_SENTINELS: Final = 16


class _Word(msgspec.Struct, frozen=True, order=True):
    """What one sentinel says of the master; a later epoch is later knowledge."""

    epoch: int
    host: str
    port: int


class SentinelTopology:
    """One node that goes where the master goes."""

    def __init__(self, address: RedisAddress, watcher: Watcher, clock: Clock) -> None:
        self._dialer = Dialer(address)
        self._watcher = watcher
        self._chance = random.Random()  # noqa: S311 — spreads questions
        self._node = Node(self._dialer, self, clock, endpoint=None)
        self._sentinels = list(address.endpoints)
        self._problem = "no sentinel has been asked yet"
        self._ask_again = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

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
        return ([self._problem] if self._problem else []) + node_problems(self._node)

    async def start(self) -> None:
        """See `Topology.start`."""
        self._node.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._listen())]

    async def close(self) -> None:
        """See `Topology.close`."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        await self._node.close()

    def on_new_boot(self, node: Node) -> None:
        """See `NodeOwner`."""
        self._watcher.on_new_boot(node)

    def on_turn(self, node: Node) -> None:
        """See `NodeOwner`."""
        self._watcher.on_turn(node)

    def on_lost(self, node: Node, reason: LossReason) -> None:
        """Perhaps the sentinels know of another master."""
        self._ask_again.set()

    def on_moved(self, slot: int, endpoint: Endpoint, *, asking: bool) -> Node | None:
        """Nothing to follow: behind sentinels there are no slots."""
        return None

    async def _watch(self) -> None:
        """Ask now and then, and often while the master does not answer."""
        while True:
            self._ask_again.clear()
            await self._ask_all()
            await self._pause()
            if self._node.ready:
                await is_set_within(self._ask_again, _CALM_US)

    async def _ask_all(self) -> None:
        words = await asyncio.gather(*(self._ask(sentinel) for sentinel in self._sentinels))
        known = [word for word in words if isinstance(word, _Word)]
        if known:
            newest = max(known)
            self._problem = ""
            self._node.move_to(Endpoint(newest.host, newest.port))
        else:
            self._problem = "; ".join(str(word) for word in words)

    async def _ask(self, sentinel: Endpoint) -> _Word | str:
        """What one sentinel says, or what is wrong with it."""
        name = self._dialer.address.master_name
        try:
            link = await self._dialer.dial_sentinel(sentinel)
        except StoreLost as lost:
            return f"sentinel {sentinel}: {lost}"
        try:
            timeout_us = self._dialer.address.connect_us
            master, others = await link.exchange(
                [("SENTINEL", "MASTER", name), ("SENTINEL", "SENTINELS", name)], timeout_us
            )
        except StoreLost as lost:
            return f"sentinel {sentinel}: {lost}"
        finally:
            link.drop()
        if isinstance(master, ScriptError):
            return f"sentinel {sentinel}: {master.message}"
        self._learn(others)
        return _word(_fields(master)) or f"sentinel {sentinel}: knows no address of {name}"

    def _learn(self, others: Reply) -> None:
        """Remember sentinels that this one knows, so that those that were configured may go."""
        for other in others if isinstance(others, list) else ():
            word = _word(_fields(other))
            if word is not None and len(self._sentinels) < _MOST_SENTINELS:
                endpoint = Endpoint(word.host, word.port)
                if endpoint not in self._sentinels:
                    self._sentinels.append(endpoint)

    async def _listen(self) -> None:
        """Hear of a new master from one sentinel, or from the next where that one is gone."""
        turn = 0
        while True:
            sentinel = self._sentinels[turn % len(self._sentinels)]
            turn += 1
            link: Link | None = None
            try:
                link = await self._dialer.dial_sentinel(sentinel)
                await link.exchange([("SUBSCRIBE", "+switch-master")], self._dialer.address.connect_us)
                # What happened between two subscriptions.
                self._ask_again.set()
                while True:
                    self._on_message(await link.next_message())
            except StoreLost:
                await self._pause()
            finally:
                if link is not None:
                    link.drop()

    async def _pause(self) -> None:
        await asyncio.sleep(_ALERT_US * (1 - self._chance.random() / 2) / 1_000_000)

    def _on_message(self, message: Reply) -> None:
        """Read `name old-host old-port new-host new-port`."""
        text = message[-1] if isinstance(message, list) and message else b""
        words = text.decode("utf-8", "replace").split(" ") if isinstance(text, bytes) else []
        if len(words) == _SWITCH_WORDS and words[0] == self._dialer.address.master_name and words[4].isdigit():
            self._node.move_to(Endpoint(words[3], int(words[4])))


_SWITCH_WORDS: Final = 5


def _fields(reply: Reply) -> dict[bytes, bytes]:
    """Read a flat list of names and values."""
    items = [item for item in reply if isinstance(item, bytes)] if isinstance(reply, list) else []
    return dict(zip(items[::2], items[1::2], strict=False))


def _word(fields: dict[bytes, bytes]) -> _Word | None:
    host, port = fields.get(b"ip", b""), fields.get(b"port", b"")
    if not host or not port.isdigit():
        return None
    epoch = fields.get(b"config-epoch", b"0")
    return _Word(int(epoch) if epoch.isdigit() else 0, host.decode("utf-8", "replace"), int(port))
