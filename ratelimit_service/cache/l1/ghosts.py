"""A memory of keys that were evicted lately: a table of hashes, no keys.

A key's hash says in which slot it stands, and a slot holds one hash; a key that falls into a taken slot replaces what
is there. So the memory has no end at which it forgets: of as many keys as it has slots, it still knows a good third
when as many more have come. Two keys of one hash are one to it, which costs a hit at most; `hash(str)` is keyed by
process, so nobody can aim at that from outside.
"""

from __future__ import annotations

from array import array

__all__ = ["Ghosts"]


class Ghosts:
    """Remembers keys: `slots[hash(key) & mask]` is `hash(key)` then.

    Both are attributes because the loops that remember and recall are most of what a put costs.

    Args:
        most: About how many it should still know; the table has one to two slots of 8 B for each.

    Attributes:
        slots: The hashes; empty until the first key goes, so that a cache that never fills does not pay for them.
        mask: Selects a hash's slot; one less than a power of two.
    """

    __slots__ = ("mask", "slots")

    def __init__(self, most: int) -> None:
        self.mask = (1 << max(3, (most - 1).bit_length())) - 1
        self.slots: array[int] = array("q")

    def begin(self) -> None:
        """Make the table, if it is not made yet."""
        if not self.slots:
            self.slots = array("q", bytes(8 * (self.mask + 1)))

    def forget(self, key: str) -> None:
        """Forget a key that is known."""
        number = hash(key)
        # No key of this slot has a hash that ends in another slot's number.
        self.slots[number & self.mask] = ~number

    def structure_bytes(self) -> int:
        """Memory of the table."""
        return 8 * len(self.slots)
