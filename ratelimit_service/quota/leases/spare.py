"""Hits that a replica spends without the store: its standing allowance, and what the failure modes admit.

| mode | without an answer from the store | beyond the limit, in a window |
|---|---|---|
| Closed | what is in hand, then denial | 0 |
| Reserved | that and the standing allowance, then denial | 0 |
| Share | that, up to this replica's part of the limit | this part, with a bucket's refill, of each that is cut off |
| Open | everything | not bounded |

What a share spent is charged with the first take of the key once the store answers again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit_service.algorithms import calendar_window, fixed_window
from ratelimit_service.algorithms.fixed_window import Window
from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Instant, Limit, LimitSettings
from ratelimit_service.quota.decision import MAX_HITS
from ratelimit_service.quota.leases.allowances import Allowances, share_of, slowed
from ratelimit_service.quota.leases.book import LeaseBook
from ratelimit_service.quota.leases.cell import Cell
from ratelimit_service.quota.leases.membership import Membership
from ratelimit_service.quota.leases.sizing import is_exact, length_us
from ratelimit_service.quota.store import Charge, Role, Source
from ratelimit_service.quota.takes import Ask

MOST_STANDING_PERCENT: Final = 50
"""No form lets its slots own more of a limit."""

BOUND_SHOWN_US: Final = 10_000_000
"""How long an outage stays in the bound after its window: as long as a gauge may go unread."""


class Standing:
    """The standing allowance of the slot that this replica holds; a `Spare`.

    a = ⌊hits · share / (100 · slots)⌋ of each limit that is leased. A new holder has none in a window that began before
    it took the slot, and none in its first window of a sliding limit or bucket; nor has anyone within the error of the
    clocks around the edge of a window (DECISIONS 14).
    """

    source: Final = Source.STANDING

    def __init__(self, book: LeaseBook, allowances: Allowances, membership: Membership, percent: int) -> None:
        """Share `percent` of every leased limit, 0 to `MOST_STANDING_PERCENT`, among the slots."""
        self._book = book
        self._allowances = allowances
        self._membership = membership
        self.percent = percent if membership.slots else 0

    def each(self, identity: bytes, limit: Limit) -> int:
        """a: hits of a limit that each slot owns in a window."""
        slots = self._membership.slots
        if not self.percent or slots is None or self._book.is_exact(identity, limit):
            return 0
        return min(limit.requests, limit.burst) * self.percent // (100 * slots)

    def reserve(self, identity: bytes, limit: Limit, now: Instant) -> int:
        """What all slots own together, which the store's grants leave alone.

        The most that any form may own, unless the form in force is surely this replica's, and the window began after
        the last of the others had ended.
        """
        held = self._membership
        slots = held.slots
        if not self.percent and not held.other_until_us and held.is_in_form(now.boot_us):
            return 0
        if not self._others_may_own(limit, now):
            return 0 if slots is None else slots * self.each(identity, limit)
        if is_exact(limit) or self._book.is_volatile(identity):
            return 0
        return min(limit.requests, limit.burst) * MOST_STANDING_PERCENT // 100

    def _others_may_own(self, limit: Limit, now: Instant) -> bool:
        """Whether slots of another form may have spent, or may yet spend, hits that count with those of now."""
        held, time = self._membership, self._allowances.time
        if held.other_owns or not held.is_in_form(now.boot_us):
            return True
        # The store cannot be earlier than this when it carries out what is asked now.
        at_us = time.at(now) - time.error_us(now)
        if limit.algorithm is not Algorithm.FIXED_WINDOW:
            return at_us - _outlived_us(limit) <= held.other_until_us
        return _window_at(limit, at_us).start_us <= held.other_until_us

    def ask(self, identity: bytes, limit: Limit, want: int, now: Instant) -> Ask:
        """An ask that leaves alone what slots own.

        The store keeps a reserve for its window only where the replica goes by a share: one that does not is in doubt
        for a moment, or all of its kind know what it knows, and a window cut short for a moment's doubt were too much.
        """
        return Ask(identity, limit, want, self.reserve(identity, limit, now), lasting=bool(self.percent))

    def left(self, charge: Charge, now: Instant) -> int:
        """Hits of it that may be spent now."""
        if not self.percent or not self._membership.holds(now.boot_us):
            return 0
        each = self.each(charge.identity, charge.limit)
        if not each or not self._may_spend(charge.limit, now):
            return 0
        return self._allowances.left(charge, each, each, now)

    def spend(self, charge: Charge, cell: Cell | None, hits: int, now: Instant) -> None:
        """Count hits."""
        each = self.each(charge.identity, charge.limit)
        self._allowances.spend(charge, hits, each, each, now)

    def _may_spend(self, limit: Limit, now: Instant) -> bool:
        held = self._membership
        if limit.algorithm is not Algorithm.FIXED_WINDOW:
            # Whatever an earlier holder spent has left the window, or has been refilled.
            return slowed(now.boot_us) - slowed(held.since_us) >= _outlived_us(limit)
        time = self._allowances.time
        at_us, error_us = time.at(now), time.error_us(now)
        window = _window_at(limit, at_us)
        if at_us - window.start_us < error_us or window.end_us - at_us <= error_us:
            return False
        return window.start_us >= held.since_wall_us + error_us


def _window_at(limit: Limit, at_us: int) -> Window:
    """The fixed or calendar window of an instant."""
    if limit.calendar is None:
        return fixed_window.window_at(limit.window_us, at_us)
    return calendar_window.window_at(limit.calendar, at_us)


def _outlived_us(limit: Limit) -> int:
    """How long after it was spent a standing allowance counts in no interval of a sliding limit or bucket any more."""
    return length_us(limit) * 61 // 60 + 2


class FailureModes:
    """What decides while the store does not answer; a `Spare`."""

    source: Final = Source.FALLBACK

    def __init__(self, allowances: Allowances, membership: Membership, standing: Standing) -> None:
        """Decide by the limits in force; none yet."""
        self._allowances = allowances
        self._membership = membership
        self._standing = standing
        self._limits: Mapping[bytes, LimitSettings] = {}
        self._used: dict[bytes, tuple[int, Limit, FailureMode]] = {}

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """Take the limits in force."""
        self._limits = limits

    def left(self, charge: Charge, now: Instant) -> int:
        """Hits that the mode admits."""
        match self._mode(charge):
            case FailureMode.CLOSED:
                return 0
            case FailureMode.RESERVED:
                return self._standing.left(charge, now)
            case FailureMode.SHARE:
                return self._allowances.left(charge, *self._share(charge), now)
            case FailureMode.OPEN:
                return MAX_HITS

    def spend(self, charge: Charge, cell: Cell | None, hits: int, now: Instant) -> None:
        """Count hits that the mode admitted, or (PENALTY) that are counted whether or not it does."""
        mode = self._mode(charge)
        if charge.identity in self._limits:
            self._used[charge.identity] = (now.boot_us, charge.limit, mode)
        if mode is FailureMode.RESERVED and charge.role is not Role.PENALTY:
            self._standing.spend(charge, cell, hits, now)
            return
        if mode is FailureMode.SHARE:
            self._allowances.spend(charge, hits, *self._share(charge), now)
        if cell is not None and (mode is FailureMode.SHARE or charge.role is Role.PENALTY):
            cell.owe(hits, now.boot_us, now.boot_us + self.counts_for_us(charge.limit, hits, now))

    def bound(self, rule: str, now_us: int) -> int:
        """Hits that this replica may have admitted beyond the limits of a rule, in a window; 2**64-1: no bound."""
        most = 0
        for identity, (at_us, limit, mode) in list(self._used.items()):
            settings = self._limits.get(identity)
            if now_us - at_us > length_us(limit) + BOUND_SHOWN_US:
                del self._used[identity]
            elif settings is not None and settings.rule == rule:
                most = max(most, self._beyond(limit, mode))
        return most

    def _beyond(self, limit: Limit, mode: FailureMode) -> int:
        if mode is FailureMode.OPEN or (mode is FailureMode.SHARE and self._membership.is_alone):
            return MAX_HITS
        if mode is not FailureMode.SHARE:
            return 0
        parts, _ = self._membership.shares()
        refilled = -(-limit.requests // parts) if limit.algorithm is Algorithm.TOKEN_BUCKET else 0
        return -(-limit.burst // parts) + refilled

    def _mode(self, charge: Charge) -> FailureMode:
        settings = self._limits.get(charge.identity)
        return charge.failure if settings is None else settings.failure

    def _share(self, charge: Charge) -> tuple[int, int]:
        """This replica's part of a limit, and of what a bucket refills in a window."""
        parts, rank = self._membership.shares()
        limit, key = charge.limit, charge.key
        return share_of(limit.burst, key, parts, rank), share_of(limit.requests, key, parts, rank)

    def counts_for_us(self, limit: Limit, hits: int, now: Instant) -> int:
        """How long hits of now still count, microseconds."""
        match limit.algorithm:
            case Algorithm.FIXED_WINDOW:
                at_us = self._allowances.time.at(now)
                return _window_at(limit, at_us).end_us - at_us
            case Algorithm.SLIDING_WINDOW:
                return limit.window_us * 61 // 60 + 1
            case Algorithm.TOKEN_BUCKET:
                return min(hits, 2**32) * limit.window_us // limit.requests + 1
