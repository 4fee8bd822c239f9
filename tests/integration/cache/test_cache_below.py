"""What lies in Redis may be damaged, old, or gone while it is asked for: callers get values, and never wrong ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ratelimit_service.cache.coherence import CacheCoherencyManager, InvalidationMetadata
from ratelimit_service.cache.errors import LevelUnavailable, UnencodableValue
from ratelimit_service.cache.fences import FencedLeases, WaitBoard
from ratelimit_service.cache.health import HealthStatus
from ratelimit_service.cache.l2.answers import Found, Granted, Taken
from ratelimit_service.cache.l2.level import RedisLevel
from ratelimit_service.cache.loads import LoadOptions
from ratelimit_service.cache.serialisers import JsonCodec
from ratelimit_service.cache.service import CacheService
from ratelimit_service.clock import Clock
from ratelimit_service.policy.profile_model import CoherenceMode
from support.caches import DELTA_US, Source, eventually, redis_settings
from support.fault_proxy import FaultProxy
from support.redis_servers import RedisOptions, RedisServer, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_server() as running:
        yield running


def test_damaged_payloads_are_misses_and_are_replaced_by_the_next_load(server: RedisServer) -> None:
    """Bytes of somebody else, and of another codec: counted, loaded anew, and then served."""

    async def run() -> tuple[object, object, object, int, object]:
        settings = redis_settings(server.port, "bad:")
        async with (
            CacheService[Any](settings) as cache,
            CacheService[Any](settings, codec=JsonCodec()) as other_codec,
        ):
            server.cli("SET", "bad:c:v:{k}", "no envelope")
            missed = await cache.get("k")
            loaded = await cache.get_or_load("k", Source("v"))
            foreign = await other_codec.get("k")
            replaced = await other_codec.get_or_load("k", Source("w"))
            await asyncio.sleep(2 * DELTA_US / 1e6)
            return missed, foreign, (loaded, replaced), cache.stats().counts["corrupt"], await cache.get("k")

    missed, foreign, loaded, corrupt, last = asyncio.run(run())

    assert (missed, foreign, loaded, last) == (None, None, ("v", "w"), None)
    assert corrupt >= 2


def test_a_stale_value_in_redis_serves_a_new_replica_while_loading_fails(server: RedisServer) -> None:
    """It is not fresh, so `get` does not give it; it stands in for the failing source, until its window ends."""

    async def run() -> tuple[object, object]:
        settings = redis_settings(server.port, "stale:", ttl_us=1_000, stale_on_error_us=600_000_000)
        async with CacheService[str](settings) as first:
            await first.set("k", "old")
        await asyncio.sleep(0.01)
        async with CacheService[str](settings) as second:
            source = Source()
            source.error = OSError("down")
            return await second.get("k"), await second.get_or_load("k", source)

    assert asyncio.run(run()) == (None, "old")


def test_what_cannot_be_encoded_is_kept_in_memory_only(server: RedisServer) -> None:
    """A loaded object is served from here; a set says that Redis cannot take it."""

    async def run() -> tuple[bool, int, object]:
        settings = redis_settings(server.port, "object:")
        async with CacheService[Any](settings) as cache, CacheService[Any](settings) as other:
            thing = object()
            source = Source(thing)
            first, second = await cache.get_or_load("k", source), await cache.get_or_load("k", source)
            with pytest.raises(UnencodableValue):
                await cache.set("k", object())
            return first is second is thing, source.loads, await other.get("k")

    assert asyncio.run(run()) == (True, 1, None)


def test_without_redis_loads_are_served_for_delta_and_tagged_ones_not_kept(server: RedisServer) -> None:
    """Nobody tells when they change, so they are not served for longer than any other value may be behind."""

    async def run(delta_us: int) -> tuple[int, int]:
        async with FaultProxy(server.port) as proxy:
            settings = redis_settings(proxy.port, "away:", delta_us=delta_us)
            async with CacheService[str](settings) as cache:
                proxy.refuse()
                await eventually(lambda: not cache.health().levels["l2"].up, "it knows that Redis is away")
                plain, tagged = Source(), Source()
                for _ in range(2):
                    await cache.get_or_load("plain", plain)
                    await cache.get_or_load("tagged", tagged, tags=("t",))
                    await asyncio.sleep(0.05)
                await cache.set("set", "v")
                await cache.set("tagged set", "v", tags=("t",))
                assert await cache.get("tagged set") is None
                return plain.loads, tagged.loads

    assert asyncio.run(run(60_000_000)) == (1, 2)
    assert asyncio.run(run(10_000)) == (2, 2)


def test_scripts_that_redis_has_forgotten_are_sent_again(server: RedisServer) -> None:
    """SCRIPT FLUSH, or a restart, costs one more round trip."""

    async def run() -> object:
        async with CacheService[str](redis_settings(server.port, "scripts:")) as cache:
            server.cli("SCRIPT", "FLUSH")
            await cache.set("k", "v")
            return await cache.get("k")

    assert asyncio.run(run()) == "v"


def test_a_server_without_resp3_is_heard_by_pub_sub() -> None:
    """HELLO is unknown, as before Redis 6 and behind some proxies."""

    async def run() -> tuple[str, HealthStatus, object]:
        with running_server(RedisOptions(config=(("rename-command", 'HELLO ""'),))) as own:
            settings = redis_settings(own.port)
            async with CacheService[str](settings) as first, CacheService[str](settings) as second:
                await first.set("k", "old")
                await second.get("k")
                await first.set("k", "new")
                await asyncio.sleep(2 * DELTA_US / 1e6)
                return second.health().coherence, second.health().status, await second.get("k")

    assert asyncio.run(run()) == ("PubSub", HealthStatus.DEGRADED, "new")


@pytest.mark.slow
def test_a_link_on_which_nothing_is_answered_is_given_up_and_made_anew() -> None:
    """Redis stands still for seconds: the link is dropped; once Redis goes on the level is back."""

    async def run() -> int:
        with running_server() as own:
            async with CacheService[str](redis_settings(own.port, command_ms=50)) as cache:
                await cache.set("k", "old")
                own.stop()

                async def is_dropped() -> bool:
                    await cache.get("k")
                    return cache.stats().l2_losses > 0

                await eventually(is_dropped, "the link is given up")
                own.go_on()

                async def is_back() -> bool:
                    await cache.set("k", "new")
                    return cache.health().status is HealthStatus.HEALTHY and await cache.get("k") == "new"

                await eventually(is_back, "the level is back")
                return cache.stats().l2_losses

    assert asyncio.run(run()) >= 1


class _NoNews:
    def keys_changed(self, names: list[bytes] | None) -> None:
        pass

    def epoch_ended(self) -> None:
        pass


def test_a_wait_for_a_lease_has_a_deadline_and_a_held_one_is_prolonged(server: RedisServer) -> None:
    """A living holder keeps its lease for as long as it loads; who will not wait longer is told so."""
    clock = Clock()

    def now_us() -> int:
        return clock.read().boot_us

    async def run() -> tuple[bool, bool, bool, bool]:
        settings = redis_settings(server.port, "wait:")
        assert settings.redis is not None
        level = RedisLevel(settings.redis, _NoNews(), now_us)
        await level.start()
        leases = FencedLeases(level, WaitBoard(), now_us, lease_us=200_000)
        try:
            lease = await leases.acquire("k", unfit=None, deadline_us=now_us(), before_asking=lambda: None)
            assert isinstance(lease, Granted)
            async with leases.holding("k", lease):
                other = await leases.acquire("k", unfit=None, deadline_us=now_us(), before_asking=lambda: None)
                later = await leases.acquire(
                    "k", unfit=None, deadline_us=now_us() + 600_000, before_asking=lambda: None
                )
            is_stored = await level.fill("k", lease, b"payload", lifetime_us=60_000_000)
            found = await leases.acquire("k", unfit=None, deadline_us=now_us(), before_asking=lambda: None)
            return isinstance(other, Taken), isinstance(later, Taken), is_stored, isinstance(found, Found)
        finally:
            await level.close()

    assert asyncio.run(run()) == (True, True, True, True)


def test_a_refresh_finds_what_another_replica_has_refreshed(server: RedisServer) -> None:
    """Both are near the end of a value's life: the second takes the value of the first."""

    async def run() -> tuple[int, object]:
        settings = redis_settings(server.port, "twice:", early_refresh_percent=100)
        async with CacheService[str](settings) as first, CacheService[str](settings) as second:
            source = Source("old")
            await first.get_or_load("k", source)
            await second.get("k")
            source.value = "new"
            await first._sourcing.refresh("k", source, LoadOptions())
            loads = source.loads
            lease = await second._redis.lease("x", lease_us=1_000_000)  # type: ignore[union-attr]
            assert isinstance(lease, Granted)
            held = await second._sourcing.refresh("x", source, LoadOptions())
            assert held is None
            return loads, await second.get("k")

    assert asyncio.run(run()) == (2, "new")


