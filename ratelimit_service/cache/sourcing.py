"""Where values come from and go to below memory: loaded once among all replicas, stored in all levels.

What a load brings goes up into memory if nothing newer came between (`staleness`), and down into Redis and on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.cache.coherence import CacheCoherencyManager
from ratelimit_service.cache.counting import Counts
from ratelimit_service.cache.depths import Depths, Reached
from ratelimit_service.cache.errors import LevelUnavailable, UnencodableValue
from ratelimit_service.cache.fences import FencedLeases
from ratelimit_service.cache.l2.answers import Found, Granted
from ratelimit_service.cache.loads import Loaded, Loader, LoadOptions
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.sealing import ABSENT, Held, Sealer, Term
from ratelimit_service.cache.staleness import FillToken

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["Sourcing"]

T = TypeVar("T")

_LEASE_WAIT_US: Final = 20_000_000
"""Longest wait for another replica's load; then it is loaded here too."""

_LEASE_ROUNDS: Final = 3


class Sourcing(Generic[T]):
    """See the module.

    Args:
        depths: The levels below memory.
        drop: Removes a key from memory and disk.
    """

    def __init__(
        self,
        settings: Callable[[], CacheSettings],
        depths: Depths[T],
        sealer: Sealer[T],
        coherence: CacheCoherencyManager,
        counts: Counts,
        now: Callable[[], Instant],
        drop: Callable[[str], None],
        *,
        redis: RedisLevel | None,
        leases: FencedLeases | None,
    ) -> None:
        self._settings = settings
        self._depths = depths
        self._sealer = sealer
        self._coherence = coherence
        self._counts = counts
        self._now = now
        self._drop = drop
        self._redis = redis
        self._leases = leases

    async def load(self, key: str, loader: Loader, options: LoadOptions, reached: Reached) -> Held:
        """Load a value, once among all replicas where Redis is there, and store it in all levels.

        Raises:
            Exception: What the loader raised.
        """
        redis, leases = self._redis, self._leases
        if redis is None or leases is None or not redis.is_up:
            return await self._load_alone(key, loader, options)
        token: list[FillToken] = []

        def before_asking() -> None:
            token[:] = [self._coherence.begin(key)]

        try:
            granted = await self._lease(leases, key, reached.unfit, token, before_asking)
            if isinstance(granted, Granted):
                return await self._load_leased(key, loader, options, token[0], granted)
            if granted is not None:
                return granted
        finally:
            for each in token:
                self._coherence.fills.abandon(each)
        return await self._load_alone(key, loader, options)

    async def refresh(self, key: str, loader: Loader, options: LoadOptions) -> Held | None:
        """Load a value anew that is still good; None: another replica does it, or Redis did not say.

        Raises:
            Exception: What the loader raised.
        """
        redis, leases = self._redis, self._leases
        if redis is None or leases is None:
            return await self._load_alone(key, loader, options)
        token: list[FillToken] = []
        try:
            payload = await redis.read(key)
            answer = await leases.acquire(
                key,
                unfit=payload,
                deadline_us=self._now().boot_us,
                before_asking=lambda: token.append(self._coherence.begin(key)),
            )
            if isinstance(answer, Found):
                return (await self._depths.judge(key, token[-1], answer.payload)).held
        except LevelUnavailable:
            return None
        finally:
            if not token or not isinstance(answer, Granted):
                for each in token:
                    self._coherence.fills.abandon(each)
        if not isinstance(answer, Granted):
            return None
        try:
            return await self._load_leased(key, loader, options, token[-1], answer)
        finally:
            self._coherence.fills.abandon(token[-1])

    async def _lease(
        self,
        leases: FencedLeases,
        key: str,
        unfit: bytes | None,
        token: list[FillToken],
        before_asking: Callable[[], None],
    ) -> Granted | Held | None:
        """The lease of a load, or what another replica has loaded meanwhile; None: load without."""
        try:
            for _ in range(_LEASE_ROUNDS):
                deadline_us = self._now().boot_us + _LEASE_WAIT_US
                answer = await leases.acquire(key, unfit=unfit, deadline_us=deadline_us, before_asking=before_asking)
                if isinstance(answer, Granted):
                    return answer
                if not isinstance(answer, Found):
                    return None
                judged = await self._depths.judge(key, token[0], answer.payload)
                if judged.held is not None:
                    return judged.held
                unfit = answer.payload
        except LevelUnavailable:
            return None
        return None

    async def _load_leased(
        self, key: str, loader: Loader, options: LoadOptions, token: FillToken, lease: Granted
    ) -> Held:
        leases = self._leases
        assert leases is not None
        is_stored = False
        try:
            async with leases.holding(key, lease):
                # Before the load: an invalidation from here on voids what it brings.
                tags = await self._known_tags(options.tags, self._lifetime_us(options))
                version = self._coherence.version
                value, cost_us, options = await self._run(loader, options)
            held = self._held(token, value, cost_us, options, watched=True, version=version or 0, tags=tags)
            if self._is_kept(held) and tags is not None and version is not None:
                is_stored = await self._fill(key, token, lease, held)
            return held
        finally:
            if not is_stored:
                await leases.give_back(key, lease)

    async def _fill(self, key: str, token: FillToken, lease: Granted, held: Held) -> bool:
        """Store what was loaded in Redis, and above if that worked; whether it did."""
        redis = self._redis
        assert redis is not None
        try:
            payload = self._sealer.seal(held, self._now(), fence=lease.fence)
            lifetime_us = held.term.expires_us - self._now().boot_us
            is_stored = await redis.fill(key, lease, payload, lifetime_us=lifetime_us)
        except UnencodableValue:
            # Asking for the lease has read the key, so Redis tells when it is written.
            self._depths.keep_if_current(key, token, held)
            return False
        except LevelUnavailable:
            if not held.stamp.tags:
                unwatched = self._coherence.stamp(token, watched=False)
                self._depths.keep_if_current(key, token, msgspec.structs.replace(held, stamp=unwatched))
            return False
        if is_stored:
            self._depths.keep_if_current(key, token, held, payload)
        else:
            self._counts.fenced_out += 1
        return is_stored

    async def _load_alone(self, key: str, loader: Loader, options: LoadOptions) -> Held:
        """Load without a lease: there is no Redis, or it does not answer."""
        token = self._coherence.begin(key)
        try:
            tags = await self._known_tags(options.tags)
            version = self._coherence.version or 0
            value, cost_us, options = await self._run(loader, options)
            held = self._held(token, value, cost_us, options, watched=False, version=version, tags=tags or {})
            if self._is_kept(held) and tags is not None:
                self._depths.keep_if_current(key, token, held, self._depths.sealed_for_disk(held))
            return held
        finally:
            self._coherence.fills.abandon(token)

    async def store(self, key: str, value: object, options: LoadOptions) -> None:
        """Put a value into all levels. Raises `UnencodableValue` where a level below memory cannot take it."""
        coherence, redis = self._coherence, self._redis
        token = coherence.begin(key)
        try:
            tags = await self._known_tags(options.tags, self._lifetime_us(options))
            version = coherence.version or 0
            if redis is None:
                held = self._held(token, value, 0, options, watched=False, version=version, tags=tags or {})
                self._depths.keep_if_current(key, token, held, self._depths.sealed_for_disk(held))
                return
            held = self._held(token, value, 0, options, watched=True, version=version, tags=tags or {})
            payload = self._sealer.seal(held, self._now())
            lifetime_us = held.term.expires_us - token.began_us
            if tags is not None and await self._is_stored(redis, key, payload, lifetime_us):
                self._depths.keep_if_current(key, token, held, payload)
                return
            # What Redis has, or gets by a command that was late, may be older than this.
            coherence.owe(key)
            if options.tags:
                self._drop(key)
            else:
                self._depths.keep_if_current(key, token, self._held(token, value, 0, options, watched=False))
        finally:
            coherence.fills.abandon(token)

    @staticmethod
    async def _is_stored(redis: RedisLevel, key: str, payload: bytes, lifetime_us: int) -> bool:
        try:
            await redis.store(key, payload, lifetime_us=lifetime_us)
        except LevelUnavailable:
            return False
        return True

    async def _known_tags(self, tags: Iterable[str], lifetime_us: int = 0) -> dict[str, int] | None:
        """Versions of tags, None if Redis cannot be asked."""
        try:
            return dict(await self._coherence.learn(tags, lifetime_us=lifetime_us))
        except LevelUnavailable:
            return None if tags else {}

    async def _run(self, loader: Loader, options: LoadOptions) -> tuple[object, int, LoadOptions]:
        """The value, what its load took, and how it is to be kept."""
        began_us = self._now().boot_us
        self._counts.loads += 1
        try:
            value = await loader()
        except BaseException:
            self._counts.loads -= 1
            self._counts.load_errors += 1
            raise
        if isinstance(value, Loaded):
            options = msgspec.structs.replace(options, ttl_us=value.ttl_ms * 1000)
            value = value.value
        return (ABSENT if value is None else value), self._now().boot_us - began_us, options

    def _held(
        self,
        token: FillToken,
        value: object,
        cost_us: int,
        options: LoadOptions,
        *,
        watched: bool,
        version: int = 0,
        tags: dict[str, int] | None = None,
    ) -> Held:
        settings, now_us = self._settings(), self._now().boot_us
        ttl_us = settings.ttl_us if options.ttl_us is None else options.ttl_us
        stale_us = settings.stale_on_error_us
        if value is ABSENT:
            ttl_us, stale_us = min(ttl_us, settings.negative_ttl_us), 0
        elif not ttl_us:
            # What is never fresh is not kept for bad times either.
            stale_us = 0
        term = Term(now_us + ttl_us, now_us + ttl_us + stale_us, cost_us)
        return Held(value, self._coherence.stamp(token, watched=watched, version=version, tags=tags), term)

    def _lifetime_us(self, options: LoadOptions) -> int:
        settings = self._settings()
        return (settings.ttl_us if options.ttl_us is None else options.ttl_us) + settings.stale_on_error_us

    def _is_kept(self, held: Held) -> bool:
        return held.term.expires_us > self._now().boot_us
