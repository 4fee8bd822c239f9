"""One process that uses a cache over Redis and keeps what it saw; `compare_caches` starts several of them.

Runs in the environment of the cache that it is told to use: only the standard library is imported at the top.
Its plan comes as a line of JSON on standard input. It says `ready` when it is connected, is told on a second line when
to begin, and what it saw goes out as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Load = Callable[[], Awaitable[str]]
TTL_S = 600
LOAD_S = 0.05


class Tidegate:
    """`CacheService`, tracked."""

    def __init__(self, plan: dict) -> None:
        from ratelimit_service.cache import CacheService, CacheSettings
        from ratelimit_service.redis_server.address import parse_store_url

        url = f"redis://127.0.0.1:{plan['port']}?connect_timeout=10s&command_timeout=10s"
        settings = CacheSettings(redis=parse_store_url(url), ttl_us=TTL_S * 10**6, delta_us=plan["delta_ms"] * 1000)
        self.cache: CacheService[str] = CacheService(settings)

    async def start(self) -> None:
        await self.cache.start()
        for _ in range(6_000):
            if self.cache.health().levels["l2"].up:
                break
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.cache.close()

    async def get(self, key: str) -> str | None:
        return await self.cache.get(key)

    async def set(self, key: str, value: str) -> None:
        await self.cache.set(key, value)

    async def load(self, key: str, load: Load) -> str | None:
        return await self.cache.get_or_load(key, load)


class Cashews:
    """Client-side caching, its decorators for stampedes."""

    def __init__(self, plan: dict) -> None:
        from cashews import Cache

        self.cache = Cache()
        self.cache.setup(f"redis://127.0.0.1:{plan['port']}", client_side=True)

    async def start(self) -> None:
        await self.cache.init()

    async def close(self) -> None:
        await self.cache.close()

    async def get(self, key: str) -> str | None:
        return await self.cache.get(key)

    async def set(self, key: str, value: str) -> None:
        await self.cache.set(key, value, expire=TTL_S)

    async def load(self, key: str, load: Load) -> str | None:
        if not hasattr(self, "_loaded"):
            from cashews import thunder_protection

            loads: dict[str, Load] = {}

            @thunder_protection(key="thunder:{key}")
            @self.cache(ttl=TTL_S, key="load:{key}", lock=True)
            async def loaded(key: str) -> str:
                return await loads[key]()

            self._loads, self._loaded = loads, loaded
        self._loads[key] = load
        return await self._loaded(key)


class Aiocache:
    """Redis alone (it has no memory level above it), its lock for stampedes."""

    def __init__(self, plan: dict) -> None:
        from aiocache import RedisCache
        from aiocache.serializers import JsonSerializer

        self.cache = RedisCache(endpoint="127.0.0.1", port=plan["port"], serializer=JsonSerializer())

    async def start(self) -> None:
        await self.cache.get("nothing")

    async def close(self) -> None:
        await self.cache.close()

    async def get(self, key: str) -> str | None:
        return await self.cache.get(key)

    async def set(self, key: str, value: str) -> None:
        await self.cache.set(key, value, ttl=TTL_S)

    async def load(self, key: str, load: Load) -> str | None:
        from aiocache.lock import RedLock

        found = await self.cache.get(key)
        if found is None:
            # As its decorator `cached_stampede` does.
            async with RedLock(self.cache, key, 2):
                found = await self.cache.get(key)
                if found is None:
                    found = await load()
                    await self.cache.set(key, found, ttl=TTL_S)
        return found


CACHES: dict[str, Callable[[dict], Any]] = {"tidegate": Tidegate, "cashews": Cashews, "aiocache": Aiocache}


async def until(at_s: float) -> None:
    """Wait for a time that all processes share."""
    await asyncio.sleep(max(0.0, at_s - time.time()))


async def race(cache: Any, plan: dict) -> dict:
    """Keys are read at the moment at which another process replaces them; then everything is read in calm."""
    chance = random.Random(plan["seed"])
    keys = [f"race{number}" for number in range(plan["keys"])]
    if plan["role"] == 0:
        for key in keys:
            await cache.set(key, "old")
    for number, key in enumerate(keys):
        await until(plan["begins_s"] + number * plan["gap_s"])
        if plan["role"] == 0:
            await cache.set(key, "new")
        else:
            for _ in range(3):
                await cache.get(key)
                await asyncio.sleep(chance.random() * 0.0008)
    await until(plan["begins_s"] + len(keys) * plan["gap_s"] + plan["calm_s"])
    return {"last": [await cache.get(key) for key in keys]}


async def writers(cache: Any, plan: dict) -> dict:
    """Two processes write the same keys at the same moment, a third reads; then everything is read in calm."""
    keys = [f"both{number}" for number in range(plan["keys"])]
    for number, key in enumerate(keys):
        await until(plan["begins_s"] + number * plan["gap_s"])
        if plan["role"] < 2:
            await cache.set(key, f"by {plan['role']}")
        await cache.get(key)
    await until(plan["begins_s"] + len(keys) * plan["gap_s"] + plan["calm_s"])
    return {"last": [await cache.get(key) for key in keys]}


async def staleness(cache: Any, plan: dict) -> dict:
    """One process counts up, the others read all the time; what was written when, and read when."""
    seen: list[tuple[float, int]] = []
    if plan["role"] == 0:
        await cache.set("n", "0")
    await until(plan["begins_s"])
    ends_s = plan["begins_s"] + plan["keys"] * plan["gap_s"]
    number = 0
    while time.time() < ends_s:
        if plan["role"] == 0:
            number += 1
            await cache.set("n", str(number))
            seen.append((time.monotonic(), number))
            await asyncio.sleep(plan["gap_s"])
        else:
            began_s = time.monotonic()
            seen.append((began_s, int(await cache.get("n") or 0)))
            await asyncio.sleep(0.0005)
    return {"seen": seen}


async def flights(cache: Any, plan: dict) -> dict:
    """Ten tasks of each process want the same new key at the same moment; how often it is loaded."""
    loads = [0] * plan["keys"]

    def loader(number: int) -> Load:
        async def load() -> str:
            loads[number] += 1
            await asyncio.sleep(LOAD_S)
            return "loaded"

        return load

    for number in range(plan["keys"]):
        await until(plan["begins_s"] + number * plan["gap_s"])
        await asyncio.gather(*(cache.load(f"load{number}", loader(number)) for _ in range(10)))
    return {"loads": loads}


async def cancelled(cache: Any, plan: dict) -> dict:
    """Ten tasks wait for one load; the first is cancelled; how many of the others get the value."""

    async def load() -> str:
        await asyncio.sleep(LOAD_S)
        return "loaded"

    await until(plan["begins_s"])
    tasks = [asyncio.create_task(cache.load("cancelled", load)) for _ in range(10)]
    await asyncio.sleep(LOAD_S / 2)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return {"survivors": sum(result == "loaded" for result in results[1:])}


SCENES = {each.__name__: each for each in (race, writers, staleness, flights, cancelled)}


async def main() -> None:
    """Follow the plan."""
    plan = json.loads(sys.stdin.readline())
    cache = CACHES[plan["cache"]](plan)
    await cache.start()
    print("ready", flush=True)
    plan["begins_s"] = float(await asyncio.to_thread(sys.stdin.readline))
    answer = await SCENES[plan["scene"]](cache, plan)
    answer["cpu_s"] = time.process_time()
    print(json.dumps(answer), flush=True)
    await cache.close()


if __name__ == "__main__":
    asyncio.run(main())
