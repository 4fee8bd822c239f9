"""Which worker takes a connection, and what of it has not arrived yet. Pure but for the sockets that it keeps."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable

from ratelimit_service.workers.messages import Report


class Load:
    """What one worker has, as far as the parent knows.

    Attributes:
        report: The latest that it said.
        under_way: Copies of connections that it was given and has not reported to have, the oldest first.
        given: Connections that it was given.
        has_begun: It has said something, so it takes connections.
    """

    def __init__(self) -> None:
        self.report = Report()
        self.under_way: deque[socket.socket] = deque()
        self.given = 0
        self.has_begun = False

    @property
    def connections(self) -> int:
        """How many it has, or will have."""
        return self.report.open + len(self.under_way)

    def give(self, connection: socket.socket) -> None:
        """It was sent a connection; the copy is kept until it says that it has it."""
        self.given += 1
        self.under_way.append(connection)

    def take_in(self, report: Report) -> None:
        """Take in what it says, and let go of the copies of what it has."""
        self.report = report
        self.has_begun = not report.subject
        missing = self.given - report.adopted
        while len(self.under_way) > missing:
            self.under_way.popleft().close()

    def reclaim(self) -> list[socket.socket]:
        """What it never had, for another one; the worker is gone."""
        left = list(self.under_way)
        self.under_way.clear()
        return left


def least_loaded(loads: Iterable[Load]) -> Load | None:
    """The worker that takes the next connection; None: none has begun.

    Those that are ready come first, then those that have taken all that they were given (others may be stopped), then
    those with the fewest connections. One that drains still serves, and is better than nobody.
    """
    begun = [load for load in loads if load.has_begun]
    return min(begun, key=_rank, default=None)


def _rank(load: Load) -> tuple[bool, bool, int, int]:
    return (not load.report.ready, bool(load.under_way), load.connections, load.given)
