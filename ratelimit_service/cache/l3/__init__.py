"""Values on disk: bounded in size, checksummed, sealed where keys are given."""

from __future__ import annotations

from ratelimit_service.cache.l3.keyring import KeyRing, SealingKey
from ratelimit_service.cache.l3.level import L3, L3Stats
from ratelimit_service.cache.l3.record import Record

__all__ = ["L3", "KeyRing", "L3Stats", "Record", "SealingKey"]
