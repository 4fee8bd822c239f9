"""Which counter a charge's hits go to, and how counters come and go within the bounds.

A key has a counter of its own, or, where there was no room for one, a hashed counter of its limit.
The law that both keep: whatever moves or is dropped, a key is never admitted beyond its limit.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from typing import Final

from ratelimit_service.algorithms.limit import Instant, LimitSettings
from ratelimit_service.quota.memory.book import SLOTS, Book, RuleShare
from ratelimit_service.quota.memory.bounds import Bounds, refused_outcome
from ratelimit_service.quota.memory.ledger import Ledger
from ratelimit_service.quota.store import Charge, Outcome

__all__ = ["Place", "Placement"]

SLICE_EVERY: Final = 64
"""New keys, or charges that found no room, between two slices of reclaiming on the request path."""

SLICE_OWN_KEYS: Final = 192
"""Keys that such a slice looks at in the book that caused it: three for each key made, so reclaiming keeps ahead."""

SLICE_OTHER_KEYS: Final = 64
"""Keys that it looks at in the other books, in turn."""

VISIT_KEYS: Final = 8
"""Keys that could be looked at in the time that it takes to go to a book: 2 µs beside 0.2 to 0.5 for a key."""

PRESSED_KEYS: Final = 8
"""Keys that a charge looks at when its key would find no room."""

NEVER_REFUSED_US: Final = -(2**63)
"""A boot time before every other."""

_UNKNOWN_RULE: Final = ("", "")
"""Whom identities belong to that are not in force, overrides mostly: they share one rule's room."""

Place = tuple[Ledger, bytes]
"""Where a charge counts: a ledger, and the key or slot in it."""


