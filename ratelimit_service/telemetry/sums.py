"""The metrics of several processes as those of one: read from their text, added up, and written again.

A counter never falls: what a process that has ended had counted, as far as it was scraped, stays in the sum, since
Prometheus takes a fall for a restart and would count all the others anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.telemetry.catalogue import METRICS, READY
from ratelimit_service.telemetry.exposition import LINES_PER_SLICE, value_text
from ratelimit_service.telemetry.metric import Kind, Together

_GROWS: Final = frozenset({Kind.COUNTER.value, Kind.HISTOGRAM.value})
_TOGETHER: Final[Mapping[str, Together]] = {
    **{metric.name: metric.together for metric in METRICS},
    "process_start_time_seconds": Together.LEAST,
    "process_max_fds": Together.LEAST,
}
"""How the samples of a family become one; added up where it is not here."""

_LEFT_OUT: Final = frozenset({READY.name})
"""Families that the summing process has of its own."""


class Family(msgspec.Struct):
    """One family of one process.

    Attributes:
        head: Its HELP and TYPE lines.
        kind: Its type, as the text says it.
        samples: Value by name and labels, as they stand in the text.
    """

    head: str
    kind: str
    samples: dict[str, float]


Scrape = dict[str, Family]
"""Families by name, in the order of the text."""


def read_scrape(text: str) -> Scrape:
    """Read a text that `Metrics.render` made."""
    families: Scrape = {}
    family = Family("", "", {})
    help_line = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            help_line = line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            family = families[name] = Family(f"{help_line}\n{line}\n", kind, {})
        elif line:
            series, _, value = line.rpartition(" ")
            family.samples[series] = int(value) if value.isdigit() else float(value)
    return families


def add_ended(ended: Scrape, last: Scrape) -> None:
    """Add to `ended` what never falls of the last scrape of a process that has ended."""
    for name, family in last.items():
        if family.kind in _GROWS and _TOGETHER.get(name, Together.SUM) is Together.SUM:
            _add(ended, name, family)


def summed(live: Sequence[Scrape], ended: Scrape) -> Iterator[bytes]:
    """The text of all together, in slices."""
    together: Scrape = {}
    for scrape in (*live, ended):
        for name, family in scrape.items():
            if name not in _LEFT_OUT:
                _add(together, name, family)
    lines: list[str] = []
    for family in together.values():
        lines.append(family.head)
        for series, value in family.samples.items():
            lines.append(f"{series} {value_text(value)}\n")
            if len(lines) >= LINES_PER_SLICE:
                yield "".join(lines).encode()
                lines.clear()
    yield "".join(lines).encode()


def _add(into: Scrape, name: str, family: Family) -> None:
    known = into.get(name)
    if known is None:
        into[name] = Family(family.head, family.kind, dict(family.samples))
        return
    how = _TOGETHER.get(name, Together.SUM)
    for series, value in family.samples.items():
        before = known.samples.get(series)
        known.samples[series] = value if before is None else how.of(before, value)
