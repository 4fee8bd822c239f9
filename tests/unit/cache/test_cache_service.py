"""The cache in memory alone: every method, with time as the test says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from ratelimit_service.cache.coherence import InvalidationMetadata
from ratelimit_service.cache.flights import LoadTimedOut
from ratelimit_service.cache.l1 import Pressure
from ratelimit_service.cache.loads import Loaded
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.service import CacheService
from ratelimit_service.policy.profile_model import Eviction, WarmingMode
from support.caches import Source
from support.clocks import ManualClock
from support.virtual_time import run_virtually

T = TypeVar("T")

SECOND_US = 1_000_000


class Bench:
    """A cache with a clock that stands."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.cache: CacheService[Any] = CacheService(
            CacheSettings(**{"ttl_us": 10 * SECOND_US, **settings}),
            clock=self.clock,  # type: ignore[arg-type]  # reads like a Clock
        )


def run(main: Coroutine[Any, Any, T]) -> T:
    return run_virtually(main)


def test_a_value_is_there_until_its_time_is_over() -> None:
    """To the microsecond, by the settings' lifetime or the call's."""

    async def main() -> list[object]:
        bench = Bench()
        await bench.cache.set("k", [1])
        await bench.cache.set("short", 1, ttl_ms=1_000)
        bench.clock.advance(SECOND_US - 1)
        seen = [await bench.cache.get("short")]
        bench.clock.advance(1)
        seen.append(await bench.cache.get("short"))
        bench.clock.advance(9 * SECOND_US - 1)
        seen.append(await bench.cache.get("k"))
        bench.clock.advance(1)
        return [*seen, await bench.cache.get("k", ["default"])]

    assert run(main()) == [1, None, [1], ["default"]]


def test_several_keys_are_got_and_set_in_order() -> None:
    """What is missing is left out; keys that are named twice come once."""

    async def main() -> list[tuple[str, int]]:
        bench = Bench()
        await bench.cache.set_many({"a": 1, "b": 2})
        return list((await bench.cache.get_many(["b", "x", "a", "b"])).items())

    assert run(main()) == [("b", 2), ("a", 1)]


def test_a_deleted_value_is_gone_and_the_first_deletion_says_that_it_was_there() -> None:
    """A second deletion finds nothing."""

    async def main() -> tuple[bool, bool, object]:
        bench = Bench()
        await bench.cache.set("k", 1)
        return await bench.cache.delete("k"), await bench.cache.delete("k"), await bench.cache.get("k")

    assert run(main()) == (True, False, None)


@pytest.mark.parametrize(("value", "ttl_ms"), [(None, None), (1, -1)])
def test_none_and_negative_lifetimes_are_refused(value: object, ttl_ms: int | None) -> None:
    """None stands for no value everywhere, so it cannot be one."""

    async def main() -> None:
        await Bench().cache.set("k", value, ttl_ms=ttl_ms)

    with pytest.raises(ValueError, match="None is no value"):
        run(main())


def test_tags_prefixes_and_clear_void_what_they_are_about() -> None:
    """Each kind of invalidation hits its values and no others."""

    async def main() -> list[list[str]]:
        cache = Bench().cache
        await cache.set_many({"a:1": 1, "a:2": 1, "b:1": 1})
        await cache.set("t:1", 1, tags=("red",))
        await cache.set("t:2", 1, tags=("red", "blue"))
        await cache.set("t:3", 1, tags=("blue",))
        keys = ["a:1", "a:2", "b:1", "t:1", "t:2", "t:3"]
        seen = []
        await cache.invalidate_tag("red")
        seen.append(list(await cache.get_many(keys)))
        await cache.invalidate_prefix("a:")
        seen.append(list(await cache.get_many(keys)))
        await cache.invalidate("b:1", InvalidationMetadata(reason="test", tags=("blue",)))
        seen.append(list(await cache.get_many(keys)))
        await cache.set("again", 1, tags=("red",))
        seen.append(list(await cache.get_many(["again"])))
        await cache.clear()
        seen.append(list(await cache.get_many([*keys, "again"])))
        return seen

    assert run(main()) == [["a:1", "a:2", "b:1", "t:3"], ["b:1", "t:3"], [], ["again"], []]


def test_more_prefixes_than_are_kept_apart_void_more_and_never_less() -> None:
    """Tagged values are judged by version: the oldest of 70 prefixes still hits what it was about."""

    async def main() -> dict[str, int]:
        cache = Bench().cache
        await cache.set("group0:x", 1, tags=("t",))
        for number in range(70):
            await cache.invalidate_prefix(f"group{number}:")
        await cache.set("group0:y", 2, tags=("t",))
        return await cache.get_many(["group0:x", "group0:y"])

    assert run(main()) == {"group0:y": 2}


