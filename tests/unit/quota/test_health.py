"""What `/health/cache` says of the stores."""

from __future__ import annotations

import pytest

from ratelimit_service.quota.health import CountingStatus, MemoryLevel, SharedLevel, all_health, store_health

ROOMY = MemoryLevel(69, 100, 690, 1_000)


@pytest.mark.parametrize(
    ("level", "pressure", "status"),
    [
        (ROOMY, "normal", CountingStatus.HEALTHY),
        (MemoryLevel(70, 100, 0, 1_000), "warning", CountingStatus.HEALTHY),
        (MemoryLevel(0, 100, 700, 1_000), "warning", CountingStatus.HEALTHY),
        (MemoryLevel(1, 100, 1, 1_000, full=True), "critical", CountingStatus.UNHEALTHY),
    ],
)
def test_memory_is_judged_by_its_fuller_bound(level: MemoryLevel, pressure: str, status: CountingStatus) -> None:
    """From 70 % on it warns; that keys found no room is what makes it unhealthy."""
    health = store_health(l1=level)

    assert (health.pressure, health.status) == (pressure, status)


def test_a_redis_with_problems_is_degraded_since_the_failure_mode_decides() -> None:
    """It names them."""
    health = store_health(l2=SharedLevel(("127.0.0.1:1: refused",), None))

    assert health.status is CountingStatus.DEGRADED
    assert store_health(l2=SharedLevel((), 3)).status is CountingStatus.HEALTHY


def test_a_service_is_as_well_as_its_worst_store() -> None:
    """Its own store is called default; a service without any is well."""
    well, ill = store_health(l1=ROOMY), store_health(l2=SharedLevel(("away",)))
    health = all_health([("", well), ("shop/redis", ill)])

    assert health.status is CountingStatus.DEGRADED
    assert list(health.profiles) == ["default", "shop/redis"]
    assert all_health([]).status is CountingStatus.HEALTHY
