"""Several caches on one real Redis: nobody keeps an old value, and nobody serves one for longer than Δ."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ratelimit_service.cache.coherence import InvalidationMetadata
from ratelimit_service.cache.health import HealthStatus
from ratelimit_service.cache.service import CacheService
from ratelimit_service.policy.profile_model import CoherenceMode
from support.caches import DELTA_US, Source, eventually, redis_settings
from support.fault_proxy import FaultProxy, Way
from support.redis_servers import RedisOptions, RedisServer, running_server

MODES = (CoherenceMode.TRACKING, CoherenceMode.PUB_SUB)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_server() as running:
        yield running


def _is_back(cache: CacheService[Any], losses: int) -> bool:
    return cache.stats().l2_losses == losses and cache.health().status is HealthStatus.HEALTHY


@pytest.mark.parametrize("mode", MODES)
def test_a_read_that_races_a_foreign_write_is_never_stale_for_ever(server: RedisServer, mode: CoherenceMode) -> None:
    """Reads race the writes of another replica; afterwards every key of the reader is the writer's (0 of 200)."""

    async def run() -> list[str]:
        settings = redis_settings(server.port, f"race{mode.value}:", mode=mode)
        async with CacheService[str](settings) as reader, CacheService[str](settings) as writer:
            keys = [f"r{each}" for each in range(200)]
            for key in keys:
                await writer.set(key, "old")
                await asyncio.gather(reader.get(key), writer.set(key, "new"), reader.get(key))
            await asyncio.sleep(2 * DELTA_US / 1e6)
            return [key for key in keys if await reader.get(key) != "new"]

    assert asyncio.run(run()) == []


@pytest.mark.parametrize("mode", MODES)
def test_two_writers_at_once_leave_all_replicas_with_one_value(server: RedisServer, mode: CoherenceMode) -> None:
    """Two replicas write the same keys at the same time; a moment later both, and a third, agree on each."""

    async def run() -> list[str]:
        settings = redis_settings(server.port, f"both{mode.value}:", mode=mode)
        async with (
            CacheService[str](settings) as first,
            CacheService[str](settings) as second,
            CacheService[str](settings) as third,
        ):
            keys = [f"c{each}" for each in range(200)]
            for key in keys:
                await asyncio.gather(first.set(key, "A"), second.set(key, "B"), third.get(key))
            await asyncio.sleep(2 * DELTA_US / 1e6)
            return [key for key in keys if len({await each.get(key) for each in (first, second, third)}) != 1]

    assert asyncio.run(run()) == []


def test_two_tasks_of_one_replica_that_write_a_key_leave_the_value_that_redis_has(server: RedisServer) -> None:
    """Which of two writes of one process Redis has last is what memory serves."""

    async def run() -> list[str]:
        settings = redis_settings(server.port, "own:")
        async with CacheService[str](settings) as cache, CacheService[str](settings) as other:
            keys = [f"o{each}" for each in range(100)]
            for key in keys:
                await asyncio.gather(cache.set(key, "A"), cache.get(key), cache.set(key, "B", tags=("t",)))
            return [key for key in keys if await cache.get(key) != await other.get(key)]

    assert asyncio.run(run()) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_value_is_never_served_past_delta_after_it_was_replaced(server: RedisServer, mode: CoherenceMode) -> None:
    """A writer counts up; every read of another replica is at least what had been written Δ before it began."""

    async def run() -> list[tuple[int, int]]:
        settings = redis_settings(server.port, f"delta{mode.value}:", mode=mode, delta_us=50_000)
        written: list[tuple[float, int]] = []
        too_old: list[tuple[int, int]] = []
        async with CacheService[int](settings) as writer, CacheService[int](settings) as reader:
            await writer.set("n", 0)

            async def write() -> None:
                for number in range(1, 150):
                    await writer.set("n", number)
                    written.append((time.monotonic(), number))
                    await asyncio.sleep(0.003)

            async def read() -> None:
                while len(written) < 149:
                    began = time.monotonic()
                    got = await reader.get("n")
                    least = max((number for at, number in written if at < began - 0.05), default=0)
                    too_old.extend([(got or 0, least)] * ((got or 0) < least))
                    await asyncio.sleep(0)

            await asyncio.gather(write(), read())
        return too_old

    assert asyncio.run(run()) == []


def test_a_load_that_races_an_invalidation_does_not_put_the_old_value_back(server: RedisServer) -> None:
    """The source is read, another replica writes and deletes, and only then the load ends: nobody caches its value."""

    async def run() -> tuple[object, object, int]:
        settings = redis_settings(server.port, "late:")
        async with CacheService[str](settings) as loader, CacheService[str](settings) as other:
            source = Source("old")
            source.opened.clear()
            load = asyncio.create_task(loader.get_or_load("k", source))
            await source.entered.wait()
            await other.delete("k")
            source.opened.set()
            assert await load == "old"
            return await loader.get("k"), await other.get("k"), loader.stats().counts["fenced_out"]

    assert asyncio.run(run()) == (None, None, 1)


