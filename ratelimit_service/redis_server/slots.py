"""Which slot of a Redis Cluster a key is in. Source: Redis Cluster specification, "Hash tags" and appendix A."""

from __future__ import annotations

import binascii
from collections.abc import Container
from typing import Final

__all__ = ["SLOTS", "slot_of", "tag_within"]

SLOTS: Final = 16_384


def slot_of(key: bytes) -> int:
    """The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it where it has none."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


def tag_within(slots: Container[int]) -> bytes | None:
    """The first of the tags 0, 1, 2 … whose slot is one of `slots`; None if no slot is.

    Every replica that knows the same slots finds the same tag.
    """
    for number in range(_TAGS_THAT_REACH_EVERY_SLOT):
        tag = b"%x" % number
        if binascii.crc_hqx(tag, 0) % SLOTS in slots:
            return tag
    return None


_TAGS_THAT_REACH_EVERY_SLOT: Final = 0x10_0000
