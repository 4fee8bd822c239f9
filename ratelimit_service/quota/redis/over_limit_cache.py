"""Keys that are over their limit until their window ends: envoyproxy/ratelimit's local cache.

Source: src/limiter/base_limiter.go and src/settings (LOCAL_CACHE_SIZE_IN_BYTES) of that project. A key is kept for the
length of its unit from when it was seen over; its window's start is in its name, so it is never asked for again after
that. A limit that is raised meanwhile is not noticed before the window ends, as there.
"""

from __future__ import annotations

from typing import Final

__all__ = ["OverLimitCache"]

_ENTRY_BYTES: Final = 200
"""Table slot, integer and the key's object; the key's text comes on top."""


class OverLimitCache:
    """Remembers keys, the oldest leaving first when it is full. `max_bytes` 0: remembers none."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._until_us: dict[bytes, int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Keys that are kept, those included whose time is over."""
        return len(self._until_us)

    @property
    def bytes_used(self) -> int:
        """Estimate of the memory that is used."""
        return self._bytes

    def holds(self, key: bytes, now_us: int) -> bool:
        """Whether a key is known to be over its limit."""
        return self._until_us.get(key, 0) > now_us

    def add(self, key: bytes, until_us: int) -> None:
        """Remember a key until a time."""
        size = _ENTRY_BYTES + len(key)
        if size > self._max_bytes:
            return
        if self._until_us.pop(key, None) is not None:
            self._bytes -= size
        while self._bytes + size > self._max_bytes:
            oldest = next(iter(self._until_us))
            del self._until_us[oldest]
            self._bytes -= _ENTRY_BYTES + len(oldest)
        self._until_us[key] = until_us
        self._bytes += size
