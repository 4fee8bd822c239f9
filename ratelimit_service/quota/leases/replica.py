"""One replica of a shared store: decides requests from what it holds, and asks for what it does not.

Everything that happens is a call: a request, an answer to an order, an alarm. The clock, the carrier of orders and the
alarms are given, so that a whole replica runs in a simulation as it does in the service.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Instant, Limit, LimitSettings
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.leases.administration import Administration
from ratelimit_service.quota.leases.alarms import Alarm, Turns
from ratelimit_service.quota.leases.allowances import Allowances
from ratelimit_service.quota.leases.alone import Alone, take_of
from ratelimit_service.quota.leases.at_hand import AtHand
from ratelimit_service.quota.leases.book import LeaseBook, LeaseSettings
from ratelimit_service.quota.leases.cell import Cell, InHand
from ratelimit_service.quota.leases.claims import MOST_WANTED, Claim
from ratelimit_service.quota.leases.deadlines import Deadlines
from ratelimit_service.quota.leases.errands import Clock, Errands
from ratelimit_service.quota.leases.masters import Masters, NewMasterRule
from ratelimit_service.quota.leases.membership import Membership
from ratelimit_service.quota.leases.orders import Orders
from ratelimit_service.quota.leases.requests import Pending, askings
from ratelimit_service.quota.leases.spare import FailureModes, Standing
from ratelimit_service.quota.leases.stats import LeaseStats
from ratelimit_service.quota.leases.taking import Taker
from ratelimit_service.quota.leases.teaching import Teacher
from ratelimit_service.quota.leases.warming import Warmer
from ratelimit_service.quota.prompt import Glance
from ratelimit_service.quota.store import Charge, Done, Outcome, Role, Source
from ratelimit_service.quota.takes import CountedKey

COMMAND_MARGIN_US: Final = 2_000
"""How long before a request's deadline its orders are given up (DECISIONS 29)."""

_GAP_US: Final = 1_000_000
"""Two decisions of a failure mode that are farther apart than this are two outages."""

_RECLAIM_KEYS: Final = 1_000
_ENFORCE: Final = Role.ENFORCE


class ReplicaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica works.

    Attributes:
        leases: How it leases.
        slots: Most replicas that there will be; None: not said.
        standing_percent: Part of every leased limit that the slots own without asking, 0 to 50; needs `slots`.
        new_master: What follows when the store's memory is not the one that it was.
    """

    leases: LeaseSettings = LeaseSettings()
    slots: int | None = None
    standing_percent: int = 0
    new_master: NewMasterRule = NewMasterRule.LEARN


class Replica:
    """See the module. Not thread-safe.

    Attributes:
        book: What it holds.
        membership: Its slot.
        allowances: What it spent without asking.
        standing: Its standing allowance.
        modes: What decides while the store is away.
        masters: What is known of new masters.
        warmer: What it remembers of hot keys.
        at_hand: Decides some requests of one enforced charge (`LeasingStore`).
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        *,
        orders: Orders,
        clock: Clock,
        turns: Turns,
        group_of: Callable[[bytes], bytes],
    ) -> None:
        """Make a replica that holds nothing: after a crash nothing is taken for granted."""
        self.book = LeaseBook(settings.leases, group_of)
        self.membership = Membership(settings.slots)
        self.allowances = Allowances(settings.leases.max_keys)
        self.standing = Standing(self.book, self.allowances, self.membership, settings.standing_percent)
        self.modes = FailureModes(self.allowances, self.membership, self.standing)
        self.masters = Masters(settings.new_master)
        self._orders = orders
        self._clock = clock
        self._turns = turns
        self._limits: Mapping[bytes, LimitSettings] = {}
        self._deadlines: Deadlines[Pending | Alone] = Deadlines()
        self._planned: tuple[Sequence[Charge], Pending | Cell, Instant] | None = None
        self._degraded_at_us: int | None = None
        self._errands = Errands(self.book, orders, clock, self.modes)
        self._alarm = Alarm(turns, self.wake)
        self._taker = Taker(self.book, self._errands, self.masters, self.standing, self._alarm, self._go_on)
        self._hand = AtHand(self.book, self._taker, self.standing)
        self.at_hand: Glance = self._hand.decide
        self._administration = Administration(self.book, orders, clock, self._errands)
        self._teacher = Teacher(self.book, self.masters, self._administration, turns, clock)
        self.warmer = Warmer(self.book, self._taker, turns, clock)

    # The request path.

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome] | None:
        """See `Store.charge`."""
        if len(charges) == 1 and charges[0].role is _ENFORCE:
            charge = charges[0]
            outcome = self.at_hand(charge, charge.key, charge.hits, now)
            if outcome is not None:
                return (outcome,)
            cell = self.book.find(charge.identity, charge.key)
            if (
                cell is not None
                and cell.exact
                and 0 < charge.hits <= MOST_WANTED
                and not (cell.left or cell.owed or cell.denied_hits)
                and cell.limit is charge.limit
                and self._taker.is_up(cell.where, cell.limit, now)
            ):
                # What `_sole_cell` finds out about a counter that is known: only the store can tell.
                self._planned = (charges, cell, now)
                return None
        outcomes = self.book.charge(charges, now)
        if self.book.wanted:
            self._taker.refill_soon()
        if outcomes is not None and (not self.standing.percent or not outcomes[0].over):
            self._hand.leased += len(outcomes)
            return outcomes
        if self.standing.percent and len(charges) == 1:
            standing = self._hand.by_standing(charges[0], now)
            if standing is not None:
                return (standing,)
            if outcomes is not None:
                self._hand.leased += 1
                return outcomes
        cell = self._sole_cell(charges, now)
        if cell is not None:
            self._planned = (charges, cell, now)
            return None
        pending = Pending(charges, self.book, now)
        if self._unsettled(pending, now):
            self._planned = (charges, pending, now)
            return None
        return self._conclude(pending, now)

    def _sole_cell(self, charges: Sequence[Charge], now: Instant) -> Cell | None:
        """The cell of a request of one exact enforced charge, if all that is known is that it can be asked for."""
        charge = charges[0]
        if len(charges) > 1 or charge.role is not _ENFORCE or not 0 < charge.hits <= MOST_WANTED:
            return None
        cell = self.book.cell(charge, now)
        if not cell.exact or cell.left or cell.owed or cell.denies(charge.hits, now.boot_us):
            return None
        return cell if self._taker.is_up(cell.where, charge.limit, now) else None

    def charge_later(self, charges: Sequence[Charge], deadline_us: int, done: Done) -> None:
        """See `Store.charge_later`."""
        planned, self._planned = self._planned, None
        if planned is not None and planned[0] is charges:
            # Of this very turn, so its reading of the clocks will do.
            _, plan, now = planned
        else:
            now = self._clock.read()
            plan = self._sole_cell(charges, now) or Pending(charges, self.book, now)
        if isinstance(plan, Cell):
            self._ask_alone(plan, charges, deadline_us, done, now)
        else:
            self._ask_for(plan, deadline_us, done, now)

    def take_ahead(self, charge: Charge, done: Callable[[bool | None], None]) -> None:
        """Have up to the hits of a charge in hand before they are asked for.

        `done` is told, perhaps before this returns: True: they are there; False: the store is away, did not answer or
        has none left; None: nothing to do, for the counter has hits in hand or is never leased.
        """
        now = self._clock.read()
        cell = self.book.cell(charge, now)
        if cell.exact or cell.taking or cell.held(now.boot_us) or not self.book.remembers(cell):
            done(None)
        elif not self._taker.is_up(cell.where, charge.limit, now):
            done(False)
        else:
            self._taker.take_ahead(cell, charge.hits, now, done)

    def _ask_alone(self, cell: Cell, charges: Sequence[Charge], deadline_us: int, done: Done, now: Instant) -> None:
        reserve = self.reserve(cell, cell.limit, now)
        alone = Alone(self, cell, charges, done, reserve)
        self._wait(alone, deadline_us)
        self.book.stats.takes += 1
        take = take_of(cell, charges[0].hits, reserve, lasting=bool(self.standing.percent))
        self._orders.submit(take, max(now.boot_us, deadline_us - COMMAND_MARGIN_US), alone)

    def _ask_for(self, pending: Pending, deadline_us: int, done: Done, now: Instant) -> None:
        pending.done = done
        pending.deadline_us = deadline_us
        self._wait(pending, deadline_us)
        if not self._ask(pending, now):
            self._turns.soon(functools.partial(self._go_on, pending))

    def _wait(self, pending: Pending | Alone, deadline_us: int) -> None:
        self._deadlines.add(deadline_us, pending)
        self._alarm.set(deadline_us)

    def _unsettled(self, pending: Pending, now: Instant) -> list[Claim]:
        """Claims that need an answer; those whose store is away are cut off.

        None do where another enforced one is denied already, so that an attack on one key asks nothing of others.
        """
        if any(self._is_denied(claim, now) for claim in pending.claims):
            return []
        unsettled = []
        for claim in pending.claims:
            if not claim.want and not claim.observed and not self._taker.is_volatile(claim) and claim.has(now.boot_us):
                continue
            spare = 0 if claim.exact else self.standing.left(claim.charge, now)
            if claim.is_settled(now.boot_us, spare, remembers_denials=not self._taker.is_volatile(claim)):
                continue
            if self._taker.is_up(claim.cell.where, claim.charge.limit, now):
                unsettled.append(claim)
            else:
                claim.cut_off = True
        return unsettled

    def _is_denied(self, claim: Claim, now: Instant) -> bool:
        """Whether an enforced claim cannot be met, for all that is known here."""
        boot_us = now.boot_us
        if not claim.enforced or self._taker.is_volatile(claim) or self.standing.left(claim.charge, now):
            return False
        return claim.cell.denies(claim.least, boot_us) and claim.has(boot_us) < max(1, claim.least)

    def _go_on(self, pending: Pending) -> None:
        """Ask again, or answer, when nothing is waited for any more."""
        if pending.is_over or pending.waits:
            return
        now = self._clock.read()
        if not self._ask(pending, now):
            self._answer(pending, now)

    def _ask(self, pending: Pending, now: Instant) -> bool:
        """Ask for what the request needs; return whether there is something to wait for."""
        mine = []
        for claim in self._unsettled(pending, now):
            if claim.sole or not claim.cell.taking:
                mine.append(claim)
            else:
                self._taker.join(claim, pending)
        for claim in mine:
            self._errands.clear_up(claim.cell, now)
        for asking in askings(mine, self.book, self.standing, now, alone=pending.alone):
            self._taker.take(asking, pending, max(now.boot_us, pending.deadline_us - COMMAND_MARGIN_US))
        return pending.waits > 0

    def _answer(self, pending: Pending, now: Instant) -> None:
        outcomes = self._conclude(pending, now)
        assert pending.done is not None
        pending.done(outcomes)

    def _conclude(self, pending: Pending, now: Instant) -> Sequence[Outcome]:
        """Decide; charge debts; keep, or send back, what was not spent."""
        pending.is_over = True
        concluded = pending.conclude(now, self.standing, self.modes)
        self.book.spent += concluded.spent
        for debt in concluded.debts:
            self._errands.spend(debt.cell, debt.limit, debt.hits, now)
        for claim in pending.claims:
            if claim.leases:
                for lease in claim.empty():
                    self._taker.keep(claim.cell, lease, now, exact=True)
        decisions = self.book.stats.decisions
        for outcome in concluded.outcomes:
            decisions[outcome.source] += 1
            if outcome.degraded:
                self._note_degraded(now.boot_us)
        return concluded.outcomes

    def decide_without(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome]:
        """Decide by what is in hand and the failure mode."""
        pending = Pending(charges, self.book, now)
        for claim in pending.claims:
            claim.cut_off = True
        return self._conclude(pending, now)

    def reserve(self, cell: Cell, limit: Limit, now: Instant) -> int:
        """See `Standing.reserve`."""
        return self.standing.reserve(cell.identity, limit, now)

    def keep(self, cell: Cell, lease: InHand, now: Instant, *, exact: bool) -> None:
        """Take a grant in hand; see `Taker.keep`."""
        self._taker.keep(cell, lease, now, exact=exact)

    def now(self) -> Instant:
        """Read the clocks."""
        return self._clock.read()

    def _note_degraded(self, now_us: int) -> None:
        if self._degraded_at_us is not None and now_us - self._degraded_at_us < _GAP_US:
            self.book.stats.degraded_us += now_us - self._degraded_at_us
        self._degraded_at_us = now_us

    # Alarms.

    def wake(self) -> None:
        """Answer the requests whose time has come, and give back what lies idle."""
        now = self._clock.read()
        for pending in self._deadlines.due(now.boot_us):
            if isinstance(pending, Alone):
                pending.give_up(now)
            else:
                for claim in self._unsettled(pending, now):
                    claim.cut_off = True
                self._answer(pending, now)
        for order in self.book.tick(now.boot_us):
            self._errands.send_back(order)
        for at_us in (self._deadlines.next_us(), self.book.next_due_us()):
            if at_us is not None:
                self._alarm.set(at_us)

    # Administration.

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """See `Store.peek`."""
        self._administration.peek(charges, now, done)

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """See `Store.refund`."""
        self._administration.refund(charges, now, done)

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool | None], None]) -> None:
        """See `Administration.reset`; what other replicas hold of the key they may still spend."""
        self._administration.reset(identity, key, self._limits, done)

    def bound(self, rule: str) -> int:
        """See `Store.bound`: what this replica alone may have admitted beyond; bounds of replicas add up."""
        now_us = self._clock.read().boot_us
        # A memory may be lost in the very window in which shares were spent.
        return min(MAX_HITS, self.modes.bound(rule, now_us) + self.masters.bound(rule, now_us))

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """See `Store.apply`."""
        self._limits = limits
        self.book.apply(limits)
        self.modes.apply(limits)
        self.masters.apply(limits)

    def on_new_master(self, affects: Callable[[CountedKey], bool]) -> None:
        """The memory of a part of the store is not the one that it was: its slots are gone, its counts perhaps too."""
        now = self._clock.read()
        self.book.stats.masters += 1
        self.membership.lose()
        self.masters.changed(affects, now.boot_us)
        if self.masters.rule is NewMasterRule.LEARN:
            self._teacher.teach(affects)

    def on_found_master(self, affects: Callable[[CountedKey], bool], since_us: int) -> None:
        """A part of the store was met for the first time, with a memory that began then (boot time).

        Others may have spent what it does not know of; with `Learn` it is theirs to teach.
        """
        self.masters.found(affects, since_us)

    def reclaim(self) -> None:
        """Forget, in the background, what was spent without asking in windows that are over."""
        self.allowances.reclaim(self._clock.read(), _RECLAIM_KEYS)

    def release(self) -> None:
        """Send everything in hand back; the replica stops."""
        for order in self.book.release():
            self._errands.send_back(order)

    def stats(self) -> LeaseStats:
        """Read the plain integers."""
        stats = self.book.stats
        counted = {Source.LEASE: self._hand.leased, Source.EXACT: self.book.exact}
        decisions = {source: count + counted.get(source, 0) for source, count in stats.decisions.items()}
        return msgspec.structs.replace(
            stats, decisions=decisions, spent=self.book.spent + self._hand.spent, keys=len(self.book)
        )
