"""A collector for prometheus-client; registers with `REGISTRY.register(CacheCollector(cache))`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ratelimit_service.cache.counting import Sample

__all__ = ["CacheCollector", "Measured"]


class Measured(Protocol):
    """What has metrics: `CacheService`, `SyncCacheService`, and a limiter (`RateLimitingCacheAdapter`)."""

    def metrics(self) -> Iterable[Sample]:
        """The numbers as they are now."""


class CacheCollector:
    """Shows the metrics of caches, which are told apart by their profile's name.

    Args:
        caches: Which.
    """

    def __init__(self, *caches: Measured) -> None:
        self._caches = caches

    def collect(self) -> Iterator[Metric]:
        """One family per name, as prometheus-client asks for at each scrape."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for cache in self._caches:
            for sample in cache.metrics():
                family = families.get(sample.name)
                if family is None:
                    kind = CounterMetricFamily if sample.is_counter else GaugeMetricFamily
                    family = kind(sample.name, sample.help, labels=tuple(sample.labels))
                    families[sample.name] = family
                family.add_metric(tuple(sample.labels.values()), sample.value)
        yield from families.values()
