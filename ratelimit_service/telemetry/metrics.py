"""The service's metrics: counted as plain integers, rendered at scrape time in slices (DECISIONS 36).

`Metrics.render` is a generator of bytes; whoever sends them gives the event loop back between two slices.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgspec

from ratelimit_service.telemetry import catalogue
from ratelimit_service.telemetry.counter_table import DEFAULT_MAX_SERIES, OVERFLOW, CounterTable, Entry
from ratelimit_service.telemetry.counters import RuleCounters
from ratelimit_service.telemetry.exposition import LINES_PER_SLICE, sample, seconds_text, value_text
from ratelimit_service.telemetry.histogram import DURATION_BOUNDS_US, Histogram
from ratelimit_service.telemetry.metric import Metric
from ratelimit_service.telemetry.process import ProcessMetrics
from ratelimit_service.telemetry.shared_store import shared_store_lines

if TYPE_CHECKING:
    # For its type only: the store brings the Redis library along.
    from ratelimit_service.quota.redis.store import RedisStats

StoreStatistics = Callable[[], msgspec.Struct]
"""Reads a store's statistics: integers by the names of `catalogue.STORE`; called once per scrape."""
ConnectionStatistics = Callable[[], msgspec.Struct]
"""Reads a transport's statistics: integers by the names of `catalogue.CONNECTIONS`, and `abuse` by kind."""
Bound = Callable[[str, str], int]
"""(domain, rule) → `Store.bound`; below 0: unbounded."""

OWN_PROFILE: Final = "default"
"""Label `profile` of the service's own store; a profile's name has a slash, so it cannot be one."""

_RESULTS: Final = ("ok", "over", "shadow_over", "allow", "deny")
_read_results: Final = attrgetter(*_RESULTS)
_BIT_NEAR, _BIT_HITS, _BIT_BOUND = 1 << 5, 1 << 6, 1 << 7
"""Bits of `Entry.shown`; the results have the lower five."""
_ENTRIES_PER_SLICE: Final = LINES_PER_SLICE // len(_RESULTS)


class ConfigMetrics:
    """What is in force, as the sources report it.

    Attributes:
        shadow: Nothing is rejected, by the kill switch or by `--shadow-mode`.
    """

    def __init__(self) -> None:
        self._version = ""
        self._applied_us = 0
        self._domains = self._rules = self._loads = self._load_errors = 0
        self._refused = False
        self._streams = 0
        self._connected: bool | None = None
        self.shadow = False

    def applied(self, version: str, *, domains: int, rules: int, wall_us: int) -> None:
        """A set of policies came into force at `wall_us`."""
        self._version, self._domains, self._rules, self._applied_us = version, domains, rules, wall_us
        self._loads += 1
        self._refused = False

    def refused(self) -> None:
        """A set of policies was refused; the last good one, if any, stays."""
        self._load_errors += 1
        self._refused = True

    def stream_changed(self, connected: bool) -> None:
        """The stream to the operator is there, or not any more; shown from the first time on."""
        self._streams += connected
        self._connected = connected

    def lines(self) -> Iterator[str]:
        """Header and samples of each family; what describes the version only once there is one."""
        yield _single(catalogue.CONFIG_LOADS, self._loads)
        yield _single(catalogue.CONFIG_LOAD_ERRORS, self._load_errors)
        yield _single(catalogue.CONFIG_REFUSED, int(self._refused))
        if self._connected is not None:
            yield _single(catalogue.XDS_CONNECTED, int(self._connected))
            yield _single(catalogue.XDS_STREAMS, self._streams)
        if self._loads:
            yield catalogue.CONFIG_INFO.head + sample(catalogue.CONFIG_INFO.name, 1, version=self._version)
            applied = catalogue.CONFIG_APPLIED
            yield f"{applied.head}{applied.name} {seconds_text(self._applied_us)}\n"
            yield _single(catalogue.CONFIG_DOMAINS, self._domains)
            yield _single(catalogue.CONFIG_RULES, self._rules)
            yield _single(catalogue.CONFIG_SHADOW, int(self.shadow))


