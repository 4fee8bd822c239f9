"""How much a memory store may hold, and how much of it one rule may (DECISIONS 19).

Seven eighths of the store (or what `exact_percent` says) are for keys of their own, the rest is kept for hashed
counters, so that a rule that is out of room can still count. A rule holds at most half of the store, and of that part.
It may hold more while no other rule holds anything, and then leaves a quarter for the others to begin with;
a rule that is alone in force leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from ratelimit_service.algorithms.limit import FailureMode, Instant
from ratelimit_service.quota.memory.book import BOOK_BYTES, Book, RuleShare
from ratelimit_service.quota.store import Charge, Outcome, Source

__all__ = ["EXACT_PERCENT", "MIB", "RETRY_US", "Bounds", "CallSoon", "Clock", "StoreStats", "refused_outcome"]

MIB: Final = 1024 * 1024

EXACT_PERCENT: Final = 87.5
"""Part of a store that is for keys of their own."""

RETRY_US: Final = 1_000_000
"""What a refused charge is told to wait (DECISIONS 5)."""

PLANNED_KEY_BYTES: Final = 512
"""What a key that a request is about to create is taken to need: more than any real first use does."""

CallSoon = Callable[[Callable[[], None]], object]
"""Runs a callback after the caller has returned: an event loop's `call_soon`, or a test's."""


class Clock(Protocol):
    """Reads the clocks (`ratelimit_service.clock.Clock`)."""

    def read(self) -> Instant:
        """Read wall and boot time at once."""


class StoreStats(msgspec.Struct, frozen=True):
    """Plain integers for metrics; each is `tidegate_store_<name>`, ever-growing ones with `_total`.

    Attributes:
        keys, bytes: Counters held, hashed ones included, and an estimate of their memory.
        max_keys, max_bytes: The bounds.
        shared_keys: Hashed counters among `keys`.
        created, reclaimed: Keys made; keys dropped because they had expired or their rule was gone.
        shared_decisions: Charges judged on a hashed counter for want of room.
        refused, uncounted: Charges that found no room at all: denied; let through by failure mode Open.
        enforce_charges, penalty_charges, shadow_charges, quota_charges, observe_charges: Charges by role.
    """

    keys: int
    bytes: int
    max_keys: int
    max_bytes: int
    shared_keys: int
    created: int
    reclaimed: int
    shared_decisions: int
    refused: int
    uncounted: int
    enforce_charges: int
    penalty_charges: int
    shadow_charges: int
    quota_charges: int
    observe_charges: int


def refused_outcome(charge: Charge, failure: FailureMode) -> Outcome:
    """Answer a charge that no counter has room for: Open lets it pass, the others deny it."""
    over = failure is not FailureMode.OPEN
    return Outcome(
        over=over,
        remaining=0 if over else max(0, charge.limit.burst - charge.hits),
        wait_us=RETRY_US if over else 0,
        before=0,
        source=Source.FALLBACK,
        degraded=True,
    )


class Bounds:
    """Keys and bytes in use, in all and by rule.

    A request that makes several keys announces each with `plan`, so that all of them together stay within the bounds.

    Attributes:
        max_keys, max_bytes: Of the whole store.
        keys, bytes: In use by keys with a counter of their own, books included.
        shared_keys, shared_bytes: In use by hashed counters.
        planned: Keys that the request under way is about to make.
        sole_rule: At most one rule is in force.
        headroom: Keys that may certainly still get a counter of their own, whatever bytes they need. It is taken down
            by each key that may be new, and made up when a book is settled.
    """

    __slots__ = (
        "_exact_bytes",
        "_exact_keys",
        "_planning",
        "bytes",
        "headroom",
        "keys",
        "max_bytes",
        "max_keys",
        "planned",
        "shared_bytes",
        "shared_keys",
        "sole_rule",
    )

    def __init__(self, max_keys: int, max_bytes: int, exact_percent: float = EXACT_PERCENT) -> None:
        self.max_keys = max_keys
        self.max_bytes = max_bytes
        self._exact_keys = max_keys - int(max_keys * (100 - exact_percent) / 100)
        self._exact_bytes = max_bytes - int(max_bytes * (100 - exact_percent) / 100)
        self.keys = self.bytes = self.shared_keys = self.shared_bytes = 0
        self.planned = 0
        self._planning: list[RuleShare] = []
        self.sole_rule = True
        self.headroom = 0
        self._leave_headroom()

    def settle(self, book: Book) -> int:
        """Take a book's present size into account; return by how many keys it has grown."""
        share = book.share
        keys, used_bytes = len(book.ledger), book.ledger.bytes_used + BOOK_BYTES
        shared_keys, shared_bytes = book.measure_shared()
        grown, swollen = keys - book.keys, used_bytes - book.bytes
        shared_grown, shared_swollen = shared_keys - book.shared_keys, shared_bytes - book.shared_bytes
        book.keys, book.bytes, book.shared_keys, book.shared_bytes = keys, used_bytes, shared_keys, shared_bytes
        self._add(share, grown, swollen, shared_grown, shared_swollen)
        self._leave_headroom()
        keys_left, bytes_left = self.max_keys // 2 - share.keys, self.max_bytes // 2 - share.bytes
        share.headroom = max(0, min(keys_left, bytes_left // PLANNED_KEY_BYTES))
        share.refresh(book)
        return grown + shared_grown

    def _leave_headroom(self) -> None:
        keys_left, bytes_left = self._exact_keys - self.keys, self._exact_bytes - self.bytes
        self.headroom = max(0, min(keys_left, bytes_left // PLANNED_KEY_BYTES))

    def release(self, book: Book) -> None:
        """Take a book that is let go of out of the account."""
        self._add(book.share, -book.keys, -book.bytes, -book.shared_keys, -book.shared_bytes)

    def plan(self, share: RuleShare) -> None:
        """Announce a key that is about to be made."""
        self.planned += 1
        share.planned += 1
        self._planning.append(share)

    def forget_plan(self) -> None:
        """The announced keys are made now, or will not be."""
        self.planned = 0
        for share in self._planning:
            share.planned = 0
        self._planning.clear()

    def has_room(self, share: RuleShare) -> bool:
        """Say whether a rule may make one more key of its own."""
        keys = self.keys + self.planned + 1
        planned_bytes = PLANNED_KEY_BYTES * (self.planned + 1)
        used_bytes = self.bytes + planned_bytes
        if keys > self._exact_keys or used_bytes > self._exact_bytes:
            return False
        if share.keys + share.planned < self.max_keys // 2 and share.bytes + planned_bytes <= self.max_bytes // 2:
            return True
        if self.keys + self.shared_keys + self.planned != share.keys + share.shared_keys + share.planned:
            return False
        return self.sole_rule or (keys <= self.max_keys * 3 // 4 and used_bytes <= self.max_bytes * 3 // 4)

    def has_room_for_book(self) -> bool:
        """Say whether one more limit may begin to count, if only in a hashed counter."""
        return self.bytes + self.shared_bytes + BOOK_BYTES <= self.max_bytes

    def can_share(self, share: RuleShare) -> bool:
        """Say whether a rule may begin one more hashed counter, in the part of the store that is kept for them."""
        spare_keys = self.max_keys - self._exact_keys
        spare_bytes = self.max_bytes - self._exact_bytes
        planned_bytes = PLANNED_KEY_BYTES * (self.planned + 1)
        if self.shared_keys + self.planned >= spare_keys or self.shared_bytes + planned_bytes > spare_bytes:
            return False
        # Books may have taken bytes of that part.
        if self.bytes + self.shared_bytes + planned_bytes > self.max_bytes:
            return False
        return self.sole_rule or (
            share.shared_keys + share.planned < (spare_keys + 1) // 2
            and share.shared_bytes + planned_bytes <= spare_bytes // 2
        )

    def _add(self, share: RuleShare, keys: int, used_bytes: int, shared_keys: int, shared_bytes: int) -> None:
        for holder in (self, share):
            holder.keys += keys
            holder.bytes += used_bytes
            holder.shared_keys += shared_keys
            holder.shared_bytes += shared_bytes
