"""The level on disk, passed over while it fails: each failure makes the pause before the next try longer.

Before a payload stand the mark of the epoch in which it was written, and when its fill began; see `staleness`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ratelimit_service.cache.errors import CacheError, CorruptPayload, LevelUnavailable
from ratelimit_service.cache.profiles import DiskSettings

if TYPE_CHECKING:
    from ratelimit_service.cache.l3 import L3

__all__ = ["DiskLevel", "DiskStats", "OnDisk"]

T = TypeVar("T")

_HEAD: Final = struct.Struct(">16sq")
_FIRST_PAUSE_US: Final = 1_000_000
_LONGEST_PAUSE_US: Final = 60_000_000


_KEPT: Final = "\0kept:"
"""Begins the names of what is no value; no key of a cache begins with a NUL."""

_MOST_KEPT: Final = 8


class DiskStats(msgspec.Struct, frozen=True):
    """What the level holds.

    Attributes:
        entries: Records, expired ones that were not evicted yet included.
        used_bytes, max_size_bytes: Pages in use; the cap.
        evicted: Records given up for want of room, since it was opened.
    """

    entries: int
    used_bytes: int
    max_size_bytes: int
    evicted: int


class OnDisk(msgspec.Struct, frozen=True):
    """What lies on the disk for a key.

    Attributes:
        mark: The epoch in which it was written (`CacheCoherencyManager.mark`).
        filled_us: When its fill began, by the clock of that run.
        payload: The sealed value.
    """

    mark: bytes
    filled_us: int
    payload: bytes


class DiskLevel:
    """See the module.

    Args:
        settings: Where it is.
        now_us: Reads a clock that never goes back.

    Attributes:
        failures: Since the start.
    """

    def __init__(self, settings: DiskSettings, now_us: Callable[[], int]) -> None:
        self._settings = settings
        self._now_us = now_us
        self._disk: L3 | None = None
        self._reason = "not opened yet"
        self._pause_us = _FIRST_PAUSE_US
        self._again_us = 0
        self._has_missed = False
        self._kept: dict[str, bytes] = {}
        self.failures = 0

    @property
    def is_up(self) -> bool:
        """Whether it is open and did not fail lately."""
        return self._disk is not None and not self._reason

    @property
    def reason(self) -> str:
        """Why it is passed over; empty: it is not."""
        return self._reason

    async def open(self) -> None:
        """Open it, if it is not open and its pause is over. Raises nothing: it is tried again at the next call."""
        if self._disk is None and self._now_us() >= self._again_us:
            try:
                # A file that has to be walked through takes seconds.
                self._disk = await asyncio.to_thread(self._opened)
            except (CacheError, OSError, ValueError, ImportError) as error:
                self._note_failure(error)
            else:
                self._note_success()

    def close(self) -> None:
        """Close it."""
        if self._disk is not None:
            self._disk.close()
            self._disk = None
        self._reason = "closed"

    def stats(self) -> DiskStats | None:
        """Counts and sizes; None while it is not open, or fails."""
        found = self._attempt(lambda disk: disk.stats())
        if found is None:
            return None
        return DiskStats(found.entries, found.used_bytes, found.max_size_bytes, found.evicted)

    def read(self, key: str) -> OnDisk | None:
        """What lies there for a key.

        Raises:
            CorruptPayload: It is damaged.
        """
        data = self._attempt(lambda disk: disk.get(key))
        if data is None:
            return None
        if len(data) < _HEAD.size:
            raise CorruptPayload("shorter than a mark")
        mark, filled_us = _HEAD.unpack_from(data)
        return OnDisk(mark, filled_us, data[_HEAD.size :])

    def write(self, key: str, payload: bytes, *, mark: bytes, filled_us: int, expires_us: int) -> None:
        """Keep a payload until `expires_us` of the wall clock, room permitting."""
        self._attempt(lambda disk: disk.put(key, _HEAD.pack(mark, filled_us) + payload, expires_us=expires_us))

    def remove(self, key: str) -> None:
        """Forget a key; if that fails, everything is forgotten before the disk is used again."""
        if self._attempt(lambda disk: (disk.delete(key),)) is None:
            self._has_missed = True

    def clear(self) -> None:
        """Forget all keys, at once or before the disk is used again."""
        self._has_missed = True
        self._attempt(lambda _: True)

    def keep(self, name: str, data: bytes) -> None:
        """Keep what payloads need to be read (a dictionary), also through `clear`; the newest eight."""
        if self._kept.get(name) == data:
            return
        self._kept[name] = data
        self._attempt(lambda disk: disk.put(_KEPT + name, data))
        if len(self._kept) > _MOST_KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._attempt(lambda disk: (disk.delete(_KEPT + oldest),))

    def kept(self, name: str) -> bytes | None:
        """What was kept under a name, in this run or before; None also while the disk fails."""
        return self._kept.get(name) or self._attempt(lambda disk: disk.get(_KEPT + name))

    def _attempt(self, do: Callable[[L3], T]) -> T | None:
        """Do something with the disk, unless it failed lately; None: it was not done."""
        disk = self._disk
        if disk is None or (self._reason and self._now_us() < self._again_us):
            return None
        try:
            if self._has_missed:
                disk.clear()
                for name, data in self._kept.items():
                    disk.put(_KEPT + name, data)
                self._has_missed = False
            done = do(disk)
        except LevelUnavailable as error:
            self._note_failure(error)
            return None
        self._note_success()
        return done

    def _opened(self) -> L3:
        # Here, so that a cache without a disk needs no lmdb.
        from ratelimit_service.cache.l3 import L3, KeyRing  # noqa: PLC0415

        settings = self._settings
        keys = None if settings.key_folder is None else KeyRing.from_folder(settings.key_folder)
        return L3(settings.path, settings.max_bytes, keys=keys)

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        self._reason = str(error)
        self._again_us = self._now_us() + self._pause_us
        self._pause_us = min(_LONGEST_PAUSE_US, 2 * self._pause_us)

    def _note_success(self) -> None:
        self._reason = ""
        self._pause_us = _FIRST_PAUSE_US
