"""Locks on keys in this process: in order, fair, each with two deadlines.

Several keys are locked in one global order, and a task that holds keys may only ask for later ones, so no circle of
waiting tasks can form. Waiting has a deadline; holding has one too: a holder that is lost, or hangs, is passed
over, and its *fence*, a number that grows with every grant, tells it and whatever it writes to that it is too late.

`LockTable` is the pure part: who holds what, and who comes next. `CacheOperationLockManager` waits and keeps time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

import msgspec

from ratelimit_service.cache.errors import CacheError

__all__ = [
    "DEFAULT_HOLD_MS",
    "DEFAULT_WAIT_MS",
    "CacheOperationLockManager",
    "LockGrant",
    "LockOrderViolated",
    "LockStats",
    "LockTable",
    "LockTimedOut",
    "Ticket",
]

DEFAULT_WAIT_MS: Final = 10_000
"""Longest wait for a lock."""

DEFAULT_HOLD_MS: Final = 30_000
"""Longest time that a lock is held; then it goes to the next."""


class LockTimedOut(CacheError):
    """The locks were not free in time.

    Attributes:
        keys: What was asked for.
        waited_ms: How long.
    """

    def __init__(self, keys: tuple[str, ...], waited_ms: int) -> None:
        super().__init__(f"{len(keys)} key(s) were not free within {waited_ms} ms")
        self.keys = keys
        self.waited_ms = waited_ms


class LockOrderViolated(CacheError):
    """A task that holds a key asked for one that comes before it: two such tasks could wait for each other for ever.

    Lock all keys at once with `lock_many`, or in ascending order.

    Attributes:
        held: The last key that the task holds.
        wanted: The key that it asked for.
    """

    def __init__(self, held: str, wanted: str) -> None:
        super().__init__(f"{wanted!r} comes before {held!r}, which is held; lock both with lock_many")
        self.held = held
        self.wanted = wanted


class Ticket:
    """A request for keys, as `LockTable` sees it. Compared by identity.

    Attributes:
        keys: In the global order, without repetition.
        fence: Its number, once it holds all keys; 0 before.
        held: How many of the keys it holds, from the first.
    """

    __slots__ = ("fence", "held", "keys")

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(sorted(set(keys)))
        self.fence = 0
        self.held = 0


class LockTable:
    """Who holds which key and who waits, first come first served. Pure.

    Keys are taken one after the other in their order; who waits for one holds all before it.
    """

    __slots__ = ("_lines", "_serial")

    def __init__(self) -> None:
        self._lines: dict[str, deque[Ticket]] = {}
        self._serial = 0

    def ask(self, ticket: Ticket) -> bool:
        """Stand in line; whether all keys are held at once."""
        return self._advance(ticket)

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give up what a ticket holds and waits for; returns the tickets that hold all their keys by that.

        A ticket that has left may leave again.
        """
        granted: list[Ticket] = []
        for key in reversed(ticket.keys):
            line = self._lines.get(key)
            if line is None or ticket not in line:
                continue
            was_first = line[0] is ticket
            line.remove(ticket)
            if not line:
                del self._lines[key]
            elif was_first:
                heir = line[0]
                heir.held += 1
                if self._advance(heir):
                    granted.append(heir)
        ticket.held = 0
        return granted

    def is_current(self, ticket: Ticket) -> bool:
        """Whether it still holds all its keys."""
        return ticket.fence > 0 and all(self._lines.get(key, (None,))[0] is ticket for key in ticket.keys)

    def holders(self) -> dict[str, Ticket]:
        """Who holds each key."""
        return {key: line[0] for key, line in self._lines.items()}

    def waiters(self) -> int:
        """Tickets that wait."""
        return sum(len(line) - 1 for line in self._lines.values())

    def _advance(self, ticket: Ticket) -> bool:
        """Take further keys as far as they are free."""
        while ticket.held < len(ticket.keys):
            line = self._lines.setdefault(ticket.keys[ticket.held], deque())
            line.append(ticket)
            if line[0] is not ticket:
                return False
            ticket.held += 1
        self._serial += 1
        ticket.fence = self._serial
        return True


class LockGrant:
    """Held locks.

    Attributes:
        keys: What is held, in the global order.
        fence: Grows from grant to grant; who stores under the lock passes it along, and the highest wins.
    """

    __slots__ = ("_table", "_ticket", "fence", "keys")

    def __init__(self, table: LockTable, ticket: Ticket) -> None:
        self._table = table
        self._ticket = ticket
        self.keys = ticket.keys
        self.fence = ticket.fence

    def is_current(self) -> bool:
        """Whether the locks are still held: False once the time to hold them has run out."""
        return self._table.is_current(self._ticket)


class LockStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start, and what is so now.

    Attributes:
        granted: Requests that got all their keys.
        timed_out: Requests that waited too long.
        passed_over: Holders whose time ran out.
        waited_us: Time spent waiting by all that were granted.
        holders: Who holds: key and fence.
        waiters: Requests that wait.
    """

    granted: int
    timed_out: int
    passed_over: int
    waited_us: int
    holders: Mapping[str, int]
    waiters: int


class CacheOperationLockManager:
    """Locks on keys, for the tasks of one event loop.

    Args:
        wait_ms: Longest wait, unless a call says otherwise.
        hold_ms: Longest time that a lock is held, unless a call says otherwise.
    """

    def __init__(self, *, wait_ms: int = DEFAULT_WAIT_MS, hold_ms: int = DEFAULT_HOLD_MS) -> None:
        self._wait_ms = wait_ms
        self._hold_ms = hold_ms
        self._table = LockTable()
        self._futures: dict[Ticket, asyncio.Future[None]] = {}
        self._held_by: dict[asyncio.Task[object], list[Ticket]] = {}
        self._granted = 0
        self._timed_out = 0
        self._passed_over = 0
        self._waited_us = 0

    def lock(
        self, key: str, *, timeout_ms: int | None = None, hold_ms: int | None = None
    ) -> contextlib.AbstractAsyncContextManager[LockGrant]:
        """Hold one key inside `async with`; arguments and errors as with `lock_many`."""
        return self.lock_many((key,), timeout_ms=timeout_ms, hold_ms=hold_ms)

    @contextlib.asynccontextmanager
    async def lock_many(
        self, keys: Iterable[str], *, timeout_ms: int | None = None, hold_ms: int | None = None
    ) -> AsyncIterator[LockGrant]:
        """Hold several keys inside `async with`.

        Args:
            keys: In any order.
            timeout_ms: Longest wait for all of them; None: the manager's.
            hold_ms: Longest time that they are held; None: the manager's.

        Raises:
            LockTimedOut: They were not free in time; nothing is held.
            LockOrderViolated: This task holds a key that comes after one of these.
        """
        ticket = Ticket(keys)
        task = asyncio.current_task()
        assert task is not None
        held = self._held_by.setdefault(task, [])
        try:
            self._check_order(held, ticket)
            await self._acquire(ticket, self._wait_ms if timeout_ms is None else timeout_ms)
            held.append(ticket)
            hold_s = (self._hold_ms if hold_ms is None else hold_ms) / 1000
            expiry = asyncio.get_running_loop().call_later(hold_s, self._pass_over, ticket)
            try:
                yield LockGrant(self._table, ticket)
            finally:
                expiry.cancel()
                held.remove(ticket)
                self._leave(ticket)
        finally:
            if not held:
                self._held_by.pop(task, None)

    def stats(self) -> LockStats:
        """Counts and state."""
        return LockStats(
            granted=self._granted,
            timed_out=self._timed_out,
            passed_over=self._passed_over,
            waited_us=self._waited_us,
            holders={key: ticket.fence for key, ticket in self._table.holders().items()},
            waiters=self._table.waiters(),
        )

    def _check_order(self, held: list[Ticket], ticket: Ticket) -> None:
        # A holder that was passed over holds nothing, so it stands in nobody's way.
        last = max((each.keys[-1] for each in held if each.keys and self._table.is_current(each)), default=None)
        if last is not None and ticket.keys and ticket.keys[0] <= last:
            raise LockOrderViolated(last, ticket.keys[0])

    async def _acquire(self, ticket: Ticket, wait_ms: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._table.ask(ticket):
            self._futures[ticket] = loop.create_future()
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._futures[ticket]
            except TimeoutError:
                self._timed_out += 1
                self._leave(ticket)
                raise LockTimedOut(ticket.keys, wait_ms) from None
            except asyncio.CancelledError:
                self._leave(ticket)
                raise
            finally:
                self._futures.pop(ticket, None)
        self._granted += 1
        self._waited_us += round((loop.time() - began) * 1e6)

    def _pass_over(self, ticket: Ticket) -> None:
        if self._table.is_current(ticket):
            self._passed_over += 1
        self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        for granted in self._table.leave(ticket):
            future = self._futures.get(granted)
            if future is not None and not future.done():
                future.set_result(None)
