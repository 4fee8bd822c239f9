"""Values in this process: bounded in entries and bytes, evicted by one of four policies."""

from __future__ import annotations

from ratelimit_service.cache.l1.eviction import Eviction
from ratelimit_service.cache.l1.level import L1
from ratelimit_service.cache.l1.telling import L1Stats, Pressure

__all__ = ["L1", "Eviction", "L1Stats", "Pressure"]
