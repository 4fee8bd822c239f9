"""The multi-level cache: memory, Redis, disk, and the source behind them.

A hit in memory is answered without leaving the caller's turn of the loop. Everything else goes through one flight per
key. A level that fails is passed over, shown in `health`, and used again once it answers; the only errors that a
caller sees are those of its own loader, of its own timeouts, and of values that cannot be encoded.

Not thread-safe: one service belongs to one event loop. Programs without one use `sync.SyncCacheService`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

import msgspec

from ratelimit_service.cache.coherence import CacheCoherencyManager, Invalidation, InvalidationMetadata
from ratelimit_service.cache.counting import CacheStats, Counts, Sample, samples_of
from ratelimit_service.cache.depths import Depths
from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.fences import FencedLeases
from ratelimit_service.cache.fetching import Fetcher
from ratelimit_service.cache.following import ProfileFollower, adopted
from ratelimit_service.cache.health import CacheHealth, health_of
from ratelimit_service.cache.l1 import Pressure
from ratelimit_service.cache.loads import Loaded, LoadOptions
from ratelimit_service.cache.profiles import DEFAULT_SECRETS, PROFILES, CacheSettings, load_profile
from ratelimit_service.cache.sealing import ABSENT, Sealer
from ratelimit_service.cache.serialisers import Codec, MsgpackCodec
from ratelimit_service.cache.shallows import Shallows, value_of
from ratelimit_service.cache.sourcing import Sourcing
from ratelimit_service.cache.training import DictionaryKeeper
from ratelimit_service.cache.warming import DEFAULT_PER_SECOND, CacheWarmer, KeyLoader, Progress, WarmingReport
from ratelimit_service.clock import Clock
from ratelimit_service.policy.profile_model import WarmingMode

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["CacheService"]

T = TypeVar("T")

WARM_EVERY_S: Final = 30.0
"""Pause between two rounds of background warming."""

_RECLAIM_S: Final = 1.0
_RECLAIM_ENTRIES: Final = 5_000


class CacheService(Generic[T]):
    """A cache of values of one type, by text keys.

    Keys are any text that UTF-8 can carry; values are never changed after they were given to the cache or got from it.
    `None` is no value: a loader that returns it says that there is none.

    Args:
        settings: What it is built from; see `profiles`.
        codec: How values become bytes for Redis and disk; the default is msgpack by msgspec, untyped.
        clock: Where time comes from.
    """

    def __init__(
        self, settings: CacheSettings | None = None, *, codec: Codec[T] | None = None, clock: Clock | None = None
    ) -> None:
        self.settings = settings or CacheSettings()
        self._clock = clock or Clock()
        # The clock's own boot time is the system's; reading it alone is what a hit can afford.
        self._now_us = _boot_us if clock is None else lambda: clock.read().boot_us
        self._began_us = self._now_us()
        self.counts = Counts()
        self.engine = self.settings.engine()
        self.coherence = CacheCoherencyManager(
            now_us=self._now_us, delta_us=self.settings.delta_us, drop=self._drop_here
        )
        self.warmer = CacheWarmer(self, top_keys=self.settings.top_keys)
        self._redis, self._leases = self._new_redis()
        disk = self.settings.disk
        self._disk = None if disk is None else DiskLevel(disk, self._now_us)
        self._dictionaries = DictionaryKeeper(
            self.engine,
            self._now_us,
            lambda: self.settings.ttl_us + self.settings.stale_on_error_us,
            trains=self.settings.dictionary,
            redis=self._redis,
            disk=self._disk,
        )
        self._shallows = Shallows(
            lambda: self.settings,
            self.coherence,
            self.counts,
            self._now_us,
            self.warmer.note if self.settings.warming is not WarmingMode.NONE else None,
            redis=self._redis,
            disk=self._disk,
        )
        sealer: Sealer[T] = Sealer(codec or MsgpackCodec(), self.engine, self._dictionaries.sample)
        self._depths: Depths[T] = Depths(
            sealer,
            self.coherence,
            self.counts,
            self._clock.read,
            self._shallows.keep,
            self._shallows.drop,
            self._dictionaries,
            redis=self._redis,
            disk=self._disk,
        )
        self._sourcing: Sourcing[T] = Sourcing(
            lambda: self.settings,
            self._depths,
            sealer,
            self.coherence,
            self.counts,
            self._clock.read,
            self._shallows.drop,
            redis=self._redis,
            leases=self._leases,
        )
        self._fetcher = Fetcher(
            lambda: self.settings, self._shallows, self._depths, self._sourcing, self.counts, self._now_us
        )
        self._fresh, self._memory = self._shallows.fresh, self._shallows.memory
        self._follower: ProfileFollower | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False

    def _new_redis(self) -> tuple[RedisLevel | None, FencedLeases | None]:
        settings = self.settings
        if settings.redis is None:
            return None, None
        # Here, so that a cache in memory needs no Redis library.
        from ratelimit_service.cache.l2.level import RedisLevel  # noqa: PLC0415

        redis = RedisLevel(settings.redis, self.coherence, self._now_us, mode=settings.mode, delta_us=settings.delta_us)
        self.coherence.attach(redis)
        return redis, FencedLeases(redis, self.coherence.board, self._now_us)

    @classmethod
    def from_profile(
        cls, profile: str | Path, *, codec: Codec[T] | None = None, secrets: Path = DEFAULT_SECRETS
    ) -> Self:
        """Build it from a profile that ships, by name, or from a file with a `CacheProfile`, which it then follows.

        Raises:
            InvalidProfile: There is none, or it is not valid; with every problem.
        """
        cache = cls(load_profile(profile, secrets=secrets), codec=codec)
        if profile not in PROFILES:
            cache._follower = ProfileFollower(Path(profile), secrets, cache.adopt)
        return cache

    async def start(self) -> Self:
        """Open the levels. Raises nothing for a level that is down: it is used once it is up."""
        if not self._is_open:
            self._is_open = True
            if self._disk is not None:
                await self._disk.open()
            if self._redis is not None:
                await self._redis.start()
            self._spawn(self._look_after())
            if self._dictionaries.trains:
                self._spawn(self._dictionaries.run())
            if self._follower is not None:
                self._spawn(self._follower.run())
            if self.settings.warming is not WarmingMode.NONE:
                adaptive = self.settings.warming is WarmingMode.ADAPTIVE
                self._spawn(self.warmer.run(every_s=WARM_EVERY_S, adaptive=adaptive))
        return self

    async def close(self) -> None:
        """End loads and links; the cache is empty afterwards, but for what lies in Redis and on disk."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._fetcher.flights.close()
        await self.coherence.close()
        if self._redis is not None:
            await self._redis.close()
        if self._disk is not None:
            self._disk.close()
        self._memory.clear()
        self._is_open = False

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(self, key: str, default: T | None = None) -> T | None:
        """The value of a key, `default` where no level has one."""
        entry = self._fresh(key, self._now_us())
        if entry is None:
            if not self._depths.exist:
                self.counts.misses += 1
                return default
            held = await self._fetcher.read(key)
            if held is None:
                self.counts.misses += 1
                return default
            value = held.value
        else:
            value = value_of(entry)
        return default if value is ABSENT else cast("T", value)

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """The values of those keys that have one, in the keys' order."""
        now_us = self._now_us()
        wanted = list(dict.fromkeys(keys))
        entries = {key: self._fresh(key, now_us) for key in wanted}
        found: dict[str, Any] = {key: value_of(entry) for key, entry in entries.items() if entry is not None}
        missing = [key for key in wanted if key not in found]
        if missing and self._depths.exist:
            # Commands of one turn of the loop leave in one write, so these are one round trip.
            helds = await asyncio.gather(*map(self._fetcher.read, missing))
            found |= {key: held.value for key, held in zip(missing, helds, strict=True) if held is not None}
        self.counts.misses += len(wanted) - len(found)
        return {key: found[key] for key in wanted if found.get(key, ABSENT) is not ABSENT}

    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T | Loaded | None]],
        *,
        ttl_ms: int | None = None,
        tags: Sequence[str] = (),
        soft_timeout_ms: int | None = None,
        hard_timeout_ms: int | None = None,
    ) -> T | None:
        """The value of a key, loaded once for all who ask where no level has it.

        Args:
            key: Which value.
            loader: Loads it; None: the source has none, which is remembered for `negative_ttl_us` of the settings.
                `Loaded` says besides how long this value is fresh.
            ttl_ms: How long the value is fresh; None: as in the settings.
            tags: By which it can be invalidated.
            soft_timeout_ms: How long to wait for the load before a stale value is taken instead, where there is one.
            hard_timeout_ms: How long to wait at all; the load goes on for the others.

        Raises:
            LoadTimedOut: It took longer than `hard_timeout_ms`, or than any flight may.
            Exception: What the loader raised, unless a stale value may be served for it.
        """
        now_us = self._now_us()
        entry = self._fresh(key, now_us)
        if entry is not None:
            if self.settings.early_refresh_percent:
                self._fetcher.refresh_early(
                    key, entry, now_us, loader, LoadOptions(ttl_us=_us(ttl_ms), tags=tuple(tags))
                )
            value = value_of(entry)
            return None if value is ABSENT else cast("T", value)
        options = LoadOptions(
            ttl_us=_us(ttl_ms),
            tags=tuple(tags),
            soft_timeout_us=_us(soft_timeout_ms),
            hard_timeout_us=_us(hard_timeout_ms),
        )
        held = await self._fetcher.load(key, loader, options, now_us)
        return None if held.value is ABSENT else cast("T", held.value)

    async def set(self, key: str, value: T, *, ttl_ms: int | None = None, tags: Sequence[str] = ()) -> None:
        """Put a value into all levels, over whatever is loaded meanwhile.

        Raises:
            UnencodableValue: A level below memory cannot take it; nothing was stored.
            ValueError: The value is None, or the lifetime negative.
        """
        if value is None or (ttl_ms is not None and ttl_ms < 0):
            raise ValueError("None is no value, and a lifetime is not negative")
        self.counts.writes += 1
        self._fetcher.forget((key,))
        if self._depths.exist or tags:
            await self._sourcing.store(key, value, LoadOptions(ttl_us=_us(ttl_ms), tags=tuple(tags)))
        else:
            self._shallows.set_alone(key, value, self.settings.ttl_us if ttl_ms is None else ttl_ms * 1000)

    async def set_many(self, values: Mapping[str, T], *, ttl_ms: int | None = None, tags: Sequence[str] = ()) -> None:
        """Put several values into all levels; arguments and errors as with `set`, of which others may be stored."""
        await asyncio.gather(*(self.set(key, value, ttl_ms=ttl_ms, tags=tags) for key, value in values.items()))

    async def delete(self, key: str) -> bool:
        """Remove a key from all levels and replicas; whether any level here, or Redis, had a value."""
        had = self._memory.peek(key, self._now_us()) is not None
        return (await self.invalidate(key)).removed > 0 or had

    async def invalidate(self, key: str, metadata: InvalidationMetadata | None = None) -> Invalidation:
        """Remove a key from all levels and replicas, and void the tags of `metadata`."""
        self.counts.invalidations += 1
        self._fetcher.forget((key,))
        return await self.coherence.invalidate_with_coherency(key, metadata)

    async def invalidate_tag(self, tag: str) -> Invalidation:
        """Void all values with a tag, on all replicas."""
        self.counts.invalidations += 1
        self._fetcher.forget(None)
        return await self.coherence.invalidate_tag(tag)

    async def invalidate_prefix(self, prefix: str) -> Invalidation:
        """Void all values whose key begins so, on all replicas."""
        self.counts.invalidations += 1
        self._fetcher.forget(None)
        if self._redis is None:
            self._shallows.drop_prefix(prefix)
        return await self.coherence.invalidate_prefix(prefix)

    async def clear(self) -> Invalidation:
        """Void all values, on all replicas."""
        result = await self.invalidate_prefix("")
        self._memory.clear()
        return result

    async def warm(
        self,
        keys: Iterable[str],
        loader: KeyLoader | None = None,
        *,
        per_second: int = DEFAULT_PER_SECOND,
        progress: Progress | None = None,
    ) -> WarmingReport:
        """Fill memory with keys ahead of their use, paced; stops at the warning level.

        Args:
            keys: Which, the most wanted first.
            loader: Loads what no level has; None: what was registered with `load_with`, else only levels are read.
            per_second: Keys per second at the most.
            progress: Told after each key.
        """
        return await self.warmer.warm(keys, loader, per_second=per_second, progress=progress)

    def load_with(self, prefix: str, loader: KeyLoader) -> None:
        """Have keys that begin so loaded by this loader when they are warmed in the background."""
        self.warmer.load_with(prefix, loader)

    def stats(self) -> CacheStats:
        """Counts and sizes, now."""
        redis, leases, flights = self._redis, self._leases, self._fetcher.flights
        return CacheStats(
            name=self.settings.name,
            uptime_us=self._now_us() - self._began_us,
            counts=msgspec.structs.asdict(self.counts),
            memory=self._memory.stats(),
            compression=self.engine.stats(),
            disk=None if self._disk is None else self._disk.stats(),
            disk_failures=0 if self._disk is None else self._disk.failures,
            dictionaries=len(self.engine.dictionaries),
            dictionaries_adopted=self._dictionaries.adopted,
            coherency=self.coherence.stats(),
            flights=len(flights),
            flights_joined=flights.joined,
            flights_timed_out=flights.timed_out,
            leases_granted=leases.granted if leases else 0,
            leases_waited=leases.waited if leases else 0,
            l2_calls=redis.calls if redis else 0,
            l2_failures=redis.failures if redis else 0,
            l2_timeouts=redis.timeouts if redis else 0,
            l2_losses=redis.nodes.losses if redis else 0,
        )

    def health(self) -> CacheHealth:
        """How each level is, and the staleness bound in force."""
        return health_of(self.settings, self._memory.pressure, self._redis, self._disk, self.coherence.stats().owed)

    def metrics(self) -> tuple[Sample, ...]:
        """The statistics as Prometheus shows them."""
        return tuple(samples_of(self.stats()))

    def adopt(self, settings: CacheSettings) -> tuple[str, ...]:
        """Go by other settings, as far as that can be done while running.

        Returns:
            Names of the settings that differ and take effect only at the next start.
        """
        self.settings, waiting = adopted(self.settings, settings)
        self.coherence.set_delta(self.settings.delta_us)
        if self._redis is not None:
            self._redis.set_delta(self.settings.delta_us)
        return waiting

    def is_held(self, key: str) -> bool:
        """Whether memory would answer for a key now; neither counted nor noticed by the eviction policy."""
        return self._shallows.is_held(key)

    @property
    def pressure(self) -> Pressure:
        """How full memory is."""
        return self._memory.pressure

    def _drop_here(self, key: str) -> None:
        self._shallows.drop(key)

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_RECLAIM_S)
            self._memory.reclaim(self._now_us(), _RECLAIM_ENTRIES)
            if self._disk is not None:
                await self._disk.open()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="tidegate-cache")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _boot_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def _us(duration_ms: int | None) -> int | None:
    return None if duration_ms is None else duration_ms * 1000
