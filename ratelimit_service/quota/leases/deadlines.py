"""Requests that wait, by the time at which they are answered whatever has come."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A request that waits.

    Attributes:
        is_over: It was answered.
    """

    is_over: bool


Each = TypeVar("Each", bound=Waiting)


class Deadlines(Generic[Each]):
    """Those that wait, the earliest deadline first. Times are boot times in microseconds."""

    def __init__(self) -> None:
        self._queue: list[tuple[int, int, Each]] = []
        self._sequence = 0

    def add(self, deadline_us: int, waiting: Each) -> None:
        """One more waits."""
        self._sequence += 1
        heapq.heappush(self._queue, (deadline_us, self._sequence, waiting))

    def due(self, now_us: int) -> Iterator[Each]:
        """Take out those whose time has come; those that were answered meanwhile are dropped."""
        while self._queue and (self._queue[0][2].is_over or self._queue[0][0] <= now_us):
            waiting = heapq.heappop(self._queue)[2]
            if not waiting.is_over:
                yield waiting

    def next_us(self) -> int | None:
        """The earliest deadline, None: nobody waits."""
        return self._queue[0][0] if self._queue else None
