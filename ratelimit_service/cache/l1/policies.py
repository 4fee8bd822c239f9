"""The eviction policies by name."""

from __future__ import annotations

from typing import TypeVar

from ratelimit_service.cache.l1.eviction import Eviction, Order
from ratelimit_service.cache.l1.lru import Lru
from ratelimit_service.cache.l1.s3fifo import S3Fifo
from ratelimit_service.cache.l1.second_chance import SecondChance
from ratelimit_service.cache.l1.sieve import Sieve

__all__ = ["new_order"]

T = TypeVar("T")


def new_order(policy: Eviction, max_entries: int) -> Order[T]:
    """An empty order of this policy."""
    match policy:
        case Eviction.S3FIFO:
            return S3Fifo(max_entries)
        case Eviction.SIEVE:
            return Sieve()
        case Eviction.CLOCK:
            return SecondChance()
        case Eviction.LRU:
            return Lru()
