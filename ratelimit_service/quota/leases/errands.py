"""Orders that no request waits for: returns, and debts to the store."""

from __future__ import annotations

from typing import Final, Protocol

from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell
from ratelimit_service.quota.leases.claims import MOST_WANTED
from ratelimit_service.quota.leases.orders import Answered, Orders
from ratelimit_service.quota.leases.spare import FailureModes
from ratelimit_service.quota.takes import Ask, Return, Spend

PATIENCE_US: Final = 1_000_000
"""How long an answer is waited for where no request is."""


class Clock(Protocol):
    """Reads the clocks (`ratelimit_service.clock.Clock`)."""

    def read(self) -> Instant:
        """Read wall and boot time at once."""


class Errands:
    """Sends what is sent at most once, and remembers what has to be charged yet.

    Attributes:
        orders: Carries them.
    """

    def __init__(self, book: LeaseBook, orders: Orders, clock: Clock, modes: FailureModes) -> None:
        """Run errands for the cells of a book."""
        self._book = book
        self.orders = orders
        self._clock = clock
        self._modes = modes

    def now(self) -> Instant:
        """Read the clocks."""
        return self._clock.read()

    def send_back(self, order: Return) -> None:
        """Return unspent hits, once: where nothing is known of it, they are forfeited."""
        self._book.stats.returns += 1
        self.orders.submit(order, self._clock.read().boot_us + PATIENCE_US, _pass_over)

    def clear_up(self, cell: Cell, now: Instant) -> None:
        """Before a cell is asked for: send back what has ended, and charge what was spent without the store."""
        for order in self._book.prune(cell, now.boot_us):
            self.send_back(order)
        owed = cell.owes(now.boot_us)
        if owed:
            cell.owed = 0
            self.spend(cell, cell.limit, owed, now)

    def spend(self, cell: Cell, limit: Limit, hits: int, now: Instant) -> None:
        """Charge hits, past the limit if need be; what may not have been charged is owed again."""
        if not self.orders.is_up(cell.where):
            self._owe(cell, limit, hits, now)
            return
        self._book.stats.takes += 1
        order = Spend(cell.where, (Ask(cell.identity, limit, min(hits, MOST_WANTED)),))

        def done(answered: Answered) -> None:
            if answered.grants is None or not answered.is_good:
                self._owe(cell, limit, hits, self._clock.read())

        self.orders.submit(order, now.boot_us + PATIENCE_US, done)

    def _owe(self, cell: Cell, limit: Limit, hits: int, now: Instant) -> None:
        cell.owe(hits, now.boot_us, now.boot_us + self._modes.counts_for_us(limit, hits, now))


def _pass_over(_: Answered) -> None:
    """Nothing follows from it."""
