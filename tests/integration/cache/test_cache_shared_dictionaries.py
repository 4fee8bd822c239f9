"""Dictionaries between replicas on one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ratelimit_service.cache.compression import Method
from ratelimit_service.cache.service import CacheService
from ratelimit_service.cache.training import ENOUGH_SAMPLES
from support.caches import eventually, redis_settings
from support.fault_proxy import FaultProxy
from support.redis_servers import RedisServer, running_server
from support.sessions import sessions


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_server() as running:
        yield running


def test_replicas_read_with_each_others_dictionary_and_come_to_use_one(server: RedisServer) -> None:
    """One trains; another reads its payloads at once, and packs with the same dictionary from its next round on."""

    async def run() -> tuple[object, object, bool, int]:
        settings = redis_settings(server.port, "dict:", compression=Method.ZSTD, dictionary=True)
        values = sessions(ENOUGH_SAMPLES)
        async with CacheService[Any](settings) as first, CacheService[Any](settings) as second:
            await first.set_many(values)
            await second.set_many(sessions(ENOUGH_SAMPLES, seed=2))
            await first._dictionaries.look()
            await first.set("new", values["s1"])
            read = await second.get("new")
            await second._dictionaries.look()
            same = first.engine.dictionaries.current == second.engine.dictionaries.current
            await second._dictionaries.look()
            return read, values["s1"], same, second.stats().dictionaries

    read, wanted, same, known = asyncio.run(run())

    assert read == wanted
    assert same
    assert known == 1


def test_nothing_is_packed_with_a_dictionary_that_others_cannot_find(server: RedisServer) -> None:
    """While Redis is away training has no effect; once it is back the next round publishes."""

    async def run() -> tuple[int, int]:
        async with FaultProxy(server.port) as proxy:
            settings = redis_settings(proxy.port, "away:", compression=Method.ZSTD, dictionary=True)
            async with CacheService[Any](settings) as cache:
                await cache.set_many(sessions(ENOUGH_SAMPLES))
                proxy.refuse()
                await eventually(lambda: not cache.health().levels["l2"].up, "it knows that Redis is away")
                await cache._dictionaries.look()
                found = await cache._dictionaries.learn(7)
                assert not found
                during = cache.stats().dictionaries
                proxy.heal()
                await eventually(lambda: cache.health().levels["l2"].up, "it is back")
                await cache._dictionaries.look()
                # Once more: it is renewed so that it outlives the payloads, and not trained again.
                cache._dictionaries._renew_from_us = 0
                server.cli("DEL", "away:c:dictionary")
                await cache._dictionaries.look()
                assert int(server.cli("EXISTS", "away:c:dictionary")) == 1
                return during, cache.stats().dictionaries_adopted

    assert asyncio.run(run()) == (0, 1)
