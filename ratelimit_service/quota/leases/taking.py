"""Takes and their answers: what is granted goes to the request that asked, or to the cell for whoever comes first.

One take is under way for each leased cell; whoever needs the cell meanwhile waits for it, and is served in the order of
coming.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.quota.leases.alarms import Alarm
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell, InHand
from ratelimit_service.quota.leases.claims import Claim
from ratelimit_service.quota.leases.errands import PATIENCE_US, Errands
from ratelimit_service.quota.leases.masters import Masters
from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.leases.requests import Asking, Pending, slice_of
from ratelimit_service.quota.leases.sizing import WORTH_AHEAD_HITS, lease_us
from ratelimit_service.quota.leases.spare import Standing
from ratelimit_service.quota.store import Charge, Role
from ratelimit_service.quota.takes import Ask, CountedKey, Grant, Take


class Taker:
    """Takes for one replica."""

    def __init__(
        self,
        book: LeaseBook,
        errands: Errands,
        masters: Masters,
        standing: Standing,
        alarm: Alarm,
        go_on: Callable[[Pending], None],
    ) -> None:
        """Take for the cells of `book`; `go_on` is called with each request that waits for one thing less."""
        self._book = book
        self._errands = errands
        self._masters = masters
        self._standing = standing
        self._alarm = alarm
        self._go_on = go_on
        self._waiting: dict[Cell, list[tuple[Pending, int]]] = {}
        self._refilling = False

    def is_volatile(self, claim: Claim) -> bool:
        """Whether a claim's counter moves for other reasons than takes, so that no denial of it is remembered."""
        return claim.charge.role is Role.PENALTY or self._book.is_volatile(claim.cell.identity)

    def is_up(self, where: CountedKey, limit: Limit, now: Instant) -> bool:
        """Whether asking makes sense, and what is granted might be spent."""
        return self._errands.orders.is_up(where) and self._masters.allows(where, limit, now.boot_us)

    def join(self, claim: Claim, pending: Pending) -> None:
        """Let a request wait for the take that is under way; the next one is for what they all want."""
        pending.waits += 1
        claim.cell.awaited += claim.want
        self._waiting.setdefault(claim.cell, []).append((pending, claim.want))

    def refill_soon(self) -> None:
        """Take, after this turn, for the cells that are about to run out (`LeaseBook.wanted`)."""
        if not self._refilling:
            self._refilling = True
            self._alarm.turns.soon(self._refill)

    def take(self, asking: Asking, pending: Pending | None, deadline_us: int) -> None:
        """Send a take, for a request (None: for nobody yet)."""
        if pending is not None:
            pending.waits += 1
        for claim in asking.claims:
            claim.cell.taking = claim.cell.taking or not claim.sole
        self._book.stats.takes += 1
        self._errands.orders.submit(asking.take, deadline_us, functools.partial(self._taken, asking, pending))

    def _taken(self, asking: Asking, pending: Pending | None, answered: Answered) -> None:
        """An answer, late or not, or none."""
        now = self._errands.now()
        grants = answered.grants
        if grants is None:
            self._book.stats.lost += 1
        else:
            self._book.round_trip.observe(now.boot_us - answered.sent_us)
            if pending is not None and pending.is_over:
                self._book.stats.late += 1
        for index, (claim, ask) in enumerate(zip(asking.claims, asking.take.asks, strict=True)):
            if not claim.sole:
                claim.cell.taking = False
            grant = None if grants is None else grants[index]
            self._settle(claim, ask, asking.take, grant, answered, pending, now)
        waiting = [
            (claim.cell, each, hits)
            for claim in asking.claims
            if not claim.sole
            for each, hits in self._waiting.pop(claim.cell, ())
        ]
        if pending is not None:
            pending.waits -= 1
            self._go_on(pending)
        for cell, each, hits in waiting:
            cell.awaited -= hits
            each.waits -= 1
            self._go_on(each)

    def _settle(
        self,
        claim: Claim,
        ask: Ask,
        take: Take,
        grant: Grant | None,
        answered: Answered,
        pending: Pending | None,
        now: Instant,
    ) -> None:
        """What one answer means for a claim, and for its cell."""
        cell = claim.cell
        is_good = answered.is_good and self._masters.allows(cell.where, ask.limit, now.boot_us)
        # What was asked for before more was known of other forms is not spent either.
        is_good = is_good and ask.reserve >= self._standing.reserve(cell.identity, ask.limit, now)
        if grant is None or not is_good:
            claim.cut_off = True
            if grant is not None:
                self._book.stats.forfeited += grant.granted
                self._book.stats.granted += grant.granted
            return
        self._book.stats.granted += grant.granted
        if not claim.observed:
            cell.learn(grant, ask.want, take.least, answered.sent_us)
            if self.is_volatile(claim):
                cell.denied_hits = 0
            self._masters.granted(cell.identity, grant.granted, answered.sent_us)
        claim.settle(grant, ask, take.least, answered.sent_us)
        if claim.observed:
            claim.counted = max(0, grant.before - cell.held(now.boot_us))
        if not grant.granted:
            return
        dies = not claim.exact and ask.limit.algorithm is Algorithm.FIXED_WINDOW
        lease = InHand(grant, ask.limit, answered.sent_us, dies=dies)
        if claim.exact and pending is not None and not pending.is_over:
            claim.pocket(lease)
        else:
            self.keep(cell, lease, now, exact=claim.exact)
            if not claim.exact:
                cell.refill_below = self._refill_below(cell, alone=len(take.asks) == 1)

    def _refill_below(self, cell: Cell, *, alone: bool) -> int:
        """With how few hits in hand more are taken in the background; below 0: only when a request finds none.

        What is taken together for several limits is asked for together too.
        """
        ahead = int(cell.rate * self._book.round_trip.ahead_us)
        return ahead if ahead or (alone and cell.left + cell.others >= WORTH_AHEAD_HITS) else -1

    def keep(self, cell: Cell, lease: InHand, now: Instant, *, exact: bool) -> None:
        """Take a grant in hand, or what is left of one; what cannot be kept goes back."""
        for order in self._book.receive(cell, lease, now.boot_us, exact=exact):
            self._errands.send_back(order)
        due_us = self._book.next_due_us()
        if due_us is not None:
            self._alarm.set(due_us)

    def _refill(self) -> None:
        """Take for the cells that are about to run out."""
        self._refilling = False
        now = self._errands.now()
        wanted = list(self._book.wanted)
        self._book.wanted.clear()
        for cell in wanted:
            is_denied = cell.denies(1, now.boot_us) and not cell.is_doubtful(now.boot_us)
            if cell.taking or cell.exact or is_denied or not self.is_up(cell.where, cell.limit, now):
                continue
            self._errands.clear_up(cell, now)
            asking = self._slice(cell, slice_of(cell, self._book, self._standing, now), now)
            self.take(asking, None, now.boot_us + PATIENCE_US)

    def _slice(self, cell: Cell, hits: int, now: Instant) -> Asking:
        """A take of up to so many hits for whoever comes."""
        claim = Claim(cell, Charge(cell.identity, cell.limit, cell.where.key, hits), exact=False, observed=False)
        ask = self._standing.ask(cell.identity, cell.limit, hits, now)
        lease = lease_us(cell.limit, self._book.horizon_us(cell.limit))
        return Asking(Take(cell.where, (ask,), 1, lease), [claim])

    def take_ahead(self, cell: Cell, hits: int, now: Instant, done: Callable[[bool], None]) -> None:
        """Take up to so many hits for a leased cell that nothing is under way for; tell whether any are in hand."""
        self._errands.clear_up(cell, now)
        asking = self._slice(cell, hits, now)

        def taken(answered: Answered) -> None:
            self._taken(asking, None, answered)
            done(cell.held(self._errands.now().boot_us) > 0)

        cell.taking = True
        self._book.stats.takes += 1
        self._errands.orders.submit(asking.take, now.boot_us + PATIENCE_US, taken)
