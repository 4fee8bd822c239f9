"""One Redis master as the batches see it: one pipeline out, its replies and the boot key's value back.

A node keeps its connections by itself: a task makes them, again and again with a jittered pause while there is no
server, probes when the breaker is open, and makes a new boot value when the old one is gone. Nothing here waits longer
than it was told, and a node without a connection says so at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, Protocol

from ratelimit_service.quota.redis.boot import ServerFacts, age_us, boot_key, ensure_boot, identify
from ratelimit_service.quota.redis.breaker import Breaker, BreakerSettings, BreakerState
from ratelimit_service.quota.redis.calls import Call, RoundTrip
from ratelimit_service.quota.redis.connection import Dialer
from ratelimit_service.quota.redis.faults import LossReason, StoreLost, read_redirect
from ratelimit_service.quota.redis.lane import Answer, Clock, Lane
from ratelimit_service.quota.redis.link import Link, Reply
from ratelimit_service.quota.redis.node_stats import NodeStats
from ratelimit_service.quota.redis.waiting import is_set_within
from ratelimit_service.redis_server.address_model import Endpoint

__all__ = ["Node", "NodeOwner"]

_FIRST_PAUSE_US: Final = 50_000
_MOST_PAUSE_US: Final = 1_000_000
"""Between two attempts to connect: soon enough that a store that is back is used within 2 s."""

_IDLE_US: Final = 1_000_000
"""An idle node is looked after once a second."""


class NodeOwner(Protocol):
    """What a node tells the topology that it belongs to."""

    def on_new_boot(self, node: Node) -> None:
        """Its memory is not the one that it had."""

    def on_lost(self, node: Node, reason: LossReason) -> None:
        """A connection was lost or refused: perhaps another server is the master now."""

    def on_turn(self, node: Node) -> None:
        """It has become ready, or is so no longer."""

    def on_moved(self, slot: int, endpoint: Endpoint, *, asking: bool) -> Node | None:
        """A slot is elsewhere, for good or (`asking`) for this once; returns the node to ask, if there is one."""


class Node:
    """One master. Not thread-safe: one node belongs to one event loop.

    Args:
        dialer: Makes connections.
        owner: Is told what happens.
        clock: Whose boot time counts.
        endpoint: None: not known yet; see `move_to`.
        boot_tag: Hash tag of the boot key, in a slot of the node.
        announce_first_boot: Tell of the first boot value too: the node took over from another one.

    Attributes:
        endpoint: Where it is.
        boot_key: Name of its boot key.
        boot: The boot value in force; None before the first connection.
        found_us: Boot time at which the memory that it was first found with had surely begun.
        facts: What the server said of itself when it was last connected to.
    """

    def __init__(
        self,
        dialer: Dialer,
        owner: NodeOwner,
        clock: Clock,
        *,
        endpoint: Endpoint | None,
        boot_tag: bytes = b"0",
        announce_first_boot: bool = False,
        chance: random.Random | None = None,
    ) -> None:
        self._dialer = dialer
        self._owner = owner
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 — spreads retries
        address = dialer.address
        breaker = Breaker(BreakerSettings(slow_us=address.command_us), self._chance.random)
        self._lane = Lane(clock, breaker, self._on_turn)
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._aside: set[asyncio.Task[None]] = set()
        self.boot_key = boot_key(address.key_prefix, boot_tag)
        self._boot_in_doubt = False
        self._round_trips_seen = 0
        self._announce_first_boot = announce_first_boot
        self.endpoint = endpoint
        self.boot: bytes | None = None
        self.found_us = 0
        self.facts = ServerFacts()

    def __repr__(self) -> str:
        return f"<Node {self.endpoint} {self._lane.breaker.state.value} links={len(self._lane.pool)}>"

    @property
    def ready(self) -> bool:
        """Whether it can be asked: a connection is up and the breaker closed. Costs nothing."""
        return self._lane.ready

    def available(self, now_us: int) -> bool:
        """`ready`; the node probes by itself, so no request ever pays for finding out."""
        return self.ready

    def start(self) -> None:
        """Begin to connect in the background."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Stop, and close every connection; a round trip under way is lost."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        await asyncio.gather(*(link.close() for link in self._lane.pool.clear()))
        self._lane.turn()

    def move_to(self, endpoint: Endpoint) -> None:
        """The master is elsewhere now: connections to the old place are dropped."""
        if endpoint != self.endpoint:
            self.endpoint = endpoint
            self._moved.set()
            self._reconnect()

    def _reconnect(self) -> None:
        """Drop every connection and make new ones."""
        for link in self._lane.pool.clear():
            link.drop()
        self._lane.turn()
        self._wake.set()

    def place_boot_key(self, tag: bytes) -> None:
        """Put the boot key where the node can hold it: its slots have changed."""
        key = boot_key(self._dialer.address.key_prefix, tag)
        if key != self.boot_key:
            self.boot_key = key
            self._boot_in_doubt = True
            self._wake.set()

    async def run(self, calls: Sequence[Call], timeout_us: int) -> RoundTrip:
        """Send calls and a read of the boot key as one pipeline.

        A script that the server does not know is loaded and called again; a call for a slot that is elsewhere is sent
        there, within the same time. Such calls are made after the others; the boot key is read after all of them.

        Raises:
            StoreLost: Nothing is known of what was counted.
        """
        deadline_us = self._clock.read().boot_us + timeout_us
        boot = self.boot
        answer = await self.asked(calls, deadline_us, self.boot_key)
        return await self._redirected(calls, answer, deadline_us, same_memory=self._is_same_memory(boot, answer[1]))

    def _is_same_memory(self, boot: bytes | None, value: bytes | None) -> bool:
        """Whether a boot value that was read is the one in force since before the reading."""
        is_same = value is not None and value == boot == self.boot
        if not is_same:
            self._doubt_boot()
        return is_same

    async def _redirected(
        self, calls: Sequence[Call], answer: Answer, deadline_us: int, *, same_memory: bool
    ) -> RoundTrip:
        replies, value = answer
        if any(map(read_redirect, replies)):
            same_memory = await self._follow(calls, replies, deadline_us, with_boot=True) and same_memory
        return RoundTrip(replies, value, same_memory)

    def begin(self, calls: Sequence[Call], timeout_us: int, heard: Callable[[RoundTrip | StoreLost], None]) -> None:
        """As `run`, without a task while all is well; `heard` is told, not before this returns."""
        if self.ready:
            boot = self.boot

            def answered(answer: Answer | StoreLost) -> None:
                if isinstance(answer, StoreLost):
                    self._on_failure(answer.reason)
                    heard(answer)
                    return
                replies, value = answer
                same_memory = self._is_same_memory(boot, value)
                if any(map(read_redirect, replies)):
                    self._run_aside(self._redirected(calls, answer, deadline_us, same_memory=same_memory), heard)
                else:
                    heard(RoundTrip(replies, value, same_memory))

            deadline_us = self._clock.read().boot_us + timeout_us
            if self._lane.begin(calls, deadline_us, self.boot_key, answered):
                return
        self._run_aside(self.run(calls, timeout_us), heard)

    def _run_aside(
        self, trip: Coroutine[None, None, RoundTrip], heard: Callable[[RoundTrip | StoreLost], None]
    ) -> None:
        async def run() -> None:
            try:
                answer: RoundTrip | StoreLost = await trip
            except StoreLost as lost:
                answer = lost
            except BaseException:
                heard(StoreLost(LossReason.CLOSED))
                raise
            finally:
                self._aside.discard(task)
            heard(answer)

        task = asyncio.get_running_loop().create_task(run())
        self._aside.add(task)

    async def ask(self, calls: Sequence[Call], timeout_us: int) -> list[Reply]:
        """As `run`, without the boot key: for what grants nothing.

        Raises:
            StoreLost: Nothing is known of what was done.
        """
        deadline_us = self._clock.read().boot_us + timeout_us
        replies, _ = await self.asked(calls, deadline_us, None)
        if any(read_redirect(reply) for reply in replies):
            await self._follow(calls, replies, deadline_us, with_boot=False)
        return replies

    def stats(self) -> NodeStats:
        """Read the plain integers."""
        endpoint = "" if self.endpoint is None else str(self.endpoint)
        return self._lane.stats(endpoint, self._dialer.address.pool_size, may_evict=self.facts.may_evict)

    async def _follow(self, calls: Sequence[Call], replies: list[Reply], deadline_us: int, *, with_boot: bool) -> bool:
        """Send calls that were redirected where they belong; what cannot be stays an error. Returns `same_memory`."""
        assert self.endpoint is not None
        sent: dict[tuple[Node, bool], list[int]] = {}
        for index, reply in enumerate(replies):
            redirect = read_redirect(reply)
            if redirect is None:
                continue
            endpoint = Endpoint(redirect.host or self.endpoint.host, redirect.port)
            node = self._owner.on_moved(redirect.slot, endpoint, asking=redirect.asking)
            if node is not None and node is not self:
                sent.setdefault((node, redirect.asking), []).append(index)
        same_memory = True
        for (node, asking), indexes in sent.items():
            boot = node.boot
            try:
                key = node.boot_key if with_boot else None
                late, value = await node.asked([calls[index] for index in indexes], deadline_us, key, asking=asking)
            except StoreLost:
                continue
            self._lane.tally.redirects += len(indexes)
            same_memory = same_memory and value is not None and value == boot == node.boot
            for index, reply in zip(indexes, late, strict=True):
                replies[index] = reply
        return same_memory

    async def asked(
        self, calls: Sequence[Call], deadline_us: int, key: bytes | None, *, asking: bool = False
    ) -> Answer:
        """One round trip by a deadline (boot time), redirections not followed; `run` and `ask` are for everybody else.

        Raises:
            StoreLost: Nothing is known of what was done.
        """
        try:
            return await self._lane.round_trip(calls, deadline_us, key, asking=asking)
        except StoreLost as lost:
            self._on_failure(lost.reason)
            raise

    def _on_failure(self, reason: LossReason) -> None:
        if reason in {LossReason.ABSENT, LossReason.BREAKER}:
            # Nothing that the keeper does not know.
            return
        self._wake.set()
        if reason is LossReason.READONLY:
            # A replica now: none of its connections will do again.
            self._reconnect()
        self._owner.on_lost(self, reason)

    def _doubt_boot(self) -> None:
        self._boot_in_doubt = True
        self._wake.set()

    # The keeper.

    async def _keep(self) -> None:
        pause_us = _FIRST_PAUSE_US
        while True:
            self._wake.clear()
            self._lane.pool.prune()
            self._lane.turn()
            try:
                if self.endpoint is not None and len(self._lane.pool) < self._dialer.address.pool_size:
                    await self._connect(self.endpoint)
                elif self._boot_in_doubt and len(self._lane.pool) > 0:
                    await self._renew_boot()
                elif self._lane.breaker.state is not BreakerState.CLOSED:
                    await self._probe()
                elif not await is_set_within(self._wake, _IDLE_US):
                    await self._look_after()
            except StoreLost as lost:
                self._lane.tally.connect_failures += 1
                self._lane.tally.loss = lost
                if lost.reason is LossReason.READONLY:
                    self._reconnect()
                self._owner.on_lost(self, lost.reason)
                if len(self._lane.pool) > 0:
                    # What is left may be as dead as what could not be made.
                    await self._look_after()
                await self._sleep(pause_us // 2 + int(self._chance.random() * pause_us / 2))
                pause_us = min(2 * pause_us, _MOST_PAUSE_US)
            else:
                pause_us = _FIRST_PAUSE_US

    async def _connect(self, endpoint: Endpoint) -> None:
        link = await self._dialer.dial(endpoint)
        try:
            facts, boot = await self._greet(link)
        except BaseException:
            link.drop()
            raise
        if endpoint != self.endpoint:
            link.drop()
            return
        self.facts = facts
        if self.boot is None:
            self.found_us = self._clock.read().boot_us - age_us(boot, facts)
        self._lane.tally.connects += 1
        self._take_boot(boot)
        self._lane.pool.add(link)
        self._lane.turn()

    async def _greet(self, link: Link) -> tuple[ServerFacts, bytes]:
        """Make sure that a new connection leads to a master, and read its boot value."""
        timeout_us = self._dialer.address.connect_us
        facts = await identify(link, timeout_us)
        if not facts.is_master:
            raise StoreLost(LossReason.READONLY, f"{link.endpoint} is a replica")
        return facts, await ensure_boot(link, self.boot_key, secrets.token_hex(16), facts.run_id, timeout_us)

    async def _renew_boot(self) -> None:
        timeout_us = self._dialer.address.connect_us
        link = await self._lane.pool.acquire(timeout_us)
        key = self.boot_key
        try:
            boot = await ensure_boot(link, key, secrets.token_hex(16), self.facts.run_id, timeout_us)
        finally:
            self._lane.pool.release(link)
            self._lane.turn()
        self._boot_in_doubt = self.boot_key != key
        self._take_boot(boot)

    def _take_boot(self, boot: bytes) -> None:
        known, self.boot = self.boot, boot
        if known is None and not self._announce_first_boot:
            return
        if boot != known:
            self._lane.tally.new_boots += 1
            self._owner.on_new_boot(self)

    async def _probe(self) -> None:
        """Ask an open breaker's node for a sign of life when its pause is over."""
        now_us = self._clock.read().boot_us
        if self._lane.breaker.allows(now_us):
            with contextlib.suppress(StoreLost):
                await self._lane.probe(now_us + self._dialer.address.command_us, self.boot_key)
        else:
            await self._sleep(self._lane.breaker.probe_at_us - now_us)

    async def _look_after(self) -> None:
        """See whether an idle node is still there with its memory; traffic does so by itself."""
        if self._lane.tally.round_trips == self._round_trips_seen:
            with contextlib.suppress(StoreLost):
                await self.run((), self._dialer.address.command_us)
        self._round_trips_seen = self._lane.tally.round_trips

    async def _sleep(self, duration_us: int) -> None:
        """Wait, unless the master turns out to be elsewhere."""
        self._moved.clear()
        await is_set_within(self._moved, duration_us)

    def _on_turn(self) -> None:
        self._owner.on_turn(self)