def test_a_level_that_is_closed_refuses_every_command(server: RedisServer) -> None:
    """And says that it is closed."""

    async def run() -> bytes | None:
        settings = redis_settings(server.port, "closed:")
        assert settings.redis is not None
        level = RedisLevel(settings.redis, _NoNews(), lambda: 0)
        await level.start()
        await level.store("k", b"payload", lifetime_us=60_000_000)
        payload = await level.read("k")
        await level.close()
        with pytest.raises(LevelUnavailable, match="closed"):
            await level.read("k")
        return payload

    assert asyncio.run(run()) == b"payload"


def test_the_coherency_manager_works_alone(server: RedisServer) -> None:
    """Without a cache around it: it carries invalidations, names their reasons, and says how far behind it is."""
    clock = Clock()

    async def run() -> tuple[bool, int, dict[str, int], bool, list[str]]:
        settings = redis_settings(server.port, "alone:")
        assert settings.redis is not None
        dropped: list[str] = []
        manager = CacheCoherencyManager(now_us=lambda: clock.read().boot_us, delta_us=DELTA_US, drop=dropped.append)
        level = RedisLevel(settings.redis, manager, lambda: clock.read().boot_us, delta_us=DELTA_US)
        manager.attach(level)
        await level.start()
        await level.store("k", b"payload", lifetime_us=60_000_000)
        done = await manager.invalidate_with_coherency("k", InvalidationMetadata(reason="logout", tags=("t",)))
        assert await manager.catch_up(("t",))
        stats = manager.stats()
        await manager.close()
        await level.close()
        return done.reached, done.removed, dict(stats.by_reason), stats.behind_us is not None, sorted(set(dropped))

    assert asyncio.run(run()) == (True, 1, {"logout": 1}, True, ["k"])


