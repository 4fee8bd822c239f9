"""The store over Redis: a replica (`quota.leases`) whose orders go to Redis in group commits.

Nothing here waits for Redis on the request path: what is in hand decides at once, what is not is ordered, and
a request whose answer does not come is decided by its failure mode at its deadline. `start` never fails for want of
a server; after a crash nothing is taken for granted, and on `close` everything in hand goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Final
from weakref import WeakSet

import msgspec

from ratelimit_service.algorithms.limit import Instant, LimitSettings
from ratelimit_service.quota.leases.membership import HEARTBEAT_US, Membership
from ratelimit_service.quota.leases.replica import Replica, ReplicaSettings
from ratelimit_service.quota.leases.stats import LeaseStats
from ratelimit_service.quota.leases.warming import HotKey
from ratelimit_service.quota.prompt import Glance
from ratelimit_service.quota.redis.batch import BatchStats, GroupCommit
from ratelimit_service.quota.redis.durable import DurableTopology
from ratelimit_service.quota.redis.faults import StoreLost
from ratelimit_service.quota.redis.lane import Clock
from ratelimit_service.quota.redis.listing import list_usage
from ratelimit_service.quota.redis.node_stats import NodeStats
from ratelimit_service.quota.redis.nodes import Node
from ratelimit_service.quota.redis.packing import key_name
from ratelimit_service.quota.redis.pulse import Pulse
from ratelimit_service.quota.redis.topologies import make_topology
from ratelimit_service.quota.redis.usage import PAGE_COUNTERS
from ratelimit_service.quota.redis.warm_file import MOST_HOT_KEYS, read_hot_keys, write_hot_keys
from ratelimit_service.quota.store import Charge, Done, Usage
from ratelimit_service.quota.takes import CountedKey
from ratelimit_service.redis_server.address_model import RedisAddress

__all__ = ["LoopTurns", "RedisStats", "RedisStore", "rule_of"]

_MILLION: Final = 1_000_000
_CLOSE_S: Final = 3.0
"""How long returns may take when the service stops."""

_BEATS_PER_SNAPSHOT: Final = 60
"""Heartbeats between two snapshots of hot keys."""

_LISTING_LASTS_US: Final = 10_000_000
"""How long the pages of a domain's counters are of one listing."""

_NEVER: Final = -_LISTING_LASTS_US

_LENGTH: Final = struct.Struct(">I")


def rule_of(identity: bytes) -> bytes:
    """The rule of a limit's identity (`policy.identity.limit_id`): its form, domain and rule name.

    Bytes of another form name a rule of their own.
    """
    at = 1
    for _ in range(2):
        if at + _LENGTH.size > len(identity):
            return identity
        at += _LENGTH.size + _LENGTH.unpack_from(identity, at)[0]
    return identity[:at] if at <= len(identity) else identity


class LoopTurns:
    """Callbacks by the running event loop."""

    def __init__(self, clock: Clock) -> None:
        """Measure times by `clock`."""
        self._clock = clock

    def soon(self, callback: Callable[[], None]) -> None:
        """See `Turns.soon`."""
        asyncio.get_running_loop().call_soon(callback)

    def at(self, boot_us: int, callback: Callable[[], None]) -> None:
        """See `Turns.at`."""
        delay_us = max(0, boot_us - self._clock.read().boot_us)
        asyncio.get_running_loop().call_later(delay_us / _MILLION, callback)


class RedisStats(msgspec.Struct, frozen=True):
    """What happens, as plain numbers for metrics.

    Attributes:
        leases: What the replica did.
        batches: What was sent for it.
        nodes: Each node's connections, breaker and round trips.
        problems: What is wrong now, for people.
        live: Replicas last seen alive; None: never seen.
        slot: The slot that is held; None: none.
    """

    leases: LeaseStats
    batches: BatchStats
    nodes: list[NodeStats]
    problems: list[str]
    live: int | None
    slot: int | None


