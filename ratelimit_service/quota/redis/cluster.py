"""The masters of a Redis Cluster: who owns which slot, and who does after a failover or while slots move.

Several members are asked and the answer of the latest configuration epoch counts, one whose cluster works before one
whose cluster does not: a member that was cut off still shows the old owners. A redirection corrects one slot at once
and asks for the rest. Source: Redis, "Redis cluster specification".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.quota.redis.connection import Dialer
from ratelimit_service.quota.redis.faults import LossReason, StoreLost
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.link import Reply
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.topology import Watcher, node_problems
from ratelimit_service.quota.redis.waiting import is_set_within
from ratelimit_service.redis_server.address_model import Endpoint, RedisAddress
from ratelimit_service.redis_server.slots import SLOTS, slot_of, tag_within

__all__ = ["ClusterTopology", "ClusterView", "SlotRange", "read_view"]

_CALM_US: Final = 10_000_000
"""Between two rounds of questions while all is well: redirections are quicker anyway."""

_ALERT_US: Final = 200_000
"""Between two rounds at the least, jitter up to half off."""

_MEMBERS_ASKED: Final = 5
_MOST_MEMBERS: Final = 1_000


class SlotRange(msgspec.Struct, frozen=True):
    """Slots from `first` to `last`, both included, of one master."""

    first: int
    last: int
    master: Endpoint


class ClusterView(msgspec.Struct, frozen=True):
    """What one member knows of the cluster.

    Attributes:
        works: Every slot has an owner that is reachable from there.
        epoch: Of the configuration; a later one is later knowledge.
        ranges: Who owns what.
        members: Every server that was named, replicas too.
    """

    works: bool
    epoch: int
    ranges: tuple[SlotRange, ...]
    members: tuple[Endpoint, ...]


class ClusterTopology:
    """A node for each master that owns slots."""

    def __init__(self, address: RedisAddress, watcher: Watcher, clock: Clock) -> None:
        self._dialer = Dialer(address)
        self._watcher = watcher
        self._clock = clock
        self._chance = random.Random()  # noqa: S311 — spreads questions
        self._members = list(address.endpoints)
        self._nodes: dict[Endpoint, Node] = {}
        self._tags: dict[Endpoint, bytes] = {}
        self._table: list[Node | None] = [None] * SLOTS
        self._seen_a_view = False
        self._problem = "no member of the cluster has been asked yet"
        self._ask_again = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def node_for(self, key: bytes) -> Node | None:
        """The owner of the key's slot."""
        return self._table[slot_of(key)]

    def slot_of(self, key: bytes) -> int:
        """0 to 16383."""
        return slot_of(key)

    def nodes(self) -> Sequence[Node]:
        """Every master that owns slots."""
        return tuple(self._nodes.values())

    def problems(self) -> list[str]:
        """See `Topology.problems`."""
        problems = [self._problem] if self._problem else []
        orphans = self._table.count(None)
        if orphans and self._seen_a_view:
            problems.append(f"{orphans} slots have no owner")
        for node in self._nodes.values():
            problems.extend(node_problems(node))
        return problems

    async def start(self) -> None:
        """See `Topology.start`."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """See `Topology.close`."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        nodes, self._nodes = list(self._nodes.values()), {}
        self._table = [None] * SLOTS
        await asyncio.gather(*self._closing, *(node.close() for node in nodes))

    def on_new_boot(self, node: Node) -> None:
        """See `NodeOwner`."""
        self._watcher.on_new_boot(node)

    def on_turn(self, node: Node) -> None:
        """See `NodeOwner`."""
        self._watcher.on_turn(node)

    def on_lost(self, node: Node, reason: LossReason) -> None:
        """Perhaps another server owns its slots now."""
        self._ask_again.set()

    def on_moved(self, slot: int, endpoint: Endpoint, *, asking: bool) -> Node | None:
        """Correct one slot, unless it is only on its way; the rest of the news is asked for."""
        node = self._nodes.get(endpoint)
        if not asking:
            if node is not None and slot < SLOTS:
                self._table[slot] = node
            self._ask_again.set()
        self._remember(endpoint)
        return node

    async def _watch(self) -> None:
        """Ask now and then, and often while a node does not answer."""
        while True:
            self._ask_again.clear()
            await self._ask_some()
            await asyncio.sleep(_ALERT_US * (1 - self._chance.random() / 2) / 1_000_000)
            if self._nodes and not self._problem and all(node.ready for node in self._nodes.values()):
                await is_set_within(self._ask_again, _CALM_US)

    async def _ask_some(self) -> None:
        asked = self._chance.sample(self._members, min(_MEMBERS_ASKED, len(self._members)))
        answers = await asyncio.gather(*(self._ask(member) for member in asked))
        views = [answer for answer in answers if isinstance(answer, ClusterView)]
        if not views:
            self._problem = "; ".join(str(answer) for answer in answers)
            return
        newest = max(views, key=lambda view: (view.works, view.epoch))
        self._problem = "" if newest.works else "the cluster is down: a slot has no owner that can be reached"
        self._apply(newest)

    async def _ask(self, member: Endpoint) -> ClusterView | str:
        """What one member knows, or what is wrong with it."""
        try:
            link = await self._dialer.dial(member)
        except StoreLost as lost:
            return f"{member}: {lost}"
        try:
            info, slots = await link.exchange(
                [("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")], self._dialer.address.connect_us
            )
        except StoreLost as lost:
            return f"{member}: {lost}"
        finally:
            link.drop()
        view = read_view(info, slots, member)
        return view if view.ranges else f"{member}: knows no owner of any slot; is it a cluster?"

    def _apply(self, view: ClusterView) -> None:
        owned: dict[Endpoint, set[int]] = {}
        for each in view.ranges:
            owned.setdefault(each.master, set()).update(range(each.first, each.last + 1))
        for endpoint, slots in owned.items():
            self._place(endpoint, slots)
        self._seen_a_view = True
        for endpoint in [endpoint for endpoint in self._nodes if endpoint not in owned]:
            self._let_go(endpoint)
        table: list[Node | None] = [None] * SLOTS
        for endpoint, slots in owned.items():
            for slot in slots:
                table[slot] = self._nodes[endpoint]
        self._table = table
        for member in view.members:
            self._remember(member)

    def _place(self, endpoint: Endpoint, slots: set[int]) -> None:
        """Have a node for a master, its boot key in one of its slots."""
        tag = self._tags.get(endpoint)
        if tag is None or slot_of(tag) not in slots:
            tag = tag_within(slots)
            assert tag is not None
            self._tags[endpoint] = tag
        node = self._nodes.get(endpoint)
        if node is not None:
            node.place_boot_key(tag)
            return
        # After the first view a new node has taken slots over from another one.
        node = Node(
            self._dialer,
            self,
            self._clock,
            endpoint=endpoint,
            boot_tag=tag,
            announce_first_boot=self._seen_a_view,
        )
        self._nodes[endpoint] = node
        node.start()

    def _let_go(self, endpoint: Endpoint) -> None:
        node = self._nodes.pop(endpoint)
        del self._tags[endpoint]
        task = asyncio.get_running_loop().create_task(node.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _remember(self, member: Endpoint) -> None:
        if member not in self._members:
            self._members.append(member)
            # The configured ones stay: they may be names that lead to whoever is there.
            if len(self._members) > _MOST_MEMBERS:
                del self._members[len(self._dialer.address.endpoints)]


def read_view(info: Reply, slots: Reply, asked: Endpoint) -> ClusterView:
    """Read the replies to CLUSTER INFO and CLUSTER SLOTS; a member that does not say its host is where it was asked."""
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else ""
    fields = dict(line.partition(":")[::2] for line in text.splitlines())
    epoch = fields.get("cluster_current_epoch", "")
    ranges: list[SlotRange] = []
    members: list[Endpoint] = []
    for item in slots if isinstance(slots, list) else ():
        if not isinstance(item, list) or len(item) < 3:  # first slot, last slot, master, replicas
            continue
        first, last = item[0], item[1]
        servers = [_endpoint(server, asked) for server in item[2:]]
        members.extend(server for server in servers if server is not None)
        if isinstance(first, int) and isinstance(last, int) and servers[0] is not None:
            ranges.append(SlotRange(first, last, servers[0]))
    return ClusterView(
        works=fields.get("cluster_state") == "ok",
        epoch=int(epoch) if epoch.isdigit() else 0,
        ranges=tuple(ranges),
        members=tuple(members),
    )


def _endpoint(server: Reply, asked: Endpoint) -> Endpoint | None:
    """Read host and port of `[host, port, id, …]`; None where the host is not known yet (`?`)."""
    if not isinstance(server, list) or len(server) < 2:
        return None
    host, port = server[0], server[1]
    if not isinstance(port, int) or host == b"?":
        return None
    if not isinstance(host, bytes) or not host:
        return Endpoint(asked.host, port)
    return Endpoint(host.decode("utf-8", "replace"), port)
