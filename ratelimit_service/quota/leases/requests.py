"""A request that what is in hand does not decide: what it has to ask for, and what follows from the answers.

Its charges are gathered by counter into *claims*. A claim says how many hits its counter has to yield at the most
(`want`) and at the least (`least`). What an exact take yields belongs to its request alone (`purse`); a slice goes to
the cell, where whoever comes first spends it. When every claim is settled, the rules of `quota.decision` decide on all
charges together, and what is counted is spent: from the purse, then from the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.quota.decision import MAX_HITS, Decision, decide
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell
from ratelimit_service.quota.leases.claims import MOST_WANTED, Claim
from ratelimit_service.quota.leases.sizing import EXACT_LEASE_US, lease_us, slice_hits
from ratelimit_service.quota.leases.spare import Standing
from ratelimit_service.quota.store import Charge, Done, Outcome, Role, Source
from ratelimit_service.quota.takes import CountedKey, Take


class Spare(Protocol):
    """Hits that may be spent beside those of the store: a standing allowance, or what a failure mode admits."""

    @property
    def source(self) -> Source:
        """What outcomes of such hits name."""

    def left(self, charge: Charge, now: Instant) -> int:
        """Hits of a counter that may be spent so."""

    def spend(self, charge: Charge, cell: Cell | None, hits: int, now: Instant) -> None:
        """Count so many of them, past what is left if need be."""


class Debt(msgspec.Struct, frozen=True, gc=False):
    """Hits that are counted although they were not granted."""

    cell: Cell
    limit: Limit
    hits: int


class Conclusion(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a request: its outcomes, what is to be charged past the limit, and how many hits were spent."""

    outcomes: list[Outcome]
    debts: list[Debt]
    spent: int


class Pending:
    """A request that waits for answers.

    Attributes:
        charges: Its charges.
        claims: What it needs, one claim a counter, observers beside them.
        done: Takes the outcomes.
        deadline_us: Boot time by which it is answered.
        alone: All that it asks for is of one counted key.
        waits: Answers that it waits for.
        is_over: It was answered; what still comes is kept by the replica.
    """

    __slots__ = ("_of", "alone", "charges", "claims", "deadline_us", "done", "is_over", "waits")

    def __init__(self, charges: Sequence[Charge], book: LeaseBook, now: Instant) -> None:
        self.charges = charges
        self.done: Done | None = None
        self.deadline_us = 0
        self.waits = 0
        self.is_over = False
        by_cell: dict[tuple[int, bool], Claim] = {}
        self._of: list[Claim] = []
        for charge in charges:
            observed = charge.role is Role.OBSERVE
            cell = book.find(charge.identity, charge.key) if observed else None
            if cell is None:
                cell = book.cell(charge, now)
            # An observer has numbers of its own, so each looks for itself.
            at = (len(by_cell), True) if observed else (id(cell), False)
            claim = by_cell.get(at)
            if claim is None:
                asks_alone = charge.role is Role.PENALTY or not book.remembers(cell)
                exact = asks_alone or book.is_exact(charge.identity, charge.limit)
                claim = by_cell[at] = Claim(cell, charge, exact=exact, observed=observed)
            if not observed:
                claim.add(charge)
            self._of.append(claim)
        self.claims = list(by_cell.values())
        self.alone = len({claim.cell.where for claim in self.claims}) == 1

    def conclude(self, now: Instant, spare: Spare, fallback: Spare) -> Conclusion:
        """Decide on what there is, and spend it. Claims that are cut off have `fallback` beside what is in hand.

        A request that passes is backed by hits in hand to the last one; where what the store said would not be, it
        is judged again by what is in hand alone.
        """
        counters = [id(claim.cell) for claim in self._of]
        backed = self._decide(counters, now, spare, fallback, strict=False)
        if not backed.over and not self._is_backed(backed, now, spare, fallback):
            backed = self._decide(counters, now, spare, fallback, strict=True)
        return self._spend(backed, now, spare, fallback)

    def _decide(
        self, counters: Sequence[int], now: Instant, spare: Spare, fallback: Spare, *, strict: bool
    ) -> Decision:
        def judge(index: int, hits: int) -> Outcome:
            claim, charge = self._of[index], self.charges[index]
            beside = (fallback if claim.cut_off else spare).left(charge, now)
            return claim.judge(charge, hits, now.boot_us, beside, strict=strict or claim.cut_off)

        return decide(self.charges, counters, judge)

    def _is_backed(self, decision: Decision, now: Instant, spare: Spare, fallback: Spare) -> bool:
        needed: dict[int, int] = {}
        for claim, charge, counted in zip(self._of, self.charges, decision.counted, strict=True):
            if counted:
                needed[id(claim)] = min(needed.get(id(claim), 0) + charge.hits, MAX_HITS)
                beside = (fallback if claim.cut_off else spare).left(charge, now)
                if needed[id(claim)] > claim.has(now.boot_us) + beside:
                    return False
        return True

    def _spend(self, decision: Decision, now: Instant, spare: Spare, fallback: Spare) -> Conclusion:
        outcomes: list[Outcome] = []
        debts: list[Debt] = []
        total = 0
        for index, (claim, charge) in enumerate(zip(self._of, self.charges, strict=True)):
            outcome = decision.outcomes[index]
            source = Source.EXACT if claim.exact else Source.BATCH
            if decision.counted[index] and charge.hits:
                spent = claim.spend(charge.hits, now.boot_us)
                total += spent
                missing = charge.hits - spent
                if missing and claim.cut_off:
                    fallback.spend(charge, claim.cell, missing, now)
                elif missing and spare.left(charge, now) >= missing:
                    spare.spend(charge, claim.cell, missing, now)
                    source = spare.source
                elif missing:
                    debts.append(Debt(claim.cell, charge.limit, min(missing, MOST_WANTED)))
            if claim.cut_off:
                source = fallback.source
            outcomes.append(
                Outcome(
                    outcome.over, outcome.remaining, outcome.wait_us, outcome.before, source, degraded=claim.cut_off
                )
            )
        return Conclusion(outcomes, debts, total)


