"""The most frequent request of exact limits, one enforced charge, without a detour.

It decides what `requests` would decide: granted is allowed, not granted is over. Its take is made once for each cell
and number of hits, so that the batches see at a glance which takes can be carried out together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell, InHand
from ratelimit_service.quota.leases.masters import Masters
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.store import NEVER_US, Charge, Done, Outcome, Source
from ratelimit_service.quota.takes import Ask, Grant, Take


class Owner(Protocol):
    """What a request needs of its replica."""

    book: LeaseBook
    masters: Masters

    def now(self) -> Instant:
        """The clocks."""

    def reserve(self, cell: Cell, limit: Limit, now: Instant) -> int:
        """What standing allowances own of a limit, as far as is known now."""

    def keep(self, cell: Cell, lease: InHand, now: Instant, *, exact: bool) -> None:
        """Keep a grant that came too late, or send it back."""

    def decide_without(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        """Decide by the failure mode."""


class Alone:
    """One request that waits for the answer to its one take; is told it by being called.

    Attributes:
        is_over: It was answered; what still comes goes back.
    """

    __slots__ = ("_cell", "_charges", "_done", "_owner", "_reserve", "is_over")

    def __init__(self, owner: Owner, cell: Cell, charges: Sequence[Charge], done: Done, reserve: int) -> None:
        self._owner = owner
        self._reserve = reserve
        self._cell = cell
        self._charges = charges
        self._done = done
        self.is_over = False

    def __call__(self, answered: Answered) -> None:
        """The answer, late or not, or none."""
        owner, cell, (charge,) = self._owner, self._cell, self._charges
        stats, now = owner.book.stats, answered.heard or owner.now()
        if answered.grants is None:
            stats.lost += 1
            self.give_up(now)
            return
        grant = answered.grants[0]
        owner.book.round_trip.observe(now.boot_us - answered.sent_us)
        stats.granted += grant.granted
        if not (
            answered.is_good
            and owner.masters.allows(cell.where, charge.limit, now.boot_us)
            and self._reserve >= owner.reserve(cell, charge.limit, now)
        ):
            stats.forfeited += grant.granted
            self.give_up(now)
            return
        owner.masters.granted(cell.identity, grant.granted, answered.sent_us)
        cell.learn(grant, charge.hits, charge.hits, answered.sent_us)
        if owner.book.is_volatile(cell.identity):
            cell.denied_hits = 0
        if self.is_over:
            stats.late += 1
            if grant.granted:
                lease = InHand(grant, charge.limit, answered.sent_us, dies=False)
                owner.keep(cell, lease, now, exact=True)
            return
        self.is_over = True
        owner.book.spent += grant.granted
        owner.book.exact += 1
        self._done((_outcome(grant, answered.sent_us - now.boot_us),))

    def give_up(self, now: Instant) -> None:
        """Nothing is known in time: the failure mode decides."""
        if not self.is_over:
            self.is_over = True
            self._done(self._owner.decide_without(self._charges, now))


def _outcome(grant: Grant, since_us: int) -> Outcome:
    """The answer to hits that were all granted, or not; `since_us`: the sending of their take, from now, below 0."""
    if grant.granted:
        wait_us = max(0, grant.wait_us + since_us)
        return Outcome(False, grant.remaining, wait_us, grant.before, Source.EXACT)
    wait_us = NEVER_US if grant.wait_us == NEVER_US else max(1, grant.wait_us + since_us)
    return Outcome(True, 0, wait_us, grant.before, Source.EXACT)


def take_of(cell: Cell, hits: int, reserve: int, *, lasting: bool) -> Take:
    """The take of so many hits, all or nothing, spent at the store's instant."""
    made = cell.sole
    if made is None or made.least != hits or made.asks[0].limit is not cell.limit or made.asks[0].reserve != reserve:
        ask = Ask(cell.identity, cell.limit, hits, reserve, lasting)
        made = cell.sole = Take(cell.where, (ask,), hits, 0, equal=False)
    return made
