"""Tells a new master what its predecessor had counted, as far as this replica saw it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

from ratelimit_service.quota.leases.administration import Administration
from ratelimit_service.quota.leases.alarms import Turns
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell
from ratelimit_service.quota.leases.errands import Clock
from ratelimit_service.quota.leases.masters import Masters
from ratelimit_service.quota.takes import CountedKey

_TAUGHT_CELLS: Final = 200
_TEACHING_US: Final = 2_000


class Teacher:
    """Teaches some cells a turn, for as long as a master learns."""

    def __init__(
        self, book: LeaseBook, masters: Masters, administration: Administration, turns: Turns, clock: Clock
    ) -> None:
        """Teach what `book` has seen."""
        self._book = book
        self._masters = masters
        self._administration = administration
        self._turns = turns
        self._clock = clock

    def teach(self, affects: Callable[[CountedKey], bool]) -> None:
        """Teach the keys that are affected."""
        self._go_on(cell for cell in self._book if affects(cell.where))

    def _go_on(self, cells: Iterator[Cell]) -> None:
        now = self._clock.read()
        some = list(itertools.islice(cells, _TAUGHT_CELLS))
        for cell in some:
            self._administration.teach(cell, now)
        if some and self._masters.is_learning(now.boot_us):
            self._turns.at(now.boot_us + _TEACHING_US, lambda: self._go_on(cells))
