"""How one load is asked for, and when a value is loaded ahead of its expiry. Pure."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

__all__ = ["LoadOptions", "Loaded", "Loader", "refreshes_early"]

Loader = Callable[[], Awaitable[Any]]
"""Loads one value from its source, bare or as `Loaded`; None: the source has none."""


class Loaded(msgspec.Struct, frozen=True):
    """What a loader may return in place of a value, where the value says how long it is fresh.

    Attributes:
        value: The value; None: the source has none.
        ttl_ms: How long it is fresh, at least 0; 0: it is returned to who waits for it, and not kept.
    """

    value: Any
    ttl_ms: int


_LEAST_SHARE: Final = 10
"""A load is taken to cost at least a tenth of the window; else cheap loads would all come in its last instant."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants of a load; None: as the cache's settings say.

    Attributes:
        ttl_us: How long the value is fresh.
        tags: By which it can be invalidated.
        soft_timeout_us: How long to wait before a stale value is taken instead, where there is one.
        hard_timeout_us: How long to wait at all.
    """

    ttl_us: int | None = None
    tags: tuple[str, ...] = ()
    soft_timeout_us: int | None = None
    hard_timeout_us: int | None = None


def refreshes_early(left_us: int, ttl_us: int, percent: int, cost_us: int, draw: float) -> bool:
    """Whether this reader loads a value anew although it is still fresh (XFetch).

    The longer a load takes and the nearer the expiry, the likelier; so of many readers about one begins, early enough.
    Source: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.

    Args:
        left_us: Until expiry.
        ttl_us: The value's lifetime.
        percent: At the end of the lifetime, in which this may happen at all; 0: never.
        cost_us: How long the last load took.
        draw: A random number above 0, at most 1.
    """
    window_us = ttl_us * percent // 100
    if left_us > window_us or window_us <= 0:
        return False
    return max(cost_us, window_us // _LEAST_SHARE) * -math.log(draw) >= left_us
