"""How the levels are that hits are counted in, store by store: what `/health/cache` shows of a service. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

__all__ = ["CountingStatus", "MemoryLevel", "SharedLevel", "StoreHealth", "StoresHealth", "all_health", "store_health"]

_WARNING_PERCENT: Final = 70


class CountingStatus(enum.Enum):
    """How it is, in one word; the words are those of the value cache's health."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Something fails, and the failure mode decides for it."""
    UNHEALTHY = "unhealthy"
    """Keys find no room, so their requests are not counted."""


class MemoryLevel(msgspec.Struct, frozen=True):
    """Counters in this process's memory.

    Attributes:
        keys, max_keys, bytes, max_bytes: Held, and the bounds.
        full: A key found no room at all in the last 10 s.
    """

    keys: int
    max_keys: int
    bytes: int
    max_bytes: int
    full: bool = False

    @property
    def pressure(self) -> str:
        """`normal`, `warning` from 70 % of keys or bytes on, `critical` when full."""
        if self.full:
            return "critical"
        is_crowded = (
            self.keys * 100 >= self.max_keys * _WARNING_PERCENT or self.bytes * 100 >= self.max_bytes * _WARNING_PERCENT
        )
        return "warning" if is_crowded else "normal"


class SharedLevel(msgspec.Struct, frozen=True):
    """A Redis that replicas share.

    Attributes:
        problems: What is wrong now, for people; no secrets.
        replicas: Seen alive, this one included; None: not known.
    """

    problems: tuple[str, ...]
    replicas: int | None = None


class StoreHealth(msgspec.Struct, frozen=True):
    """How one store is.

    Attributes:
        status: In one word.
        pressure: Of memory; see `MemoryLevel`; empty where there is no bound.
        l1: Counters in memory; None: none are counted there.
        l2: Redis; None: it is not used.
    """

    status: CountingStatus
    pressure: str = ""
    l1: MemoryLevel | None = None
    l2: SharedLevel | None = None


class StoresHealth(msgspec.Struct, frozen=True):
    """How all stores of a service are.

    Attributes:
        status: The worst of them.
        profiles: By profile; the service's own store is `default`.
    """

    status: CountingStatus
    profiles: Mapping[str, StoreHealth]


def store_health(*, l1: MemoryLevel | None = None, l2: SharedLevel | None = None) -> StoreHealth:
    """Judge one store by its levels."""
    status = CountingStatus.HEALTHY
    if l2 is not None and l2.problems:
        status = CountingStatus.DEGRADED
    if l1 is not None and l1.full:
        status = CountingStatus.UNHEALTHY
    return StoreHealth(status, "" if l1 is None else l1.pressure, l1, l2)


def all_health(stores: Sequence[tuple[str, StoreHealth]]) -> StoresHealth:
    """Put the stores of a service together."""
    ranks = list(CountingStatus)
    worst = max((health.status for _, health in stores), key=ranks.index, default=CountingStatus.HEALTHY)
    return StoresHealth(worst, {profile or "default": health for profile, health in stores})
