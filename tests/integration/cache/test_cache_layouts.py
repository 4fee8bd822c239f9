"""The cache over Sentinel, Cluster and TLS, and with a disk below Redis."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.cache.health import HealthStatus
from ratelimit_service.cache.profiles import CacheSettings, DiskSettings
from ratelimit_service.cache.service import CacheService
from ratelimit_service.policy.profile_model import CoherenceMode
from ratelimit_service.redis_server.address import parse_store_url
from ratelimit_service.redis_server.slots import slot_of
from support.caches import DELTA_US, Source, eventually, redis_settings
from support.redis_servers import RedisOptions, running_cluster, running_sentinels, running_server

OPTIONS = "connect_timeout=10s&command_timeout=10s"


def over(url: str, *, mode: CoherenceMode = CoherenceMode.TRACKING) -> CacheSettings:
    """A cache over a store's address."""
    return CacheSettings(redis=parse_store_url(f"{url}?{OPTIONS}"), mode=mode, delta_us=DELTA_US)


def _has_followed(cache: CacheService[Any]) -> bool:
    return cache.stats().l2_losses > 0 and _is_well(cache)


def _is_well(cache: CacheService[Any]) -> bool:
    return cache.health().status is HealthStatus.HEALTHY


@pytest.mark.slow
def test_a_failover_by_sentinel_is_followed() -> None:
    """The replica becomes the master: the caches connect to it by themselves, and agree again."""

    async def run() -> tuple[object, object, object]:
        with running_sentinels() as setup:
            hosts = ",".join(each.endpoint for each in setup.sentinels)
            settings = over(f"redis+sentinel://{hosts}/{setup.master_name}")
            async with CacheService[str](settings) as first, CacheService[str](settings) as second:
                await first.set("k", "old")
                before = await second.get("k")
                await asyncio.to_thread(setup.fail_over)
                for each in (first, second):
                    await eventually(functools.partial(_has_followed, each), "it has followed")

                async def agree() -> bool:
                    await first.set("k", "new")
                    return await second.get("k") == "new"

                await eventually(agree, "a write of one is read by the other")
                return before, await first.get("k"), await second.get("k")

    assert asyncio.run(run()) == ("old", "new", "new")


@pytest.mark.slow
def test_a_cluster_is_read_and_heard_on_every_master() -> None:
    """Keys of all three masters, leases, tags and prefixes; then a master crashes and its replica takes over."""
    keys = [f"k{number}" for number in range(30)]

    async def run() -> tuple[int, list[str], list[str], int]:
        with running_cluster() as setup:
            settings = over(f"redis+cluster://{setup.servers[0].endpoint},{setup.servers[1].endpoint}")
            async with CacheService[Any](settings) as first, CacheService[Any](settings) as second:
                assert _is_well(first)
                await first.set_many(dict.fromkeys(keys, "old"))
                found = len(await second.get_many(keys))
                await first.set_many(dict.fromkeys(keys, "new"))
                await asyncio.sleep(2 * DELTA_US / 1e6)
                stale = [key for key in keys if await second.get(key) != "new"]
                source = Source("loaded")
                await asyncio.gather(
                    *(cache.get_or_load(f"{key}x", source, tags=("t",)) for cache in (first, second) for key in keys)
                )
                await second.invalidate_tag("t")
                await second.invalidate_prefix("k1")
                await asyncio.sleep(2 * DELTA_US / 1e6)
                left = list(await first.get_many([*keys, *(f"{key}x" for key in keys)]))
                owner = setup.owner_of(slot_of(first._redis.space.value("k0")))  # type: ignore[union-attr]
                owner.kill()
                await eventually(lambda: first.stats().l2_losses > 0, "the loss is noticed")
                await eventually(lambda: _is_well(first) and _is_well(second), "the replica has taken over")

                async def agree() -> bool:
                    await first.set_many(dict.fromkeys(keys, "last"))
                    return set((await second.get_many(keys)).values()) == {"last"}

                await eventually(agree, "writes of one are read by the other, on all masters")
                return found, stale, left, source.loads

    found, stale, left, loads = asyncio.run(run())

    assert (found, stale, loads) == (30, [], 30)
    assert left == [key for key in keys if not key.startswith("k1")]


@pytest.mark.slow
def test_a_slot_that_moves_is_followed() -> None:
    """A key's slot goes to another master: it is found there, and its changes are heard."""

    async def run() -> tuple[object, object]:
        with running_cluster() as setup:
            settings = over(f"redis+cluster://{setup.servers[0].endpoint}")
            async with CacheService[str](settings) as first, CacheService[str](settings) as second:
                await first.set("k", "old")
                assert await second.get("k") == "old"
                slot = slot_of(first._redis.space.value("k"))  # type: ignore[union-attr]
                owner = setup.owner_of(slot)
                target = next(each for each in setup.servers[:3] if each is not owner)
                await asyncio.to_thread(setup.move_slot, slot, target)

                async def agree() -> bool:
                    await first.set("k", "new")
                    return await second.get("k") == "new" and first.health().owed == 0

                await eventually(agree, "a write of one is read by the other")
                await asyncio.sleep(2 * DELTA_US / 1e6)
                return await first.get("k"), await second.get("k")

    assert asyncio.run(run()) == ("new", "new")