def test_a_user_who_may_not_ask_for_the_role_is_served_all_the_same() -> None:
    """The barrier is answered by a refusal, which is an answer."""

    async def run() -> tuple[str, object]:
        with running_server() as own:
            own.cli("ACL", "SETUSER", "default", "-role")
            settings = redis_settings(own.port)
            async with CacheService[str](settings) as first, CacheService[str](settings) as second:
                await first.set("k", "old")
                await second.get("k")
                await first.set("k", "new")
                await asyncio.sleep(2 * DELTA_US / 1e6)
                return second.health().coherence, await second.get("k")

    assert asyncio.run(run()) == ("Tracking", "new")


def test_a_user_who_may_not_subscribe_is_named() -> None:
    """Without tracking and without the channel nothing would be heard, so the level stays down and says why."""

    async def run() -> tuple[bool, str]:
        with running_server() as own:
            own.cli("ACL", "SETUSER", "default", "-client|tracking", "-subscribe")
            async with CacheService[str](redis_settings(own.port)) as cache:
                level = cache.health().levels["l2"]
                return level.up, level.reason

    is_up, reason = asyncio.run(run())

    assert not is_up
    assert "NOPERM" in reason


def test_a_mode_in_which_nothing_is_heard_still_follows_its_own_writes(server: RedisServer) -> None:
    """By lifetime alone: a level that timed out comes back by a barrier on the data link."""

    async def run() -> tuple[object, str]:
        settings = redis_settings(server.port, "ttlmode:", mode=CoherenceMode.TTL)
        async with CacheService[str](settings) as cache:
            await cache.set("k", "v")
            await cache.invalidate_tag("t")
            return await cache.get("k"), cache.health().coherence

    assert asyncio.run(run()) == ("v", "TTL")
