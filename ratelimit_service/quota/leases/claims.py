"""What a request needs of one counter, and what it was told of it.

What an exact take yields belongs to its request alone, it is in the claim's *purse*; a slice goes to the cell, where
whoever comes first spends it.
"""

from __future__ import annotations

from typing import Final

from ratelimit_service.algorithms.limit import Limit
from ratelimit_service.quota.leases.cell import Cell, InHand
from ratelimit_service.quota.store import NEVER_US, Charge, Outcome, Role
from ratelimit_service.quota.takes import Ask, Grant

MOST_WANTED: Final = 2**53 - 1
"""More hits than this are asked for as this (`Ask.want`)."""

MOST_ROUNDS: Final = 4
"""Takes of one request for one counter; then what others have left it must do."""

RETRY_US: Final = 1_000_000
"""What hits that a failure mode denies are told to wait (DECISIONS 5)."""

_ENFORCED: Final = (Role.ENFORCE, Role.PENALTY)


class Claim:
    """What a request needs of one counter.

    Attributes:
        cell: The counter.
        charge: The first of its charges.
        exact: It asks for itself alone.
        enforced: Its hits, or some of them, must fit for the request to pass.
        observed: It only looks, with the numbers of its own charge.
        sole: Nobody else waits for what it asks.
        want, least: Most and least hits that it can use; 0: it only looks.
        purse: Hits that are the request's alone.
        leases: The grants that the purse came from.
        asked: Answers it has had.
        refused: The last of them granted nothing.
        counted, rest: What the store said last to this request; `counted` below 0: nothing. What an observer was told
            is without the hits in hand.
        retry_us: Boot time at which `least` hits fit, if the store said so; 0: it did not; `NEVER_US`.
        full_us: Boot time at which the budget is full.
        cut_off: No answer came in time: a failure mode decides.
    """

    __slots__ = (
        "asked",
        "cell",
        "charge",
        "counted",
        "cut_off",
        "enforced",
        "exact",
        "full_us",
        "leases",
        "least",
        "observed",
        "purse",
        "refused",
        "rest",
        "retry_us",
        "sole",
        "want",
    )

    def __init__(self, cell: Cell, charge: Charge, *, exact: bool, observed: bool) -> None:
        self.cell = cell
        self.charge = charge
        self.exact = exact
        self.observed = observed
        self.sole = exact or observed
        self.want = self.least = self.purse = self.asked = 0
        self.leases: list[InHand] = []
        self.counted = -1
        self.rest = self.retry_us = self.full_us = 0
        self.refused = self.cut_off = self.enforced = False

    def add(self, charge: Charge) -> None:
        """Make room for one more charge on the counter."""
        hits = min(charge.hits, MOST_WANTED)
        if charge.role in _ENFORCED:
            # What is enforced must fit as a whole.
            self.least = min(self.least + hits, MOST_WANTED) if self.enforced else hits
            self.enforced = True
        elif hits and not self.enforced:
            self.least = min(self.least or hits, hits)
        self.want = min(self.want + hits, MOST_WANTED)

    def has(self, now_us: int) -> int:
        """Hits of the store's that the request could spend now."""
        return self.purse + self.cell.held(now_us)

    def is_settled(self, now_us: int, spare: int, *, remembers_denials: bool) -> bool:
        """Whether asking (again) would tell nothing that the request needs; `spare` may be spent beside the store's."""
        if self.cut_off or self.refused or self.asked >= MOST_ROUNDS:
            return True
        if self.observed:
            return self.asked > 0 or (not self.exact and self.cell.held(now_us) > 0)
        has = self.has(now_us) + spare
        if has and has >= self.want:
            return True
        if self.asked and has >= self.least:
            return True
        return remembers_denials and self.cell.denies(self.least, now_us)

    def settle(self, grant: Grant, ask: Ask, least: int, sent_us: int) -> None:
        """Take in an answer of the store to a take of this request."""
        self.asked += 1
        self.refused = bool(ask.want) and not grant.granted
        self.counted = grant.before + grant.granted
        self.rest = grant.remaining
        if grant.granted or grant.remaining >= max(1, least):
            self.full_us, self.retry_us = sent_us + max(0, grant.wait_us), 0
        else:
            self.retry_us = NEVER_US if grant.wait_us == NEVER_US else sent_us + grant.wait_us

    def pocket(self, lease: InHand) -> None:
        """Take a grant for this request alone."""
        self.leases.append(lease)
        self.purse += lease.left

    def empty(self) -> list[InHand]:
        """What was not spent of the grants, newest first; the purse is empty then."""
        rest: list[InHand] = []
        for lease in reversed(self.leases):
            lease.left = min(lease.left, self.purse)
            self.purse -= lease.left
            rest.append(lease)
        self.leases = []
        return rest

    def spend(self, hits: int, now_us: int) -> int:
        """Spend up to `hits` of the store's, first from the purse; return how many were."""
        own = min(hits, self.purse)
        self.purse -= own
        return own + (self.cell.spend(hits - own, now_us) if hits > own else 0)

    def judge(self, charge: Charge, hits: int, now_us: int, spare: int, *, strict: bool) -> Outcome:
        """Whether so many hits could be spent; `spare` of them without the store.

        What the store could still grant counts too, unless `strict`: a companion may be why it was not granted.
        """
        cell, limit = self.cell, charge.limit
        counted, rest = (self.counted, self.rest) if self.counted >= 0 else (cell.counted, cell.rest)
        if counted < 0:
            rest = limit.burst  # nobody was asked, for the request is decided anyway
        has = self.has(now_us)
        before = max(0, counted - (0 if self.observed and self.asked else has))
        left = limit.burst - before if self.observed else has + spare + (0 if strict else rest)
        if hits > left or left < 1:
            return Outcome(True, 0, self._wait_us(limit, hits, now_us), before)
        full_us = self.full_us or cell.full_us
        return Outcome(False, left - hits, max(0, full_us - now_us), before)

    def _wait_us(self, limit: Limit, hits: int, now_us: int) -> int:
        if max(1, hits) > limit.burst or self.retry_us == NEVER_US:
            return NEVER_US
        if self.cut_off:
            return RETRY_US
        if self.retry_us:
            return max(1, self.retry_us - now_us)
        if self.cell.denied_hits:
            return self.cell.wait_us(now_us)
        return max(1, (self.full_us or self.cell.full_us) - now_us)