def test_what_a_replica_holds_is_dropped_when_redis_is_flushed() -> None:
    """FLUSHALL empties every replica's memory too."""

    async def run() -> object:
        with running_server() as own:
            settings = redis_settings(own.port)
            async with CacheService[str](settings) as cache:
                await cache.set("k", "v")
                own.cli("FLUSHALL")
                await eventually(lambda: not cache.is_held("k"), "memory has dropped the key")
                return await cache.get("k")

    assert asyncio.run(run()) is None


def test_a_write_during_a_lost_connection_is_seen_after_it(server: RedisServer) -> None:
    """The reader's link is cut, the key is written meanwhile: no hole when the link is back."""

    async def run() -> object:
        async with FaultProxy(server.port) as proxy:
            writer_settings = redis_settings(server.port, "hole:")
            reader_settings = redis_settings(proxy.port, "hole:")
            async with CacheService[str](writer_settings) as writer, CacheService[str](reader_settings) as reader:
                await writer.set("k", "old")
                assert await reader.get("k") == "old"
                proxy.refuse()
                await eventually(lambda: not reader.health().levels["l2"].up, "the reader knows that Redis is away")
                await writer.set("k", "new")
                proxy.heal()
                await eventually(lambda: reader.health().levels["l2"].up, "the reader is connected again")
                return await reader.get("k")

    assert asyncio.run(run()) == "new"


def test_a_killed_client_connects_again_and_serves_what_is_true(server: RedisServer) -> None:
    """CLIENT KILL of every connection, over and over, while another writes: at the end the replicas agree."""

    async def run() -> list[str]:
        settings = redis_settings(server.port, "kill:")
        async with CacheService[int](settings) as reader, CacheService[int](settings) as writer:
            for round_number in range(5):
                for key in range(10):
                    await asyncio.gather(writer.set(f"k{key}", round_number), reader.get(f"k{key}"))
                server.cli("CLIENT", "KILL", "TYPE", "normal")
                for each in (reader, writer):
                    await eventually(functools.partial(_is_back, each, round_number + 1), "it is connected again")
            for key in range(10):
                await writer.set(f"k{key}", 99)
            await asyncio.sleep(2 * DELTA_US / 1e6)
            return [f"k{key}" for key in range(10) if await reader.get(f"k{key}") != 99]

    assert asyncio.run(run()) == []


def test_what_is_deleted_while_redis_is_away_is_gone_when_it_is_back(server: RedisServer) -> None:
    """Redis is not told of a deletion; the replica owes it, and pays before it reads there again."""

    async def run() -> tuple[bool, int, object, object]:
        async with FaultProxy(server.port) as proxy:
            settings = redis_settings(proxy.port, "owed:")
            async with (
                CacheService[str](settings) as cache,
                CacheService[str](redis_settings(server.port, "owed:")) as other,
            ):
                await cache.set("k", "v")
                await cache.set("tagged", "v", tags=("t",))
                await cache.set("below:1", "v")
                proxy.refuse()
                await eventually(lambda: not cache.health().levels["l2"].up, "it knows that Redis is away")
                reached = (await cache.invalidate("k", InvalidationMetadata(reason="logout", tags=("t",)))).reached
                await cache.invalidate_prefix("below:")
                owed = cache.stats().coherency.owed
                assert await cache.get("k") is None
                proxy.heal()
                await eventually(lambda: cache.health().owed == 0 and cache.health().levels["l2"].up, "it has paid")
                await asyncio.sleep(2 * DELTA_US / 1e6)
                found = await other.get_many(["k", "tagged", "below:1"])
                return reached, owed, found, await cache.get_many(["k", "tagged", "below:1"])

    assert asyncio.run(run()) == (False, 3, {}, {})


@pytest.mark.parametrize("mode", MODES)
def test_tags_and_prefixes_void_values_on_every_replica(server: RedisServer, mode: CoherenceMode) -> None:
    """One replica invalidates a tag and a prefix; another no longer serves what they are about, and keeps the rest."""

    async def run() -> dict[str, int]:
        settings = redis_settings(server.port, f"tags{mode.value}:", mode=mode)
        async with CacheService[int](settings) as first, CacheService[int](settings) as second:
            await first.set_many({"a:1": 1, "a:2": 2, "b:1": 3, "b:2": 4})
            await first.set("c:1", 5, tags=("red", "blue"))
            await first.set("c:2", 6, tags=("blue",))
            keys = ["a:1", "a:2", "b:1", "b:2", "c:1", "c:2"]
            assert len(await second.get_many(keys)) == 6
            await first.invalidate_tag("red")
            await first.invalidate_prefix("a:")
            await asyncio.sleep(2 * DELTA_US / 1e6)
            return await second.get_many(keys)

    assert asyncio.run(run()) == {"b:1": 3, "b:2": 4, "c:2": 6}


