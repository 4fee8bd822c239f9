"""Warming: which keys, how fast, and when it stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.warming import KeyWorth, WarmingReport, adapted
from ratelimit_service.policy.profile_model import WarmingMode
from support.virtual_time import run_virtually


async def _upper(key: str) -> str | None:
    if key == "bad":
        raise OSError(key)
    return None if key == "none" else key.upper()


def test_named_keys_are_warmed_and_each_outcome_is_counted() -> None:
    """Loaded, already there, without a value, failed; the progress tells the same as it goes."""

    async def main() -> tuple[WarmingReport, list[int], object]:
        cache: CacheService[Any] = CacheService()
        await cache.set("there", 1)
        told: list[int] = []

        async def progress(report: WarmingReport) -> None:
            told.append(report.done)

        report = await cache.warm(["a", "there", "none", "bad", "b", "a"], _upper, per_second=50, progress=progress)
        return report, told, await cache.get("b")

    report, told, value = run_virtually(main())

    assert report == WarmingReport(warmed=2, skipped=2, failed=1)
    assert (told, value) == ([1, 2, 3, 4, 5], "B")


def test_warming_keeps_to_its_pace() -> None:
    """A hundred keys at fifty per second take two seconds, but for the first batch."""

    async def main() -> float:
        cache: CacheService[Any] = CacheService()
        began = asyncio.get_running_loop().time()
        await cache.warm([f"k{number}" for number in range(100)], _upper, per_second=50)
        return asyncio.get_running_loop().time() - began

    assert run_virtually(main()) == pytest.approx(2.0, abs=0.05)


def test_warming_stops_at_the_warning_level() -> None:
    """What was not come to is skipped, and the report says why."""

    async def big(key: str) -> bytes:
        return bytes(5_000)

    async def main() -> tuple[WarmingReport, list[bool]]:
        cache: CacheService[Any] = CacheService(CacheSettings(max_memory_bytes=128 * 1024))
        stopped: list[bool] = []

        def progress(report: WarmingReport) -> None:
            stopped.append(report.stopped)

        return await cache.warm([f"k{number}" for number in range(100)], big, progress=progress), stopped

    report, stopped = run_virtually(main())

    assert (report.stopped, report.done, stopped[-1]) == (True, 100, True)
    assert 0 < report.warmed < 40


def test_a_pace_below_one_key_per_second_is_refused() -> None:
    """Nothing would ever be warmed."""
    cache: CacheService[Any] = CacheService()
    with pytest.raises(ValueError, match="at least one key"):
        run_virtually(cache.warm(["k"], per_second=0))


def test_keys_without_a_loader_are_read_from_the_levels_below() -> None:
    """In memory alone there is nothing to read, so they are skipped."""
    cache: CacheService[Any] = CacheService()

    assert run_virtually(cache.warm(["k"])) == WarmingReport(skipped=1)


def test_worth_is_hits_times_cost_and_fades() -> None:
    """A rare dear key can be worth more than a frequent cheap one; half is forgotten each time."""
    worth = KeyWorth(10)
    for _ in range(10):
        worth.note("frequent", 5)
    worth.note("dear", 200)
    worth.note("once", 1)

    assert worth.top(2) == ["dear", "frequent"]
    worth.fade()
    assert [worth.of(key) for key in ("dear", "frequent", "once")] == [100, 25, 0]
    assert len(worth) == 2


@given(st.lists(st.sampled_from("abcdefghij"), max_size=300), st.integers(1, 5))
def test_whatever_has_more_than_its_share_of_all_worth_is_among_the_candidates(asked: list[str], most: int) -> None:
    """With room for `most` keys, one that has more than 1/most of all is never lost."""
    worth = KeyWorth(most)
    for key in asked:
        worth.note(key, 1)

    frequent = {key for key in asked if asked.count(key) * most > len(asked)}
    assert frequent <= set(worth.top(most))
    assert len(worth) <= most


@pytest.mark.parametrize(("used", "warmed", "expected"), [(0, 0, 100), (10, 100, 50), (60, 100, 100), (95, 100, 125)])
def test_the_pace_follows_what_warming_was_good_for(used: int, warmed: int, expected: int) -> None:
    """Slower where less than half was used, faster where nine tenths were."""
    assert adapted(100, used, warmed) == expected


@pytest.mark.parametrize("mode", [WarmingMode.BACKGROUND, WarmingMode.ADAPTIVE])
def test_the_most_worthy_keys_are_warmed_in_the_background(mode: WarmingMode) -> None:
    """A key that was dear and was lost comes back by itself, by the loader of its longest prefix."""

    async def main() -> tuple[object, int]:
        settings = CacheSettings(warming=mode, ttl_us=3_600_000_000)
        loads = [0]

        async def dear(key: str) -> str:
            loads[0] += 1
            return f"dear {key}"

        async with CacheService[Any](settings) as cache:
            cache.load_with("", _upper)
            cache.load_with("user:", dear)
            cache.warmer.note("user:1", 5_000)
            await asyncio.sleep(100)
            return await cache.get("user:1"), loads[0]

    assert run_virtually(main()) == ("dear user:1", 1)
