"""Every count that the limiter adds to: one `RuleCounters` per (domain, rule), and a few totals.

The table outlives reloads, so a rule that stays keeps its counts (a counter that goes back looks like a restart).
It is bounded twice, because names can come from tenants and, where a policy asks, from requests:

1. At most `max_series` pairs (domain, rule) get counters of their own; later ones share `overflow`.
2. At most `max_series` time series are shown. A pair has up to eight of them (`SERIES`), each admitted at the
   first scrape that finds it in use and for ever after; what is not admitted is summed into the overflow's series,
   so that totals stay right and no series ever goes back.
"""

from __future__ import annotations

from typing import Final

from ratelimit_service.quota.store import Source
from ratelimit_service.telemetry.counters import RuleCounters
from ratelimit_service.telemetry.exposition import label_text
from ratelimit_service.wire.grpc.status import GrpcCode

DEFAULT_MAX_SERIES = 20_000
"""`--metrics-max-series`."""

OVERFLOW: Final = "_overflow"
"""`domain` and `rule` of what has no series of its own."""


class SourceCounters:
    """Charges by who decided them (`quota.store.Source`); hot paths add to one attribute per charge or batch."""

    __slots__ = tuple(source.value for source in Source)

    memory: int
    lease: int
    standing: int
    batch: int
    exact: int
    fallback: int

    def __init__(self) -> None:
        self.memory = self.lease = self.standing = self.batch = self.exact = self.fallback = 0

    def add(self, source: Source, charges: int = 1) -> None:
        """Count `charges` decided by `source`; for callers that hold the enum."""
        setattr(self, source.value, getattr(self, source.value) + charges)


class Entry:
    """One pair's counters with what rendering needs of it.

    Attributes:
        counters: The counts.
        labels: `domain="…",rule="…"`, escaped.
        shown: Bit per series that has been admitted.
        hidden: Bit per series that came too late; a series is in one of the two for ever.
    """

    __slots__ = ("counters", "hidden", "labels", "shown")

    def __init__(self, counters: RuleCounters, labels: str) -> None:
        self.counters = counters
        self.labels = labels
        self.shown = 0
        self.hidden = 0


class CounterTable:
    """Counts of one process. Not thread-safe: one table belongs to one event loop.

    Attributes:
        max_series: Greatest number of pairs, and of shown series beside the overflow's own.
        overflow: Shared by every pair beyond the cap.
        sources: Charges by who decided.
        unknown_domains: Requests whose domain no policy names; without a label, because clients choose it.
        unmatched: Descriptors of known domains that reach no rule.
        refunds_ignored: Descriptors with negative hits whose rule takes no refunds.
        errors: Calls that ended without a verdict, by code.
        series: Series shown by the last scrape, the overflow's not counted.
        series_dropped: Series and pairs that found the table full; a pair counts each time it is asked for.
    """

    def __init__(self, max_series: int = DEFAULT_MAX_SERIES) -> None:
        self.max_series = max_series
        self.overflow = RuleCounters(OVERFLOW, OVERFLOW)
        self.sources = SourceCounters()
        self.unknown_domains = 0
        self.unmatched = 0
        self.refunds_ignored = 0
        self.errors: dict[GrpcCode, int] = {}
        self.series = 0
        self.series_dropped = 0
        self.entries: list[Entry] = []
        self._by_name: dict[tuple[str, str], RuleCounters] = {(OVERFLOW, OVERFLOW): self.overflow}
        self._by_labels: dict[str, RuleCounters] = {}

    def rule(self, domain: str, rule: str) -> RuleCounters:
        """The counters of a rule, made at the first call; the same object for the same names, over reloads too.

        Two names that look the same as labels (`exposition.label_text`) share counters: a scrape may not
        hold one series twice.
        """
        name = (domain, rule)
        counters = self._by_name.get(name)
        if counters is not None:
            return counters
        if len(self._by_name) > self.max_series:
            self.series_dropped += 1
            return self.overflow
        labels = f'domain="{label_text(domain)}",rule="{label_text(rule)}"'
        counters = self._by_labels.get(labels)
        if counters is None:
            counters = self._by_labels[labels] = RuleCounters(domain, rule)
            self.entries.append(Entry(counters, labels))
        self._by_name[name] = counters
        return counters

    def error(self, code: GrpcCode) -> None:
        """Count one call that ended with `code` instead of a verdict."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def admit(self, entry: Entry, bit: int) -> bool:
        """Whether a series that is in use is shown under its own labels. Decided once per series, at a scrape.

        Args:
            entry: The pair.
            bit: Which of its series; one bit set.
        """
        if entry.shown & bit:
            return True
        if entry.hidden & bit:
            return False
        if self.series >= self.max_series:
            entry.hidden |= bit
            self.series_dropped += 1
            return False
        entry.shown |= bit
        self.series += 1
        return True