class RedisStore:
    """Counts hits in Redis; implements `Store` and `LeasingStore`. Belongs to one event loop.

    Attributes:
        replica: What is held here.
        at_hand: See `LeasingStore`; a store that takes nothing in advance has none.
    """

    def __init__(
        self,
        address: RedisAddress,
        settings: ReplicaSettings,
        clock: Clock,
        *,
        wait_replicas: int = 0,
        warm_file: Path | None = None,
    ) -> None:
        """Make a store; nothing is connected before `start`.

        Args:
            address: Where Redis is.
            settings: How to lease, and what to do when the store's memory is lost.
            clock: Whose times count.
            wait_replicas: Grants are spent once so many replicas of the server have them (durability `Wait`); 0: at
                once (`Marks`).
            warm_file: Where hot keys are kept over a restart; None: nowhere.
        """
        self._clock = clock
        self._prefix = address.key_prefix
        self._topology = make_topology(address, self, clock)
        asked = DurableTopology(self._topology, wait_replicas) if wait_replicas else self._topology
        self._batches = GroupCommit(asked, self._prefix, clock, command_us=address.command_us)
        self.replica = Replica(settings, orders=self._batches, clock=clock, turns=LoopTurns(clock), group_of=rule_of)
        percent = 0 if settings.leases.exact else settings.standing_percent
        self._pulse = Pulse(self._topology, self._prefix, settings.slots, percent, clock)
        # The request path without a detour.
        self.charge = self.replica.charge
        self.charge_later = self.replica.charge_later
        self.at_hand: Glance | None = None if settings.leases.exact else self.replica.at_hand
        self._limits: Mapping[bytes, LimitSettings] = {}
        self._listing: dict[str, tuple[int, list[Usage]]] = {}
        self._met: WeakSet[Node] = WeakSet()
        self._living: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._warm_file = warm_file
        self._hot: list[HotKey] = []

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """See `Store.peek`; answers later."""
        self.replica.peek(charges, now, done)

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """See `Store.refund`; answers later."""
        self.replica.refund(charges, now, done)

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool | None], None]) -> None:
        """See `Store.reset`: all limits of the rule are; what other replicas hold in hand they may still spend."""
        self.replica.reset(identity, key, done)

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage] | None], None]) -> None:
        """See `Store.usage`; page 0 lists anew, the pages after it are of the same listing for 10 s."""
        self._run_errand(self._usage(domain, page, done))

    def bound(self, rule: str) -> int:
        """See `Store.bound`; of this replica, the bounds of replicas add up."""
        return self.replica.bound(rule)

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """See `Store.apply`; Redis forgets what is not asked for by itself."""
        self._limits = limits
        self.replica.apply(limits)
        self._warm()

    async def start(self) -> None:
        """Begin to connect and to keep a slot; never fails for want of a server."""
        if self._warm_file is not None:
            self._hot = await asyncio.to_thread(read_hot_keys, self._warm_file, self._clock.read().wall_us)
        await self._topology.start()
        self._living = asyncio.get_running_loop().create_task(self._live())

    async def close(self) -> None:
        """Give back what is in hand, and the slot; then close every connection."""
        living, self._living = self._living, None
        if living is not None:
            living.cancel()
            await asyncio.gather(living, *self._errands, return_exceptions=True)
            await self._keep_hot_keys()
            self.replica.release()
            with contextlib.suppress(StoreLost, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._batches.close()
                    await self._pulse.leave()
        await self._topology.close()

    def stats(self) -> RedisStats:
        """Read the plain numbers."""
        membership = self.replica.membership
        return RedisStats(
            leases=self.replica.stats(),
            batches=self._batches.stats,
            nodes=[node.stats() for node in self._topology.nodes()],
            problems=self._topology.problems(),
            live=membership.live,
            slot=membership.slot if membership.holds(self._clock.read().boot_us) else None,
        )

    # What nodes tell.

    def on_new_boot(self, node: Node) -> None:
        """See `Watcher`: what was granted before is as good as the rule for new masters says."""
        self.replica.on_new_master(self._keys_of(node))
        # Until it is told again which form is in force, it leaves alone what any may own.
        self._beat_soon()

    def on_turn(self, node: Node) -> None:
        """See `Watcher`: a node that is back is told at once that this replica is alive."""
        if node.ready and node not in self._met:
            self._met.add(node)
            self.replica.on_found_master(self._keys_of(node), node.found_us)
        if node.ready:
            self._beat_soon()
            self._warm()

    def _keys_of(self, node: Node) -> Callable[[CountedKey], bool]:
        return lambda where: self._topology.node_for(key_name(self._prefix, where)) is node

    # In the background.

    def _beat_soon(self) -> None:
        if self._living is not None:
            self._run_errand(self._beat())

    async def _live(self) -> None:
        """Renew the slot, and forget what is over, once a heartbeat."""
        for beats in itertools.count(1):
            await self._beat()
            self.replica.reclaim()
            if beats % _BEATS_PER_SNAPSHOT == 0:
                await self._keep_hot_keys()
            await asyncio.sleep(HEARTBEAT_US / _MILLION)

    async def _beat(self) -> None:
        membership: Membership = self.replica.membership
        with contextlib.suppress(StoreLost):
            await self._pulse.beat(membership, self.replica.allowances.time)
            self.replica.book.replicas = membership.live or 1

    def _warm(self) -> None:
        """Lease what was hot before the restart, once limits and a server are there."""
        if self._hot and self._limits and any(node.ready for node in self._topology.nodes()):
            hot, self._hot = self._hot, []
            self.replica.warmer.warm(hot, self._limits)

    async def _keep_hot_keys(self) -> None:
        if self._warm_file is None:
            return
        keys: list[HotKey] = []
        for so_far in self.replica.warmer.hottest(MOST_HOT_KEYS):
            keys = so_far
            await asyncio.sleep(0)
        if keys:
            with contextlib.suppress(OSError):  # without it the next start is as cold as any
                await asyncio.to_thread(write_hot_keys, self._warm_file, keys, self._clock.read().wall_us)

    def _run_errand(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _usage(self, domain: str, page: int, done: Callable[[Sequence[Usage] | None], None]) -> None:
        now_us = self._clock.read().boot_us
        listed_us, found = self._listing.get(domain, (_NEVER, []))
        if page == 0 or now_us - listed_us >= _LISTING_LASTS_US:
            groups: dict[bytes, dict[bytes, LimitSettings]] = {}
            for identity, settings in self._limits.items():
                if settings.domain == domain:
                    groups.setdefault(rule_of(identity), {})[identity] = settings
            try:
                found = await list_usage(self._topology, self._prefix, groups)
            except StoreLost:
                done(None)
                return
            known = {
                name: listing for name, listing in self._listing.items() if now_us - listing[0] < _LISTING_LASTS_US
            }
            self._listing = {**known, domain: (now_us, found)}
        done(found[page * PAGE_COUNTERS : (page + 1) * PAGE_COUNTERS])
