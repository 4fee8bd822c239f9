"""Keys that were used the most before a restart: their leases are taken again at once, so that few requests wait.

Nothing is taken for granted by it: what is remembered is which keys were hot, never what was held of them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import LimitSettings
from ratelimit_service.quota.leases.alarms import Turns
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell
from ratelimit_service.quota.leases.errands import Clock
from ratelimit_service.quota.leases.taking import Taker
from ratelimit_service.quota.store import Charge

_LOOKED_CELLS: Final = 500
_WARMED_CELLS: Final = 100
_WARMING_US: Final = 2_000


class HotKey(msgspec.Struct, frozen=True, array_like=True):
    """A counter that was used.

    Attributes:
        identity, key: Which.
        rate: Hits per microsecond; at least 0.
    """

    identity: bytes
    key: bytes
    rate: float


class Warmer:
    """Remembers hot keys of a replica, and leases them again."""

    def __init__(self, book: LeaseBook, taker: Taker, turns: Turns, clock: Clock) -> None:
        """Take for the cells of `book`."""
        self._book = book
        self._taker = taker
        self._turns = turns
        self._clock = clock

    def hottest(self, most: int) -> Iterator[list[HotKey]]:
        """The leased keys with the highest rates, the highest first; once after every slice, whole at the end."""
        now_us = self._clock.read().boot_us
        found: list[HotKey] = []
        cells = iter(self._book)
        while some := list(itertools.islice(cells, _LOOKED_CELLS)):
            used = (self._hot(cell, now_us) for cell in some if not cell.exact and (cell.rate or cell.demand))
            found = heapq.nlargest(most, itertools.chain(found, used), key=lambda hot: hot.rate)
            yield found

    def _hot(self, cell: Cell, now_us: int) -> HotKey:
        # What it was before its traffic went elsewhere counts: a replica that drains has none at the end.
        before = cell.rate
        rate = max(before, cell.measure(now_us, self._book.horizon_us(cell.limit)))
        return HotKey(cell.identity, cell.where.key, rate)

    def warm(self, hot: Sequence[HotKey], limits: Mapping[bytes, LimitSettings]) -> None:
        """Take leases for keys whose limits are in force, some a turn; what is exact is passed over."""
        self._go_on(iter(hot), limits)

    def _go_on(self, hot: Iterator[HotKey], limits: Mapping[bytes, LimitSettings]) -> None:
        now = self._clock.read()
        some = list(itertools.islice(hot, _WARMED_CELLS))
        for each in some:
            settings = limits.get(each.identity)
            if settings is None or self._book.is_exact(each.identity, settings.limit):
                continue
            cell = self._book.cell(Charge(each.identity, settings.limit, each.key, 1), now)
            if self._book.remembers(cell) and cell.counted < 0 and not cell.taking:
                cell.rate = max(0.0, each.rate)
                cell.demand_since_us = now.boot_us
                self._book.wanted.append(cell)
        if some:
            self._taker.refill_soon()
            self._turns.at(now.boot_us + _WARMING_US, lambda: self._go_on(hot, limits))
