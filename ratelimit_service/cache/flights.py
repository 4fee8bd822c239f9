"""One load per key in this process, whatever happens to those who wait for it.

A *flight* is a task of its own: a waiter that is cancelled, or has waited long enough, leaves; the flight goes on and
serves the others and the cache. A flight has a deadline, so that a load that hangs does not hold its key for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from ratelimit_service.cache.errors import CacheError

__all__ = ["DEFAULT_FLIGHT_US", "Flights", "LoadTimedOut"]

T = TypeVar("T")

DEFAULT_FLIGHT_US: Final = 30_000_000
"""A load that takes longer is given up; the next caller begins anew."""


class LoadTimedOut(CacheError):
    """A load took longer than its caller, or any caller, would wait. Whether it goes on is the flight's affair.

    Attributes:
        key: What was loaded.
        waited_us: How long.
    """

    def __init__(self, key: str, waited_us: int) -> None:
        super().__init__(f"loading took longer than {waited_us / 1000:.0f} ms")
        self.key = key
        self.waited_us = waited_us


class Flights(Generic[T]):
    """Flights under way, by key.

    Attributes:
        begun, joined: Flights since the start, and callers that found one under way.
        timed_out: Flights that were given up.
    """

    def __init__(self, *, flight_us: int = DEFAULT_FLIGHT_US) -> None:
        self._flights: dict[str, asyncio.Task[T]] = {}
        self._detached: set[asyncio.Task[T]] = set()
        self._flight_us = flight_us
        self.begun = 0
        self.joined = 0
        self.timed_out = 0

    def __len__(self) -> int:
        """Flights under way."""
        return len(self._flights)

    def begin(self, key: str, load: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The flight of a key: the one under way, or a new one. It must be awaited by `land` only."""
        flight = self._flights.get(key)
        if flight is not None:
            self.joined += 1
            return flight
        self.begun += 1
        flight = asyncio.get_running_loop().create_task(self._fly(key, load), name="tidegate-cache-flight")
        self._flights[key] = flight
        flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    async def land(self, key: str, flight: asyncio.Task[T], *, wait_us: int | None = None) -> T:
        """Wait for a flight's result, or until `wait_us` have passed; the flight goes on.

        Raises:
            LoadTimedOut: It takes longer.
            Exception: What the load raised.
        """
        # Not `await flight` nor a shield of it: those would cancel it, or log its error after everybody has left.
        await asyncio.wait((flight,), timeout=None if wait_us is None else wait_us / 1e6)
        if not flight.done():
            raise LoadTimedOut(key, wait_us or 0)
        if flight.cancelled():
            # Not CancelledError: nobody has cancelled the caller.
            raise LoadTimedOut(key, self._flight_us)
        return flight.result()

    async def fly(self, key: str, load: Callable[[], Coroutine[Any, Any, T]], *, wait_us: int | None = None) -> T:
        """`begin` and `land`."""
        return await self.land(key, self.begin(key, load), wait_us=wait_us)

    def forget(self, key: str) -> None:
        """Who asks from now on begins anew; those who wait get what is under way."""
        self._detach(key)

    def forget_all(self) -> None:
        """The same for all keys."""
        for key in list(self._flights):
            self._detach(key)

    def _detach(self, key: str) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            self._detached.add(flight)
            flight.add_done_callback(self._detached.discard)

    async def close(self) -> None:
        """Cancel all flights and wait for their end."""
        flights = [*self._flights.values(), *self._detached]
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    async def _fly(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        limit = asyncio.timeout(self._flight_us / 1e6)
        try:
            async with limit:
                return await load()
        except TimeoutError:
            if not limit.expired():
                raise
            self.timed_out += 1
            raise LoadTimedOut(key, self._flight_us) from None

    def _landed(self, key: str, flight: asyncio.Task[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            # Looked at here, so that the loop does not report an error that nobody was left to see.
            flight.exception()