def test_a_load_that_its_key_was_set_or_deleted_under_is_not_kept() -> None:
    """Who asked gets what was loaded; the cache keeps what came later."""

    async def main() -> tuple[object, object, object, object]:
        cache, source = Bench().cache, Source("old")
        source.opened.clear()
        first = asyncio.create_task(cache.get_or_load("set", source))
        second = asyncio.create_task(cache.get_or_load("deleted", source))
        await asyncio.sleep(1)
        await cache.set("set", "new")
        await cache.delete("deleted")
        source.opened.set()
        return await first, await second, await cache.get("set"), await cache.get("deleted")

    assert run(main()) == ("old", "old", "new", None)


def test_absence_is_remembered_for_its_own_time_only_if_asked_for() -> None:
    """Without a negative lifetime every call asks the source."""

    async def main() -> tuple[list[object], int, int]:
        source, bench = Source(None), Bench(negative_ttl_us=SECOND_US)
        seen = [await bench.cache.get_or_load("k", source) for _ in range(3)]
        seen.append(await bench.cache.get("k", "default"))
        remembered = source.loads
        bench.clock.advance(SECOND_US)
        await bench.cache.get_or_load("k", source)
        after = source.loads
        forgetful = Bench().cache
        await forgetful.get_or_load("k", source)
        await forgetful.get_or_load("k", source)
        return seen, remembered, source.loads - after

    assert run(main()) == ([None, None, None, "default"], 1, 2)


def test_a_stale_value_is_served_while_loading_fails_and_not_past_its_time() -> None:
    """A failing source is asked once a second, and its error is seen once nothing may stand in for it."""

    async def main() -> tuple[list[object], int, int, str]:
        bench, source = Bench(stale_on_error_us=5 * SECOND_US), Source("v")
        await bench.cache.get_or_load("k", source)
        await bench.cache.get_or_load("tagged", source, tags=("t",))
        source.error = OSError("down")
        bench.clock.advance(10 * SECOND_US)
        seen = [await bench.cache.get_or_load("k", source) for _ in range(3)]
        seen.append(await bench.cache.get("k"))
        loads = source.loads
        seen.append(await bench.cache.get_or_load("tagged", source, tags=("t",)))
        await bench.cache.invalidate_tag("t")
        with pytest.raises(OSError, match="down"):
            await bench.cache.get_or_load("tagged", source, tags=("t",))
        bench.clock.advance(5 * SECOND_US)
        with pytest.raises(OSError, match="down") as caught:
            await bench.cache.get_or_load("k", source)
        return seen, loads, bench.cache.stats().counts["stale_served"], str(caught.value)

    assert run(main()) == (["v", "v", "v", None, "v"], 3, 4, "down")


def test_a_soft_timeout_takes_the_stale_value_and_a_hard_one_gives_up() -> None:
    """The load goes on: once it ends, its value is there."""

    async def main() -> tuple[object, object, str]:
        bench, source = Bench(stale_on_error_us=5 * SECOND_US), Source("old")
        await bench.cache.get_or_load("k", source)
        bench.clock.advance(10 * SECOND_US)
        source.value = "new"
        source.opened.clear()
        stale = await bench.cache.get_or_load("k", source, soft_timeout_ms=10, hard_timeout_ms=1_000)
        with pytest.raises(LoadTimedOut):
            await bench.cache.get_or_load("cold", source, soft_timeout_ms=10, hard_timeout_ms=20)
        source.opened.set()
        await asyncio.sleep(1)
        return stale, await bench.cache.get("k"), "both"

    assert run(main()) == ("old", "new", "both")


def test_near_its_end_a_value_is_loaded_anew_and_nobody_waits() -> None:
    """With one microsecond left the refresh is all but certain; the reader is answered by the old value at once."""

    async def main() -> tuple[object, object, int]:
        bench, source = Bench(early_refresh_percent=20), Source("old")
        await bench.cache.get_or_load("k", source)
        source.value = "new"
        bench.clock.advance(8 * SECOND_US - 1)
        assert await bench.cache.get_or_load("k", source) == "old"
        before = source.loads
        bench.clock.advance(2 * SECOND_US)
        old = await bench.cache.get_or_load("k", source)
        await asyncio.sleep(1)
        return old, await bench.cache.get("k"), source.loads - before

    assert run(main()) == ("old", "new", 1)


