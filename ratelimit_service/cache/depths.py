"""What lies below the memory level: Redis, the disk, and the source that values are loaded from.

One `reach` runs per key at a time (`flights`): it looks into the levels, and loads where none has the value. What it
brings goes up into memory if nothing newer came between (`staleness`), and down into the levels that were passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.cache.coherence import CacheCoherencyManager
from ratelimit_service.cache.counting import Counts
from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.errors import CorruptPayload, LevelUnavailable, UnencodableValue, UnknownDictionary
from ratelimit_service.cache.fences import FencedLeases
from ratelimit_service.cache.l2.answers import Found, Granted
from ratelimit_service.cache.loads import Loaded, Loader, LoadOptions
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.sealing import ABSENT, Held, Sealer, Term
from ratelimit_service.cache.staleness import UNWATCHED, FillToken
from ratelimit_service.cache.training import DictionaryKeeper

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["Depths", "Reached"]

T = TypeVar("T")

_LEASE_WAIT_US: Final = 20_000_000
"""Longest wait for another replica's load; then it is loaded here too."""

_LEASE_ROUNDS: Final = 3


class Reached(msgspec.Struct, frozen=True):
    """What a look into the levels brought.

    Attributes:
        held: A value that may be served; None: no level has one.
        unfit: The payload in Redis that may not.
        stale: A value whose time is over, for when loading fails.
    """

    held: Held | None = None
    unfit: bytes | None = None
    stale: Held | None = None


