"""What a cache counts, and how it shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ratelimit_service.cache.coherence import CoherencyStats
from ratelimit_service.cache.compression import CompressionStats
from ratelimit_service.cache.disk import DiskStats
from ratelimit_service.cache.l1 import L1Stats

__all__ = ["CacheStats", "Counts", "Sample", "samples_of"]


LEVELS: Final = ("l1", "l2", "l3")


class Counts(msgspec.Struct):
    """Counts since the start; see `CacheStats.counts`."""

    absent_hits: int = 0
    corrupt: int = 0
    early_refreshes: int = 0
    fenced_out: int = 0
    hits_l1: int = 0
    hits_l2: int = 0
    hits_l3: int = 0
    invalidations: int = 0
    load_errors: int = 0
    loads: int = 0
    misses: int = 0
    refused_l1: int = 0
    stale_served: int = 0
    writes: int = 0


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache did since it was built, and how it stands.

    Attributes:
        name: The profile.
        uptime_us: Since it was built.
        counts: `hits_l1`, `hits_l2`, `hits_l3`, `misses` (asked for and found in no level), `loads`, `load_errors`,
            `stale_served`, `absent_hits` (negative entries served), `early_refreshes`, `fenced_out` (loads that were
            not stored because something newer came between), `writes`, `invalidations`, `corrupt`, `refused_l1`.
        memory: The level in memory.
        compression: Packing for the other levels.
        dictionaries, dictionaries_adopted: Those that payloads can be read with; times that another was taken into use.
        coherency: Invalidations and staleness.
        disk: The level on disk; None: there is none, or it fails.
        disk_failures: Failures of it.
        flights, flights_joined, flights_timed_out: Loads under way; callers that joined one; loads given up.
        leases_granted, leases_waited: Leases of loads; waits for those of other replicas.
        l2_calls, l2_failures, l2_timeouts, l2_losses: Commands to Redis, those that failed, those not answered in
            time, and links lost.
    """

    name: str
    uptime_us: int
    counts: Mapping[str, int]
    memory: L1Stats
    compression: CompressionStats
    coherency: CoherencyStats
    disk: DiskStats | None = None
    disk_failures: int = 0
    dictionaries: int = 0
    dictionaries_adopted: int = 0
    flights: int = 0
    flights_joined: int = 0
    flights_timed_out: int = 0
    leases_granted: int = 0
    leases_waited: int = 0
    l2_calls: int = 0
    l2_failures: int = 0
    l2_timeouts: int = 0
    l2_losses: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of requests that a level answered, 0.0 to 1.0; 0.0 before the first."""
        hits = self.counts["hits_l1"] + self.counts["hits_l2"] + self.counts["hits_l3"]
        asked = hits + self.counts["misses"]
        return hits / asked if asked else 0.0

    @property
    def hit_rates(self) -> Mapping[str, float]:
        """Share of all requests that each level answered, by `l1`, `l2`, `l3`; together they are `hit_rate`."""
        hits = {level: self.counts[f"hits_{level}"] for level in LEVELS}
        asked = sum(hits.values()) + self.counts["misses"]
        return {level: count / asked if asked else 0.0 for level, count in hits.items()}

    @property
    def operations_per_second(self) -> float:
        """Requests and writes per second since the start."""
        asked = sum(self.counts[name] for name in ("hits_l1", "hits_l2", "hits_l3", "misses", "writes"))
        return asked * 1e6 / self.uptime_us if self.uptime_us else 0.0


class Sample(msgspec.Struct, frozen=True):
    """One number as Prometheus has it.

    Attributes:
        name: Without labels; counters end in `_total`.
        labels: By name.
        value: The number.
        help: What it means, one line.
    """

    name: str
    labels: Mapping[str, str]
    value: float
    help: str

    @property
    def is_counter(self) -> bool:
        """Whether it only grows."""
        return self.name.endswith("_total")


_PREFIX: Final = "tidegate_cache_"

_COUNTED: Final[Mapping[str, tuple[str, Mapping[str, str], str]]] = {
    "hits_l1": ("hits_total", {"level": "l1"}, "Requests that a level answered"),
    "hits_l2": ("hits_total", {"level": "l2"}, "Requests that a level answered"),
    "hits_l3": ("hits_total", {"level": "l3"}, "Requests that a level answered"),
    "misses": ("misses_total", {}, "Requests that no level answered"),
    "loads": ("loads_total", {"result": "loaded"}, "Loads from the source"),
    "load_errors": ("loads_total", {"result": "failed"}, "Loads from the source"),
    "stale_served": ("stale_served_total", {}, "Expired values served because loading failed or took long"),
    "absent_hits": ("absent_hits_total", {}, "Requests answered by a remembered absence"),
    "early_refreshes": ("early_refreshes_total", {}, "Loads begun before the value expired"),
    "fenced_out": ("fenced_out_total", {}, "Loads that were not stored because something newer came between"),
    "writes": ("writes_total", {}, "Values set"),
    "invalidations": ("invalidations_total", {}, "Invalidations from this process"),
    "corrupt": ("corrupt_payloads_total", {}, "Payloads of other levels that were damaged"),
    "refused_l1": ("refused_total", {"level": "l1"}, "Values refused for want of room"),
}


def samples_of(stats: CacheStats) -> Iterator[Sample]:
    """The statistics as Prometheus shows them; the label `cache` is the profile."""
    base = {"cache": stats.name}
    for field, (name, labels, text) in _COUNTED.items():
        yield Sample(_PREFIX + name, {**base, **labels}, stats.counts[field], text)
    memory, packed, coherency = stats.memory, stats.compression, stats.coherency
    plain: tuple[tuple[str, float, str], ...] = (
        ("memory_bytes", memory.used_bytes, "Memory in use by values, keys and tables"),
        ("memory_limit_bytes", memory.max_bytes, "The budget"),
        ("entries", memory.entries, "Entries in memory"),
        ("pressure", memory.pressure, "0 normal, 1 warning, 2 critical"),
        ("evictions_total", memory.evicted, "Entries given up for want of room"),
        ("expirations_total", memory.expired, "Entries whose time was over"),
        ("compression_ratio", packed.ratio, "Bytes before by bytes after, of what was compressed"),
        ("compression_seconds_total", packed.compress_ns / 1e9, "Time spent compressing"),
        ("decompression_seconds_total", packed.decompress_ns / 1e9, "Time spent decompressing"),
        ("compression_saved_bytes_total", max(0, packed.saved_bytes), "Bytes that compression saved"),
        ("dictionaries", stats.dictionaries, "Trained dictionaries that payloads can be read with"),
        ("dictionaries_adopted_total", stats.dictionaries_adopted, "Times that another dictionary was taken into use"),
        ("hit_ratio", stats.hit_rate, "Share of requests that a level answered"),
        ("operations_per_second", stats.operations_per_second, "Requests and writes since the start"),
        ("invalidations_heard_total", coherency.heard, "Changes that Redis told"),
        ("invalidations_owed", coherency.owed, "Invalidations that Redis has yet to hear"),
        ("revoked_fills_total", coherency.revoked_fills, "Values not stored because the key changed under way"),
        ("epochs_total", coherency.epoch, "Times that changes may have been missed"),
        ("staleness_bound_seconds", coherency.delta_us / 1e6, "Most that a served value may be behind"),
        ("behind_seconds", (coherency.behind_us or 0) / 1e6, "How long ago all changes were heard of"),
        ("flights", stats.flights, "Loads under way"),
        ("flights_joined_total", stats.flights_joined, "Callers that joined a load under way"),
        ("flights_timed_out_total", stats.flights_timed_out, "Loads given up"),
        ("leases_granted_total", stats.leases_granted, "Leases of loads"),
        ("leases_waited_total", stats.leases_waited, "Waits for the lease of another replica"),
        ("disk_failures_total", stats.disk_failures, "Failures of the level on disk"),
        ("redis_calls_total", stats.l2_calls, "Commands to Redis"),
        ("redis_failures_total", stats.l2_failures, "Commands to Redis that failed"),
        ("redis_timeouts_total", stats.l2_timeouts, "Commands to Redis that were not answered in time"),
        ("redis_link_losses_total", stats.l2_losses, "Links to Redis that were lost"),
    )
    for level, rate in stats.hit_rates.items():
        text = "Share of requests that this level answered"
        yield Sample(_PREFIX + "level_hit_ratio", {**base, "level": level}, rate, text)
    if stats.disk is not None:
        plain += (
            ("disk_bytes", stats.disk.used_bytes, "Disk space in use"),
            ("disk_limit_bytes", stats.disk.max_size_bytes, "The cap of the level on disk"),
            ("disk_entries", stats.disk.entries, "Records on disk"),
            ("disk_evictions_total", stats.disk.evicted, "Records given up for want of room"),
        )
    for name, value, text in plain:
        yield Sample(_PREFIX + name, base, value, text)
