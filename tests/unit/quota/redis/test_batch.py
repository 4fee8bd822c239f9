"""The group commit over a node that answers when the test says so; the time is the test's."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.redis.batch import GroupCommit
from ratelimit_service.quota.redis.calls import Call, RoundTrip, ScriptCall
from ratelimit_service.quota.redis.faults import LossReason, ScriptError, StoreLost
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.packing import key_name
from ratelimit_service.quota.takes import CountedKey, Order, Take
from support.counted_keys import DAYS, FIXED_LIMIT, ask
from support.strategies import START_US

LATE_US = 10**12
PREFIX = b"tg:"
ORDER = struct.Struct("<HI3Q")


def where(key: str, group: str = "rule") -> CountedKey:
    return CountedKey(group.encode(), key.encode())


def taking(key: str = "k", want: int = 1, group: str = "rule") -> Take:
    return Take(where(key, group), (ask(FIXED_LIMIT, want),), want, 0)


class HandClock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.boot_us = 1_000

    def read(self) -> Instant:
        return Instant(START_US + self.boot_us, self.boot_us)


class CountingNode:
    """Counts each key down from `budget`, in the scripts' words; answers a call when the test lets it."""

    def __init__(self, budget: int = 1_000) -> None:
        self.ready = True
        self.budget = budget
        self.left: dict[bytes, int] = {}
        self.calls: list[Sequence[ScriptCall]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails: StoreLost | RuntimeError | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.same_memory = True
        self.refusals: list[int] = []
        self.now_us = START_US
        self.timed = self.took_us = 0

    def begin(self, calls: Sequence[Call], timeout_us: int, heard: Callable[[RoundTrip | StoreLost], None]) -> None:
        assert timeout_us == 8_000
        scripts = [call for call in calls if isinstance(call, ScriptCall)]
        self.calls.append(scripts)
        if isinstance(self.fails, RuntimeError):
            fails, self.fails = self.fails, None
            raise fails
        self.timed += len(calls) - len(scripts)
        self.tasks.append(asyncio.ensure_future(self.answer(calls, heard)))

    async def answer(self, calls: Sequence[Call], heard: Callable[[RoundTrip | StoreLost], None]) -> None:
        await self.gate.wait()
        fails, self.fails = self.fails, None
        assert not isinstance(fails, RuntimeError)
        heard(fails or RoundTrip([self.reply(call) for call in calls], b"boot", self.same_memory))

    def reply(self, call: Call) -> Reply:
        if not isinstance(call, ScriptCall):
            return [b"%d" % (self.now_us // 1_000_000), b"%d" % (self.now_us % 1_000_000 + self.took_us)]
        _, asked = call.args
        assert isinstance(asked, bytes)
        # All shapes are alike: one ask, whose calendar would list five instants.
        shapes = int.from_bytes(asked[1:3], "little")
        orders = asked[-ORDER.size * len(call.keys) :]
        assert shapes * 31 + 3 <= len(asked) - len(orders)
        said = [
            self.carried_out(name, *order) for name, order in zip(call.keys, ORDER.iter_unpack(orders), strict=True)
        ]
        return [self.now_us, b"".join(said)]

    def carried_out(self, name: bytes, shape: int, times: int, least: int, lease_us: int, hits: int) -> bytes:
        if self.refusals:
            return bytes((self.refusals.pop(0),))
        left = self.left.setdefault(name, self.budget)
        passed = min(times, left // hits)
        self.left[name] = after = left - passed * hits
        before, counted = self.budget - left, self.budget - after
        granted = hits if passed else 0
        if times == 1:
            return struct.pack("<BQI6q", 128, 0, 0, granted, before, after, 60, 0, 0)
        return struct.pack("<BIQI8q", 0, passed, 0, 0, granted, before, counted, after, 60, 50, 0, 0)


class Nodes:
    """One node for all keys, or none; every key in slot `slot_by_key`, else 0."""

    def __init__(self, node: CountingNode | None) -> None:
        self.node = node
        self.slot_by_key: dict[bytes, int] = {}

    def node_for(self, key: bytes) -> CountingNode | None:
        return self.node

    def slot_of(self, key: bytes) -> int:
        return self.slot_by_key.get(key, 0)


class Desk:
    """A group commit, its node, and what came of each order, in the order of the answers."""

    def __init__(self, *, budget: int = 1_000, most_orders: int = 100) -> None:
        self.clock, self.node = HandClock(), CountingNode(budget)
        self.nodes = Nodes(self.node)
        self.commits = GroupCommit(self.nodes, PREFIX, self.clock, command_us=8_000, most_orders=most_orders)
        self.told: list[tuple[str, Answered]] = []

    def submit(self, name: str, order: Order, deadline_us: int = LATE_US) -> None:
        self.commits.submit(order, deadline_us, lambda answered: self.told.append((name, answered)))

    def granted(self) -> list[tuple[str, int | None]]:
        return [(name, answered.grants[0].granted if answered.grants else None) for name, answered in self.told]

    async def settle(self) -> None:
        """Let everything happen that can without the node."""
        for _ in range(10):
            await asyncio.sleep(0)

    def slots(self) -> list[int]:
        """Entries of each round trip."""
        return [sum(len(call.keys) for call in calls) for calls in self.node.calls]


def run(scenario: Callable[[Desk], Coroutine[Any, Any, None]], **settings: int) -> Desk:
    async def play() -> Desk:
        desk = Desk(**settings)
        await scenario(desk)
        await desk.commits.close()
        return desk

    return asyncio.run(play())


def test_orders_of_one_turn_leave_together() -> None:
    """And those that come while they are on their way are the next batch."""

    async def scenario(desk: Desk) -> None:
        desk.node.gate.clear()
        desk.submit("1", taking("a"))
        desk.submit("2", taking("b"))
        await desk.settle()
        for name in "345":
            desk.submit(name, taking(name))
        await desk.settle()
        desk.node.gate.set()

    desk = run(scenario)

    assert desk.slots() == [2, 3]
    assert desk.granted() == [(name, 1) for name in "12345"]


def test_nothing_is_told_before_submit_returns() -> None:
    """Not even what is lost at once."""

    async def scenario(desk: Desk) -> None:
        desk.nodes.node = None
        desk.submit("1", taking())
        assert desk.told == []
        await desk.settle()

    desk = run(scenario)

    assert desk.told == [("1", Answered(None, 0, is_good=False))]


def test_what_passes_is_handed_out_in_order_of_arrival() -> None:
    """Five takes of two hits, seven left: three pass, and each is told what was there for it."""

    async def scenario(desk: Desk) -> None:
        for name in "12345":
            desk.submit(name, taking(want=2))

    desk = run(scenario, budget=7)
    grants = [answered.grants[0] for _, answered in desk.told if answered.grants]

    assert [(grant.granted, grant.remaining, grant.before) for grant in grants] == [
        (2, 5, 0), (2, 3, 2), (2, 1, 4), (0, 1, 6), (0, 1, 6),
    ]  # fmt: skip
    assert [grant.wait_us for grant in grants] == [60, 60, 60, 50, 50]
    assert (desk.commits.stats.orders, desk.commits.stats.coalesced, desk.commits.stats.batches) == (5, 4, 1)


def test_answers_say_when_they_were_sent_and_whether_they_are_good() -> None:
    """The local time of sending bounds a lease; grants of a lost memory are marked (DECISIONS 17)."""

    async def scenario(desk: Desk) -> None:
        desk.node.gate.clear()
        desk.node.same_memory = False
        desk.submit("1", taking())
        await desk.settle()
        desk.clock.boot_us += 500
        desk.node.gate.set()

    desk = run(scenario)

    assert [(answered.sent_us, answered.is_good) for _, answered in desk.told] == [(1_000, False)]


@pytest.mark.parametrize("reason", [LossReason.TIMEOUT, LossReason.BREAKER])
def test_a_lost_round_trip_loses_its_orders_only(reason: LossReason) -> None:
    """What waits behind it is sent."""

    async def scenario(desk: Desk) -> None:
        desk.node.gate.clear()
        desk.node.fails = StoreLost(reason)
        desk.submit("1", taking("a"))
        await desk.settle()
        desk.submit("2", taking("b"))
        desk.node.gate.set()

    desk = run(scenario)

    assert desk.granted() == [("1", None), ("2", 1)]
    assert desk.commits.stats.lost == 1


def test_a_call_that_fails_alone_loses_its_orders_only() -> None:
    """In a cluster each slot is a call of its own."""

    async def scenario(desk: Desk) -> None:
        desk.nodes.slot_by_key = {key_name(PREFIX, where("b")): 7}
        answering = desk.node.reply

        def reply(call: Call) -> Reply:
            return (
                ScriptError("OOM", "full") if isinstance(call, ScriptCall) and len(call.keys) == 1 else answering(call)
            )

        desk.node.reply = reply  # type: ignore[method-assign]
        for name, key in (("1", "a"), ("2", "b"), ("3", "c")):
            desk.submit(name, taking(key))

    desk = run(scenario)

    assert [len(calls) for calls in desk.node.calls] == [2]
    assert sorted(desk.granted()) == [("1", 1), ("2", None), ("3", 1)]


def test_an_order_whose_time_is_over_is_not_sent() -> None:
    """It is lost, and costs the store nothing."""

    async def scenario(desk: Desk) -> None:
        desk.node.gate.clear()
        desk.submit("1", taking("a"))
        await desk.settle()
        desk.submit("2", taking("b"), deadline_us=1_500)
        desk.clock.boot_us = 1_500
        desk.node.gate.set()

    desk = run(scenario)

    assert desk.granted() == [("1", 1), ("2", None)]
    assert (desk.slots(), desk.commits.stats.expired) == ([1], 1)


def test_an_answer_that_comes_late_is_still_told() -> None:
    """What it grants stays as the replica's lease (DECISIONS 15, 18)."""

    async def scenario(desk: Desk) -> None:
        desk.node.gate.clear()
        desk.submit("1", taking(), deadline_us=2_000)
        await desk.settle()
        desk.clock.boot_us = 9_000
        desk.node.gate.set()

    assert run(scenario).granted() == [("1", 1)]


def test_too_many_waiting_orders_are_lost_at_once() -> None:
    """The queue is bounded."""

    async def scenario(desk: Desk) -> None:
        desk.node.gate.clear()
        for number in range(5):
            desk.submit(f"{number}", taking(f"{number}"))
        await desk.settle()
        desk.node.gate.set()

    desk = run(scenario, most_orders=3)

    assert desk.granted() == [("3", None), ("4", None), ("0", 1), ("1", 1), ("2", 1)]
    assert desk.commits.stats.overflowed == 2


@pytest.mark.parametrize(("refusals", "told"), [([1], 1), ([1, 1], None), ([2], None), ([3], None)])
def test_a_refusal_for_the_calendar_is_asked_again_once(refusals: list[int], told: int | None) -> None:
    """Then the server's time is known; every other refusal is final."""

    async def scenario(desk: Desk) -> None:
        desk.node.refusals = refusals
        desk.node.now_us = START_US + 40 * 86_400_000_000
        desk.submit("1", Take(where("k"), (ask(DAYS),), 1, 0))

    desk = run(scenario)
    starts = [int.from_bytes(bytes(calls[0].args[1])[6 + 28 : 6 + 35], "little") for calls in desk.node.calls]  # type: ignore[arg-type]

    assert desk.granted() == [("1", told)]
    assert all(later - earlier > 38 * 86_400_000_000 for earlier, later in itertools.pairwise(starts))
    assert sum(desk.commits.stats.refused.values()) == (told is None)


def test_an_owner_that_fails_keeps_nobody_from_an_answer() -> None:
    """Its error goes to the loop's handler."""
    reported: list[str] = []

    async def scenario(desk: Desk) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
        desk.commits.submit(taking("a"), LATE_US, lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
        desk.submit("2", taking("b"))

    assert run(scenario).granted() == [("2", 1)]
    assert reported == ["an answer of the store was not taken"]


def test_a_bug_below_loses_the_batch_and_shows() -> None:
    """Nobody waits for ever because of it."""

    async def scenario(desk: Desk) -> None:
        desk.node.fails = RuntimeError("bug")
        desk.submit("1", taking())

    assert run(scenario).granted() == [("1", None)]


def test_store_is_up_while_its_node_is_ready() -> None:
    """And not after it was closed, when orders are lost."""

    async def scenario(desk: Desk) -> None:
        assert desk.commits.is_up(where("k"))
        desk.node.ready = False
        assert not desk.commits.is_up(where("k"))
        desk.nodes.node = None
        assert not desk.commits.is_up(where("k"))
        desk.nodes.node, desk.node.ready = desk.node, True
        await desk.commits.close()
        assert not desk.commits.is_up(where("k"))
        desk.submit("1", taking())
        await desk.settle()

    assert run(scenario).granted() == [("1", None)]


def test_nodes_that_are_gone_are_forgotten() -> None:
    """A cluster that moves leaves nothing behind; the new node begins anew."""

    async def scenario(desk: Desk) -> None:
        desk.submit("1", taking())
        await desk.settle()
        desk.node.ready = False
        other = CountingNode()
        desk.nodes.node = other
        desk.submit("2", taking())
        await desk.settle()
        assert list(desk.commits._lots) == [other]

    assert run(scenario).granted() == [("1", 1), ("2", 1)]


@pytest.mark.parametrize(("entries", "took_us", "fits"), [(40, 40, 153), (40, 4_000, 121), (8, 8, 125)])
def test_the_server_is_asked_how_long_it_had_to_do(entries: int, took_us: int, fits: int) -> None:
    """Now and then, with a batch that is no small one; the next batches are as large as it then seems right."""

    async def scenario(desk: Desk) -> None:
        desk.node.took_us = took_us
        for _ in range(4):
            for number in range(entries):
                desk.submit("", taking(f"{number}"))
            await desk.settle()
        (lot,) = desk.commits._lots.values()
        assert lot.pace.most_slots == fits

    desk = run(scenario)

    assert desk.node.timed == (entries >= 16)
    assert desk.granted() == [("", 1)] * (4 * entries)


def test_batches_are_counted_by_their_entries() -> None:
    """One of one, one of three and one of more than any bound."""

    async def scenario(desk: Desk) -> None:
        for count in (1, 3):
            for number in range(count):
                desk.submit("", taking(f"{number}"))
            await desk.settle()

    desk = run(scenario)

    assert (desk.commits.stats.sizes[0], desk.commits.stats.sizes[2], sum(desk.commits.stats.sizes)) == (1, 1, 2)
