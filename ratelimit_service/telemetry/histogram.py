"""A latency histogram whose observation is two integer additions and a binary search."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from ratelimit_service.telemetry.exposition import seconds_text

_UP_TO_1_MS: Final = (50, 100, 150, 200, 300, 400, 600, 1_000)
DURATION_BOUNDS_US: Final = (
    *_UP_TO_1_MS,
    *(2_000, 5_000, 10_000, 20_000, 50_000),
    *(100_000, 250_000, 500_000, 1_000_000),
)
"""Upper bounds, inclusive. Dense where decisions are expected; 5 ms is the usual objective, 10 ms the deadline,
20 ms the time that Envoy waits."""


class Histogram:
    """Counts durations by bucket. Hot paths call `observe`; `lines` reads.

    Attributes:
        bounds_us: Inclusive upper bounds, ascending.
        counts: Observations per bucket, not cumulated; the last one is beyond every bound.
        sum_us: Sum of all observations.
    """

    __slots__ = ("bounds_us", "counts", "sum_us")

    def __init__(self, bounds_us: tuple[int, ...] = DURATION_BOUNDS_US) -> None:
        self.bounds_us = bounds_us
        self.counts = [0] * (len(bounds_us) + 1)
        self.sum_us = 0

    def observe(self, duration_us: int, count: int = 1) -> None:
        """Add `count` observations of `duration_us`; a read batch may add all its calls at once.

        A negative duration (two clocks compared) counts as 0: a sum that falls would look like a restart.
        """
        duration_us = max(duration_us, 0)
        self.counts[bisect_left(self.bounds_us, duration_us)] += count
        self.sum_us += duration_us * count

    def lines(self, name: str) -> Iterator[str]:
        """The samples: cumulated buckets in seconds, `+Inf`, sum and count. At most `len(bounds_us) + 3` lines."""
        total = 0
        for bound_us, count in zip(self.bounds_us, self.counts, strict=False):
            total += count
            yield f'{name}_bucket{{le="{bound_us / 1_000_000!r}"}} {total}\n'
        total += self.counts[-1]
        yield f'{name}_bucket{{le="+Inf"}} {total}\n'
        yield f"{name}_sum {seconds_text(self.sum_us)}\n"
        yield f"{name}_count {total}\n"
