"""Warming the busiest keys of a limiter: on request, in the background, adaptive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from ratelimit_service.adapter import InvalidRateLimit, RateLimitConfig, RateLimitingCacheWarmer
from ratelimit_service.cache.warming import Progress, WarmingReport
from ratelimit_service.library.warming import KeyToWarm
from support.virtual_time import run_virtually


class Limiter:
    """Stands where the adapter does: what was warmed is asked for afterwards, or not."""

    def __init__(self, *, is_used: bool) -> None:
        self.config = RateLimitConfig(top_keys=20)
        self.paces: list[int] = []
        self.keys: list[list[str]] = []
        self._checks = 1
        self._is_used = is_used

    def busiest(self, count: int) -> list[str]:
        return [f"key {number}" for number in range(count)]

    def checks_of(self, key: str) -> int:
        return self._checks

    async def warmup_rate_limit_keys(
        self, keys: Iterable[KeyToWarm], *, progress: Progress | None = None, per_second: int = 0
    ) -> WarmingReport:
        self.keys.append([str(key) for key in keys])
        self.paces.append(per_second)
        self._checks += self._is_used
        return WarmingReport(warmed=len(self.keys[-1]))


@pytest.mark.parametrize(("priority", "count"), [("high", 2), ("medium", 10), ("low", 20)])
def test_a_priority_is_a_part_of_the_busiest_keys(priority: str, count: int) -> None:
    """The busiest first."""
    limiter = Limiter(is_used=True)

    report = asyncio.run(RateLimitingCacheWarmer(limiter).warmup_high_traffic_keys(priority))

    assert report.warmed == count
    assert limiter.keys == [[f"key {number}" for number in range(count)]]


def test_an_unknown_priority_is_named() -> None:
    """With those that there are."""
    with pytest.raises(InvalidRateLimit, match="priority: one of high, medium, low"):
        asyncio.run(RateLimitingCacheWarmer(Limiter(is_used=True)).warmup_high_traffic_keys("urgent"))


@pytest.mark.parametrize(("is_used", "paces"), [(True, [500, 625, 781]), (False, [500, 250, 125])])
def test_adaptive_warming_follows_what_it_is_good_for(is_used: bool, paces: list[int]) -> None:
    """Faster while what was warmed is asked for, slower where it is not."""

    async def main() -> list[int]:
        limiter = Limiter(is_used=is_used)
        warmer = RateLimitingCacheWarmer(limiter)
        warmer.start(every_s=1.0, adaptive=True)
        warmer.start()
        await asyncio.sleep(5.5)
        await warmer.stop()
        await warmer.stop()
        return limiter.paces

    assert run_virtually(main()) == paces


def test_background_warming_keeps_its_pace() -> None:
    """All of the busiest keys, again and again."""

    async def main() -> Limiter:
        limiter = Limiter(is_used=False)
        warmer = RateLimitingCacheWarmer(limiter)
        warmer.start(every_s=1.0)
        await asyncio.sleep(3.5)
        await warmer.stop()
        return limiter

    limiter = run_virtually(main())
    assert limiter.paces == [500, 500, 500]
    assert [len(keys) for keys in limiter.keys] == [20, 20, 20]
