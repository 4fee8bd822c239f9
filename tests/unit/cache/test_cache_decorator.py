"""Functions whose results are cached, async and not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ratelimit_service.cache.decorator import cached, key_of_call
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.sync import SyncCacheService


def test_equal_arguments_share_a_call_however_they_are_passed() -> None:
    """By position, by name, by default; other arguments are another call."""

    async def main() -> tuple[list[int], list[tuple[int, int]]]:
        calls: list[tuple[int, int]] = []

        @cached(CacheService[int](), ttl_ms=60_000)
        async def add(first: int, second: int = 2) -> int:
            calls.append((first, second))
            return first + second

        results = [await add(1), await add(1, 2), await add(second=2, first=1), await add(2)]
        return results, calls

    assert asyncio.run(main()) == ([3, 3, 3, 4], [(1, 2), (2, 2)])


def test_keys_and_tags_may_be_formats_or_functions() -> None:
    """The key of a call is known, so that its result can be invalidated."""

    async def main() -> tuple[str, str, list[int]]:
        cache: CacheService[Any] = CacheService()
        calls = [0]

        @cached(cache, key="user:{user}", tags=("team:{team}",))
        async def load(user: int, team: str) -> int:
            calls[0] += 1
            return calls[0]

        @cached(cache, key=lambda user: f"by-function:{user}")
        async def other(user: int) -> int:
            return user

        seen = [await load(1, "a"), await load(1, "a")]
        await cache.invalidate_tag("team:a")
        seen.append(await load(1, "a"))
        await cache.delete(load.key_for(1, "a"))  # type: ignore[attr-defined]
        seen.append(await load(1, "a"))
        return load.key_for(1, "a"), other.key_for(5), [*seen, await other(5)]  # type: ignore[attr-defined]

    assert asyncio.run(main()) == ("user:1", "by-function:5", [1, 1, 2, 3, 5])


def test_a_long_key_is_a_digest_and_an_object_is_refused() -> None:
    """Keys stay short; what has no plain form has no key of its own."""
    with pytest.raises(TypeError, match="give `key`"):
        key_of_call("f", {"x": object()})

    assert len(key_of_call("f", {"x": "y" * 1_000})) < 60
    assert key_of_call("f", {"b": 1, "a": 2}) == key_of_call("f", {"a": 2, "b": 1})


def test_a_function_is_decorated_by_the_cache_of_its_kind() -> None:
    """Async functions by `cached`, others by the blocking cache."""
    with pytest.raises(TypeError, match="is not async"):
        cached(CacheService[int]())(len)  # type: ignore[arg-type]


def test_the_blocking_cache_caches_ordinary_functions() -> None:
    """It refuses async ones."""

    async def coroutine() -> int:
        return 1

    with SyncCacheService[Any](CacheSettings()) as cache:
        calls = []

        @cache.cached(key="n:{number}", tags=("all",))
        def double(number: int) -> int:
            calls.append(number)
            return 2 * number

        results = [double(2), double(2), double(3)]
        cache.invalidate_tag("all")
        results.append(double(2))
        with pytest.raises(TypeError, match="is async"):
            cache.cached()(coroutine)

    assert (results, calls) == ([4, 4, 6, 4], [2, 3, 2])
