"""What is wrong with a policy, said so that its author can mend it."""

from __future__ import annotations

import enum

import msgspec


class Severity(enum.Enum):
    """ERROR: the set is refused. WARNING: it is taken, and the author is told."""

    ERROR = "error"
    WARNING = "warning"


class Problem(msgspec.Struct, frozen=True, order=False):
    """One thing that is wrong.

    Attributes:
        object: Where: `shop.yaml:12` (file and first line of the document) or `RateLimitPolicy shop/checkout`.
        path: Field, as kubectl writes it: `spec.rules[0].limits[0].burst`; empty: the whole object.
        message: What is wrong and what would be right, without a trailing full stop.
        line: Line in the file, 0 when it has none.
        severity: Whether it refuses the set.
    """

    object: str
    path: str
    message: str
    line: int = 0
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        where = f"{self.object}:{self.line}" if self.line else self.object
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"
