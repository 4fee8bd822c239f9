"""The reference pages of the metrics that a cache, or a limiter, in a program has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ratelimit_service.adapter import RateLimitingCacheAdapter
from ratelimit_service.cache.counting import CacheStats, Sample, samples_of
from ratelimit_service.cache.disk import DiskStats
from ratelimit_service.cache.service import CacheService


def render_cache_metrics_reference() -> str:
    """Every metric, as a cache with all levels shows them."""
    bare = CacheService[object]().stats()
    fields = {name: getattr(bare, name) for name in CacheStats.__struct_fields__}
    whole = CacheStats(**{**fields, "disk": DiskStats(0, 0, 0, 0)})
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
        *_table(samples_of(whole)),
    ]
    return "\n".join(lines) + "\n"


def render_library_metrics_reference() -> str:
    """Every metric of a limiter, as one that has no value cache shows them."""
    limiter = RateLimitingCacheAdapter.in_memory()
    lines = [
        "# Metrics of a limiter in a program",
        "",
        "`RateLimitingCacheAdapter.get_metrics()` returns them as values, those of its value cache",
        "([metrics of a cache](cache-metrics.md)) behind them; with `prometheus-client`, register the collector once:",
        "",
        "```python file=limiter_metrics.py",
        "from prometheus_client import REGISTRY, generate_latest",
        "",
        "from ratelimit_service.adapter import RateLimitingCacheAdapter",
        "from ratelimit_service.cache.prometheus import CacheCollector",
        "",
        "limiter = RateLimitingCacheAdapter.in_memory()",
        "REGISTRY.register(CacheCollector(limiter))",
        'assert b"tidegate_library_checks_total" in generate_latest(REGISTRY)',
        "```",
        "",
        "The label `namespace` is the limiter's; names that end in `_total` only grow.",
        "`level` says who decided: `memory`; over Redis `lease`, `standing`, `exact`, `batch` or `fallback`",
        "(the failure mode); with a value cache also `l1`, `l2` and `l3` of its reads.",
        "",
        *_table(limiter.metrics()),
    ]
    return "\n".join(lines) + "\n"


def _table(samples: Iterable[Sample]) -> Iterator[str]:
    rows: dict[str, tuple[list[str], str]] = {}
    for sample in samples:
        labels, _ = rows.setdefault(sample.name, ([], sample.help))
        labels += [name for name in sample.labels if name not in labels]
    yield "| metric | labels | meaning |"
    yield "|---|---|---|"
    for name, (labels, text) in sorted(rows.items()):
        yield f"| `{name}` | {', '.join(labels)} | {text} |"
