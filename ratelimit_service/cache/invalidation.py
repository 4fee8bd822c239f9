"""What goes with an invalidation, what comes of it, and what is counted."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["CoherencyStats", "Invalidation", "InvalidationMetadata"]


class InvalidationMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with an invalidation.

    Attributes:
        reason: For the statistics, a short fixed text such as `logout`.
        tags: Tags that are invalidated with the key.
    """

    reason: str = ""
    tags: tuple[str, ...] = ()


class Invalidation(msgspec.Struct, frozen=True):
    """What came of an invalidation.

    Attributes:
        reached: Redis knows, so every replica does within Δ. False: it is owed; this process acts on it already.
        removed: Values that Redis removed by it; by tag and prefix they are not counted.
    """

    reached: bool
    removed: int = 0


class CoherencyStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start, and what is so now.

    Attributes:
        epoch: Times that changes may have been missed.
        heard: Changes that Redis told.
        sent: Invalidations from here.
        by_reason: The same by `InvalidationMetadata.reason`.
        revoked_fills: Values that were not stored because the key changed under way.
        owed: Invalidations that Redis has yet to hear.
        behind_us: How far what is served from memory may be behind now; None: nothing is served on Redis' word.
        delta_us: Δ.
    """

    epoch: int
    heard: int
    sent: int
    by_reason: Mapping[str, int]
    revoked_fills: int
    owed: int
    behind_us: int | None
    delta_us: int
