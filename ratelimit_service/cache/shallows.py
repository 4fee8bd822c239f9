"""What a cache has in memory: values with what tells whether they may be served, above the `depths`.

A value that has nothing to be told apart by (no Redis, no tags) is kept bare, in a third of the space; every other one
is kept as `Held`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ratelimit_service.cache.accounting import estimate_bytes
from ratelimit_service.cache.coherence import CacheCoherencyManager, Stamp
from ratelimit_service.cache.counting import Counts
from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.entry import NEVER_US, Entry
from ratelimit_service.cache.l1 import L1, Eviction
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.sealing import ABSENT, Held, Term
from ratelimit_service.cache.staleness import UNWATCHED
from ratelimit_service.policy.profile_model import Eviction as ProfileEviction

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["Shallows", "memory_of", "value_of"]

_HELD_BYTES: Final = 320
"""What `Held`, its stamp and its term take, with their numbers."""

_HITS_PER_NOTE: Final = 16
"""One in so many hits is noted for warming, and counts for all of them."""

_NO_STAMP: Final = Stamp(UNWATCHED, 0)
_NO_TERM: Final = Term(0, 0)

_EVICTIONS: Final = {
    ProfileEviction.S3FIFO: Eviction.S3FIFO,
    ProfileEviction.SIEVE: Eviction.SIEVE,
    ProfileEviction.CLOCK: Eviction.CLOCK,
    ProfileEviction.LRU: Eviction.LRU,
}


def memory_of(settings: CacheSettings) -> L1[Any]:
    """The level in memory that settings ask for."""
    return L1(
        settings.max_entries,
        settings.max_memory_bytes,
        warning_percent=settings.warning_percent,
        critical_percent=settings.critical_percent,
        policy=_EVICTIONS[settings.eviction],
    )


def value_of(entry: Entry[Any]) -> Any:
    """The value of an entry, kept bare or not; may be `ABSENT`."""
    value = entry.value
    return value.value if type(value) is Held else value


class Shallows:
    """See the module.

    Args:
        settings: Those in force.
        coherence: Says what may be served.
        counts: What is counted.
        now_us: Reads the clock.
        note: Told which keys are worth warming, and what a load of theirs takes; None: nobody warms.
        redis, disk: The levels below, where they exist.

    Attributes:
        memory: The level.
    """

    def __init__(
        self,
        settings: Callable[[], CacheSettings],
        coherence: CacheCoherencyManager,
        counts: Counts,
        now_us: Callable[[], int],
        note: Callable[[str, int], None] | None,
        *,
        redis: RedisLevel | None,
        disk: DiskLevel | None,
    ) -> None:
        self.memory: L1[Any] = memory_of(settings())
        self._settings = settings
        self._coherence = coherence
        self._counts = counts
        self._now_us = now_us
        self._note = note
        self._redis = redis
        self._disk = disk

    def fresh(self, key: str, now_us: int) -> Entry[Any] | None:
        """What memory has of a key, if it may be served; counted."""
        if self._redis is not None:
            self._redis.note_read()
        entry = self.memory.get(key, now_us)
        if entry is None or entry.terms.soft_expires_us <= now_us:
            return None
        counts, value = self._counts, entry.value
        if type(value) is Held:
            if not self._coherence.is_current(key, value.stamp, now_us):
                return None
            counts.absent_hits += value.value is ABSENT
        counts.hits_l1 += 1
        if self._note is not None and not counts.hits_l1 % _HITS_PER_NOTE:
            self._note(key, entry.cost_us * _HITS_PER_NOTE)
        return entry

    def is_held(self, key: str) -> bool:
        """Whether memory would answer for a key now; neither counted nor noticed by the eviction policy."""
        now_us = self._now_us()
        entry = self.memory.peek(key, now_us)
        if entry is None or entry.soft_expires_us <= now_us:
            return False
        value = entry.value
        return type(value) is not Held or self._coherence.is_current(key, value.stamp, now_us)

    def stale(self, key: str, now_us: int) -> Held | None:
        """A value whose time is over, but may be served while loading fails."""
        entry = self.memory.peek(key, now_us) if self._settings().stale_on_error_us else None
        if entry is None:
            return None
        value = entry.value
        if type(value) is not Held:
            return Held(value, _NO_STAMP, _NO_TERM)
        return value if self._coherence.is_usable_stale(key, value.stamp) else None

    async def caught_up(self, key: str) -> Held | None:
        """What memory has, once it is heard that it is still right."""
        now_us = self._now_us()
        entry = self.memory.peek(key, now_us)
        if entry is None or type(entry.value) is not Held or entry.soft_expires_us <= now_us:
            return None
        held: Held = entry.value
        if not self._coherence.may_be_behind(held.stamp):
            return None
        if not await self._coherence.catch_up(tag for tag, _ in held.stamp.tags):
            return None
        if self.memory.peek(key, self._now_us()) is not entry or entry.value is not held:
            return None
        if not self._coherence.is_current(key, held.stamp, self._now_us()):
            return None
        self._counts.hits_l1 += 1
        return held

    def keep(self, key: str, held: Held) -> None:
        """Put a value into memory, room permitting."""
        now_us = self._now_us()
        term, stamp = held.term, held.stamp
        is_bare = self._redis is None and not stamp.tags and held.value is not ABSENT
        soft_us = term.fresh_until_us if term.fresh_until_us < term.expires_us else NEVER_US
        cost_us = term.cost_us if self._note is not None or self._settings().early_refresh_percent else 0
        size_bytes = 0 if held.value is ABSENT else estimate_bytes(held.value)
        is_kept = self.memory.put(
            key,
            held.value if is_bare else held,
            now_us=now_us,
            size_bytes=size_bytes if is_bare else size_bytes + _HELD_BYTES,
            expires_us=term.expires_us,
            soft_expires_us=soft_us,
            cost_us=cost_us,
        )
        self._counts.refused_l1 += not is_kept
        if self._note is not None and term.cost_us:
            self._note(key, term.cost_us)

    def set_alone(self, key: str, value: object, ttl_us: int) -> None:
        """Put a value into memory where that is the only level: nothing to seal, to stamp or to wait for."""
        self._coherence.fills.revoke(key)
        now_us = self._now_us()
        stale_us = self._settings().stale_on_error_us
        fresh_until_us = now_us + ttl_us
        self._counts.refused_l1 += not self.memory.put(
            key,
            value,
            now_us=now_us,
            expires_us=fresh_until_us + stale_us,
            soft_expires_us=fresh_until_us if stale_us else NEVER_US,
        )

    def drop(self, key: str) -> None:
        """Remove a key from memory and disk."""
        self.memory.delete(key, self._now_us())
        if self._disk is not None:
            self._disk.remove(key)

    def drop_prefix(self, prefix: str) -> None:
        """The same for all keys that begin so: without Redis values carry no version."""
        now_us = self._now_us()
        for key in self.memory.keys(now_us):
            if key.startswith(prefix):
                self.memory.delete(key, now_us)
        if self._disk is not None:
            self._disk.clear()