class Asking(msgspec.Struct, frozen=True, gc=False):
    """A take, and the claims that its asks stand for, in order."""

    take: Take
    claims: list[Claim]


def askings(claims: Sequence[Claim], book: LeaseBook, standing: Standing, now: Instant, *, alone: bool) -> list[Asking]:
    """The takes that some claims of one request need: one for each counted key, observers apart and first.

    What an exact take grants is spent at the store's instant, if it is `alone` in its request; else it may be kept
    for a moment, in case a companion loses (DECISIONS 18).
    """
    grouped: dict[tuple[CountedKey, bool, bool, int, int], list[Claim]] = {}
    for claim in sorted(claims, key=lambda each: not each.observed):
        short = claim.want - claim.has(now.boot_us) if claim.want else 0
        least = max(0, claim.least - (claim.want - short))
        # An exact take asks for what it needs; of slices of one key each gets the same.
        at = (claim.cell.where, claim.observed, claim.exact, least, short if claim.exact else 0)
        grouped.setdefault(at, []).append(claim)
    made = []
    for (where, observed, exact, least, short), group in grouped.items():
        if observed or exact:
            lease, wants = (0 if alone else EXACT_LEASE_US), [0 if observed else max(0, short)] * len(group)
        else:
            lease = min(lease_us(claim.cell.limit, book.horizon_us(claim.cell.limit)) for claim in group)
            wants = [max(least, slice_of(claim.cell, book, standing, now)) if least else 0 for claim in group]
        asks = tuple(
            standing.ask(claim.cell.identity, claim.charge.limit, want, now)
            for claim, want in zip(group, wants, strict=True)
        )
        made.append(Asking(Take(where, asks, least, lease, equal=len(asks) > 1), group))
    return made


def slice_of(cell: Cell, book: LeaseBook, standing: Standing, now: Instant) -> int:
    """Hits of the next slice of a cell: what demand says, and at least what requests wait for already.

    Those hits are spent as they come, so nothing of them is stranded, however many replicas there are.
    """
    horizon_us = book.horizon_us(cell.limit)
    rest = cell.rest if cell.counted >= 0 else cell.limit.burst - standing.reserve(cell.identity, cell.limit, now)
    rate = cell.measure(now.boot_us, horizon_us)
    expected = slice_hits(rate, horizon_us, rest, book.replicas, book.patience_us(cell.limit))
    return max(expected, min(cell.awaited, rest))
