"""What a source of policies and the program that uses it say to one another (DECISIONS 41)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Snapshot


class Applied(msgspec.Struct, frozen=True):
    """A set is in force.

    Attributes:
        version: Its content hash.
        warnings: What its authors should know.
    """

    version: str
    warnings: tuple[Problem, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """A set is refused whole; what was in force stays (DECISIONS 34).

    Attributes:
        problems: Everything that is wrong, warnings included; at least one error.
    """

    problems: tuple[Problem, ...]


Apply = Callable[[Snapshot], Applied | Refused]
"""Puts a snapshot in force, between two requests; it must be quick."""


class Source(Protocol):
    """Finds policies and applies them until it is closed. Belongs to one event loop."""

    async def start(self) -> Applied | Refused | None:
        """Begin; returns what became of the first set, None: there is none yet."""

    async def close(self) -> None:
        """Find no more; what is in force stays in force."""


class LoadObserver(Protocol):
    """Is told of every load, for metrics and logs; called on the event loop."""

    def load_succeeded(self, applied: Applied, duration_us: int) -> None:
        """A set was taken. `duration_us`: from reading the files to `apply`; 0: nothing had changed."""

    def load_failed(self, problems: Sequence[Problem], duration_us: int) -> None:
        """A set was refused."""
