"""Group commit: one script call in flight for each node, and what arrives meanwhile is the next one.

No timer: an order that finds its node idle leaves at the end of the loop's turn, and under load a batch is as large as
a round trip is long. An order whose request is answered before it comes back is not taken back: what it was granted
goes to whoever waits for it, and is spent from there (DECISIONS 15, 18).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.redis.batch_queue import BatchPace, OrderQueue, Slot, Waiting
from ratelimit_service.quota.redis.calls import Call, Command, RoundTrip, ScriptCall
from ratelimit_service.quota.redis.faults import StoreLost
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.packing import key_name, pack_call, read_replies
from ratelimit_service.quota.redis.scripts import ORDERS
from ratelimit_service.quota.redis.twin import Answer, Refusal
from ratelimit_service.quota.takes import CountedKey, Order

__all__ = ["BATCH_BOUNDS", "BatchNode", "BatchStats", "BatchTopology", "GroupCommit"]

MOST_ORDERS: Final = 16_384
"""Orders that wait for one node; one more is lost at once. Far more than can be answered in a request's time."""

_LEAST_TIMED: Final = 16
_TIMED_EVERY: Final = 4
"""One in so many batches, if it is not a small one, asks what time it is when the server is done with it."""

BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Upper bounds of `BatchStats.sizes`."""


class BatchNode(Protocol):
    """What a batch needs of a node (`nodes.Node`)."""

    @property
    def ready(self) -> bool:
        """Whether asking makes sense; costs nothing."""

    def begin(self, calls: Sequence[Call], timeout_us: int, heard: Callable[[RoundTrip | StoreLost], None]) -> None:
        """Send calls; `heard` is told what came of them, once and not before this returns."""


class BatchTopology(Protocol):
    """What batches need of a topology (`topology.Topology`)."""

    def node_for(self, key: bytes) -> BatchNode | None:
        """The node that counts a key."""

    def slot_of(self, key: bytes) -> int:
        """The slot of a key; keys of one slot may be in one call."""


class BatchStats(msgspec.Struct):
    """Plain integers for metrics, ever-growing.

    Attributes:
        batches: Round trips.
        orders: Orders sent in them.
        coalesced: Of these, how many were carried out together with another one.
        sizes: Batches by their entries, by `BATCH_BOUNDS`, not cumulated; the last one is beyond every bound.
        expired: Orders whose deadline passed before they were sent.
        overflowed: Orders that found too many waiting.
        lost: Orders sent of which nothing is known.
        refused: Orders that the store did not carry out, by the name of the `Refusal`, lower case.
    """

    batches: int = 0
    orders: int = 0
    coalesced: int = 0
    sizes: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BATCH_BOUNDS) + 1))
    expired: int = 0
    overflowed: int = 0
    lost: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=lambda: {kind.name.lower(): 0 for kind in Refusal})


class _Lot:
    """What is on its way to one node, and what waits for it."""

    __slots__ = ("ahead_us", "is_busy", "node", "pace", "queue")

    def __init__(self, node: BatchNode, most_orders: int) -> None:
        self.node = node
        self.queue = OrderQueue(most_orders)
        self.pace = BatchPace()
        # A batch is on its way, or about to be.
        self.is_busy = False
        # The server's clock less ours, as last seen: calendar windows are listed around its time.
        self.ahead_us = 0


class GroupCommit:
    """Carries orders to Redis; implements `leases.orders.Orders`. Belongs to one event loop.

    Args:
        topology: Knows the node of a key.
        prefix: Of every key.
        clock: Whose times count.
        command_us: Time of one round trip; a batch that takes longer is lost.
        most_orders: See `MOST_ORDERS`.

    Attributes:
        stats: See `BatchStats`.
    """

    def __init__(
        self,
        topology: BatchTopology,
        prefix: bytes,
        clock: Clock,
        *,
        command_us: int,
        most_orders: int = MOST_ORDERS,
    ) -> None:
        self._topology = topology
        self._prefix = prefix
        self._clock = clock
        self._command_us = command_us
        self._most_orders = most_orders
        self._lots: dict[BatchNode, _Lot] = {}
        self._closed = False
        self._idle: asyncio.Future[None] | None = None
        self._latest_where: CountedKey | None = None
        self._latest_name = b""
        self.stats = BatchStats()

    def is_up(self, where: CountedKey) -> bool:
        """See `Orders.is_up`."""
        node = self._topology.node_for(self._name(where))
        return node is not None and node.ready and not self._closed

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        """See `Orders.submit`."""
        name = self._name(order.where)
        waiting = Waiting(order, name, deadline_us, done)
        node = None if self._closed else self._topology.node_for(name)
        if node is None:
            self._lose_later(waiting)
            return
        lot = self._lots.get(node) or self._open(node)
        if not lot.queue.add(waiting):
            self.stats.overflowed += 1
            self._lose_later(waiting)
        elif not lot.is_busy:
            lot.is_busy = True
            asyncio.get_running_loop().call_soon(self._send_next, lot)

    def _name(self, where: CountedKey) -> bytes:
        # Whoever submits has just asked whether the node is up.
        if where is not self._latest_where:
            self._latest_where, self._latest_name = where, key_name(self._prefix, where)
        return self._latest_name

    async def close(self) -> None:
        """Send what waits, and take no more; every order has been answered then."""
        self._closed = True
        if any(lot.is_busy for lot in self._lots.values()):
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def _open(self, node: BatchNode) -> _Lot:
        # Nodes come and go with a cluster's topology; there are never many.
        self._lots = {known: lot for known, lot in self._lots.items() if lot.is_busy or known.ready}
        lot = self._lots[node] = _Lot(node, self._most_orders)
        return lot

    def _send_next(self, lot: _Lot) -> None:
        """Send the next batch, if any order waits."""
        while lot.queue.waiting:
            batch = lot.queue.next_batch(lot.pace.most_slots, self._clock.read().boot_us)
            for waiting in batch.expired:
                self.stats.expired += 1
                _tell(waiting, _LOST)
            if batch.slots:
                try:
                    self._send(lot, batch.slots)
                except Exception:
                    self._lose_all(batch.slots)
                    asyncio.get_running_loop().call_soon(self._send_next, lot)
                    raise
                return
        lot.is_busy = False
        if self._idle is not None and not self._idle.done() and not any(each.is_busy for each in self._lots.values()):
            self._idle.set_result(None)

    def _send(self, lot: _Lot, slots: Sequence[Slot]) -> None:
        """Begin a round trip; when it is over every slot's orders have been answered, or wait again."""
        self._count(slots)
        scripts, parts = self._calls(slots, self._clock.read().wall_us + lot.ahead_us)
        calls: list[Call] = [*scripts]
        is_timed = len(slots) >= _LEAST_TIMED and self.stats.batches % _TIMED_EVERY == 0
        if is_timed:
            calls.append(Command(("TIME",)))
        sent_us = self._clock.read().boot_us

        def heard(trip: RoundTrip | StoreLost) -> None:
            try:
                if isinstance(trip, StoreLost):
                    self._lose_all(slots)
                    return
                now = self._clock.read()
                replies = trip.replies
                if is_timed:
                    *replies, time = replies
                    _observe_time(lot.pace, len(slots), replies[0], time)
                for part, reply in zip(parts, replies, strict=True):
                    self._hand_out(lot, part, reply, sent_us, now, is_good=trip.same_memory)
            finally:
                self._send_next(lot)

        lot.node.begin(calls, self._command_us, heard)

    def _calls(self, slots: Sequence[Slot], wall_us: int) -> tuple[list[ScriptCall], list[list[Slot]]]:
        """The script calls of a batch, one for each slot of a cluster, and which entries each carries out."""
        parts: dict[int, list[Slot]] = {}
        for slot in slots:
            parts.setdefault(self._topology.slot_of(slot.name), []).append(slot)
        calls = []
        for part in parts.values():
            names = tuple([slot.name for slot in part])
            asked = pack_call(names, [(slot.order, len(slot.waiting)) for slot in part], wall_us)
            calls.append(ScriptCall(ORDERS, names, ("", asked)))
        return calls, list(parts.values())

    def _hand_out(
        self, lot: _Lot, slots: Sequence[Slot], reply: Reply, sent_us: int, now: Instant, *, is_good: bool
    ) -> None:
        """Tell the orders of one call what came of them."""
        if not isinstance(reply, list):
            self._lose_all(slots)
            return
        store_us, packed = reply
        assert isinstance(store_us, int)
        assert isinstance(packed, bytes)
        lot.ahead_us = store_us - now.wall_us
        said = read_replies(packed, [(slot.order, len(slot.waiting)) for slot in slots])
        for slot, answers in zip(slots, said, strict=True):
            for waiting, answer in zip(slot.waiting, answers, strict=True):
                self._answer(lot, waiting, answer, sent_us, now, is_good=is_good)

    def _answer(
        self, lot: _Lot, waiting: Waiting, answer: Answer, sent_us: int, now: Instant, *, is_good: bool
    ) -> None:
        if not isinstance(answer, Refusal):
            _tell(waiting, Answered(answer, sent_us, is_good, now))
        elif answer is Refusal.AGAIN and not waiting.is_again:
            # The server's time is known now, so the next list of windows holds it.
            waiting.is_again = True
            lot.queue.add_first(waiting)
        else:
            self.stats.refused[answer.name.lower()] += 1
            _tell(waiting, _LOST)

    def _count(self, slots: Sequence[Slot]) -> None:
        stats = self.stats
        orders = sum(len(slot.waiting) for slot in slots)
        stats.batches += 1
        stats.orders += orders
        stats.coalesced += orders - len(slots)
        place = next((i for i, bound in enumerate(BATCH_BOUNDS) if len(slots) <= bound), len(BATCH_BOUNDS))
        stats.sizes[place] += 1

    def _lose_all(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            self.stats.lost += len(slot.waiting)
            for waiting in slot.waiting:
                _tell(waiting, _LOST)

    def _lose_later(self, waiting: Waiting) -> None:
        asyncio.get_running_loop().call_soon(_tell, waiting, _LOST)


def _observe_time(pace: BatchPace, slots: int, first: Reply, time: Reply) -> None:
    """Take in how long the server had to do: from the time that the first script saw to the reply of TIME."""
    if isinstance(first, list) and isinstance(time, list):
        begun_us, (seconds, us) = first[0], time
        if isinstance(begun_us, int) and isinstance(seconds, bytes) and isinstance(us, bytes):
            pace.observe(slots, int(seconds) * 1_000_000 + int(us) - begun_us)


_LOST: Final = Answered(grants=None, sent_us=0, is_good=False)


def _tell(waiting: Waiting, answered: Answered) -> None:
    """Tell one order's owner; its failure is reported and does not keep the others from their answers."""
    try:
        waiting.done(answered)
    except Exception as error:  # noqa: BLE001 — the loop's handler logs it
        context = {"message": "an answer of the store was not taken", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