class Depths(Generic[T]):
    """See the module.

    Args:
        keep: Puts a value into memory.
        drop: Removes a key from memory and disk.
    """

    def __init__(
        self,
        settings: Callable[[], CacheSettings],
        sealer: Sealer[T],
        coherence: CacheCoherencyManager,
        counts: Counts,
        now: Callable[[], Instant],
        keep: Callable[[str, Held], None],
        drop: Callable[[str], None],
        dictionaries: DictionaryKeeper,
        *,
        redis: RedisLevel | None,
        leases: FencedLeases | None,
        disk: DiskLevel | None,
    ) -> None:
        self._settings = settings
        self._sealer = sealer
        self._coherence = coherence
        self._counts = counts
        self._now = now
        self._keep = keep
        self._drop = drop
        self._dictionaries = dictionaries
        self._redis = redis
        self._leases = leases
        self._disk = disk

    @property
    def exist(self) -> bool:
        """Whether there is any level below memory."""
        return self._redis is not None or self._disk is not None

    async def read(self, key: str) -> Reached:
        """Look on the disk, which is near, then into Redis. Raises nothing: a level that fails is passed over."""
        near = await self._read_disk(self._disk, key) if self._disk is not None else Reached()
        if near.held is not None or self._redis is None:
            return near
        reached = await self._read_redis(key)
        if reached.held is None and reached.stale is None:
            return msgspec.structs.replace(reached, stale=near.stale)
        return reached

    async def _read_redis(self, key: str) -> Reached:
        redis = self._redis
        assert redis is not None
        if not redis.is_up or self._coherence.is_owed(key):
            return Reached()
        token = self._coherence.begin(key)
        try:
            payload = await redis.read(key)
            return await self.judge(key, token, payload)
        except LevelUnavailable:
            return Reached()
        finally:
            self._coherence.fills.abandon(token)

    async def judge(self, key: str, token: FillToken, payload: bytes | None) -> Reached:
        """What a payload from Redis is good for; a good one is kept in memory.

        Raises:
            LevelUnavailable: The versions of its tags cannot be known.
        """
        if payload is None:
            return Reached()
        now = self._now()
        try:
            held = await self._opened(payload, now, token.epoch, token.began_us)
        except CorruptPayload:
            self._counts.corrupt += 1
            return Reached(unfit=payload)
        await self._coherence.learn(tag for tag, _ in held.stamp.tags)
        if self._coherence.is_void(key, held.stamp.version, held.stamp.tags) or held.term.expires_us <= now.boot_us:
            return Reached(unfit=payload)
        if held.term.fresh_until_us <= now.boot_us:
            return Reached(unfit=payload, stale=held)
        self._counts.hits_l2 += 1
        self._keep_if_current(key, token, held, payload, wrote=False)
        return Reached(held)

    async def _read_disk(self, disk: DiskLevel, key: str) -> Reached:
        """Look on the disk.

        With Redis, what lies there may be served if it was written in this epoch, as what lies in memory: later
        changes were heard of and have removed it. Else it is good for when loading fails.
        """
        try:
            found = disk.read(key)
            if found is None:
                return Reached()
            now = self._now()
            epoch = self._coherence.epoch if found.mark == self._coherence.mark else UNWATCHED
            held = await self._opened(found.payload, now, epoch, found.filled_us)
        except CorruptPayload:
            self._counts.corrupt += 1
            disk.remove(key)
            return Reached()
        if held.term.expires_us <= now.boot_us:
            return Reached()
        is_fresh = held.term.fresh_until_us > now.boot_us
        if is_fresh and (self._redis is None or await self._is_current(key, held)):
            self._counts.hits_l3 += 1
            self._keep(key, held)
            return Reached(held)
        return Reached(stale=held if self._coherence.is_usable_stale(key, held.stamp) else None)

    async def _opened(self, payload: bytes, now: Instant, epoch: int, filled_us: int) -> Held:
        """`Sealer.open`, asking for the dictionary that the payload needs where it is not known."""
        try:
            return self._sealer.open(payload, now, epoch=epoch, filled_us=filled_us)
        except UnknownDictionary as unknown:
            if not await self._dictionaries.learn(unknown.dictionary_id):
                raise
        return self._sealer.open(payload, now, epoch=epoch, filled_us=filled_us)

    async def _is_current(self, key: str, held: Held) -> bool:
        """Whether Redis still has this value, as far as was heard or can be heard now."""
        coherence = self._coherence
        if held.stamp.epoch == UNWATCHED:
            return False
        if coherence.is_current(key, held.stamp, self._now().boot_us):
            return True
        await coherence.catch_up(tag for tag, _ in held.stamp.tags)
        return coherence.is_current(key, held.stamp, self._now().boot_us)

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
                return (await self.judge(key, token[-1], answer.payload)).held
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
                judged = await self.judge(key, token[0], answer.payload)
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
            self._keep_if_current(key, token, held)
            return False
        except LevelUnavailable:
            if not held.stamp.tags:
                unwatched = self._coherence.stamp(token, watched=False)
                self._keep_if_current(key, token, msgspec.structs.replace(held, stamp=unwatched))
            return False
        if is_stored:
            self._keep_if_current(key, token, held, payload)
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
                self._keep_if_current(key, token, held, self._sealed_for_disk(held))
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
                self._keep_if_current(key, token, held, self._sealed_for_disk(held))
                return
            held = self._held(token, value, 0, options, watched=True, version=version, tags=tags or {})
            payload = self._sealer.seal(held, self._now())
            lifetime_us = held.term.expires_us - token.began_us
            if tags is not None and await self._is_stored(redis, key, payload, lifetime_us):
                self._keep_if_current(key, token, held, payload)
                return
            # What Redis has, or gets by a command that was late, may be older than this.
            coherence.owe(key)
            if options.tags:
                self._drop(key)
            else:
                self._keep_if_current(key, token, self._held(token, value, 0, options, watched=False))
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

    def _sealed_for_disk(self, held: Held) -> bytes | None:
        """The payload for the disk where there is no Redis, None if it does not belong there.

        Without Redis nobody remembers the versions of tags over a restart.
        """
        if self._disk is None or self._redis is not None or held.stamp.tags:
            return None
        return self._sealer.seal(held, self._now())

    def _keep_if_current(
        self, key: str, token: FillToken, held: Held, payload: bytes | None = None, *, wrote: bool = True
    ) -> None:
        if not self._coherence.may_keep(token, wrote=wrote):
            if wrote and self._redis is not None:
                # Which of two writes Redis has last is not known here; see `Fills.settle`.
                self._drop(key)
        else:
            self._keep(key, held)
            if payload is not None and self._disk is not None:
                now = self._now()
                self._disk.write(
                    key,
                    payload,
                    mark=self._coherence.mark,
                    filled_us=token.began_us,
                    expires_us=held.term.expires_us + now.wall_us - now.boot_us,
                )
