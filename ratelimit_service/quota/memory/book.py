"""One limit's counters: a ledger of keys of their own, and a ledger of hashed ones while room is short."""

from __future__ import annotations

from typing import Final

from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.quota.memory.ledger import Ledger, ledger_for

__all__ = ["BOOK_BYTES", "SLOTS", "Book", "RuleShare"]

SLOTS: Final = 4_096
"""Hashed counters of one limit."""

BOOK_BYTES: Final = 1_024
"""A book with empty ledgers, measured on CPython 3.11 and rounded up; identities are bounded by it too."""


class RuleShare:
    """What all books of one rule hold together.

    Attributes:
        keys, bytes: In use by keys with a counter of their own.
        shared_keys, shared_bytes: In use by hashed counters.
        planned: Keys that the request under way is about to make.
        headroom: Keys that may certainly be made below the rule's share; see `Bounds.headroom`.
        books: The rule's books, in the order in which they were opened.
        below: What the books were last told: the rule is below its share.
    """

    __slots__ = ("below", "books", "bytes", "headroom", "keys", "planned", "rule", "shared_bytes", "shared_keys")

    def __init__(self, rule: tuple[str, str]) -> None:
        self.rule = rule
        self.keys = self.bytes = self.shared_keys = self.shared_bytes = 0
        self.planned = 0
        self.headroom = 0
        self.books: dict[Book, None] = {}
        self.below = False

    def refresh(self, settled: Book) -> None:
        """Open the book that was just settled for new keys, or close it; all books when the rule's room has turned.

        Overrides share one rule however many they are: telling all of them each time would cost more than the rest.
        """
        below = self.headroom > 0
        turned, self.below = below != self.below, below
        for book in self.books if turned else (settled,):
            book.open = below and book.shared is None


class Book:
    """All counters of one limit identity.

    Attributes:
        identity: Whose counters these are.
        limit: The limit that opened it; ledgers depend on what the identity fixes only.
        ledger: Keys with a counter of their own.
        shared: Hashed counters of keys that found no room; None: none is live.
        share: What its rule holds.
        keys, bytes, shared_keys, shared_bytes: Its size when it was last settled.
        open: New keys may be made without asking: no hashed counter is live and the rule is below its share.
        is_settled_later: It may have new keys that are not accounted for yet.
        applied: Its identity was in force once; gone from force, it is dropped. Overrides never are in force.
    """

    __slots__ = (
        "applied",
        "bytes",
        "identity",
        "is_settled_later",
        "keys",
        "ledger",
        "limit",
        "open",
        "share",
        "shared",
        "shared_bytes",
        "shared_keys",
        "take",
    )

    def __init__(self, identity: bytes, limit: Limit, share: RuleShare) -> None:
        self.identity = identity
        self.limit = limit
        self.ledger: Ledger = ledger_for(limit)
        self.take = self.ledger.take
        """`ledger.take`, one look-up nearer to the hot path."""
        self.shared: Ledger | None = None
        self.share = share
        self.keys = self.bytes = self.shared_keys = self.shared_bytes = 0
        self.open = False
        self.is_settled_later = False
        self.applied = False

    def share_counters(self) -> Ledger:
        """The hashed counters, begun if there are none."""
        if self.shared is None:
            self.shared = ledger_for(self.limit)
            self.open = False
        return self.shared

    def turn(self, now: Instant) -> None:
        """Let windows end that have ended by `now`, so that `holds` speaks of the present one."""
        self.ledger.reclaim(now, 0)
        if self.shared is not None:
            self.shared.reclaim(now, 0)

    def is_settled(self) -> bool:
        """Say whether no key came or went since the book was last settled, and no hashed counters are to be ended."""
        if len(self.ledger) != self.keys:
            return False
        return self.shared is None or 0 < len(self.shared) == self.shared_keys

    def measure_shared(self) -> tuple[int, int]:
        """Hashed counters and their bytes now; when all are gone, they are done with on the way."""
        if self.shared is None:
            return 0, 0
        if not len(self.shared):
            self.shared = None
            return 0, 0
        return len(self.shared), self.shared.bytes_used

    def reclaim(self, now: Instant, budget: int) -> int:
        """Drop what has expired among up to `budget` keys; return how many were looked at."""
        seen = 0
        if self.shared is not None:
            # Few as they are, hashed counters come first: only when they are gone do new keys count exactly again.
            seen = self.shared.reclaim(now, -(-budget // 2))
        return seen + self.ledger.reclaim(now, max(0, budget - seen))

    def drop(self, now: Instant, budget: int) -> int:
        """Forget up to `budget` keys, live or not: the limit is no longer in force. Return how many were looked at."""
        seen = self.reclaim(now, budget)
        for ledger in (self.ledger, self.shared):
            if ledger is not None:
                for key in ledger.keys(0, max(0, budget - seen)):
                    ledger.forget(key)
                    seen += 1
        return seen
