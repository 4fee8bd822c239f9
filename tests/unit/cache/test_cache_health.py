"""Health as a value, as JSON and over ASGI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.health import CacheHealth, HealthStatus, health_app, health_json, health_of
from ratelimit_service.cache.l1 import Pressure
from ratelimit_service.cache.profiles import CacheSettings, DiskSettings
from ratelimit_service.cache.service import CacheService


def test_a_cache_in_memory_is_healthy() -> None:
    """No Redis: nothing is behind anything."""
    health = CacheService[int]().health()

    assert (health.status, health.coherence, health.staleness_bound_us) == (HealthStatus.HEALTHY, "Local", 0)
    assert msgspec.json.decode(health_json(health))["status"] == "healthy"


def test_a_full_memory_with_no_other_level_can_cache_nothing() -> None:
    """With a disk that works it would be degraded only."""
    health = health_of(CacheSettings(), Pressure.CRITICAL, None, None, 0)

    assert (health.status, health.pressure, health.levels["l1"].reason) == (
        HealthStatus.UNHEALTHY,
        "critical",
        "memory is full",
    )


def test_a_level_that_is_down_or_debts_degrade_it() -> None:
    """The reason is named."""
    disk = DiskLevel(DiskSettings(path=Path("/nowhere")), lambda: 0)
    down = health_of(CacheSettings(), Pressure.NORMAL, None, disk, 0)
    owing = health_of(CacheSettings(), Pressure.NORMAL, None, None, 1)

    assert (down.status, down.levels["l3"].reason) == (HealthStatus.DEGRADED, "not opened yet")
    assert (owing.status, owing.owed) == (HealthStatus.DEGRADED, 1)


async def _ask(health: CacheHealth, scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a health check has no body")

    await health_app(lambda: health)(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("method", "pressure", "status", "has_body"),
    [
        ("GET", Pressure.NORMAL, 200, True),
        ("HEAD", Pressure.NORMAL, 200, False),
        ("GET", Pressure.CRITICAL, 503, True),
        ("POST", Pressure.NORMAL, 405, False),
    ],
)
def test_the_asgi_application_answers_reads(method: str, pressure: Pressure, status: int, has_body: bool) -> None:
    """503 only where nothing can be cached."""
    health = health_of(CacheSettings(), pressure, None, None, 0)
    start, body = asyncio.run(_ask(health, {"type": "http", "method": method}))

    assert (start["status"], bool(body["body"])) == (status, has_body)


def test_the_asgi_application_leaves_other_protocols_alone() -> None:
    """A lifespan or WebSocket scope gets no answer."""
    health = CacheService[int]().health()

    assert asyncio.run(_ask(health, {"type": "lifespan"})) == []
