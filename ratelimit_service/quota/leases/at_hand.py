"""Requests of one enforced charge that a replica decides at once: nearly all of them, so each step is written out."""

from __future__ import annotations

from typing import Final

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import DENIAL_AHEAD_US
from ratelimit_service.quota.leases.spare import Standing
from ratelimit_service.quota.leases.taking import Taker
from ratelimit_service.quota.prompt import Counted
from ratelimit_service.quota.store import Charge, Outcome, Role, Source

_ENFORCE: Final = Role.ENFORCE
_LEASE: Final = Source.LEASE


class AtHand:
    """What is in hand, denied or owned, spent without a word to anybody.

    Attributes:
        leased: Decisions of `decide`, and of whoever adds to it.
        spent: Hits that `decide` spent.
    """

    def __init__(self, book: LeaseBook, taker: Taker, standing: Standing) -> None:
        """Spend what the cells of a book hold; `taker` refills them."""
        self._book = book
        self._cells = book.cells
        self._taker = taker
        self._standing = standing
        self.leased = self.spent = 0

    def decide(self, counted: Counted, key: bytes, hits: int, now: Instant) -> Outcome | None:
        """See `LeasingStore`: from what is in hand, or denied, as `LeaseBook.charge` would."""
        cells = self._cells.get(counted.identity)
        cell = None if cells is None else cells.get(key)
        if cell is None or cell.limit is not counted.limit or hits < 1:
            return None
        boot_us = now.boot_us
        if hits <= cell.left and boot_us < cell.until_us:
            cell.left = left = cell.left - hits
            cell.demand += hits
            self.leased += 1
            self.spent += hits
            if left <= cell.refill_below and not cell.taking:
                self._book.wanted.append(cell)
                self._taker.refill_soon()
            left += cell.others
            wait_us = cell.full_us - boot_us
            if wait_us < 0:  # noqa: PLR1730 — `max` costs a call on every request
                wait_us = 0
            return Outcome(False, left + cell.rest, wait_us, cell.counted - left - hits, _LEASE)
        if (
            0 < cell.denied_hits <= hits
            and boot_us < cell.denied_until_us
            and not (cell.left or cell.others or self._standing.percent)
        ):
            self.leased += 1
            if boot_us >= cell.denied_until_us - DENIAL_AHEAD_US and not cell.exact and cell.is_doubtful(boot_us):
                self._book.wanted.append(cell)
                self._taker.refill_soon()
            return Outcome(True, 0, cell.wait_us(boot_us), cell.before(), _LEASE)
        return None

    def by_standing(self, charge: Charge, now: Instant) -> Outcome | None:
        """Decide from the standing allowance, if that suffices."""
        if charge.role is not _ENFORCE or not charge.hits:
            return None
        left = self._standing.left(charge, now)
        if left < charge.hits:
            return None
        cell = self._book.find(charge.identity, charge.key)
        self._standing.spend(charge, cell, charge.hits, now)
        self._book.stats.decisions[Source.STANDING] += 1
        known = cell is not None and cell.counted >= 0
        rest = cell.rest if cell is not None and known else charge.limit.burst - left
        before = cell.before() if cell is not None and known else 0
        wait_us = max(0, cell.full_us - now.boot_us) if cell is not None and known else 0
        return Outcome(False, left - charge.hits + rest, wait_us, before, Source.STANDING)
