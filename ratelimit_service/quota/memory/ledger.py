"""A ledger: the counts of all keys of one limit identity, in memory.

A ledger keeps plain values by key and gives no handle to them, so nothing a caller holds can be stale after
a key was reclaimed or reset (the reason: a cell that is dropped while a plan still points at it would
count beside its successor, and admit twice the limit).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from ratelimit_service.quota.memory.ledger_bucket import BucketLedger
from ratelimit_service.quota.memory.ledger_fixed import FixedLedger
from ratelimit_service.quota.memory.ledger_sliding import SlidingLedger
from ratelimit_service.quota.store import Outcome


class Ledger(Protocol):
    """The counts of one identity. The numbers of `limit` may change between calls; counts are kept."""

    def take(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge, and count the hits if they fit."""

    def judge(self, limit: Limit, key: bytes, hits: int, now: Instant) -> Outcome:
        """Judge; change no count."""

    def spend(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Count the hits, whether or not they fit; saturates."""

    def give_back(self, limit: Limit, key: bytes, hits: int, now: Instant) -> None:
        """Take hits out again, newest first, never below 0."""

    def holds(self, key: bytes) -> bool:
        """Whether the key has a count of its own."""

    def forget(self, key: bytes) -> bool:
        """Drop the key; whether it was there."""

    def reclaim(self, now: Instant, budget: int) -> int:
        """Look at up to `budget` keys and drop those that hold nothing; how many were looked at."""

    def keys(self, start: int, count: int) -> Sequence[bytes]:
        """Up to `count` live keys from the `start`-th on."""

    def __len__(self) -> int:
        """Keys held, with those that have expired and are not reclaimed yet."""

    @property
    def listed(self) -> int:
        """How many keys `keys` goes through."""

    @property
    def bytes_used(self) -> int:
        """Estimated memory of the keys, bytes."""


def ledger_for(limit: Limit) -> Ledger:
    """An empty ledger for the identity that `limit` belongs to."""
    match limit.algorithm:
        case Algorithm.FIXED_WINDOW:
            return FixedLedger(limit)
        case Algorithm.SLIDING_WINDOW:
            return SlidingLedger(limit)
        case Algorithm.TOKEN_BUCKET:
            return BucketLedger()
