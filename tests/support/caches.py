"""Caches for tests: settings that stand a loaded machine, and sources whose loads can be counted and held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.policy.profile_model import CoherenceMode
from ratelimit_service.redis_server.address import parse_store_url

DELTA_US: Final = 200_000
_WAIT_SECONDS: Final = 60.0


def redis_settings(
    port: int, prefix: str = "t:", *, delta_us: int = DELTA_US, command_ms: int = 10_000, login: str = "", **others: Any
) -> CacheSettings:
    """A cache over one Redis, with timeouts that a loaded machine does not reach."""
    url = f"redis://{login}127.0.0.1:{port}?connect_timeout=10s&command_timeout={command_ms}ms&key_prefix={prefix}"
    settings = {"mode": CoherenceMode.TRACKING, "ttl_us": 600_000_000, **others}
    return CacheSettings(name="test", redis=parse_store_url(url), delta_us=delta_us, **settings)


class Source:
    """What a cache loads from: counts its loads, and may be held or fail."""

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.loads = 0
        self.error: Exception | None = None
        self.opened = asyncio.Event()
        self.opened.set()
        self.entered = asyncio.Event()

    async def __call__(self, key: str = "") -> Any:
        self.loads += 1
        value = self.value
        self.entered.set()
        await self.opened.wait()
        if self.error is not None:
            raise self.error
        return value


async def eventually(holds: Callable[[], Awaitable[bool] | bool], what: str) -> None:
    """Poll until something holds; fails the test after 60 s."""
    ends_at = time.monotonic() + _WAIT_SECONDS
    while True:
        held = holds()
        if held if isinstance(held, bool) else await held:
            return
        assert time.monotonic() < ends_at, f"not within {_WAIT_SECONDS:g} s: {what}"
        await asyncio.sleep(0.01)
