"""The stores that a limiter can count in, behind what it asks of them beside counting.

Like `app`, this module names concrete classes. What needs Redis is imported where it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.library.config import RateLimitConfig
from ratelimit_service.quota.memory.bounds import Clock
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.store import Charge, Outcome, Store

if TYPE_CHECKING:
    from ratelimit_service.quota.leases.replica import Replica
    from ratelimit_service.quota.redis.store import RedisStore

__all__ = ["ForeignQuota", "LeasedKeys", "MemoryQuota", "Quota", "QuotaReport", "RedisQuota", "quota_of"]

RELIEF_KEYS: Final = 2_000
"""Keys that are looked at when room is short."""


class QuotaReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is.

    Attributes:
        name: `memory`, `redis`, or the class of a store that the program brought.
        up: It counts.
        reason: What is wrong, empty: nothing.
        decided: Decisions by who made them; empty: not known.
        round_trips: To the store, answered.
        latency_us: A round trip, on average; 0: none yet, or none needed.
        batch_size: Orders per round trip; 0.0: none.
        keys, bytes: Held in this process; bytes is 0 where they are not measured.
    """

    name: str
    up: bool = True
    reason: str = ""
    decided: Mapping[str, int] = {}
    round_trips: int = 0
    latency_us: int = 0
    batch_size: float = 0.0
    keys: int = 0
    bytes: int = 0


class Quota(Protocol):
    """A store, and what a limiter asks of it beside counting.

    Attributes:
        store: It.
        leased: What it takes ahead; None: nothing.
    """

    store: Store
    leased: LeasedKeys | None

    def fill_percent(self) -> int:
        """How full this process's part is, in keys or bytes, whichever is more."""

    def relieve(self, now: Instant) -> int:
        """Clean up a part of what has expired; how many keys were looked at."""

    async def take_ahead(self, charge: Charge) -> bool | None:
        """Have the hits of a charge in hand before they are asked for; None: nothing to do; False: no answer."""

    def report(self) -> QuotaReport:
        """How it is."""


