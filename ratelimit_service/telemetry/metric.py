"""One family of series: its name, type, labels and meaning."""

from __future__ import annotations

import enum

import msgspec

from ratelimit_service.telemetry.exposition import header


class Kind(enum.Enum):
    """Types of the text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True):
    """One family of series.

    Attributes:
        name: As scraped.
        kind: Its type.
        meaning: HELP: one sentence that says what a value stands for.
        labels: Names of its labels.
        unit: Of a value, as the reference page shows it.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def head(self) -> str:
        """Its HELP and TYPE lines."""
        return header(self.name, self.kind.value, self.meaning)
