"""Round trips to one node: a borrowed connection, a deadline, and a breaker that is told how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.quota.redis.breaker import Breaker, BreakerState
from ratelimit_service.quota.redis.calls import Call, ScriptCall
from ratelimit_service.quota.redis.faults import LossReason, ScriptError, StoreLost
from ratelimit_service.quota.redis.link import Argument, Link, Reply
from ratelimit_service.quota.redis.node_stats import NodeStats, Tally
from ratelimit_service.quota.redis.pool import Pool

__all__ = ["Answer", "Clock", "Heard", "Lane"]

Answer: TypeAlias = tuple[list[Reply], bytes | None]
"""A reply per call, and the boot key's value where it was asked for."""

Heard: TypeAlias = Callable[[Answer | StoreLost], None]
"""Takes what a round trip brought, or why it brought nothing."""


class Clock(Protocol):
    """Reads the clocks (`ratelimit_service.clock.Clock`)."""

    def read(self) -> Instant:
        """Read wall and boot time at once."""


class Lane:
    """What a node's round trips share.

    Attributes:
        pool: Its connections.
        breaker: Its breaker.
        tally: What is counted of it.
    """

    __slots__ = ("_clock", "_mending", "_on_turn", "breaker", "pool", "tally")

    def __init__(self, clock: Clock, breaker: Breaker, on_turn: Callable[[], None]) -> None:
        self._clock = clock
        self._on_turn = on_turn
        self._mending: set[asyncio.Task[None]] = set()
        self.breaker = breaker
        self.pool = Pool(self._on_closed)
        self.tally = Tally(clock.read().boot_us)

    @property
    def ready(self) -> bool:
        """A connection is up and the breaker closed."""
        return len(self.pool) > 0 and self.breaker.state is BreakerState.CLOSED

    def turn(self) -> None:
        """Note whether it is ready, and tell if that is news."""
        available = self.ready
        # The clock is read for news only: this is on every round trip's way.
        if available != self.tally.is_available and self.tally.turn(
            available=available, now_us=self._clock.read().boot_us
        ):
            self._on_turn()

    def stats(self, endpoint: str, pool_size: int, *, may_evict: bool) -> NodeStats:
        """Read the plain integers; what the lane does not know is told."""
        tally = self.tally
        return NodeStats(
            endpoint=endpoint,
            available=self.ready,
            loss=tally.loss,
            breaker=self.breaker.state,
            breaker_opened=self.breaker.opened,
            round_trips=tally.round_trips,
            round_trip_us=tally.round_trip_us,
            round_trip_buckets=tuple(tally.round_trip_buckets),
            lost=dict(tally.lost),
            connects=tally.connects,
            connect_failures=tally.connect_failures,
            script_loads=tally.script_loads,
            redirects=tally.redirects,
            new_boots=tally.new_boots,
            links=len(self.pool),
            links_lent=self.pool.lent,
            pool_size=pool_size,
            may_evict=may_evict,
            degraded_us=tally.degraded_us(self._clock.read().boot_us),
        )

    def begin(self, calls: Sequence[Call], deadline_us: int, boot_key: bytes, heard: Heard) -> bool:
        """As `round_trip`, without a task; `heard` is told, not before this returns. False: there is no idle link.

        Only where the breaker is closed.
        """
        link = self.pool.take_idle()
        if link is None:
            return False
        began_us = self._clock.read().boot_us
        commands = [call.words() for call in calls]
        commands.append(("GET", boot_key))

        def replied(replies: list[Reply] | StoreLost) -> None:
            if isinstance(replies, StoreLost):
                self._failed(link, replies)
                heard(replies)
                return
            boot = replies.pop()
            if any(map(_is_unknown_script, replies)):
                # Once in a server's life: what is left of this round trip may have a task.
                self._mending.add(asyncio.ensure_future(mend(replies)))
                return
            self._answered(link, began_us)
            heard((replies, boot if isinstance(boot, bytes) else None))

        async def mend(replies: list[Reply]) -> None:
            answer: Answer | StoreLost
            try:
                answer = await self._call_again(link, calls, replies, deadline_us, boot_key, asking=False)
            except StoreLost as lost:
                self._failed(link, lost)
                answer = lost
            except BaseException:
                self._let_go(link)
                heard(StoreLost(LossReason.CLOSED))
                raise
            else:
                self._answered(link, began_us)
            finally:
                self._mending.discard(asyncio.current_task())
            heard(answer)

        link.begin(commands, deadline_us - began_us, replied)
        return True

    async def round_trip(
        self, calls: Sequence[Call], deadline_us: int, boot_key: bytes | None, *, asking: bool = False
    ) -> Answer:
        """Send calls, and then a read of the boot key, by a deadline (boot time); nothing while the breaker is open.

        Raises:
            StoreLost: Nothing is known of what was done.
        """
        if self.breaker.state is not BreakerState.CLOSED:
            lost = StoreLost(LossReason.BREAKER)
            self.tally.failed(lost)
            raise lost
        return await self._measured(calls, deadline_us, boot_key, asking=asking)

    async def probe(self, deadline_us: int, boot_key: bytes | None) -> None:
        """The one round trip of a breaker whose pause is over.

        Raises:
            StoreLost: It failed.
        """
        self.breaker.begin(self._clock.read().boot_us)
        await self._measured((), deadline_us, boot_key, asking=False)

    async def _measured(
        self, calls: Sequence[Call], deadline_us: int, boot_key: bytes | None, *, asking: bool
    ) -> Answer:
        link: Link | None = None
        try:
            link = await self.pool.acquire(self._left_us(deadline_us))
            began_us = self._clock.read().boot_us
            answer = await self._on_link(link, calls, deadline_us, boot_key, asking=asking)
        except StoreLost as lost:
            self._failed(link, lost)
            raise
        except BaseException:
            if link is not None:
                self._let_go(link)
            raise
        self._answered(link, began_us)
        return answer

    def _failed(self, link: Link | None, lost: StoreLost) -> None:
        self.tally.failed(lost)
        # Without a connection nothing was asked: that says nothing, but for a probe.
        if lost.reason is not LossReason.ABSENT or self.breaker.state is BreakerState.HALF_OPEN:
            self.breaker.failed(self._clock.read().boot_us)
        if link is None:
            self.turn()
        else:
            self._let_go(link)

    def _answered(self, link: Link, began_us: int) -> None:
        now_us = self._clock.read().boot_us
        self.tally.answered(now_us - began_us)
        self.breaker.answered(now_us - began_us, now_us)
        self._let_go(link)

    def _let_go(self, link: Link) -> None:
        self.pool.release(link)
        self.turn()

    async def _on_link(
        self, link: Link, calls: Sequence[Call], deadline_us: int, boot_key: bytes | None, *, asking: bool
    ) -> Answer:
        """Exchange, and once more for the scripts that the server did not know."""
        replies, boot = await _exchange(link, calls, boot_key, self._left_us(deadline_us), asking=asking)
        if any(map(_is_unknown_script, replies)):
            return await self._call_again(link, calls, replies, deadline_us, boot_key, asking=asking)
        return replies, boot

    async def _call_again(
        self,
        link: Link,
        calls: Sequence[Call],
        replies: list[Reply],
        deadline_us: int,
        boot_key: bytes | None,
        *,
        asking: bool,
    ) -> Answer:
        """Load the scripts that the server did not know, and make their calls."""
        unknown = [index for index, reply in enumerate(replies) if _is_unknown_script(reply)]
        again = [calls[index] for index in unknown]
        scripts = {call.script.sha1: call.script for call in again if isinstance(call, ScriptCall)}
        self.tally.script_loads += len(scripts)
        loads: list[tuple[Argument, ...]] = [("SCRIPT", "LOAD", script.source) for script in scripts.values()]
        # The boot key once more: it has to be read after what counts.
        left_us = self._left_us(deadline_us)
        late, boot = await _exchange(link, again, boot_key, left_us, asking=asking, before=loads)
        for index, reply in zip(unknown, late, strict=True):
            replies[index] = reply
        return replies, boot

    def _on_closed(self) -> None:
        self.tally.loss = StoreLost(LossReason.DISCONNECTED, "the server has closed the connection")

    def _left_us(self, deadline_us: int) -> int:
        return max(0, deadline_us - self._clock.read().boot_us)


async def _exchange(
    link: Link,
    calls: Sequence[Call],
    boot_key: bytes | None,
    timeout_us: int,
    *,
    asking: bool,
    before: Sequence[tuple[Argument, ...]] = (),
) -> Answer:
    """Send `before`, then the calls, then the read of the boot key."""
    commands = list(before)
    for call in calls:
        if asking:
            commands.append(("ASKING",))
        commands.append(call.words())
    if boot_key is not None:
        commands.append(("GET", boot_key))
    replies = await link.exchange(commands, timeout_us)
    boot = replies.pop() if boot_key is not None else None
    replies = replies[len(before) :]
    return replies[1::2] if asking else replies, boot if isinstance(boot, bytes) else None


def _is_unknown_script(reply: Reply) -> bool:
    return isinstance(reply, ScriptError) and reply.code == "NOSCRIPT"
