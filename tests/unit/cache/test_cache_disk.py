"""The level on disk below memory: it outlives the process, and is passed over while it fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ratelimit_service.cache.disk import DiskLevel
from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.profiles import CacheSettings, DiskSettings
from ratelimit_service.cache.service import CacheService
from support.caches import Source


def settings(path: Path, **others: Any) -> CacheSettings:
    """A cache with a small disk."""
    return CacheSettings(disk=DiskSettings(path=path, max_bytes=4 * 1024 * 1024), **others)


def test_values_outlive_the_process(tmp_path: Path) -> None:
    """A second cache finds on disk what the first has loaded and set, absence included; it loads nothing."""

    async def main() -> tuple[object, object, object, int, dict[str, int]]:
        source, nothing = Source("loaded"), Source(None)
        async with CacheService[Any](settings(tmp_path, negative_ttl_us=60_000_000)) as first:
            await first.get_or_load("k", source)
            await first.set("s", [1, 2])
            await first.get_or_load("n", nothing)
        async with CacheService[Any](settings(tmp_path, negative_ttl_us=60_000_000)) as second:
            got = await second.get_or_load("k", source), await second.get("s"), await second.get_or_load("n", nothing)
            counts = second.stats().counts
            return (*got, source.loads + nothing.loads, {"hits_l3": counts["hits_l3"]})

    assert asyncio.run(main()) == ("loaded", [1, 2], None, 2, {"hits_l3": 3})


def test_what_was_removed_does_not_come_back_from_disk(tmp_path: Path) -> None:
    """Deleted keys, invalidated prefixes and tags, after a restart too."""

    async def main() -> dict[str, int]:
        async with CacheService[Any](settings(tmp_path)) as first:
            await first.set_many({"deleted": 1, "a:1": 2})
            await first.set("tagged", 3, tags=("t",))
            await first.delete("deleted")
            await first.invalidate_tag("t")
            await first.invalidate_prefix("a:")
            await first.set("kept", 4)
            assert await first.get_many(["deleted", "a:1", "tagged", "kept"]) == {"kept": 4}
        async with CacheService[Any](settings(tmp_path)) as second:
            return await second.get_many(["deleted", "a:1", "tagged", "kept"])

    assert asyncio.run(main()) == {"kept": 4}


def test_what_is_damaged_or_of_another_codec_is_a_miss(tmp_path: Path) -> None:
    """It is counted and removed."""

    async def main() -> tuple[object, object, int]:
        disk = DiskLevel(DiskSettings(path=tmp_path, max_bytes=4 * 1024 * 1024), lambda: 0)
        await disk.open()
        disk.write("bad", b"no envelope", mark=bytes(16), filled_us=0, expires_us=2**62)
        disk.close()
        async with CacheService[Any](settings(tmp_path)) as cache:
            return await cache.get("bad"), await cache.get("bad"), cache.stats().counts["corrupt"]

    assert asyncio.run(main()) == (None, None, 1)


def test_a_value_that_expired_on_disk_serves_while_loading_fails(tmp_path: Path) -> None:
    """The window of `stale_on_error_us` holds over a restart."""

    async def main() -> object:
        stale = settings(tmp_path, ttl_us=1_000, stale_on_error_us=3_600_000_000)
        async with CacheService[Any](stale) as first:
            await first.set("k", "old")
            await asyncio.sleep(0.01)
        async with CacheService[Any](stale) as second:
            source = Source()
            source.error = OSError("down")
            return await second.get_or_load("k", source)

    assert asyncio.run(main()) == "old"


def test_a_disk_that_cannot_be_used_is_passed_over_and_named(tmp_path: Path) -> None:
    """A file stands where the folder should be; once it is gone the level opens by itself."""
    path = tmp_path / "cache"
    path.write_text("in the way")
    now_us = 0

    async def main() -> tuple[str, object, bool, bool, bool]:
        nonlocal now_us
        disk = DiskLevel(DiskSettings(path=path, max_bytes=4 * 1024 * 1024), lambda: now_us)
        await disk.open()
        reason, missing = disk.reason, disk.read("k")
        disk.remove("k")
        path.unlink()
        await disk.open()
        too_early = disk.is_up
        now_us = 10_000_000
        await disk.open()
        is_up = disk.is_up
        disk.write("k", b"v", mark=bytes(16), filled_us=0, expires_us=2**62)
        found = disk.read("k")
        disk.close()
        return reason, missing, too_early, is_up, found is not None

    reason, *rest = asyncio.run(main())

    assert reason.startswith("l3: ")
    assert rest == [None, False, True, True]


def test_a_removal_that_failed_empties_the_disk_before_it_is_used_again(tmp_path: Path) -> None:
    """Else what should be gone would come back with the disk."""
    now_us = 0

    def fail(disk: object) -> None:
        raise LevelUnavailable("l3", "planted")

    async def main() -> tuple[bool, int, object, object]:
        nonlocal now_us
        disk = DiskLevel(DiskSettings(path=tmp_path, max_bytes=4 * 1024 * 1024), lambda: now_us)
        await disk.open()
        disk.write("removed", b"v", mark=bytes(16), filled_us=0, expires_us=2**62)
        disk._attempt(fail)
        was_up = disk.is_up
        disk.remove("removed")
        now_us = 10_000_000
        found = disk.read("removed"), disk.failures, disk.reason
        disk.close()
        return was_up, found[1], found[0], found[2]

    assert asyncio.run(main()) == (False, 1, None, "")


def test_a_record_without_a_mark_is_damaged(tmp_path: Path) -> None:
    """Whoever wrote it, it was not this cache."""

    async def main() -> tuple[object, int]:
        from ratelimit_service.cache.l3 import L3

        with L3(tmp_path, 4 * 1024 * 1024) as disk:
            disk.put("k", b"short")
        async with CacheService[Any](settings(tmp_path)) as cache:
            return await cache.get("k"), cache.stats().counts["corrupt"]

    assert asyncio.run(main()) == (None, 1)


def test_metrics_tell_what_the_disk_holds_and_which_level_answers(tmp_path: Path) -> None:
    """By level the shares add up to the whole; while the disk is closed its sizes are not told."""

    async def main() -> tuple[dict[str, float], float, dict[str, float]]:
        async with CacheService[Any](settings(tmp_path)) as first:
            await first.set("k", "v" * 100)
        async with CacheService[Any](settings(tmp_path)) as second:
            for _ in range(3):
                await second.get("k")
            await second.get("missing")
            stats = second.stats()
            shown = {sample.name: sample.value for sample in second.metrics()}
        closed = {sample.name: sample.value for sample in second.metrics()}
        assert "tidegate_cache_disk_bytes" not in closed
        return dict(stats.hit_rates), stats.hit_rate, shown

    rates, whole, shown = asyncio.run(main())

    assert rates == {"l1": 0.5, "l2": 0.0, "l3": 0.25}
    assert whole == sum(rates.values())
    assert shown["tidegate_cache_disk_entries"] == 1
    assert 0 < shown["tidegate_cache_disk_bytes"] < shown["tidegate_cache_disk_limit_bytes"] == 4 * 1024 * 1024
