"""One load per key among replicas on one real Redis, whatever happens to those who load and those who wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ratelimit_service.cache.fences import DEFAULT_LEASE_US
from ratelimit_service.cache.l2.answers import Granted, Taken
from ratelimit_service.cache.l2.level import RedisLevel
from ratelimit_service.cache.service import CacheService
from support.caches import Source, eventually, redis_settings
from support.redis_servers import RedisServer, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_server() as running:
        yield running


class _NoNews:
    """Wants to know nothing."""

    def keys_changed(self, names: list[bytes] | None) -> None:
        pass

    def epoch_ended(self) -> None:
        pass


def _level(server: RedisServer, prefix: str) -> RedisLevel:
    settings = redis_settings(server.port, prefix)
    assert settings.redis is not None
    return RedisLevel(settings.redis, _NoNews(), lambda: 0)


def test_ten_waiters_on_each_of_three_replicas_cause_one_load(server: RedisServer) -> None:
    """Thirty callers, one load, thirty answers."""

    async def run() -> tuple[list[object], int]:
        settings = redis_settings(server.port, "one:")
        async with (
            CacheService[str](settings) as first,
            CacheService[str](settings) as second,
            CacheService[str](settings) as third,
        ):
            source = Source()
            source.opened.clear()
            calls = [
                asyncio.create_task(cache.get_or_load("k", source))
                for cache in (first, second, third)
                for _ in range(10)
            ]
            await source.entered.wait()
            source.opened.set()
            return await asyncio.gather(*calls), source.loads

    assert asyncio.run(run()) == (["value"] * 30, 1)


def test_a_cancelled_waiter_cancels_nobody_else(server: RedisServer) -> None:
    """Of ten waiters the first, who began the load, is cancelled: nine are answered by that load."""

    async def run() -> tuple[list[object], int]:
        async with CacheService[str](redis_settings(server.port, "cancel:")) as cache:
            source = Source()
            source.opened.clear()
            calls = [asyncio.create_task(cache.get_or_load("k", source)) for _ in range(10)]
            await source.entered.wait()
            calls[0].cancel()
            await asyncio.sleep(0)
            source.opened.set()
            results = await asyncio.gather(*calls, return_exceptions=True)
            return [type(each).__name__ for each in results], source.loads

    assert asyncio.run(run()) == (["CancelledError"] + ["str"] * 9, 1)


def test_waiters_are_woken_by_the_push_and_ask_redis_nothing_meanwhile(server: RedisServer) -> None:
    """While one replica loads, the waiting one sends no command for the key."""

    async def run() -> tuple[object, bool]:
        settings = redis_settings(server.port, "push:", delta_us=60_000_000)
        async with CacheService[str](settings) as loader, CacheService[str](settings) as waiter:
            source = Source()
            source.opened.clear()
            loading = asyncio.create_task(loader.get_or_load("k", source))
            await source.entered.wait()
            waiting = asyncio.create_task(waiter.get_or_load("k", source))
            await eventually(lambda: waiter.stats().leases_waited == 1, "the second replica waits")
            began = time.monotonic()
            await asyncio.sleep(0.3)
            asked_again = waiter.stats().leases_waited - 1
            # Each time that the holder prolongs its lease is news of it too.
            prolonged = 1 + int((time.monotonic() - began) * 1e6 / (DEFAULT_LEASE_US / 2))
            source.opened.set()
            await loading
            return await waiting, asked_again <= prolonged

    assert asyncio.run(run()) == ("value", True)


def test_a_failed_load_lets_another_replica_load_at_once(server: RedisServer) -> None:
    """The holder's source fails; the waiter is woken and loads from its own."""

    async def run() -> tuple[str, object]:
        settings = redis_settings(server.port, "fail:")
        async with CacheService[str](settings) as first, CacheService[str](settings) as second:
            broken, good = Source(), Source("good")
            broken.opened.clear()
            broken.error = OSError("broken")
            failing = asyncio.create_task(first.get_or_load("k", broken))
            await broken.entered.wait()
            waiting = asyncio.create_task(second.get_or_load("k", good))
            await eventually(lambda: second.stats().leases_waited == 1, "the second replica waits")
            broken.opened.set()
            with pytest.raises(OSError, match="broken"):
                await failing
            return "loaded", await waiting

    assert asyncio.run(run()) == ("loaded", "good")


def test_a_crashed_holder_delays_others_by_its_lease_and_cannot_store_any_more(server: RedisServer) -> None:
    """A holder that never comes back: its lease ends, another loads, and the late value is refused."""

    async def run() -> tuple[object, bool, object]:
        settings = redis_settings(server.port, "crash:")
        crashed = _level(server, "crash:")
        await crashed.start()
        async with CacheService[str](settings) as cache:
            lease = await crashed.lease("k", lease_us=300_000)
            assert isinstance(lease, Granted)
            value = await cache.get_or_load("k", Source("new"))
            stored = await crashed.fill("k", lease, b"late", lifetime_us=60_000_000)
            await crashed.close()
            return value, stored, await cache.get("k")

    assert asyncio.run(run()) == ("new", False, "new")


