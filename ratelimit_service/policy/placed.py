"""Things with the place where they are written, while a set is being compiled."""

from __future__ import annotations

import msgspec

from ratelimit_service.policy.origin import Origin
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.tree import Leaf


class Place(msgspec.Struct, frozen=True):
    """Where something is written.

    Attributes:
        object: File, or `RateLimitPolicy shop/checkout` where there is none.
        path: Field in the document.
        line: Line in the file, 0: unknown.
    """

    object: str
    path: str = ""
    line: int = 0

    @classmethod
    def of(cls, origin: Origin, name: str, path: str = "") -> Place:
        """Place of a field of a document; `name` stands in for the file of one that has none."""
        return cls(origin.file or name, path, origin.line_of(path))

    def __str__(self) -> str:
        return f"{self.object}:{self.line}" if self.line else self.object

    def problem(self, message: str, severity: Severity = Severity.ERROR) -> Problem:
        """Something that is wrong here."""
        return Problem(self.object, self.path, message, self.line, severity)


class Placed(msgspec.Struct, frozen=True):
    """A leaf and where it is written."""

    leaf: Leaf
    place: Place
