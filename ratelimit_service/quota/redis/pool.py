"""The connections of one node: who has one, who waits for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ratelimit_service.quota.redis.faults import LossReason, StoreLost
from ratelimit_service.quota.redis.link import Link

__all__ = ["Pool"]


class Pool:
    """Lends links, the most recently used first. It makes none: who keeps the node adds them.

    Args:
        on_closed: Is told when idle links turn out to be closed by the other side.
    """

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._waiting: deque[asyncio.Future[Link]] = deque()

    def __len__(self) -> int:
        """Links that are up, lent or not."""
        return len(self._links)

    @property
    def lent(self) -> int:
        """Links that carry a round trip."""
        return len(self._links) - len(self._idle)

    def add(self, link: Link) -> None:
        """Take a new link in."""
        self._links.add(link)
        self._hand_over(link)

    async def acquire(self, timeout_us: int) -> Link:
        """Borrow a link, waiting while all are lent.

        Raises:
            StoreLost: There is none, or none came back in time.
        """
        idle = self.take_idle()
        if idle is not None:
            return idle
        if not self._links:
            raise StoreLost(LossReason.ABSENT)
        waiter: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout_us / 1_000_000):
                return await waiter
        except TimeoutError:
            self._return_late(waiter)
            raise StoreLost(LossReason.TIMEOUT, "every connection is in use") from None
        except asyncio.CancelledError:
            self._return_late(waiter)
            raise

    def take_idle(self) -> Link | None:
        """Borrow a link that nobody has; None: there is none."""
        self.prune()
        return self._idle.pop() if self._idle else None

    def release(self, link: Link) -> None:
        """Give a link back; one that was dropped on the way leaves the pool."""
        if link not in self._links:
            link.drop()
        elif not link.is_up:
            self._links.discard(link)
            if not self._links:
                self._refuse()
        else:
            self._hand_over(link)

    def prune(self) -> None:
        """Let go of idle links that the other side has closed."""
        closed = [link for link in self._idle if not link.is_up]
        for link in closed:
            self._idle.remove(link)
            self._links.discard(link)
            link.drop()
        if closed:
            self._on_closed()

    def clear(self) -> list[Link]:
        """Forget every link and return those that nobody has; the others are dropped when they come back."""
        idle, self._idle = self._idle, []
        self._links.clear()
        self._refuse()
        return idle

    def _hand_over(self, link: Link) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(link)
                return
        self._idle.append(link)

    def _refuse(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(StoreLost(LossReason.ABSENT))

    def _return_late(self, waiter: asyncio.Future[Link]) -> None:
        """Pass on a link that came in the very turn in which its borrower gave up."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self.release(waiter.result())