def test_fences_grow_and_a_prolonged_lease_keeps_others_out(server: RedisServer) -> None:
    """One holder at a time; each later lease of a key has a greater fence."""

    async def run() -> tuple[bool, bool, bool, bool]:
        first, second = _level(server, "fence:"), _level(server, "fence:")
        await first.start()
        await second.start()
        one = await first.lease("k", lease_us=10_000_000)
        assert isinstance(one, Granted)
        is_taken = isinstance(await second.lease("k", lease_us=10_000_000), Taken)
        prolonged = await first.prolong("k", one, lease_us=10_000_000)
        assert await first.release("k", one)
        two = await second.lease("k", lease_us=10_000_000)
        assert isinstance(two, Granted)
        is_late = await first.prolong("k", one, lease_us=10_000_000)
        await first.close()
        await second.close()
        return is_taken, prolonged, is_late, two.fence > one.fence

    assert asyncio.run(run()) == (True, True, False, True)


def test_a_redis_that_stands_still_costs_the_timeout_a_few_times_and_then_nothing(server: RedisServer) -> None:
    """Redis stops answering: callers are served by the source, the level is passed over, and comes back by itself."""

    async def run() -> tuple[list[str | None], bool]:
        with running_server() as own:
            settings = redis_settings(own.port, command_ms=100)
            async with CacheService[str](settings) as cache:
                await cache.set("before", "v")
                own.stop()
                values = [await cache.get_or_load(f"k{number}", Source(f"v{number}")) for number in range(6)]
                was_down = not cache.health().levels["l2"].up
                own.go_on()

                async def is_back() -> bool:
                    await cache.set("after", "v")
                    return cache.health().levels["l2"].up and await cache.get("after") == "v"

                await eventually(is_back, "the level is back")
                return values, was_down

    assert asyncio.run(run()) == ([f"v{number}" for number in range(6)], True)


def test_absence_is_remembered_on_every_replica(server: RedisServer) -> None:
    """A source without a value is asked once; the other replica learns it from Redis."""

    async def run() -> tuple[object, object, int]:
        settings = redis_settings(server.port, "none:", negative_ttl_us=60_000_000)
        async with CacheService[str](settings) as first, CacheService[str](settings) as second:
            source = Source(None)
            got = await first.get_or_load("k", source), await second.get_or_load("k", source)
            return (*got, source.loads)

    assert asyncio.run(run()) == (None, None, 1)


def test_an_early_refresh_is_done_by_one_replica(server: RedisServer) -> None:
    """At the end of a value's life readers of two replicas begin to load anew: one load, and no reader waits."""

    async def run() -> tuple[set[object], int]:
        settings = redis_settings(server.port, "early:", ttl_us=1_500_000, early_refresh_percent=90)
        async with CacheService[str](settings) as first, CacheService[str](settings) as second:
            source = Source()
            seen: set[object] = set()

            async def read() -> bool:
                seen.add(await first.get_or_load("k", source))
                seen.add(await second.get_or_load("k", source))
                return source.loads >= 2

            await eventually(read, "the value was loaded anew")
            early = first.stats().counts["early_refreshes"] + second.stats().counts["early_refreshes"]
            return seen, min(early, 1)

    assert asyncio.run(run()) == ({"value"}, 1)


@contextlib.contextmanager
def _replicas(port: int, *seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes whose loads take so long each."""
    paths = os.pathsep.join(each for each in sys.path if each)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "support.cache_replica", str(port), str(each)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        for each in seconds
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_three_processes_cause_one_load() -> None:
    """Whoever is first loads; all three print that load's value."""
    with running_server() as own, _replicas(own.port, 0.5, 0.5, 0.5) as processes:
        lines = [process.communicate(timeout=60)[0].split("\n") for process in processes]
        loads = own.cli("GET", "loads")

    assert sorted(line for each in lines for line in each if line) == ["load 1", "load 1", "load 1", "loading"]
    assert loads == "1"


@pytest.mark.slow
def test_a_killed_holder_is_replaced_by_exactly_one_other_process() -> None:
    """The process that loads is killed by SIGKILL: one of the two that wait loads, and both have its value."""
    with running_server() as own, _replicas(own.port, 600) as (holder,):
        assert holder.stdout is not None
        assert holder.stdout.readline() == "loading\n"
        with _replicas(own.port, 0.1, 0.1) as waiting:
            holder.kill()
            lines = [process.communicate(timeout=60)[0].split("\n") for process in waiting]
        loads = own.cli("GET", "loads")

    assert sorted(line for each in lines for line in each if line) == ["load 2", "load 2", "loading"]
    assert loads == "2"