def test_a_link_over_tls_with_certificates_on_both_sides() -> None:
    """Handshake, trust and login are redis-py's; reading is ours."""

    async def run() -> tuple[object, str]:
        with running_server(RedisOptions(tls=True, client_certs=True)) as own:
            files = own.certificates
            assert files is not None
            tls = f"ca={files.ca}&cert={files.cert}&key={files.key}"
            url = f"rediss://127.0.0.1:{own.port}?{tls}&{OPTIONS}"
            settings = CacheSettings(redis=parse_store_url(url), delta_us=DELTA_US)
            async with CacheService[str](settings) as first, CacheService[str](settings) as second:
                await first.set("k", "v")
                return await second.get("k"), second.health().coherence

    assert asyncio.run(run()) == ("v", "Tracking")


@pytest.mark.parametrize("login", ["", "tide:wrong@"])
def test_a_redis_that_refuses_the_login_is_named_and_passed_over(login: str) -> None:
    """The cache works without; the reason says what Redis said, and not the password."""

    async def run() -> tuple[object, bool, str]:
        with running_server(RedisOptions(user="tide", password="right")) as own:
            async with CacheService[str](redis_settings(own.port, login=login)) as cache:
                value = await cache.get_or_load("k", Source())
                level = cache.health().levels["l2"]
                return value, level.up, level.reason

    value, is_up, reason = asyncio.run(run())

    assert (value, is_up) == ("value", False)
    assert "wrong" not in reason.replace("WRONGPASS", "")
    assert reason


def test_a_replica_is_not_taken_for_a_master() -> None:
    """Its keys may be old, so the level stays down and says why."""

    async def run() -> tuple[bool, str]:
        with running_server() as primary, running_server() as replica:
            replica.cli("REPLICAOF", "127.0.0.1", str(primary.port))
            async with CacheService[str](redis_settings(replica.port)) as cache:
                level = cache.health().levels["l2"]
                return level.up, level.reason

    is_up, reason = asyncio.run(run())

    assert not is_up
    assert "slave" in reason


def test_a_master_that_becomes_a_replica_is_left() -> None:
    """The link is up and answers, but what it says may be old: the barrier asks for the role too."""

    async def run() -> str:
        with running_server() as server, running_server() as other:
            async with CacheService[str](redis_settings(server.port)) as cache:
                await cache.set("k", "v")
                server.cli("REPLICAOF", "127.0.0.1", str(other.port))

                async def is_left() -> bool:
                    await cache.get("k")
                    return not cache.health().levels["l2"].up

                await eventually(is_left, "the level is down")
                return cache.health().levels["l2"].reason

    assert asyncio.run(run())


def test_a_disk_below_redis_forgets_what_redis_says_has_changed(tmp_path: Path) -> None:
    """What memory gave up is read from disk without Redis, as long as nothing was heard about it."""

    async def run() -> tuple[object, int, object, object, int]:
        with running_server() as own:
            disk = DiskSettings(path=tmp_path, max_bytes=4 * 1024 * 1024)
            settings = redis_settings(own.port, disk=disk, max_entries=1, stale_on_error_us=3_600_000_000)
            async with CacheService[str](redis_settings(own.port)) as other:
                async with CacheService[str](settings) as cache:
                    await cache.set("k", "old")
                    await cache.set("evicts", "k")
                    got, hits = await cache.get("k"), cache.stats().counts["hits_l3"]
                    await other.set("k", "new")
                    await asyncio.sleep(2 * DELTA_US / 1e6)
                    await cache.set("evicts", "k")
                    new = await cache.get("k")
                    await cache.set("kept", "v")
                async with CacheService[str](settings) as again:
                    await other.delete("kept")
                    source = Source()
                    source.error = OSError("down")
                    stale = await again.get_or_load("kept", source)
                    return got, hits, new, stale, again.stats().counts["hits_l3"]

    assert asyncio.run(run()) == ("old", 1, "new", "v", 0)


@pytest.mark.parametrize("scheme", ["redis+sentinel", "redis+cluster"])
def test_a_server_of_another_kind_is_named_and_passed_over(scheme: str) -> None:
    """A lone server is no sentinel and no member of a cluster: nobody knows a master."""

    async def run() -> tuple[bool, str]:
        with running_server() as own:
            path = "/main" if scheme == "redis+sentinel" else ""
            settings = over(f"{scheme}://127.0.0.1:{own.port}{path}")
            async with CacheService[str](settings) as cache:
                level = cache.health().levels["l2"]
                return level.up, level.reason

    is_up, reason = asyncio.run(run())

    assert not is_up
    assert reason.startswith("no master is known: ")


def test_a_certificate_that_is_not_trusted_is_named() -> None:
    """TLS with the system's authorities against a server of the test's own."""

    async def run() -> tuple[bool, str]:
        with running_server(RedisOptions(tls=True)) as own:
            url = f"rediss://127.0.0.1:{own.port}?{OPTIONS}"
            async with CacheService[str](CacheSettings(redis=parse_store_url(url))) as cache:
                level = cache.health().levels["l2"]
                return level.up, level.reason

    is_up, reason = asyncio.run(run())

    assert not is_up
    assert "certificate" in reason.lower()


def test_a_certificate_is_not_looked_at_where_the_address_says_so() -> None:
    """`skip_verify` hides traffic only from those who do not interfere."""

    async def run() -> str | None:
        with running_server(RedisOptions(tls=True)) as own:
            url = f"rediss://127.0.0.1:{own.port}?skip_verify=true&{OPTIONS}"
            async with CacheService[str](CacheSettings(redis=parse_store_url(url))) as cache:
                await cache.set("k", "v")
                await cache.set("other", "v")
                assert cache.health().levels["l2"].up
                return await cache.get("k")

    assert asyncio.run(run()) == "v"
