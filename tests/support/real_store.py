"""Real servers under the behaviour suite: a whole replica, its group commit and a topology, by a clock moved by hand.

The scripts take the test's time, as they do in the tests of their twins; everything else is what the service runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, cast

from ratelimit_service.algorithms.limit import LimitSettings
from ratelimit_service.clock import Clock
from ratelimit_service.quota.leases.book import LeaseSettings
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.leases.replica import Replica, ReplicaSettings
from ratelimit_service.quota.redis.batch import GroupCommit
from ratelimit_service.quota.redis.calls import Call, Command, RoundTrip, ScriptCall
from ratelimit_service.quota.redis.faults import StoreLost
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.listing import list_usage
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.topologies import make_topology
from ratelimit_service.quota.redis.topology import Topology
from ratelimit_service.quota.redis.usage import PAGE_COUNTERS
from ratelimit_service.quota.store import Usage
from ratelimit_service.quota.takes import CountedKey, Order
from support.clocks import ManualClock
from support.redis_nodes import COMMAND_US, Told, address_of, ready
from support.redis_servers import running_cluster, running_sentinels, running_server
from support.replicas import ManualTurns, group_of
from support.schedulers import ManualScheduler
from support.store_harness import START_WALL_US, StoreHarness, StoreOptions

_PATIENCE_S: Final = 60.0


class Servers(enum.Enum):
    """How Redis is set up."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Connected:
    """A topology that is connected, and the loop that it runs on, for many tests."""

    def __init__(self, loop: asyncio.AbstractEventLoop, topology: Topology) -> None:
        self.loop = loop
        self.topology = topology
        self._prefixes = itertools.count()

    def prefix(self) -> bytes:
        """Another one for each test."""
        return b"t%d." % next(self._prefixes)


@contextlib.contextmanager
def connected(servers: Servers) -> Iterator[Connected]:
    """Servers, and a topology over them."""
    with contextlib.ExitStack() as stack:
        match servers:
            case Servers.SINGLE:
                address = address_of("redis", [stack.enter_context(running_server())])
            case Servers.SENTINEL:
                sentinels = stack.enter_context(running_sentinels()).sentinels
                address = address_of("redis+sentinel", sentinels, path="/main")
            case Servers.CLUSTER:
                address = address_of("redis+cluster", stack.enter_context(running_cluster()).servers)
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            topology = runner.run(_started(lambda: make_topology(address, Told(), Clock())))
            yield Connected(loop, topology)
            runner.run(topology.close())


async def _started(make: Callable[[], Topology]) -> Topology:
    topology = make()
    await topology.start()
    await ready(topology)
    return topology


class _TimedNode:
    """A node whose scripts, and whose own clock, go by the test's time."""

    def __init__(self, node: Node, clock: ManualClock) -> None:
        self._node = node
        self._clock = clock

    @property
    def ready(self) -> bool:
        return self._node.ready

    def begin(self, calls: Sequence[Call], timeout_us: int, heard: Callable[[RoundTrip | StoreLost], None]) -> None:
        now = str(self._clock.wall_us)
        timed = [
            ScriptCall(call.script, call.keys, (now, *call.args[1:])) if isinstance(call, ScriptCall) else call
            for call in calls
        ]
        self._node.begin(timed, timeout_us, heard)

    async def ask(self, calls: Sequence[Call], timeout_us: int) -> list[Reply]:
        replies = await self._node.ask(calls, timeout_us)
        seconds, micros = divmod(self._clock.wall_us, 1_000_000)
        return [
            [b"%d" % seconds, b"%d" % micros] if call == Command(("TIME",)) else reply
            for call, reply in zip(calls, replies, strict=True)
        ]


class _TimedTopology:
    """The nodes of a topology by the test's time."""

    def __init__(self, topology: Topology, clock: ManualClock) -> None:
        self._topology = topology
        self._clock = clock
        self._timed: dict[Node, _TimedNode] = {}

    def node_for(self, key: bytes) -> _TimedNode | None:
        node = self._topology.node_for(key)
        return None if node is None else self._of(node)

    def slot_of(self, key: bytes) -> int:
        return self._topology.slot_of(key)

    def nodes(self) -> list[_TimedNode]:
        return [self._of(node) for node in self._topology.nodes()]

    def _of(self, node: Node) -> _TimedNode:
        return self._timed.setdefault(node, _TimedNode(node, self._clock))


class _LoopScheduler(ManualScheduler):
    """Runs what waits on a real loop, until nothing is on its way to a server any more."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.under_way = 0

    def run(self) -> None:
        self._loop.run_until_complete(asyncio.wait_for(self._settle(), _PATIENCE_S))

    async def _settle(self) -> None:
        super().run()
        while self.under_way or len(self):
            await asyncio.sleep(0.000_1)
            super().run()


class _LoopOrders:
    """Carries orders by a group commit, from the loop."""

    def __init__(self, commits: GroupCommit, scheduler: _LoopScheduler) -> None:
        self._commits = commits
        self._scheduler = scheduler

    def is_up(self, where: CountedKey) -> bool:
        return self._commits.is_up(where)

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        def told(answered: Answered) -> None:
            self._scheduler.under_way -= 1
            done(answered)

        self._scheduler.under_way += 1
        self._scheduler.call_soon(lambda: self._commits.submit(order, deadline_us, told))


class _RealStore(Replica):
    """A replica as a `Store` over real servers."""

    def __init__(self, settings: ReplicaSettings, at: Connected, clock: ManualClock, scheduler: _LoopScheduler) -> None:
        self._loop_scheduler = scheduler
        self._loop = at.loop
        self._timed = _TimedTopology(at.topology, clock)
        self._prefix = at.prefix()
        self._in_force: Mapping[bytes, LimitSettings] = {}
        commits = GroupCommit(self._timed, self._prefix, clock, command_us=COMMAND_US)
        orders = _LoopOrders(commits, scheduler)
        super().__init__(settings, orders=orders, clock=clock, turns=ManualTurns(scheduler), group_of=group_of)
        # No heartbeats here: its form is in force.
        self.membership.form_until_us = 2**62

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        self._in_force = limits
        super().apply(limits)

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage]], None]) -> None:
        groups: dict[bytes, dict[bytes, LimitSettings]] = {}
        for identity, settings in self._in_force.items():
            if settings.domain == domain:
                groups.setdefault(group_of(identity), {})[identity] = settings
        listing = list_usage(cast("Topology", self._timed), self._prefix, groups)
        found = self._loop.run_until_complete(listing)
        done(found[page * PAGE_COUNTERS : (page + 1) * PAGE_COUNTERS])

    async def start(self) -> None:
        """The topology is connected already."""

    async def close(self) -> None:
        """It is closed with the last test."""


def real_harness(options: StoreOptions, at: Connected, *, exact: bool) -> StoreHarness:
    """A store of its own over servers that others use too."""
    clock, scheduler = ManualClock(wall_us=START_WALL_US), _LoopScheduler(at.loop)
    settings = ReplicaSettings(leases=LeaseSettings(exact=exact, max_keys=options.max_keys))
    return StoreHarness(_RealStore(settings, at, clock, scheduler), clock, scheduler)
