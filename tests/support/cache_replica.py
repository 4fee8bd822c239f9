"""A replica in a process of its own: loads one key from a source that counts its loads in Redis, and prints the value.

`python -m support.cache_replica PORT SECONDS`: the load takes so long; `loading` is printed when it begins.
"""

from __future__ import annotations

import asyncio
import sys

from ratelimit_service.cache.service import CacheService
from support.caches import redis_settings


async def main(port: int, seconds: float) -> None:
    async with CacheService[str](redis_settings(port, "procs:")) as cache:
        assert cache._redis is not None
        link = cache._redis.nodes.link_of(b"loads")

        async def load() -> str:
            number = await link.call("INCR", "loads", timeout_us=10_000_000)
            print("loading", flush=True)
            await asyncio.sleep(seconds)
            return f"load {number}"

        print(await cache.get_or_load("k", load), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