def test_a_load_that_began_before_its_tag_was_invalidated_is_void(server: RedisServer) -> None:
    """The tag moves on during the load: the value is returned to who asked, and not served again."""

    async def run() -> object:
        settings = redis_settings(server.port, "tagload:")
        async with CacheService[str](settings) as cache, CacheService[str](settings) as other:
            source = Source("old")
            source.opened.clear()
            load = asyncio.create_task(cache.get_or_load("k", source, tags=("t",)))
            await source.entered.wait()
            await other.invalidate_tag("t")
            source.opened.set()
            await load
            return await cache.get("k"), await other.get("k")

    assert asyncio.run(run()) == (None, None)


def test_many_invalidated_prefixes_void_more_rather_than_less(server: RedisServer) -> None:
    """Beyond the number of prefixes that are kept apart, the oldest are merged; none is forgotten."""

    async def run() -> tuple[object, object]:
        settings = redis_settings(server.port, "many:")
        async with CacheService[int](settings) as cache, CacheService[int](settings) as other:
            await cache.set("group0:x", 1)
            for number in range(70):
                await cache.invalidate_prefix(f"group{number}:")
            await cache.set("group0:y", 2)
            return await other.get("group0:x"), await other.get("group0:y")

    assert asyncio.run(run()) == (None, 2)


def test_where_tracking_is_refused_changes_are_heard_by_pub_sub() -> None:
    """A user who may not CLIENT TRACKING gets the fallback, health says so, and the replicas still agree."""

    async def run() -> tuple[str, HealthStatus, object]:
        with running_server() as own:
            own.cli("ACL", "SETUSER", "default", "-client|tracking")
            settings = redis_settings(own.port)
            async with CacheService[str](settings) as first, CacheService[str](settings) as second:
                await first.set("k", "old")
                assert await second.get("k") == "old"
                await first.set("k", "new")
                await asyncio.sleep(2 * DELTA_US / 1e6)
                health = second.health()
                return health.coherence, health.status, await second.get("k")

    assert asyncio.run(run()) == ("PubSub", HealthStatus.DEGRADED, "new")


def test_by_lifetime_alone_a_value_is_read_again_after_delta(server: RedisServer) -> None:
    """In mode TTL nothing is heard; what is in memory is served for Δ."""

    async def run() -> object:
        settings = redis_settings(server.port, "ttl:", mode=CoherenceMode.TTL, delta_us=50_000)
        async with CacheService[str](settings) as first, CacheService[str](settings) as second:
            await first.set("k", "old")
            assert await second.get("k") == "old"
            await first.set("k", "new")
            await asyncio.sleep(0.1)
            return await second.get("k")

    assert asyncio.run(run()) == "new"


def test_a_login_and_keys_of_any_text_work() -> None:
    """User and password are redis-py's affair; keys may hold braces, percent signs and nothing at all."""
    keys = ["", "}", "{a}b", "%7D", "100%", "ключ", "a}b%25"]

    async def run() -> dict[str, int]:
        with running_server(RedisOptions(user="tide", password="s3cret:/@")) as own:
            settings = redis_settings(own.port, login="tide:s3cret%3A%2F%40@")
            async with CacheService[int](settings) as first, CacheService[int](settings) as second:
                await first.set_many({key: number for number, key in enumerate(keys)})
                return await second.get_many(keys)

    assert asyncio.run(run()) == {key: number for number, key in enumerate(keys)}


def test_behind_a_link_that_stalls_nothing_is_served_past_delta(server: RedisServer) -> None:
    """Pushes are held up on the way: the reader hears nothing, knows that, and serves nothing old."""

    async def run() -> tuple[object, object, object]:
        async with FaultProxy(server.port) as proxy:
            writer_settings = redis_settings(server.port, "stall:")
            reader_settings = redis_settings(proxy.port, "stall:", delta_us=50_000, command_ms=300)
            async with CacheService[str](writer_settings) as writer, CacheService[str](reader_settings) as reader:
                await writer.set("k", "old")
                before = await reader.get("k")
                proxy.hold(Way.TO_CLIENT)
                await writer.set("k", "new")
                await asyncio.sleep(0.1)
                during = await reader.get_or_load("k", Source("from the source"))
                proxy.heal()

                async def is_new() -> bool:
                    return await reader.get("k") == "new"

                await eventually(is_new, "the reader has caught up")
                return before, during, await reader.get("k")

    before, during, after = asyncio.run(run())

    assert during == "from the source"
    assert (before, after) in {("old", "new"), (None, "new")}
