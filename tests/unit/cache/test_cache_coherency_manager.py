"""The manager of coherence without Redis, and with one that is not there."""

from __future__ import annotations

import asyncio
from typing import Any

from ratelimit_service.cache.coherence import CacheCoherencyManager, InvalidationMetadata, Stamp
from ratelimit_service.cache.l2.level import RedisLevel
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.staleness import UNWATCHED
from support.caches import redis_settings
from support.redis_servers import free_port


def test_alone_it_voids_by_tag_and_prefix_for_this_process() -> None:
    """What was filled before is void, what is filled after is not."""

    async def run() -> tuple[list[bool], bool, int]:
        manager = CacheCoherencyManager(now_us=lambda: 5)
        token = manager.begin("a:1")
        stamp = manager.stamp(token, watched=False, version=manager.version or 0, tags=await manager.learn(("t",)))
        seen = [manager.is_current("a:1", stamp, 5)]
        await manager.invalidate_with_coherency("other", InvalidationMetadata(reason="test", tags=("t",)))
        seen.append(manager.is_current("a:1", stamp, 5))
        plain = manager.stamp(manager.begin("a:1"), watched=False, version=manager.version or 0)
        seen.append(manager.is_current("a:1", plain, 5))
        await manager.invalidate_prefix("a:")
        seen.append(manager.is_current("a:1", plain, 5))
        await manager.close()
        return seen, await manager.catch_up(), manager.stats().sent

    assert asyncio.run(run()) == ([True, False, True, False], True, 3)


def test_more_tags_than_are_remembered_void_everything_that_has_any() -> None:
    """Memory is bounded, and a forgotten tag is not a valid one."""

    async def run() -> tuple[bool, bool]:
        manager = CacheCoherencyManager(now_us=lambda: 5)
        await manager.invalidate_tag("first")
        stamp = manager.stamp(manager.begin("k"), watched=False, tags={"first": 0})
        for number in range(100_001):
            await manager.invalidate_tag(f"t{number}")
        later = manager.stamp(manager.begin("k"), watched=False, version=manager.version or 0, tags={"first": 0})
        return manager.is_current("k", stamp, 5), manager.is_current("k", later, 5)

    assert asyncio.run(run()) == (False, True)


def _absent_redis(manager: CacheCoherencyManager) -> RedisLevel:
    settings = redis_settings(free_port())
    assert settings.redis is not None
    level = RedisLevel(settings.redis, manager, lambda: 0)
    manager.attach(level)
    return level


def test_with_a_redis_that_is_not_there_nothing_watched_is_current_and_debts_are_remembered() -> None:
    """A value of the past may stand in for a failing source unless its key, prefix or tag is owed."""

    async def run() -> tuple[bool, bool, list[bool], int]:
        manager = CacheCoherencyManager(now_us=lambda: 100)
        level = _absent_redis(manager)
        await level.start()
        past = Stamp(UNWATCHED, 50, 0, (("red", 1),))
        caught_up = await manager.catch_up()
        void = manager.is_void("k", 0, ())
        usable = [manager.is_usable_stale("a:k", past)]
        await manager.invalidate_with_coherency("a:k")
        usable.append(manager.is_usable_stale("a:k", past))
        await manager.invalidate_prefix("b:")
        usable.append(manager.is_usable_stale("b:k", past))
        usable.append(manager.is_usable_stale("c:k", past))
        await manager.invalidate_tag("red")
        usable.append(manager.is_usable_stale("c:k", past))
        owed = manager.stats().owed
        await manager.close()
        await level.close()
        return caught_up, void, usable, owed

    assert asyncio.run(run()) == (False, True, [True, False, False, True, False], 3)


def test_too_many_debts_become_one_that_voids_everything() -> None:
    """The list is bounded; what it cannot name is covered by the empty prefix."""

    async def run() -> tuple[int, bool]:
        manager = CacheCoherencyManager(now_us=lambda: 100)
        level = _absent_redis(manager)
        for number in range(100_001):
            manager.owe(f"k{number}")
        owed, is_owed = manager.stats().owed, manager.is_owed("k5")
        await manager.close()
        await level.close()
        return owed, is_owed

    assert asyncio.run(run()) == (1, False)


def test_a_cache_whose_redis_is_not_there_works_without_it() -> None:
    """Every method; what should reach Redis says that it has not."""

    async def run() -> tuple[object, bool, dict[str, Any], object]:
        async with CacheService[int](redis_settings(free_port(), delta_us=60_000_000)) as cache:
            await cache.set("k", 1)
            reached = (await cache.invalidate("x")).reached or (await cache.clear()).reached
            await cache.set_many({"a": 2, "b": 3})
            return await cache.get("k"), reached, await cache.get_many(["a", "b", "c"]), await cache.get("c", 9)

    assert asyncio.run(run()) == (None, False, {"a": 2, "b": 3}, 9)
