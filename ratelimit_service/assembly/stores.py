"""Where the service counts: its own store, and one for each profile in force that names a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

from ratelimit_service.clock import Clock
from ratelimit_service.limiter.engine import OWN_STORE
from ratelimit_service.limiter.traced_store import TracedStore
from ratelimit_service.policy.backend import Backend
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.profile_model import (
    Durability,
    LeaseMode,
    Leases,
    NewMaster,
    StoreSpec,
    StoreType,
)
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.health import MemoryLevel, SharedLevel, StoreHealth, StoresHealth, all_health, store_health
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.quota.store import Store
from ratelimit_service.quota.upstream import UpstreamMemoryStore
from ratelimit_service.redis_server.address import InvalidStoreAddress
from ratelimit_service.redis_server.address_model import RedisAddress
from ratelimit_service.settings import Compat, ServeSettings
from ratelimit_service.store_address import from_profile
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from ratelimit_service.quota.redis.nodes import Node
    from ratelimit_service.quota.redis.store import RedisStore


class _Unwatched:
    """A `Watcher` for a store that keeps nothing that a new master could contradict."""

    def on_new_boot(self, node: Node) -> None:
        """See `Watcher`."""

    def on_turn(self, node: Node) -> None:
        """See `Watcher`."""


class Stores:
    """The service's own store, and one for each profile in force that names a Redis (`Limiter`'s mapping).

    Attributes:
        own: Counts whatever no other store does.
        by_profile: All of them; changed in place.
    """

    def __init__(self, settings: ServeSettings, clock: Clock, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._backends: dict[str, Backend] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._health: dict[str, Callable[[], StoreHealth]] = {}
        self._tracing = tracing
        self.own = self._noting(self._make_own())
        self.by_profile: dict[str, Store] = {OWN_STORE: self.own}

    def _noting(self, store: Store) -> Store:
        """The store itself, or where traces are on one before it."""
        return store if self._tracing is None else TracedStore(store, self._tracing)

    def _make_own(self) -> Store:
        settings = self._settings
        if settings.store is not None and settings.compat is Compat.ENVOYPROXY:
            return self._make_upstream(settings.store)
        if settings.store is not None:
            return self._make_shared(OWN_STORE, settings.store, Leases(), StoreSpec())
        kind = UpstreamMemoryStore if settings.compat is Compat.ENVOYPROXY else MemoryStore
        memory = kind(clock=self._clock, max_keys=settings.store_max_keys, max_bytes=settings.store_max_bytes)
        self._metrics.add_store(OWN_STORE, memory.stats)
        self._health[OWN_STORE] = lambda: _memory_health(memory)
        return memory

    def _make_shared(self, profile: str, address: RedisAddress, leases: Leases, spec: StoreSpec) -> Store:
        # As the transports: where it counts and nowhere else.
        from ratelimit_service.quota.leases.book import LeaseSettings  # noqa: PLC0415
        from ratelimit_service.quota.leases.masters import NewMasterRule  # noqa: PLC0415
        from ratelimit_service.quota.leases.replica import ReplicaSettings  # noqa: PLC0415
        from ratelimit_service.quota.redis.store import RedisStore  # noqa: PLC0415

        slots = leases.slots or (self._settings.slots if self._settings.slots > 1 else None)
        settings = ReplicaSettings(
            leases=LeaseSettings(
                exact=leases.mode is LeaseMode.EXACT,
                horizon_us=leases.horizon_us,
                max_keys=self._settings.store_max_keys,
            ),
            slots=slots,
            standing_percent=leases.standing_share,
            new_master=NewMasterRule((spec.new_master or NewMaster.LEARN).value),
        )
        wait_replicas = 1 if spec.durability is Durability.WAIT else 0
        warm_file = _warm_file_of(self._settings.warm_file, profile)
        shared = RedisStore(address, settings, self._clock, wait_replicas=wait_replicas, warm_file=warm_file)
        self._metrics.add_shared_store(profile, shared.stats)
        self._health[profile] = lambda: _shared_health(shared)
        return shared

    def _make_upstream(self, address: RedisAddress) -> Store:
        from ratelimit_service.quota.redis.topologies import make_topology  # noqa: PLC0415 — as above
        from ratelimit_service.quota.redis.upstream import UpstreamRedisSettings, UpstreamRedisStore  # noqa: PLC0415
        from ratelimit_service.quota.redis.upstream_counting import Servers  # noqa: PLC0415

        settings, watcher = self._settings, _Unwatched()
        per_second = settings.compat_per_second_store
        servers = Servers(
            main=make_topology(address, watcher, self._clock),
            per_second=None if per_second is None else make_topology(per_second, watcher, self._clock),
            timeout_us=address.command_us,
        )
        topologies = [each for each in (servers.main, servers.per_second) if each is not None]
        self._health[OWN_STORE] = lambda: store_health(
            l2=SharedLevel(tuple(problem for each in topologies for problem in each.problems()))
        )
        given = UpstreamRedisSettings(
            prefix=address.key_prefix,
            expiry_jitter_s=settings.compat_expiry_jitter_s,
            local_cache_bytes=settings.compat_local_cache_bytes,
            stop_when_over=settings.compat_stop_when_over,
        )
        return UpstreamRedisStore(clock=self._clock, servers=servers, settings=given)

    async def start(self) -> None:
        """Begin background work of the service's own store; it never fails for want of a server."""
        await self.own.start()

    def follow(self, snapshot: Snapshot) -> list[Problem]:
        """Open the stores that the profiles of a snapshot name, and close those that none names any more.

        A store whose address changed is opened beside the old one, which gives back what it holds; counts begin anew.
        With a problem nothing is changed.
        """
        wanted = snapshot.backends
        addresses: dict[str, RedisAddress] = {}
        problems: list[Problem] = []
        for profile, backend in wanted.items():
            if self._backends.get(profile) == backend or backend.store.type is StoreType.MEMORY:
                continue
            try:
                addresses[profile] = from_profile(backend.store, self._settings.secrets_dir / backend.namespace)
            except InvalidStoreAddress as wrong:
                problems += [Problem(f"CacheProfile {profile}", "spec.store", text) for text in wrong.problems]
        if problems:
            return problems
        for profile in [name for name, backend in self._backends.items() if wanted.get(name) != backend]:
            del self._backends[profile]
            self._metrics.remove_store(profile)
            del self._health[profile]
            self._run(self.by_profile.pop(profile).close())
        for profile, address in addresses.items():
            backend = self._backends[profile] = wanted[profile]
            store = self._noting(self._make_shared(profile, address, backend.leases, backend.store))
            self.by_profile[profile] = store
            self._run(store.start())
        return []

    def health(self) -> StoresHealth:
        """How every store is, for `/health/cache`."""
        return all_health([(profile, read()) for profile, read in self._health.items()])

    def _run(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def close(self) -> None:
        """Give back what every store holds."""
        await asyncio.gather(*self._errands, return_exceptions=True)
        await asyncio.gather(*(store.close() for store in self.by_profile.values()))


def _warm_file_of(path: Path | None, profile: str) -> Path | None:
    """Each store's own file, beside the one that was named."""
    if path is None or profile == OWN_STORE:
        return path
    return path.with_name(f"{path.name}.{profile.replace('/', '.')}")


def _memory_health(store: MemoryStore | UpstreamMemoryStore) -> StoreHealth:
    stats = store.stats()
    # Upstream's own way keeps no time of its last refusal: full is when another key would find no room.
    full = store.is_refusing() if isinstance(store, MemoryStore) else stats.keys >= stats.max_keys
    level = MemoryLevel(stats.keys, stats.max_keys, stats.bytes, stats.max_bytes, full=full)
    return store_health(l1=level)


def _shared_health(store: RedisStore) -> StoreHealth:
    stats = store.stats()
    return store_health(l2=SharedLevel(tuple(stats.problems), stats.live))
