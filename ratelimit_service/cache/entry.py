"""One value in memory, with what the cache knows about it.

A struct of six fields outside the garbage collector's lists: 64 bytes. What most entries have none of (tags,
a soft expiry, a cost) is in `Terms`, shared where equal. Being outside those lists, an entry cannot be part of a
cycle that is collected: a value that refers to the cache that holds it lives until it expires or is evicted.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

__all__ = ["NEVER_US", "NO_TERMS", "Entry", "Terms"]

T = TypeVar("T")

NEVER_US: Final = 2**63 - 1
"""An expiry that never comes."""


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What few entries have.

    Attributes:
        soft_expires_us: When the value is worth loading anew although it may still be served.
        tags: Tags that it was stored with.
        cost_us: How long its load took.
    """

    soft_expires_us: int = NEVER_US
    tags: tuple[str, ...] = ()
    cost_us: int = 0


NO_TERMS: Final = Terms()


class Entry(msgspec.Struct, Generic[T], gc=False):
    """A value in memory. Only the cache that holds it writes its fields.

    Attributes:
        key: The key.
        value: The value; the caller must not change it.
        expires_us: First microsecond at which it is no longer served, by the clock that the cache is called with.
        size_bytes: What it counts for in the byte budget, overhead included.
        marks: What the eviction policy remembers of it; negative once it was taken out.
        terms: The rest.
    """

    key: str
    value: T
    expires_us: int
    size_bytes: int
    marks: int
    terms: Terms

    @property
    def soft_expires_us(self) -> int:
        """When the value is worth loading anew although it may still be served; `NEVER_US` for not before expiry."""
        return self.terms.soft_expires_us

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags that it was stored with."""
        return self.terms.tags

    @property
    def cost_us(self) -> int:
        """How long its load took, µs."""
        return self.terms.cost_us
