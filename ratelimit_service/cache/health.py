"""How a cache is, level by level: as a value, as JSON, and as an ASGI application for `/health/cache`."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.l1 import Pressure
from ratelimit_service.cache.profiles import CacheSettings

if TYPE_CHECKING:
    from ratelimit_service.cache.l2.level import RedisLevel

__all__ = ["CacheHealth", "HealthStatus", "LevelHealth", "health_app", "health_json", "health_of"]


class HealthStatus(enum.Enum):
    """How it is, in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Something fails, and is passed over or made up for."""
    UNHEALTHY = "unhealthy"
    """Nothing can be cached."""


class LevelHealth(msgspec.Struct, frozen=True):
    """How one level is.

    Attributes:
        up: Whether it is used.
        reason: Why not, or what is wrong with it; empty: nothing.
    """

    up: bool
    reason: str = ""


class CacheHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a cache is.

    Attributes:
        status: In one word.
        profile: Its name.
        levels: `l1`, and `l2` and `l3` where the profile has them.
        coherence: How changes by others are heard of: `Tracking`, `PubSub`, `TTL`, or `Local` without Redis.
        staleness_bound_us: Most that a served value may be behind Redis.
        owed: Invalidations that Redis has yet to hear.
        pressure: How full memory is: `normal`, `warning`, `critical`.
    """

    status: HealthStatus
    profile: str
    levels: Mapping[str, LevelHealth]
    coherence: str
    staleness_bound_us: int
    owed: int
    pressure: str


def health_of(
    settings: CacheSettings, pressure: Pressure, redis: RedisLevel | None, disk: DiskLevel | None, owed: int
) -> CacheHealth:
    """Put the levels' states together."""
    levels = {"l1": LevelHealth(up=True, reason="memory is full" if pressure is Pressure.CRITICAL else "")}
    coherence, is_less = "Local", False
    if redis is not None:
        mode = redis.nodes.mode
        levels["l2"] = LevelHealth(redis.is_up, redis.reason or redis.nodes.reason)
        coherence, is_less = mode.value, mode is not settings.mode
    if disk is not None:
        levels["l3"] = LevelHealth(disk.is_up, disk.reason)
    takes_values = pressure is not Pressure.CRITICAL or any(levels[name].up for name in levels if name != "l1")
    is_well = all(level.up and not level.reason for level in levels.values()) and not owed and not is_less
    return CacheHealth(
        status=_status(is_well=is_well, takes_values=takes_values),
        profile=settings.name,
        levels=levels,
        coherence=coherence,
        staleness_bound_us=0 if redis is None else settings.delta_us,
        owed=owed,
        pressure=pressure.name.lower(),
    )


def _status(*, is_well: bool, takes_values: bool) -> HealthStatus:
    if not takes_values:
        return HealthStatus.UNHEALTHY
    return HealthStatus.HEALTHY if is_well else HealthStatus.DEGRADED


def health_json(health: CacheHealth) -> bytes:
    """The same as JSON, for any server."""
    return msgspec.json.encode(health)


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

_STATUS: Final[Mapping[HealthStatus, int]] = {
    HealthStatus.HEALTHY: 200,
    HealthStatus.DEGRADED: 200,
    HealthStatus.UNHEALTHY: 503,
}
"""A degraded cache serves, so nobody shall restart it."""


def health_app(health: Callable[[], CacheHealth]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An ASGI application that answers every GET with the health; mount it as `/health/cache`.

    Args:
        health: Such as `cache.health`.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  # ASGI's signature
        if scope["type"] != "http":
            return
        is_read = scope["method"] in {"GET", "HEAD"}
        now = health()
        body = health_json(now) if scope["method"] == "GET" else b""
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        status = _STATUS[now.status] if is_read else 405
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
