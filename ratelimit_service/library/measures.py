"""What a limiter counts of its own work, and how that is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ratelimit_service.cache.counting import CacheStats, Sample
from ratelimit_service.library.laws import Tally
from ratelimit_service.library.quotas import QuotaReport
from ratelimit_service.telemetry.histogram import Histogram

__all__ = ["DURATION_BOUNDS_US", "SAMPLE_EVERY", "AlgorithmStats", "Percentiles", "RateLimitingStats", "samples_of"]

SAMPLE_EVERY: Final = 17
"""One in so many checks is timed and its key noted, and counts for all of them. No round number, so that traffic
that repeats itself is sampled all over."""

DURATION_BOUNDS_US: Final = (
    *(1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 900),
    *(1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 50_000, 100_000, 1_000_000),
)
"""Upper bounds of durations, inclusive."""

_PREFIX: Final = "tidegate_library_"


class AlgorithmStats(msgspec.Struct, frozen=True):
    """Checks of one algorithm: all, and of these the allowed, the denied, and those that a failure mode decided."""

    checks: int
    allowed: int
    denied: int
    degraded: int


class Percentiles(msgspec.Struct, frozen=True):
    """Durations of checks, microseconds: the upper bound of the bucket that each falls into; 0 before the first."""

    p50_us: int
    p95_us: int
    p99_us: int


class RateLimitingStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a limiter did since it was built.

    Attributes:
        checks, allowed, denied, degraded: Checks; of these the allowed, the denied, and what a failure mode decided.
        by_algorithm: The same for each algorithm.
        hit_rates: Share of decisions by who decided, 0.0 to 1.0: `memory`; over Redis `lease`, `standing`, `exact`,
            `batch`, `fallback`. With a value cache also `l1`, `l2`, `l3` of its reads.
        round_trips: To the store.
        batch_size: Orders per round trip, on average; 0.0 before the first.
        durations: Of checks, by the limiter's own clock.
        top_keys: The busiest keys and how often they were checked, by samples, the first first.
        keys, bytes: Counters held in this process, and an estimate of their memory.
        limits: Algorithms and windows in force.
    """

    checks: int
    allowed: int
    denied: int
    degraded: int
    by_algorithm: Mapping[str, AlgorithmStats]
    hit_rates: Mapping[str, float]
    round_trips: int
    batch_size: float
    durations: Percentiles
    top_keys: tuple[tuple[str, int], ...]
    keys: int
    bytes: int
    limits: int


def algorithm_stats(tally: Tally) -> AlgorithmStats:
    """Read the plain integers."""
    return AlgorithmStats(tally.allowed + tally.denied, tally.allowed, tally.denied, tally.degraded)


def percentiles(durations: Histogram) -> Percentiles:
    """What a histogram says."""
    return Percentiles(*(_quantile(durations, percent) for percent in (50, 95, 99)))


def _quantile(durations: Histogram, percent: int) -> int:
    rank = -(-sum(durations.counts) * percent // 100)
    if not rank:
        return 0
    seen = 0
    for bound_us, count in zip(durations.bounds_us, durations.counts, strict=False):
        seen += count
        if seen >= rank:
            return bound_us
    return durations.bounds_us[-1]


def hit_rates(report: QuotaReport, cache: CacheStats | None) -> dict[str, float]:
    """Who decided, as shares; levels of the cache by the reads that they answered."""
    decided = sum(report.decided.values())
    rates = {source: count / decided if decided else 0.0 for source, count in report.decided.items()}
    if cache is not None:
        asked = cache.counts["misses"] + sum(cache.counts[f"hits_{level}"] for level in ("l1", "l2", "l3"))
        for level in ("l1", "l2", "l3"):
            rates[level] = cache.counts[f"hits_{level}"] / asked if asked else 0.0
    return rates


def samples_of(stats: RateLimitingStats, namespace: str) -> Iterator[Sample]:
    """The statistics as Prometheus shows them; the label `namespace` is the limiter's."""
    base = {"namespace": namespace}
    for algorithm, counted in stats.by_algorithm.items():
        for result, count in (("allowed", counted.allowed), ("denied", counted.denied)):
            labels = {**base, "algorithm": algorithm, "result": result}
            yield Sample(f"{_PREFIX}checks_total", labels, count, "Checks")
        labels = {**base, "algorithm": algorithm}
        yield Sample(f"{_PREFIX}degraded_total", labels, counted.degraded, "Checks that a failure mode decided")
    for level, rate in stats.hit_rates.items():
        yield Sample(f"{_PREFIX}decided_ratio", {**base, "level": level}, rate, "Share of decisions by who decided")
    plain: tuple[tuple[str, float, str], ...] = (
        ("round_trips_total", stats.round_trips, "Round trips to the store"),
        ("batch_orders", stats.batch_size, "Orders per round trip, on average"),
        ("keys", stats.keys, "Counters held"),
        ("memory_bytes", stats.bytes, "Memory of the counters, by estimate"),
        ("limits", stats.limits, "Algorithms and windows in force"),
    )
    for name, value, text in plain:
        yield Sample(_PREFIX + name, base, value, text)
