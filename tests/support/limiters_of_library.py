"""Limiters of the library for tests: with a clock that stands, and with a store that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import pytest

from ratelimit_service.adapter import RateLimitConfig, RateLimitingCacheAdapter
from ratelimit_service.quota.memory.store import MemoryStore
from ratelimit_service.redis_server.address import parse_store_url
from support.clocks import ManualClock
from support.deferred_store import DeferredStore
from support.schedulers import ManualScheduler
from support.virtual_time import run_virtually

T = TypeVar("T")

AWAY: Final = "redis://127.0.0.1:1"
"""Nobody listens there."""

ALGORITHMS: Final = ("fixed_window", "sliding_window", "token_bucket")


class Bench:
    """A limiter in memory, and its clock."""

    def __init__(self, **config: Any) -> None:
        self.clock = ManualClock()
        self.limiter = RateLimitingCacheAdapter(config=RateLimitConfig(**config), clock=self.clock)


def away(**config: Any) -> RateLimitingCacheAdapter:
    """A limiter whose Redis cannot be reached, as it is after an outage that began long ago."""
    return RateLimitingCacheAdapter(config=RateLimitConfig(redis=parse_store_url(AWAY), **config))


def run(main: Coroutine[Any, Any, T]) -> T:
    return run_virtually(main)


def at_once(check: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits; there is no event loop here."""
    with pytest.raises(StopIteration) as ended:
        check.send(None)
    result: T = ended.value.value
    return result


class Later:
    """A limiter over a store that always answers on a later turn."""

    def __init__(self, **config: Any) -> None:
        self.clock = ManualClock()
        self.scheduler = ManualScheduler()
        memory = MemoryStore(clock=self.clock, call_soon=self.scheduler.call_soon)
        self.store = DeferredStore(memory, self.scheduler.call_soon)
        self.limiter = RateLimitingCacheAdapter(store=self.store, config=RateLimitConfig(**config), clock=self.clock)

    async def of(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.sleep(0)
            self.scheduler.run()
        return task.result()
