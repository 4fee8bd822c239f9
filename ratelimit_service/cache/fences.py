"""One load of a key among all replicas: a fenced lease in Redis, and waiting that is ended by a push.

Who misses asks for the key's lease. Who gets it loads, prolongs the lease while it loads, and stores with it; the
store is refused once the lease has ended, another holds it, or the key was written or removed meanwhile, so a holder
that was away for long cannot put an old value over a new one. The others sleep until Redis tells them that the value
or the lease has changed, or until the lease ends unprolonged: a crashed holder delays them by one lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, Protocol

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.l2.answers import Granted, LeaseAnswer, Taken

__all__ = ["DEFAULT_LEASE_US", "FencedLeases", "LeaseKeeper", "WaitBoard"]

DEFAULT_LEASE_US: Final = 2_000_000
"""How long a crashed holder keeps others waiting; a living one prolongs."""

_MARGIN_US: Final = 2_000
"""Past the end of a lease, so that Redis agrees that it is over."""


class LeaseKeeper(Protocol):
    """What gives leases: `l2.level.RedisLevel`."""

    async def lease(self, key: str, *, lease_us: int, unfit: bytes | None = None) -> LeaseAnswer:
        """Ask for a lease."""

    async def prolong(self, key: str, lease: Granted, *, lease_us: int) -> bool:
        """Hold it for longer."""

    async def release(self, key: str, lease: Granted) -> bool:
        """Give it back."""


class WaitBoard:
    """Who sleeps until a key changes."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        """An event that is set when the key changes, from now on."""
        event = asyncio.Event()
        events = self._waiting.setdefault(key, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events:
                self._waiting.pop(key, None)

    def wake(self, key: str) -> None:
        """The key has changed."""
        for event in self._waiting.get(key, ()):
            event.set()

    def wake_all(self) -> None:
        """Any key may have changed."""
        for key in self._waiting:
            self.wake(key)


class FencedLeases:
    """Asks for leases, waits for those of others, prolongs its own.

    Attributes:
        granted, waited, expired: Leases got; times that another's was waited for; waits that ended by the deadline.
    """

    def __init__(
        self, keeper: LeaseKeeper, board: WaitBoard, now_us: Callable[[], int], *, lease_us: int = DEFAULT_LEASE_US
    ) -> None:
        self._keeper = keeper
        self._board = board
        self._now_us = now_us
        self._lease_us = lease_us
        self.granted = 0
        self.waited = 0
        self.expired = 0

    async def acquire(
        self, key: str, *, unfit: bytes | None, deadline_us: int, before_asking: Callable[[], None]
    ) -> LeaseAnswer:
        """Get the lease, or the value that another has stored meanwhile.

        Args:
            key: Which value.
            unfit: A payload that will not do.
            deadline_us: When waiting ends; `Taken` is returned then.
            before_asking: Called before each question, for what has to begin with it (a fill token).

        Raises:
            LevelUnavailable: Redis does not answer.
        """
        while True:
            with self._board.watch(key) as changed:
                before_asking()
                answer = await self._keeper.lease(key, lease_us=self._lease_us, unfit=unfit)
                if not isinstance(answer, Taken):
                    self.granted += isinstance(answer, Granted)
                    return answer
                left_us = deadline_us - self._now_us()
                if left_us <= 0:
                    self.expired += 1
                    return answer
                self.waited += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left_us, answer.left_us + _MARGIN_US) / 1e6):
                        await changed.wait()

    @contextlib.asynccontextmanager
    async def holding(self, key: str, lease: Granted) -> AsyncIterator[None]:
        """Prolong a lease inside, so that others wait for as long as the load takes."""
        prolonging = asyncio.get_running_loop().create_task(self._prolong(key, lease), name="tidegate-cache-lease")
        try:
            yield
        finally:
            prolonging.cancel()

    async def give_back(self, key: str, lease: Granted) -> None:
        """Let others load now. Raises nothing: an unreachable lease ends by itself."""
        with contextlib.suppress(LevelUnavailable):
            await self._keeper.release(key, lease)

    async def _prolong(self, key: str, lease: Granted) -> None:
        while True:
            await asyncio.sleep(self._lease_us / 2e6)
            with contextlib.suppress(LevelUnavailable):
                if not await self._keeper.prolong(key, lease, lease_us=self._lease_us):
                    return
