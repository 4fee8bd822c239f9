"""Who asks for a key that memory has not: one flight for all of them, and a stale value where that is right."""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from ratelimit_service.cache.counting import Counts
from ratelimit_service.cache.depths import Depths
from ratelimit_service.cache.entry import Entry
from ratelimit_service.cache.flights import Flights
from ratelimit_service.cache.loads import Loader, LoadOptions, refreshes_early
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.sealing import Held
from ratelimit_service.cache.shallows import Shallows
from ratelimit_service.cache.sourcing import Sourcing

__all__ = ["Fetcher"]

T = TypeVar("T")

_FAILED_PAUSE_US: Final = 1_000_000
_MOST_FAILED: Final = 10_000

_READS: Final = "\0read:"
"""Begins the names of flights that only read; no key begins with a NUL."""


class Fetcher(Generic[T]):
    """See the module.

    Attributes:
        flights: Those under way.
    """

    def __init__(
        self,
        settings: Callable[[], CacheSettings],
        shallows: Shallows,
        depths: Depths[T],
        sourcing: Sourcing[T],
        counts: Counts,
        now_us: Callable[[], int],
    ) -> None:
        self.flights: Flights[Held | None] = Flights()
        self._settings = settings
        self._shallows = shallows
        self._depths = depths
        self._sourcing = sourcing
        self._counts = counts
        self._now_us = now_us
        self._failed: dict[str, int] = {}

    def read(self, key: str) -> Awaitable[Held | None]:
        """What the levels below have of a key."""
        return self.flights.fly(_READS + key, functools.partial(self._read, key))

    async def _read(self, key: str) -> Held | None:
        held = await self._shallows.caught_up(key)
        return held if held is not None else (await self._depths.read(key)).held

    async def load(self, key: str, loader: Loader, options: LoadOptions, now_us: int) -> Held:
        """Wait for the flight of a key, or take a stale value where that is right.

        Raises:
            LoadTimedOut: It took longer than the caller, or any caller, would wait.
            Exception: What the loader raised.
        """
        stale = self._shallows.stale(key, now_us)
        if stale is not None and self._failed.get(key, 0) > now_us:
            return self._served_stale(stale)
        wait_us = options.hard_timeout_us
        if stale is not None and options.soft_timeout_us is not None:
            wait_us = options.soft_timeout_us if wait_us is None else min(wait_us, options.soft_timeout_us)
        try:
            held = None
            while held is None:
                # A flight that refreshes early may end with nothing: then another replica does it.
                held = await self.flights.fly(
                    key, functools.partial(self._read_or_load, key, loader, options), wait_us=wait_us
                )
        except Exception:  # any error of a loader may be answered by a stale value
            if stale is None or self._shallows.stale(key, self._now_us()) is None:
                raise
            return self._served_stale(stale)
        return held

    async def _read_or_load(self, key: str, loader: Loader, options: LoadOptions) -> Held:
        """The flight of a key that is loaded where no level has it."""
        held = await self._shallows.caught_up(key)
        if held is not None:
            return held
        reached = await self._depths.read(key)
        if reached.held is not None:
            return reached.held
        self._counts.misses += 1
        try:
            return await self._sourcing.load(key, loader, options, reached)
        except Exception:  # as above; what the levels had may be all that is left
            self._note_failure(key)
            if reached.stale is None:
                raise
            return self._served_stale(reached.stale)

    def refresh_early(self, key: str, entry: Entry[Any], now_us: int, loader: Loader, options: LoadOptions) -> None:
        """Perhaps begin a load of a value that is still fresh; see `loads.refreshes_early`."""
        settings = self._settings()
        ttl_us = settings.ttl_us if options.ttl_us is None else options.ttl_us
        left_us = min(entry.soft_expires_us, entry.expires_us) - now_us
        # A random number of [0, 1), turned to one above 0.
        draw = 1.0 - random.random()  # noqa: S311  # spreads load; nothing secret
        if refreshes_early(left_us, ttl_us, settings.early_refresh_percent, entry.cost_us, draw):
            before = self.flights.begun
            self.flights.begin(key, functools.partial(self._sourcing.refresh, key, loader, options))
            self._counts.early_refreshes += self.flights.begun - before

    def forget(self, keys: Iterable[str] | None) -> None:
        """Who asks for these keys from now on (None: for any) begins anew."""
        if keys is None:
            self.flights.forget_all()
            return
        for key in keys:
            self.flights.forget(key)
            self.flights.forget(_READS + key)

    def _served_stale(self, held: Held) -> Held:
        self._counts.stale_served += 1
        return held

    def _note_failure(self, key: str) -> None:
        """Have callers with a stale value not try again at once."""
        if len(self._failed) >= _MOST_FAILED:
            self._failed.clear()
        self._failed[key] = self._now_us() + _FAILED_PAUSE_US