class LeasedKeys:
    """What a replica of a shared store holds ahead of need."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def holds(self, charge: Charge) -> bool:
        """Whether hits of a charge's key are taken ahead, so that one order may do for many checks."""
        cell = self._replica.book.find(charge.identity, charge.key)
        return cell is not None and not cell.exact

    def expect(self, charge: Charge, hits: int) -> Callable[[], None]:
        """Have so many hits more taken with the next order for a key, until what is returned is called."""
        cell = self._replica.book.cell(charge, self._replica.now())
        cell.awaited += hits

        def withdraw() -> None:
            cell.awaited -= hits

        return withdraw

    def decide_without(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        """Decide by what is in hand and the failure mode."""
        return self._replica.decide_without(charges, now)


class MemoryQuota:
    """Counts in this process."""

    leased: LeasedKeys | None = None

    def __init__(self, store: MemoryStore) -> None:
        self.store: Store = store
        self._memory = store

    def fill_percent(self) -> int:
        """See `Quota`."""
        stats = self._memory.stats()
        return max(100 * stats.keys // stats.max_keys, 100 * stats.bytes // stats.max_bytes)

    def relieve(self, now: Instant) -> int:
        """See `Quota`."""
        return self._memory.reclaim(now, RELIEF_KEYS)

    async def take_ahead(self, charge: Charge) -> bool | None:
        """See `Quota`: everything is in hand."""
        return None

    def report(self) -> QuotaReport:
        """See `Quota`."""
        stats = self._memory.stats()
        charges = stats.enforce_charges
        return QuotaReport(
            name="memory",
            reason="keys find no room" if self._memory.is_refusing() else "",
            decided={"memory": charges - stats.refused - stats.uncounted, "fallback": stats.refused + stats.uncounted},
            keys=stats.keys,
            bytes=stats.bytes,
        )


class RedisQuota:
    """Counts in Redis, by leases or exactly."""

    def __init__(self, store: RedisStore, max_keys: int) -> None:
        self.store: Store = store
        self.leased: LeasedKeys | None = LeasedKeys(store.replica)
        self._redis = store
        self._max_keys = max_keys

    def fill_percent(self) -> int:
        """See `Quota`; idle keys make room by themselves."""
        return 100 * len(self._redis.replica.book) // self._max_keys

    def relieve(self, now: Instant) -> int:
        """See `Quota`."""
        return self._redis.replica.book.forget_idle(now.boot_us, RELIEF_KEYS)

    async def take_ahead(self, charge: Charge) -> bool | None:
        """See `Quota`: takes a lease, unless there is one or the limit is exact."""
        told: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()

        def tell(taken: bool | None) -> None:
            if not told.done():
                told.set_result(taken)

        self._redis.replica.take_ahead(charge, tell)
        return await told

    def report(self) -> QuotaReport:
        """See `Quota`."""
        stats = self._redis.stats()
        trips = sum(node.round_trips for node in stats.nodes)
        took_us = sum(node.round_trip_us for node in stats.nodes)
        batches = stats.batches
        up = any(node.available for node in stats.nodes)
        reasons = [*stats.problems, *([] if all(node.available for node in stats.nodes) else ["a node is away"])]
        return QuotaReport(
            name="redis",
            up=up,
            reason="; ".join(reasons) if up else "; ".join(reasons) or "no server answers",
            decided={
                source.value: count for source, count in stats.leases.decisions.items() if source.value != "memory"
            },
            round_trips=trips,
            latency_us=took_us // trips if trips else 0,
            batch_size=batches.orders / batches.batches if batches.batches else 0.0,
            keys=stats.leases.keys,
        )


class ForeignQuota:
    """A store that the program brought, of which only `Store` is known."""

    leased: LeasedKeys | None = None

    def __init__(self, store: Store) -> None:
        self.store = store

    def fill_percent(self) -> int:
        """See `Quota`: not known."""
        return 0

    def relieve(self, now: Instant) -> int:
        """See `Quota`: nothing is known that could be cleaned."""
        return 0

    async def take_ahead(self, charge: Charge) -> bool | None:
        """See `Quota`: cannot be asked for."""
        return None

    def report(self) -> QuotaReport:
        """See `Quota`."""
        return QuotaReport(name=type(self.store).__name__)


def quota_of(config: RateLimitConfig, clock: Clock, store: Store | None) -> Quota:
    """The store that a configuration names, or the one that is given."""
    if isinstance(store, MemoryStore):
        return MemoryQuota(store)
    if store is None and config.redis is None:
        return MemoryQuota(
            MemoryStore(
                clock=clock,
                max_keys=config.max_keys,
                max_bytes=config.max_memory_bytes,
                exact_percent=config.critical_percent,
            )
        )
    if store is not None and not _is_redis(store):
        return ForeignQuota(store)
    return _redis_quota(config, clock, store)


def _is_redis(store: Store) -> bool:
    # By name, so that nobody needs the Redis library who has no Redis.
    return type(store).__module__ == "ratelimit_service.quota.redis.store"


def _redis_quota(config: RateLimitConfig, clock: Clock, store: Store | None) -> Quota:
    from ratelimit_service.quota.leases.book import LeaseSettings  # noqa: PLC0415
    from ratelimit_service.quota.leases.masters import NewMasterRule  # noqa: PLC0415
    from ratelimit_service.quota.leases.replica import ReplicaSettings  # noqa: PLC0415
    from ratelimit_service.quota.redis.store import RedisStore  # noqa: PLC0415

    if isinstance(store, RedisStore):
        return RedisQuota(store, config.max_keys)
    assert config.redis is not None
    leases = LeaseSettings(exact=config.exact, horizon_us=config.horizon_ms * 1_000, max_keys=config.max_keys)
    settings = ReplicaSettings(
        leases=leases,
        slots=config.slots,
        standing_percent=config.standing_percent,
        new_master=NewMasterRule(config.new_master.value),
    )
    return RedisQuota(RedisStore(config.redis, settings, clock, wait_replicas=config.wait_replicas), config.max_keys)
