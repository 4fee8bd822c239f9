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


class Together(enum.Enum):
    """How the values of several workers become one."""

    SUM = "sum"
    GREATEST = "greatest"
    LEAST = "least"

    def of(self, one: float, other: float) -> float:
        """One value of two."""
        match self:
            case Together.SUM:
                return one + other
            case Together.GREATEST:
                return max(one, other)
            case Together.LEAST:
                return min(one, other)


class Metric(msgspec.Struct, frozen=True):
    """One family of series.

    Attributes:
        name: As scraped.
        kind: Its type.
        meaning: HELP: one sentence that says what a value stands for.
        labels: Names of its labels.
        unit: Of a value, as the reference page shows it.
        together: What it is of several workers.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    together: Together = Together.SUM

    @property
    def head(self) -> str:
        """Its HELP and TYPE lines."""
        return header(self.name, self.kind.value, self.meaning)
