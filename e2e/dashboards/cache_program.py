"""A program that uses the cache library over Redis; it prints its metrics' port and ends by SIGTERM."""

from __future__ import annotations

import asyncio
import random
import sys

import msgspec
from prometheus_client import CollectorRegistry, start_http_server

from ratelimit_service.cache import CacheService, api_responses
from ratelimit_service.cache.prometheus import CacheCollector
from ratelimit_service.redis_server.address import parse_store_url


async def main() -> None:
    """Read keys of which some are known and some are new; one load in ten fails."""
    chance = random.Random(1)
    settings = msgspec.structs.replace(api_responses(), redis=parse_store_url(sys.argv[1]))
    cache: CacheService[dict[str, str]] = CacheService(settings)

    async def load() -> dict[str, str]:
        if chance.random() < 0.1:
            raise OSError("the source is away")
        return {"body": "x" * 3000}

    async with cache:
        registry = CollectorRegistry()
        registry.register(CacheCollector(cache))
        server, _ = start_http_server(0, "127.0.0.1", registry)
        print(f"metrics {server.server_port}", flush=True)
        while True:
            key = f"page/{chance.randrange(400)}"
            try:
                await cache.get_or_load(key, load, ttl_ms=500)
            except OSError:
                continue
            finally:
                await asyncio.sleep(0.005)


asyncio.run(main())