class Metrics:
    """Everything that `/metrics` shows. Not thread-safe: one object belongs to one event loop.

    Attributes:
        counters: What the limiter adds to.
        request_duration: What transports add to.
        config: What sources report.
        ready: Whether `/readyz` answers 200; set by the app.
        bound: Reads `tidegate_admission_bound`, None: not shown.
        connections: Reads what a transport counts of its connections, None: it counts nothing.
    """

    def __init__(
        self, version: str, max_series: int = DEFAULT_MAX_SERIES, process: ProcessMetrics | None = None
    ) -> None:
        self.counters = CounterTable(max_series)
        self.request_duration = Histogram()
        self.config = ConfigMetrics()
        self.ready = False
        self.bound: Bound | None = None
        self.connections: ConnectionStatistics | None = None
        self._build = (version, platform.python_version())
        self._process = process or ProcessMetrics()
        self._stores: dict[str, StoreStatistics] = {}
        self._shared_stores: dict[str, Callable[[], RedisStats]] = {}

    def add_store(self, profile: str, read: StoreStatistics) -> None:
        """Show a store's statistics under `profile` (empty: the service's own, `default`); replaces an earlier one."""
        self._stores[profile or OWN_PROFILE] = read

    def add_shared_store(self, profile: str, read: Callable[[], RedisStats]) -> None:
        """Show what a store that replicas share did under `profile`, as `add_store` does; replaces an earlier one."""
        self._shared_stores[profile or OWN_PROFILE] = read

    def remove_store(self, profile: str) -> None:
        """Show no store under `profile` any more."""
        self._stores.pop(profile or OWN_PROFILE, None)
        self._shared_stores.pop(profile or OWN_PROFILE, None)

    def render(self) -> Iterator[bytes]:
        """The whole text, UTF-8, in slices of at most about `LINES_PER_SLICE` lines.

        Counts may grow between two slices; every series is read once, and none ever shows less than before.
        """
        yield from self._decisions()
        yield from self._numbers(catalogue.NEAR_LIMIT_HITS, _BIT_NEAR, attrgetter("near_limit_hits"))
        yield from self._numbers(catalogue.HITS, _BIT_HITS, attrgetter("hits"))
        yield from self._bounds()
        yield "".join(self._totals()).encode()
        yield "".join(self._process.lines()).encode()

    def _slices(self) -> Iterator[list[Entry]]:
        entries = self.counters.entries
        # The end is fixed at the start: entries made meanwhile wait for the next scrape.
        for start in range(0, len(entries), _ENTRIES_PER_SLICE):
            yield entries[start : start + _ENTRIES_PER_SLICE]

    def _decisions(self) -> Iterator[bytes]:
        name, admit = catalogue.DECISIONS.name, self.counters.admit
        yield catalogue.DECISIONS.head.encode()
        overflow = [0] * len(_RESULTS)
        for entries in self._slices():
            lines = []
            for entry in entries:
                for index, value in enumerate(_read_results(entry.counters)):
                    if not value:
                        continue
                    if admit(entry, 1 << index):
                        lines.append(f'{name}{{{entry.labels},result="{_RESULTS[index]}"}} {value}\n')
                    else:
                        overflow[index] += value
            yield "".join(lines).encode()
        shared = _read_results(self.counters.overflow)
        for result, late, value in zip(_RESULTS, overflow, shared, strict=True):
            if late + value:
                yield sample(name, late + value, domain=OVERFLOW, rule=OVERFLOW, result=result).encode()

    def _numbers(self, metric: Metric, bit: int, read: Callable[[RuleCounters], int]) -> Iterator[bytes]:
        yield metric.head.encode()
        overflow = read(self.counters.overflow)
        for entries in self._slices():
            lines = []
            for entry in entries:
                value = read(entry.counters)
                if not value:
                    continue
                if self.counters.admit(entry, bit):
                    lines.append(f"{metric.name}{{{entry.labels}}} {value}\n")
                else:
                    overflow += value
            yield "".join(lines).encode()
        if overflow:
            yield sample(metric.name, overflow, domain=OVERFLOW, rule=OVERFLOW).encode()

    def _bounds(self) -> Iterator[bytes]:
        if self.bound is None:
            return
        metric, bound = catalogue.ADMISSION_BOUND, self.bound
        yield metric.head.encode()
        for entries in self._slices():
            lines = []
            for entry in entries:
                # Only what this very scrape or an earlier one shows: a rule has no series before its first event.
                if entry.shown and self.counters.admit(entry, _BIT_BOUND):
                    value = bound(entry.counters.domain, entry.counters.rule)
                    lines.append(f"{metric.name}{{{entry.labels}}} {value if value >= 0 else '+Inf'}\n")
            yield "".join(lines).encode()

    def _totals(self) -> Iterator[str]:
        """Families whose number of series is fixed, about 100 lines."""
        counters = self.counters
        yield catalogue.DECISION_SOURCES.head
        for source in counters.sources.__slots__:
            if value := getattr(counters.sources, source):
                yield sample(catalogue.DECISION_SOURCES.name, value, source=source)
        yield catalogue.REQUEST_DURATION.head
        yield from self.request_duration.lines(catalogue.REQUEST_DURATION.name)
        yield catalogue.REQUEST_ERRORS.head
        for code, calls in sorted(counters.errors.items()):
            yield sample(catalogue.REQUEST_ERRORS.name, calls, code=code.name)
        yield _single(catalogue.UNKNOWN_DOMAINS, counters.unknown_domains)
        yield _single(catalogue.UNMATCHED, counters.unmatched)
        yield _single(catalogue.REFUNDS_IGNORED, counters.refunds_ignored)
        yield from self._connection_lines()
        yield from self._store_lines()
        shared = [(profile, read()) for profile, read in self._shared_stores.items()]
        yield from shared_store_lines(shared, DURATION_BOUNDS_US)
        yield from self.config.lines()
        yield _single(catalogue.SERIES, counters.series)
        yield _single(catalogue.SERIES_DROPPED, counters.series_dropped)
        yield _single(catalogue.READY, int(self.ready))
        version, python = self._build
        yield catalogue.BUILD_INFO.head + sample(catalogue.BUILD_INFO.name, 1, version=version, python=python)

    def _connection_lines(self) -> Iterator[str]:
        if self.connections is None:
            return
        reading = msgspec.structs.asdict(self.connections())
        for field, metric in catalogue.CONNECTIONS.items():
            yield _single(metric, reading[field])
        yield catalogue.CONNECTION_ABUSE.head
        for kind, count in reading["abuse"].items():
            yield sample(catalogue.CONNECTION_ABUSE.name, count, kind=kind)

    def _store_lines(self) -> Iterator[str]:
        readings = [(profile, msgspec.structs.asdict(read())) for profile, read in self._stores.items()]
        for field, metric in catalogue.STORE.items():
            shown = [(profile, reading[field]) for profile, reading in readings if field in reading]
            if shown:
                yield metric.head
                yield from (sample(metric.name, value, profile=profile) for profile, value in shown)
        metric = catalogue.STORE_CHARGES
        yield metric.head
        for profile, reading in readings:
            for field, role in catalogue.STORE_ROLES.items():
                if value := reading.get(field, 0):
                    yield sample(metric.name, value, profile=profile, role=role)


def _single(metric: Metric, value: int) -> str:
    return f"{metric.head}{metric.name} {value_text(value)}\n"
