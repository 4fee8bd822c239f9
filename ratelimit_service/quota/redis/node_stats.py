"""What a node counts of its own work: plain integers, for metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

import msgspec

from ratelimit_service.quota.redis.breaker import BreakerState
from ratelimit_service.quota.redis.faults import LossReason, StoreLost

__all__ = ["ROUND_TRIP_BOUNDS_US", "NodeStats", "Tally"]

_UP_TO_1_MS: Final = (50, 100, 150, 200, 300, 400, 600, 1_000)
ROUND_TRIP_BOUNDS_US: Final = (*_UP_TO_1_MS, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)
"""Upper bounds of the round-trip buckets, inclusive; the same as those of decision durations."""


class NodeStats(msgspec.Struct, frozen=True):
    """A reading of one node.

    Attributes:
        endpoint: Where it is; empty while nobody knows.
        available: It may be asked now.
        loss: What went wrong last; None: nothing ever.
        breaker, breaker_opened: State now, and how often it opened, ever.
        round_trips, round_trip_us: Those that were answered, and the sum of what they took.
        round_trip_buckets: Answered ones by `ROUND_TRIP_BOUNDS_US`, not cumulated; the last one is beyond every bound.
        lost: Round trips that were lost, by reason, ever.
        connects, connect_failures: Connections made, and attempts that failed, ever.
        script_loads: Scripts that had to be sent again, ever.
        redirects: Calls that another node had to answer, ever.
        new_boots: How often its memory turned out to be another one, ever.
        links, links_lent, pool_size: Connections up, in use, and wanted.
        may_evict: The server may drop counters when it is full.
        degraded_us: Time in which it was not available, ever, the present spell included.
    """

    endpoint: str
    available: bool
    loss: StoreLost | None
    breaker: BreakerState
    breaker_opened: int
    round_trips: int
    round_trip_us: int
    round_trip_buckets: tuple[int, ...]
    lost: Mapping[LossReason, int]
    connects: int
    connect_failures: int
    script_loads: int
    redirects: int
    new_boots: int
    links: int
    links_lent: int
    pool_size: int
    may_evict: bool
    degraded_us: int


class Tally:
    """What a node adds to. Attributes are those of `NodeStats`."""

    __slots__ = (
        "_away_since_us",
        "_away_us",
        "connect_failures",
        "connects",
        "loss",
        "lost",
        "new_boots",
        "redirects",
        "round_trip_buckets",
        "round_trip_us",
        "round_trips",
        "script_loads",
    )

    def __init__(self, now_us: int) -> None:
        self.connects = self.connect_failures = self.script_loads = self.redirects = self.new_boots = 0
        self.round_trips = self.round_trip_us = 0
        self.round_trip_buckets = [0] * (len(ROUND_TRIP_BOUNDS_US) + 1)
        self.lost: dict[LossReason, int] = {}
        self.loss: StoreLost | None = None
        self._away_us = 0
        self._away_since_us: int | None = now_us

    def answered(self, took_us: int) -> None:
        """A round trip came back."""
        self.round_trips += 1
        self.round_trip_us += took_us
        self.round_trip_buckets[bisect_left(ROUND_TRIP_BOUNDS_US, took_us)] += 1

    def failed(self, loss: StoreLost) -> None:
        """A round trip did not."""
        if loss.reason not in {LossReason.ABSENT, LossReason.BREAKER}:
            # These two only follow from what went wrong before.
            self.loss = loss
        self.lost[loss.reason] = self.lost.get(loss.reason, 0) + 1

    @property
    def is_available(self) -> bool:
        """What `turn` was told last; not available at first."""
        return self._away_since_us is None

    def turn(self, *, available: bool, now_us: int) -> bool:
        """The node is, or is no longer, available; returns whether that is news."""
        if available == (self._away_since_us is None):
            return False
        if available:
            self._away_us = self.degraded_us(now_us)
            self._away_since_us = None
        else:
            self._away_since_us = now_us
        return True

    def degraded_us(self, now_us: int) -> int:
        """Time away, ever."""
        return self._away_us + (0 if self._away_since_us is None else now_us - self._away_since_us)