def test_memory_that_is_full_refuses_and_says_so() -> None:
    """Values are still returned to who asked for their load."""

    async def main() -> tuple[object, bool, str, bool]:
        bench = Bench(max_memory_bytes=64 * 1024)
        big = bytes(60 * 1024)
        value = await bench.cache.get_or_load("k", Source(big))
        for number in range(40):
            await bench.cache.set(f"k{number}", bytes(1_200))
        stats = bench.cache.stats()
        return value == big, stats.counts["refused_l1"] > 0, stats.name, bench.cache.pressure is Pressure.NORMAL

    assert run(main())[:3] == (True, True, "custom")


@pytest.mark.parametrize("eviction", list(Eviction))
def test_every_policy_keeps_the_number_of_entries(eviction: Eviction) -> None:
    """More keys than entries: the bound holds."""

    async def main() -> int:
        cache = Bench(max_entries=10, eviction=eviction).cache
        for number in range(50):
            await cache.set(f"k{number}", number)
        return cache.stats().memory.entries

    assert run(main()) == 10


def test_opening_and_closing_are_a_context_and_closing_empties_memory() -> None:
    """Background work ends with it, loads under way included."""

    async def main() -> tuple[object, str]:
        source = Source()
        source.opened.clear()
        async with CacheService[Any](CacheSettings(warming=WarmingMode.ADAPTIVE)) as cache:
            assert await cache.start() is cache
            await cache.set("k", 1)
            waiting = asyncio.create_task(cache.get_or_load("hangs", source))
            await source.entered.wait()
            await asyncio.sleep(2)
        with pytest.raises(LoadTimedOut) as caught:
            await waiting
        return await cache.get("k"), type(caught.value).__name__

    assert run(main()) == (None, "LoadTimedOut")


def test_a_profile_by_name_and_what_can_be_changed_while_running() -> None:
    """Lifetimes change at once; the memory's budget is named as waiting for the next start."""

    async def main() -> tuple[str, tuple[str, ...], int, int]:
        cache = CacheService[Any].from_profile("sessions")
        changed = msgspec.structs.replace(cache.settings, ttl_us=5, max_entries=7, delta_us=9)
        waiting = cache.adopt(changed)
        return cache.settings.name, waiting, cache.settings.ttl_us, cache.settings.max_entries

    assert run(main()) == ("sessions", ("max_entries",), 5, 100_000)


def test_statistics_and_metrics_count_what_happened() -> None:
    """Two hits, one miss, one write: the rate, and the names that Prometheus shows."""

    async def main() -> tuple[float, dict[str, float], bool]:
        bench = Bench()
        await bench.cache.set("k", 1)
        await bench.cache.get("k")
        await bench.cache.get("k")
        await bench.cache.get("x")
        bench.clock.advance(SECOND_US)
        samples = bench.cache.metrics()
        by_name = {f"{each.name}{sorted(each.labels.items())}": each.value for each in samples}
        assert len(by_name) == len(samples)
        counters = {each.name for each in samples if each.is_counter}
        stats = bench.cache.stats()
        wanted = {name.partition("[")[0]: value for name, value in by_name.items()}
        return stats.hit_rate, {name: wanted[name] for name in (_MISSES, _OPS)}, _MISSES in counters

    assert run(main()) == (pytest.approx(2 / 3), {_MISSES: 1, _OPS: 4.0}, True)


_MISSES = "tidegate_cache_misses_total"
_OPS = "tidegate_cache_operations_per_second"


def test_the_rates_of_an_unused_cache_are_zero() -> None:
    """Nothing is divided by nothing."""
    stats = Bench().cache.stats()

    assert (stats.hit_rate, stats.operations_per_second) == (0.0, 0.0)


def test_a_cache_in_memory_imports_no_library_of_other_levels() -> None:
    """Programs that cache in memory need neither Redis' nor lmdb's packages."""
    program = (
        "import asyncio, sys\n"
        "from ratelimit_service.cache import CacheService\n"
        "asyncio.run(CacheService().set('k', 1))\n"
        "print(sorted({'redis', 'hiredis', 'lmdb', 'prometheus_client', 'cryptography'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_loader_may_say_how_long_its_value_is_fresh() -> None:
    """By the value, not by the call; with 0 it is returned and not kept; None in it is an absence."""

    async def main() -> list[object]:
        bench = Bench(negative_ttl_us=5 * SECOND_US)
        loads = iter([Loaded("a", 2_000), Loaded("b", 0), "c", Loaded(None, 1_000), "d"])

        async def load() -> object:
            return next(loads)

        seen = []
        for step_us in (0, 2 * SECOND_US - 1, 1, 0, 10 * SECOND_US, 1 * SECOND_US - 1, 1):
            bench.clock.advance(step_us)
            seen.append(await bench.cache.get_or_load("k", load, ttl_ms=10_000))
        return seen

    assert run(main()) == ["a", "a", "b", "c", None, None, "d"]
