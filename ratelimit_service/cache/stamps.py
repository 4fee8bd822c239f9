"""What a value in memory carries to be judged by."""

from __future__ import annotations

import msgspec

__all__ = ["Stamp"]


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """What tells whether a value in memory may still be served.

    Attributes:
        epoch: In which it was filled, or `UNWATCHED`.
        filled_us: When its fill began.
        version: Newest invalidation by prefix from before its fill.
        tags: Its tags with their versions from before its fill.
    """

    epoch: int
    filled_us: int
    version: int = 0
    tags: tuple[tuple[str, int], ...] = ()