class Placement:
    """The books of a store, by identity.

    Attributes:
        books: Every book that holds counters.
        bounds: What they may hold.
        limits: The limits in force.
        created, reclaimed: Keys made; keys dropped because they had expired or their limit was gone.
        shared_decisions: Charges that were given a hashed counter.
        refused, uncounted: Charges without any room: denied; let through by failure mode Open.
        refused_at_us: Boot time of the last charge without any room.
    """

    def __init__(self, bounds: Bounds, hash_key: bytes) -> None:
        self.books: dict[bytes, Book] = {}
        self.bounds = bounds
        self.limits: Mapping[bytes, LimitSettings] = {}
        self.created = self.reclaimed = self.shared_decisions = self.refused = self.uncounted = 0
        self.refused_at_us = NEVER_REFUSED_US
        self._hash_key = hash_key
        self._shares: dict[tuple[str, str], RuleShare] = {}
        self._planned: set[tuple[int, bytes]] = set()
        self._round: deque[Book] = deque()
        """Books in the order in which slices visit them."""
        self._round_left = 0
        """Keys that the first of them still has for this visit."""
        self._until_slice = SLICE_EVERY
        self._unsettled: list[Book] = []
        """Books that may have new keys since they were last settled."""

    def place(self, charge: Charge, now: Instant) -> Place | None:
        """Find where a charge counts, or None where there is no room.

        A key that this charge may make is planned for until `forget_plan`.
        """
        book = self.books.get(charge.identity) or self._open_book(charge)
        if book is None:
            return None
        if book.ledger.holds(charge.key) or (id(book.ledger), charge.key) in self._planned:
            return book.ledger, charge.key
        if not charge.hits:
            return self.locate(book, charge.key)
        if self.bounds.has_room(book.share):
            self._plan(book, book.ledger, charge.key)
            self._inherit(book, charge, now)
            return book.ledger, charge.key
        self._until_slice -= 1
        shared, slot = book.share_counters(), self._slot(charge.key)
        if not shared.holds(slot) and (id(shared), slot) not in self._planned:
            if not self.bounds.can_share(book.share):
                return None
            self._plan(book, shared, slot)
        self.shared_decisions += 1
        return shared, slot

    def make_room(self, charge: Charge, now: Instant) -> None:
        """Before a request: where its key would find no room, look for what has expired in its own book."""
        book = self.books.get(charge.identity)
        if book is not None:
            book.turn(now)
            if not book.ledger.holds(charge.key) and not self.bounds.has_room(book.share):
                book.reclaim(now, PRESSED_KEYS)
                if not book.is_settled():
                    self.reclaimed -= self.bounds.settle(book)

    def place_observer(self, charge: Charge) -> Place | None:
        """Find where a charge looks that is never counted."""
        book = self.books.get(charge.identity) or self._open_book(charge)
        return None if book is None else self.locate(book, charge.key)

    def locate(self, book: Book, key: bytes) -> Place:
        """Find where a key's hits have been counted so far; its own, empty place where nowhere."""
        if book.shared is not None and not book.ledger.holds(key):
            slot = self._slot(key)
            if book.shared.holds(slot):
                return book.shared, slot
        return book.ledger, key

    def forget_plan(self) -> None:
        """The request's keys are about to be made, or not: from here on the ledgers say what there is."""
        if self._planned:
            self._planned.clear()
            self.bounds.forget_plan()

    def refuse(self, charge: Charge, now: Instant) -> Outcome:
        """Answer a charge for which there is no room; what could never fit is denied as always."""
        book = self.books.get(charge.identity)
        if book is not None:
            outcome = book.ledger.judge(charge.limit, charge.key, charge.hits, now)
            if outcome.over:
                return outcome
        self.refused_at_us = now.boot_us
        settings = self.limits.get(charge.identity)
        outcome = refused_outcome(charge, settings.failure if settings is not None else charge.failure)
        if outcome.over:
            self.refused += 1
        else:
            self.uncounted += 1
        return outcome

    def grew(self, book: Book, now: Instant) -> None:
        """An open book may have one more key: account for it soon, for all such keys together.

        Until then it is taken off what headroom there is, so that the bounds hold at every moment.
        """
        self.bounds.headroom -= 1
        share = book.share
        share.headroom -= 1
        self._until_slice -= 1
        if not book.is_settled_later:
            book.is_settled_later = True
            self._unsettled.append(book)
        if self._until_slice <= 0 or share.headroom <= 0:
            self.settle_all()
            self.settle(book, now)

    def settle_all(self) -> None:
        """Account for every key that `grew` put off. Stays within the books: none is let go of."""
        for book in self._unsettled:
            book.is_settled_later = False
            self.created += max(0, self.bounds.settle(book))
        self._unsettled.clear()

    def settle(self, book: Book, now: Instant) -> None:
        """After a request: account for keys that it made, and pay for them with a slice of reclaiming now and then.

        May let go of books that are empty: nothing of the request may be left to count.
        """
        if self._until_slice > 0 and book.is_settled():
            return
        grown = self.bounds.settle(book)
        if grown > 0:
            self.created += grown
            self._until_slice -= grown
        if self._until_slice <= 0:
            self._until_slice = SLICE_EVERY
            self._reclaim_book(book, now, SLICE_OWN_KEYS)
            self.reclaim(now, SLICE_OTHER_KEYS)

    def reclaim(self, now: Instant, budget: int) -> int:
        """Look at up to `budget` keys, book after book, and go on there next time; return how many were looked at.

        Expired keys are dropped, keys of limits that are no longer in force too, and books that are empty then.
        """
        seen = spent = 0
        # One more than there are books: the first visit may be the rest of an earlier one.
        visits = len(self._round) + 1
        while self._round and spent < budget and visits:
            book = self._round[0]
            if self._round_left <= 0:
                self._round_left = book.keys + book.shared_keys
            looked = self._reclaim_book(book, now, min(budget - spent, max(1, self._round_left)))
            seen += looked
            # Going there is paid for too: thousands of rules with a key each would hold the loop for milliseconds.
            spent += looked + VISIT_KEYS
            # A book that had nothing to look at has nothing on the next visit either.
            self._round_left = self._round_left - looked if looked else 0
            if not book.keys and not book.shared_keys:
                self._close_book(book)
                visits -= 1
            elif self._round_left <= 0:
                self._round.rotate(-1)
                visits -= 1
        return seen

    def _slot(self, key: bytes) -> bytes:
        digest = hashlib.blake2b(key, digest_size=2, key=self._hash_key).digest()
        return (int.from_bytes(digest, "big") % SLOTS).to_bytes(2, "big")

    def _inherit(self, book: Book, charge: Charge, now: Instant) -> None:
        """Begin a key's own counter with what its hashed counter has seen: at least its own hits are among them."""
        if book.shared is not None:
            slot = self._slot(charge.key)
            if book.shared.holds(slot):
                seen = book.shared.judge(charge.limit, slot, 0, now).before
                book.ledger.spend(charge.limit, charge.key, seen, now)

    def _plan(self, book: Book, ledger: Ledger, key: bytes) -> None:
        self._planned.add((id(ledger), key))
        self.bounds.plan(book.share)

    def _open_book(self, charge: Charge) -> Book | None:
        """Begin the book of an identity that is seen for the first time, if there is room for one."""
        if not self.bounds.has_room_for_book():
            return None
        settings = self.limits.get(charge.identity)
        rule = _UNKNOWN_RULE if settings is None else (settings.domain, settings.rule)
        share = self._shares.get(rule)
        if share is None:
            share = self._shares[rule] = RuleShare(rule)
        book = Book(charge.identity, charge.limit, share)
        book.applied = settings is not None
        share.books[book] = None
        self.books[charge.identity] = book
        self._round.append(book)
        self.bounds.settle(book)
        return book

    def _close_book(self, book: Book) -> None:
        """Let go of an empty book, first in the round."""
        self._round.popleft()
        self._round_left = 0
        del self.books[book.identity]
        del book.share.books[book]
        self.bounds.release(book)
        if not book.share.books:
            del self._shares[book.share.rule]

    def _reclaim_book(self, book: Book, now: Instant, budget: int) -> int:
        """Look at up to `budget` keys of a book; return how many."""
        if book.identity in self.limits:
            book.applied = True
        gone = book.applied and book.identity not in self.limits
        seen = book.drop(now, budget) if gone else book.reclaim(now, budget)
        self.reclaimed -= self.bounds.settle(book)
        return seen
