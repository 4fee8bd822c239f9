"""The page that tells how the cache compares, from the JSON that the benchmarks have kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent.parent / "docs" / "benchmarks"


def _read(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((BENCHMARKS / name).read_text(encoding="utf-8"))
    return figures


def _table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """Rows by the names that columns have in the JSON, under the heads that readers get."""
    lines = [f"| {' | '.join(columns.values())} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_text(row[name]) for name in columns)} |" for row in rows]
    return lines


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _machine(figures: dict[str, Any]) -> str:
    facts = figures["machine"]
    return f"Python {facts['python']}, {facts['processor']}, {facts['measured']}, load before: {facts['load_before']}."


def render_cache_figures() -> str:
    """The page."""
    level, parts, races = _read("cache_l1.json"), _read("cache_parts.json"), _read("cache_races.json")
    lines = [
        "# How the cache compares",
        "",
        "Made by `make generate` from the JSON in [docs/benchmarks](../benchmarks); nothing here was typed.",
        "Times are processor time on a small shared machine: compare rows of one table, not absolute values.",
        "",
        "## Under races",
        "",
        f"`python -m tests.benchmarks.compare_caches`: {races['processes']} processes on one Redis. {_machine(races)}",
        "Keys are read while they are replaced, and written by two at once; then everything is read in calm.",
        "*Stale for ever*: some process has the old value seconds after the last write.",
        "*Disagreeing*: processes have different values.",
        "*Loads per key*: thirty tasks want it at once; 1 is right.",
        "*Survivors*: of nine waiters whose tenth was cancelled.",
        f"Our bound Δ is {races['delta_ms']} ms in this run.",
        "",
        *_table(
            races["rows"],
            {
                "cache": "cache", "version": "version", "redis_py": "redis-py", "raced": "keys raced",
                "stale_for_ever": "stale for ever", "written": "keys written", "disagreeing": "disagreeing",
                "staleness_most_ms": "oldest read, ms", "loads_per_key": "loads per key", "survivors": "survivors",
            },
        ),
        "",
        "aiocache has no memory level above Redis: each of its reads is a round trip, so it cannot be stale.",
        "cashews with a current redis-py hears no invalidation at all.",
        "",
        "Ours in trouble: the same keys are read while they are replaced, and meanwhile every connection is cut,",
        "the server stands still for three times Δ, or is killed and comes back empty, again and again.",
        "",
        *_table(
            races["troubles"],
            {
                "redis_py": "redis-py", "trouble": "trouble", "times": "times", "raced": "keys raced",
                "stale_for_ever": "stale for ever",
            },
        ),
        "",
        "## A call in memory",
        "",
        f"`python -m tests.benchmarks.bench_cache_l1 --rivals`, nanoseconds, 10,000 entries. {_machine(level)}",
        "",
        "![Nanoseconds of a call, by cache](../images/cache-calls.svg)",
        "",
        *_table(
            level["costs"],
            {
                "cache": "cache", "get_ns": "hit", "fill_ns": "put, room left", "replace_ns": "put, replacing",
                "evict_ns": "put, evicting",
            },
        ),
        "",
        "cachebox is written in Rust.",
        "cachetools' `LRUCache` has neither lifetimes nor a byte budget; its `TTLCache` has lifetimes.",
        "`L1` has both, and its account is within 1 % of what the process grows by (last table).",
        "",
        "## Memory of a key",
        "",
        "100,000 keys of 43 characters, each with a small number, by what the process grows by.",
        "",
        *_table(level["held"], {"cache": "cache", "bytes_per_key": "bytes per key", "all_mib": "MiB in all"}),
        "",
        "cachebox takes less: it keeps no object of Python for an entry.",
        "",
        "## Hits by policy",
        "",
        "![Hit ratio by trace and policy](../images/cache-hits.svg)",
        "",
        *_table(
            level["ratios"],
            {
                "trace": "trace", "s3_fifo": "S3-FIFO", "sieve": "SIEVE", "clock": "CLOCK", "lru": "LRU",
                "behind_best": "default behind the best, points",
            },
        ),
        "",
        "## Compression of JSON",
        "",
        f"`python -m tests.benchmarks.bench_cache_parts`. {_machine(parts)}",
        "",
        "![Ratio and time of compression](../images/cache-compression.svg)",
        "",
        *_table(
            parts["compression"],
            {
                "way": "way", "raw_bytes": "bytes", "ratio": "ratio", "compress_us": "compress, µs",
                "decompress_us": "decompress, µs",
            },
        ),
        "",
        "So zstd of level 3 is the default where it is installed; the dictionary is for small values that are alike.",
        "",
        "## The disk",
        "",
        "Records of 1,700 B, microseconds; *batched*: a put among 100 in one transaction.",
        "",
        *_table(
            parts["disk"], {"records": "records", "put_us": "put", "batched_us": "put, batched", "get_us": "get"}
        ),
        "",
        "## The account of memory",
        "",
        *_table(
            level["accounts"],
            {
                "value": "value", "entries": "entries", "grown_bytes_per_entry": "grown, B per entry",
                "accounted_bytes_per_entry": "accounted", "error_percent": "error, %",
            },
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
