"""Whether the value cache pays, and is within its bounds."""

from __future__ import annotations

from typing import Final

from tools.dashboards.panels import SELECT, Board, Panel, Query, Row

_S: Final = SELECT
_R: Final = "$__rate_interval"

_CACHED: Final = f'{_S}, cache=~"$cache"'
BOARD: Final = Board(
    uid="tidegate-cache",
    title="Tidegate / Cache",
    description="Does the value cache pay, and is it within its bounds? For who writes programs with the library.",
    probe="tidegate_cache_entries",
    variables=(("cache", f"label_values(tidegate_cache_entries{{{_S}}}, cache)", "Cache"),),
    rows=(
        Row(
            "Hits",
            (
                Panel(
                    "Share answered, by level",
                    "Memory, Redis and disk; the rest is loaded.",
                    "percentunit",
                    (
                        Query(
                            f"sum by (level) (rate(tidegate_cache_hits_total{{{_CACHED}}}[{_R}])) / ignoring (level) "
                            f"group_left () (sum(rate(tidegate_cache_hits_total{{{_CACHED}}}[{_R}])) + "
                            f"sum(rate(tidegate_cache_misses_total{{{_CACHED}}}[{_R}])))",
                            "{{level}}",
                        ),
                    ),
                    most=1,
                ),
                Panel(
                    "Loads from the source",
                    "One load per key at a time, whatever happens.",
                    "cps",
                    (Query(f"sum by (result) (rate(tidegate_cache_loads_total{{{_CACHED}}}[{_R}]))", "{{result}}"),),
                ),
                Panel(
                    "Served stale",
                    "Expired values served because loading failed or took long.",
                    "cps",
                    (
                        Query(
                            f"sum by (cache) (rate(tidegate_cache_stale_served_total{{{_CACHED}}}[{_R}]))", "{{cache}}"
                        ),
                    ),
                ),
                Panel(
                    "Behind",
                    "How long ago all changes were heard of, and the bound on what a served value may be behind.",
                    "s",
                    (
                        Query(f"max by (cache) (tidegate_cache_behind_seconds{{{_CACHED}}})", "{{cache}} behind"),
                        Query(
                            f"max by (cache) (tidegate_cache_staleness_bound_seconds{{{_CACHED}}})", "{{cache}} bound"
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Room",
            (
                Panel(
                    "Memory",
                    "In use, and the budget.",
                    "bytes",
                    (
                        Query(f"sum by (cache) (tidegate_cache_memory_bytes{{{_CACHED}}})", "{{cache}}"),
                        Query(f"sum by (cache) (tidegate_cache_memory_limit_bytes{{{_CACHED}}})", "{{cache}} budget"),
                    ),
                ),
                Panel(
                    "Evictions and expirations",
                    "Many evictions: the budget is small for the traffic.",
                    "cps",
                    (
                        Query(f"sum(rate(tidegate_cache_evictions_total{{{_CACHED}}}[{_R}]))", "evicted"),
                        Query(f"sum(rate(tidegate_cache_expirations_total{{{_CACHED}}}[{_R}]))", "expired"),
                    ),
                ),
                Panel(
                    "Compression",
                    "Bytes before by bytes after, of what was compressed.",
                    "short",
                    (Query(f"avg by (cache) (tidegate_cache_compression_ratio{{{_CACHED}}})", "{{cache}}"),),
                ),
                Panel(
                    "Redis of the cache",
                    "Commands a second, and those that failed or were late.",
                    "cps",
                    (
                        Query(f"sum(rate(tidegate_cache_redis_calls_total{{{_CACHED}}}[{_R}]))", "commands"),
                        Query(f"sum(rate(tidegate_cache_redis_failures_total{{{_CACHED}}}[{_R}]))", "failed"),
                        Query(f"sum(rate(tidegate_cache_redis_timeouts_total{{{_CACHED}}}[{_R}]))", "late"),
                    ),
                ),
            ),
        ),
    ),
)
"""The board."""
