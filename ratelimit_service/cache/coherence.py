"""Keep what is in memory within Δ of Redis: epochs, fills, tags, prefixes, and invalidations that are still owed.

The laws are in `staleness`. Here they meet the news that Redis pushes, and three kinds of invalidation:

* a *key*: its value is removed, and the lease of a load under way ends, so that what was read before is not stored;
* a *tag*: its version moves on; values carry the versions of their tags from before they were loaded;
* a *prefix*: a version is noted with it; values carry the newest version from before they were loaded. `clear` is the
  empty prefix.

An invalidation that Redis could not be told is *owed*: it takes effect here at once, and is made good before Redis is
read again. While owed it is lost if the process dies; then the value in Redis lives until it expires.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ratelimit_service.cache.debts import TAG_LIFETIME_US, Debts
from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.fences import WaitBoard
from ratelimit_service.cache.invalidation import CoherencyStats, Invalidation, InvalidationMetadata
from ratelimit_service.cache.l2.answers import MOST_PREFIXES, PrefixState
from ratelimit_service.cache.l2.keys import KeyKind
from ratelimit_service.cache.staleness import NEVER_HEARD_US, UNWATCHED, Fills, FillToken, serves
from ratelimit_service.cache.stamps import Stamp

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["CacheCoherencyManager", "CoherencyStats", "Invalidation", "InvalidationMetadata", "Stamp"]

_MOST_TAGS: Final = 100_000
_MOST_REASONS: Final = 64
_SETTLE_AGAIN_S: Final = 0.5


class CacheCoherencyManager:
    """Says what may be served, and carries invalidations both ways. Works without Redis, for this process alone.

    Args:
        now_us: Reads a clock that never goes back.
        delta_us: Δ, the most that a served value may be behind Redis.
        drop: Removes a key from memory and disk.

    Attributes:
        fills: The fills under way.
        board: Who waits for a change of a key.
    """

    def __init__(
        self, *, now_us: Callable[[], int], delta_us: int = 0, drop: Callable[[str], None] | None = None
    ) -> None:
        self.fills = Fills()
        self.board = WaitBoard()
        self._now_us = now_us
        self._delta_us = delta_us
        self._drop = drop if drop is not None else _nothing_to_drop
        self._level: RedisLevel | None = None
        self._run = secrets.token_bytes(8)
        self._epoch = 0
        self._tags: dict[str, int] = {}
        self._voided_tags_us: dict[str, int] = {}
        self._prefixes: PrefixState | None = PrefixState(0, ())
        self._last_prefixes = PrefixState(0, ())
        self._unwatched_from_us = NEVER_HEARD_US
        self._debts = Debts(self._settle_soon)
        self._settling: asyncio.Task[None] | None = None
        self._settlement: asyncio.Task[None] | None = None
        self._heard = 0
        self._sent = 0
        self._by_reason: dict[str, int] = {}

    def attach(self, level: RedisLevel) -> None:
        """Go by what this level tells; before it is started."""
        self._level = level
        self._prefixes = None

    def set_delta(self, delta_us: int) -> None:
        """Serve by another Δ from now on."""
        self._delta_us = delta_us

    @property
    def epoch(self) -> int:
        """The epoch in force."""
        return self._epoch

    @property
    def mark(self) -> bytes:
        """The epoch of this run, for what outlives it on the disk."""
        return self._run + self._epoch.to_bytes(8, "big")

    @property
    def version(self) -> int | None:
        """Newest invalidation by prefix; None while it is not known."""
        return None if self._prefixes is None else self._prefixes.version

    def begin(self, key: str) -> FillToken:
        """Begin to fill a key, before Redis or the source is asked."""
        return self.fills.begin(key, self._epoch, self._now_us())

    def may_keep(self, token: FillToken, *, wrote: bool) -> bool:
        """End a fill; whether its value may be kept in memory. `wrote`: it was stored in Redis, not read there."""
        return self.fills.settle(token, self._epoch, wrote=wrote)

    def stamp(
        self, token: FillToken, *, watched: bool, version: int = 0, tags: Mapping[str, int] | None = None
    ) -> Stamp:
        """The stamp of what a fill brought; `watched`: Redis tells when it changes."""
        held_tags = tuple(tags.items()) if tags else ()
        epoch = token.epoch if watched or self._level is None else UNWATCHED
        return Stamp(epoch, token.began_us, version, held_tags)

    def is_current(self, key: str, stamp: Stamp, now_us: int) -> bool:
        """Whether a value in memory may be served as fresh, as far as Redis is concerned."""
        level = self._level
        if level is not None:
            heard_us = level.nodes.heard_us
            if not serves(
                stamp.epoch,
                stamp.filled_us,
                now_epoch=self._epoch,
                heard_us=heard_us,
                now_us=now_us,
                delta_us=self._delta_us,
            ):
                return False
            if stamp.epoch == UNWATCHED:
                return stamp.filled_us > self._unwatched_from_us
        return not self.is_void(key, stamp.version, stamp.tags)

    def is_void(self, key: str, version: int, tags: Iterable[tuple[str, int]]) -> bool:
        """Whether a tag or prefix was invalidated since, or it is not known whether."""
        prefixes = self._prefixes
        if prefixes is None:
            return True
        if version != prefixes.version and any(
            version < each and key.startswith(prefix) for each, prefix in prefixes.prefixes
        ):
            return True
        known = self._tags
        default = 0 if self._level is None else None
        return any(known.get(tag, default) != version for tag, version in tags)

    def is_usable_stale(self, key: str, stamp: Stamp) -> bool:
        """Whether a value of the past may be served while loading fails: nothing that was heard of has voided it."""
        prefixes = self._prefixes or self._last_prefixes
        if any(stamp.version < each and key.startswith(prefix) for each, prefix in prefixes.prefixes):
            return False
        if self._debts.voids(key):
            return False
        return all(stamp.filled_us > self._voided_tags_us.get(tag, NEVER_HEARD_US) for tag, _ in stamp.tags)

    def may_be_behind(self, stamp: Stamp) -> bool:
        """Whether a value that is not current may become so by `catch_up`."""
        return stamp.epoch == self._epoch and self._level is not None

    async def catch_up(self, tags: Iterable[str] = ()) -> bool:
        """Hear of everything until now, and learn the versions that are needed to judge; whether that worked."""
        level = self._level
        if level is None:
            return True
        try:
            await self.learn(tags)
        except LevelUnavailable:
            return False
        return await level.catch_up()

    async def learn(self, tags: Iterable[str] = (), *, lifetime_us: int = 0) -> Mapping[str, int]:
        """Have owed invalidations made good, and know prefixes and these tags' versions.

        Args:
            tags: Which tags.
            lifetime_us: How long a value with these tags will live; 0: the versions are only compared.

        Raises:
            LevelUnavailable: Redis does not answer.
        """
        level = self._level
        if level is None:
            return {tag: self._tags.get(tag, 0) for tag in tags}
        while self._prefixes is None or self._debts:
            await self._settle_together(level)
        return {tag: await self._tag_version(level, tag, lifetime_us) for tag in tags}

    async def invalidate_with_coherency(self, key: str, metadata: InvalidationMetadata | None = None) -> Invalidation:
        """Remove a key on every replica, and the tags of `metadata` with it."""
        removed, reached = await self._drop_key(key)
        self._count(metadata.reason if metadata else "")
        for tag in metadata.tags if metadata else ():
            reached &= (await self.invalidate_tag(tag)).reached
        return Invalidation(reached, removed)

    async def invalidate_tag(self, tag: str) -> Invalidation:
        """Void all values with a tag, on every replica."""
        self._count("")
        level = self._level
        if level is None:
            self._note_voided(tag)
            self._tags[tag] = self._tags.get(tag, 0) + 1
            if len(self._tags) > _MOST_TAGS:
                self._tags.clear()
                self._note_prefix("")
            return Invalidation(reached=True)
        self._forget_tag(tag)
        try:
            await level.tag_version(tag, lifetime_us=TAG_LIFETIME_US, new=True)
        except LevelUnavailable:
            self._debts.owe_tag(tag)
            return Invalidation(reached=False)
        finally:
            # The version is read when it is needed: between reply and here it may have moved on again.
            self._tags.pop(tag, None)
        return Invalidation(reached=True)

    async def invalidate_prefix(self, prefix: str) -> Invalidation:
        """Void all values whose key begins so, on every replica; the empty prefix voids all."""
        self._count("")
        level = self._level
        if level is None:
            self._note_prefix(prefix)
            return Invalidation(reached=True)
        self._prefixes = None
        self._unwatched_from_us = self._now_us()
        self.fills.revoke_all()
        try:
            await level.prefixes(prefix)
        except LevelUnavailable:
            self._debts.owe_prefix(prefix)
            return Invalidation(reached=False)
        finally:
            self._prefixes = None
        return Invalidation(reached=True)

    def owe(self, key: str) -> None:
        """Redis may hold a value of this key that is no longer right, and could not be told."""
        self._debts.owe_key(key)

    def is_owed(self, key: str) -> bool:
        """Whether what Redis has of this key may be wrong."""
        return self._debts.has_key(key)

    def keys_changed(self, names: Sequence[bytes] | None) -> None:
        """See `l2.nodes.News`."""
        if names is None:
            self.epoch_ended()
            return
        assert self._level is not None
        for name in names:
            self._heard += 1
            kind, text = self._level.space.meaning(name)
            if kind is KeyKind.VALUE:
                self.fills.revoke(text)
                self._drop(text)
                self.board.wake(text)
            elif kind is KeyKind.LEASE:
                self.board.wake(text)
            elif kind is KeyKind.TAG:
                self._forget_tag(text)
            elif kind is KeyKind.PREFIXES:
                self._prefixes = None
                self.fills.revoke(_PREFIXES_TOKEN)
                self._settle_soon()

    def epoch_ended(self) -> None:
        """See `l2.nodes.News`."""
        self._epoch += 1
        self.fills.revoke_all()
        self._tags.clear()
        self._prefixes = None
        self.board.wake_all()
        self._settle_soon()

    def stats(self) -> CoherencyStats:
        """Counts and state."""
        heard_us = NEVER_HEARD_US if self._level is None else self._level.nodes.heard_us
        return CoherencyStats(
            epoch=self._epoch,
            heard=self._heard,
            sent=self._sent,
            by_reason=dict(self._by_reason),
            revoked_fills=self.fills.revoked,
            owed=len(self._debts),
            behind_us=None if heard_us == NEVER_HEARD_US else max(0, self._now_us() - heard_us),
            delta_us=self._delta_us,
        )

    async def close(self) -> None:
        """End what runs in the background."""
        for task in (self._settling, self._settlement):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        self._settling = self._settlement = None

    def _count(self, reason: str) -> None:
        self._sent += 1
        if reason and (reason in self._by_reason or len(self._by_reason) < _MOST_REASONS):
            self._by_reason[reason] = self._by_reason.get(reason, 0) + 1

    def _forget_tag(self, tag: str) -> None:
        """A tag's version has moved on."""
        self._tags.pop(tag, None)
        self.fills.revoke(_tag_token(tag))
        self._note_voided(tag)

    def _note_voided(self, tag: str) -> None:
        if len(self._voided_tags_us) >= _MOST_TAGS:
            del self._voided_tags_us[next(iter(self._voided_tags_us))]
        self._voided_tags_us[tag] = self._now_us()

    def _note_prefix(self, prefix: str) -> None:
        """Void a prefix in this process alone."""
        assert self._prefixes is not None
        version = self._prefixes.version + 1
        kept = [each for each in self._prefixes.prefixes if not each[1].startswith(prefix)]
        if len(kept) >= MOST_PREFIXES:
            (_, first), (newer, second) = kept[:2]
            kept[:2] = [(newer, _common_beginning(first, second))]
        self._prefixes = self._last_prefixes = PrefixState(version, (*kept, (version, prefix)))
        self.fills.revoke_all()

    async def _drop_key(self, key: str) -> tuple[int, bool]:
        self.fills.revoke(key)
        self._drop(key)
        if self._level is None:
            return 0, True
        try:
            return int(await self._level.drop(key)), True
        except LevelUnavailable:
            self.owe(key)
            return 0, False
        finally:
            # Once more: what was read while the removal was on its way is old.
            self.fills.revoke(key)
            self._drop(key)

    def _settle_soon(self) -> None:
        level = self._level
        if level is not None and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(
                self._settle_until_done(level), name="tidegate-cache-settle"
            )

    async def _settle_until_done(self, level: RedisLevel) -> None:
        while self._prefixes is None or self._debts:
            try:
                await self._settle_together(level)
            except LevelUnavailable:
                if not self._debts:
                    return  # Learning can wait until somebody reads.
                await asyncio.sleep(_SETTLE_AGAIN_S)

    async def _settle_together(self, level: RedisLevel) -> None:
        """Settle once for all who need it now."""
        task = self._settlement
        if task is None or task.done():
            task = asyncio.get_running_loop().create_task(self._settle(level), name="tidegate-cache-settlement")
            # Looked at, so that the loop does not report an error that nobody was left to see.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._settlement = task
        await asyncio.wait((task,))
        if task.cancelled():
            raise LevelUnavailable("l2", "closed")
        task.result()

    async def _settle(self, level: RedisLevel) -> None:
        """Make good what is owed, and learn the prefixes."""
        await self._debts.pay(level)
        token = self.begin(_PREFIXES_TOKEN)
        try:
            prefixes = await level.prefixes()
            if self.fills.settle(token, self._epoch, wrote=False):
                self._prefixes = self._last_prefixes = prefixes
        finally:
            self.fills.abandon(token)

    async def _tag_version(self, level: RedisLevel, tag: str, lifetime_us: int) -> int:
        known = self._tags.get(tag)
        if known is not None and lifetime_us * 4 <= TAG_LIFETIME_US:
            return known
        token = self.begin(_tag_token(tag))
        try:
            version = await level.tag_version(tag, lifetime_us=max(TAG_LIFETIME_US, lifetime_us * 4))
            if self.fills.settle(token, self._epoch, wrote=False):
                if len(self._tags) >= _MOST_TAGS:
                    self._tags.clear()
                self._tags[tag] = version
        finally:
            self.fills.abandon(token)
        return version


_PREFIXES_TOKEN: Final = "\0prefixes"  # noqa: S105  # the token of a fill, no secret


def _nothing_to_drop(key: str) -> None:
    """In place of a memory level."""


def _common_beginning(first: str, second: str) -> str:
    size = 0
    while size < min(len(first), len(second)) and first[size] == second[size]:
        size += 1
    return first[:size]


def _tag_token(tag: str) -> str:
    """Under what name a tag's version is filled; no key begins with a NUL."""
    return f"\0tag:{tag}"
