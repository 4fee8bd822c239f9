"""What lies below the memory level, Redis and the disk, as it is read.

What is found goes up into memory if nothing newer came between (`staleness`). Where nothing is, `sourcing` loads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.cache.coherence import CacheCoherencyManager
from ratelimit_service.cache.counting import Counts
from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.errors import CorruptPayload, LevelUnavailable, UnknownDictionary
from ratelimit_service.cache.sealing import Held, Sealer
from ratelimit_service.cache.staleness import UNWATCHED, FillToken
from ratelimit_service.cache.training import DictionaryKeeper

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["Depths", "Reached"]

T = TypeVar("T")


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
        sealer: Sealer[T],
        coherence: CacheCoherencyManager,
        counts: Counts,
        now: Callable[[], Instant],
        keep: Callable[[str, Held], None],
        drop: Callable[[str], None],
        dictionaries: DictionaryKeeper,
        *,
        redis: RedisLevel | None,
        disk: DiskLevel | None,
    ) -> None:
        self._sealer = sealer
        self._coherence = coherence
        self._counts = counts
        self._now = now
        self._keep = keep
        self._drop = drop
        self._dictionaries = dictionaries
        self._redis = redis
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
        self.keep_if_current(key, token, held, payload, wrote=False)
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

    def sealed_for_disk(self, held: Held) -> bytes | None:
        """The payload for the disk where there is no Redis, None if it does not belong there.

        Without Redis nobody remembers the versions of tags over a restart.
        """
        if self._disk is None or self._redis is not None or held.stamp.tags:
            return None
        return self._sealer.seal(held, self._now())

    def keep_if_current(
        self, key: str, token: FillToken, held: Held, payload: bytes | None = None, *, wrote: bool = True
    ) -> None:
        """Put what a fill brought into memory, and its payload on disk, unless something newer came between.

        Args:
            key: Which value.
            token: The fill.
            held: The value.
            payload: It as Redis has it; None: it is not for the disk.
            wrote: It was stored in Redis, not read there.
        """
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
