"""The reference page of the metrics that a cache in a program has."""

from __future__ import annotations

from ratelimit_service.cache.counting import CacheStats, samples_of
from ratelimit_service.cache.disk import DiskStats
from ratelimit_service.cache.service import CacheService


def render_cache_metrics_reference() -> str:
    """Every metric, as a cache with all levels shows them."""
    bare = CacheService[object]().stats()
    fields = {name: getattr(bare, name) for name in CacheStats.__struct_fields__}
    whole = CacheStats(**{**fields, "disk": DiskStats(0, 0, 0, 0)})
    rows: dict[str, tuple[list[str], str]] = {}
    for sample in samples_of(whole):
        labels, _ = rows.setdefault(sample.name, ([], sample.help))
        labels += [name for name in sample.labels if name not in labels]
    lines = [
        "# Metrics of a cache in a program",
        "",
        "`CacheService.metrics()` returns them as values; with `prometheus-client`, register the collector once:",
        "",
        "```python file=metrics.py",
        "from prometheus_client import REGISTRY, generate_latest",
        "",
        "from ratelimit_service.cache import CacheService",
        "from ratelimit_service.cache.prometheus import CacheCollector",
        "",
        "cache = CacheService()",
        "REGISTRY.register(CacheCollector(cache))",
        'assert b"tidegate_cache_hit_ratio" in generate_latest(REGISTRY)',
        "```",
        "",
        "The label `cache` is the profile's name; names that end in `_total` only grow.",
        "Hit rate over a time is `rate(hits)` by `rate(hits) + rate(misses)`; the ratios here are since the start.",
        "",
        "| metric | labels | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {', '.join(labels)} | {text} |" for name, (labels, text) in sorted(rows.items())]
    return "\n".join(lines) + "\n"
