"""Invalidations that Redis could not be told, until it is; lost if the process dies, and then values expire by time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["TAG_LIFETIME_US", "Debts"]

TAG_LIFETIME_US: Final = 24 * 3_600 * 1_000_000
"""A tag's version is remembered in Redis for so long at least."""

_MOST_OWED: Final = 100_000


class Debts:
    """See the module.

    Args:
        incurred: Told of every new debt.
    """

    def __init__(self, incurred: Callable[[], None]) -> None:
        self._incurred = incurred
        self._keys: dict[str, None] = {}
        self._tags: dict[str, None] = {}
        self._prefixes: dict[str, None] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._keys) + len(self._tags) + len(self._prefixes)

    def owe_key(self, key: str) -> None:
        """A key's value in Redis may not be right any more."""
        self._owe(self._keys, key)

    def owe_tag(self, tag: str) -> None:
        """A tag's version has to move on."""
        self._owe(self._tags, tag)

    def owe_prefix(self, prefix: str) -> None:
        """What begins so is void."""
        self._owe(self._prefixes, prefix)

    def has_key(self, key: str) -> bool:
        """Whether what Redis has of this key may be wrong."""
        return key in self._keys

    def voids(self, key: str) -> bool:
        """Whether the key, or a prefix of it, is owed."""
        return key in self._keys or any(key.startswith(prefix) for prefix in self._prefixes)

    async def pay(self, level: RedisLevel) -> None:
        """Tell Redis; what it has heard is no longer owed.

        Raises:
            LevelUnavailable: It does not answer; the rest is owed still.
        """
        for key in list(self._keys):
            await level.drop(key)
            self._keys.pop(key, None)
        for tag in list(self._tags):
            await level.tag_version(tag, lifetime_us=TAG_LIFETIME_US, new=True)
            self._tags.pop(tag, None)
        for prefix in list(self._prefixes):
            await level.prefixes(prefix)
            self._prefixes.pop(prefix, None)

    def _owe(self, what: dict[str, None], name: str) -> None:
        what[name] = None
        self._incurred()
        if len(what) > _MOST_OWED:
            # Too many to name: all is void instead.
            for each in (self._keys, self._tags, self._prefixes):
                each.clear()
            self._prefixes[""] = None
