"""How a limiter is: what it counts in, what goes with it, and how far it may be off."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ratelimit_service.cache.health import CacheHealth, HealthStatus, LevelHealth
from ratelimit_service.library.quotas import QuotaReport

__all__ = ["RateLimitingHealth", "health_of"]


class RateLimitingHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a limiter is.

    Attributes:
        status: Healthy; degraded: it decides, perhaps by the failure mode; unhealthy: it is closed.
        levels: `quota`, where hits are counted, and `l1`, `l2`, `l3` of the value cache where there is one.
        store: What hits are counted in: `memory`, `redis`.
        store_latency_us: A round trip to it, on average; 0: none needed, or none yet.
        bound_hits: Most hits that may be admitted beyond a limit in a window, by this replica, as it stands now; None:
            unbounded: the store is away, and the failure mode is `Open`, or `Share` of a number of `slots` that nobody
            has told.
        fill_percent: How full this process's memory of counters is, in keys or bytes, whichever is more.
        pressure: `normal`, `warning` (cleaning up), `critical` (new keys of a crowding limit share counters).
    """

    status: HealthStatus
    levels: Mapping[str, LevelHealth]
    store: str
    store_latency_us: int
    bound_hits: int | None
    fill_percent: int
    pressure: str


def health_of(
    report: QuotaReport,
    cache: CacheHealth | None,
    *,
    bound_hits: int | None,
    fill_percent: int,
    pressure: str,
    is_open: bool,
) -> RateLimitingHealth:
    """Put the parts together."""
    levels = {"quota": LevelHealth(up=report.up, reason=report.reason)}
    if cache is not None:
        levels |= cache.levels
    is_well = report.up and not report.reason and pressure != "critical" and not bound_hits
    if cache is not None and cache.status is not HealthStatus.HEALTHY:
        is_well = False
    status = HealthStatus.HEALTHY if is_well else HealthStatus.DEGRADED
    return RateLimitingHealth(
        status=status if is_open else HealthStatus.UNHEALTHY,
        levels=levels,
        store=report.name,
        store_latency_us=report.latency_us,
        bound_hits=bound_hits,
        fill_percent=fill_percent,
        pressure=pressure,
    )
