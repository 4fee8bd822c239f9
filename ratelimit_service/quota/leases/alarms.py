"""One alarm at a time: the earliest that anybody needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol


class Turns(Protocol):
    """Runs callbacks later: an event loop, or a test."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Run it after the caller has returned."""

    def at(self, boot_us: int, callback: Callable[[], None]) -> None:
        """Run it at a boot time, or soon after."""


class Alarm:
    """Rings at the earliest time that it was set to; whoever is rung sets it again.

    Attributes:
        turns: By which it rings.
    """

    def __init__(self, turns: Turns, ring: Callable[[], None]) -> None:
        self.turns = turns
        self._ring = ring
        self._at_us: int | None = None

    def set(self, at_us: int) -> None:
        """Ring at `at_us` (boot time) at the latest."""
        if self._at_us is None or at_us < self._at_us:
            self._at_us = at_us
            self.turns.at(at_us, functools.partial(self._on_time, at_us))

    def _on_time(self, at_us: int) -> None:
        # One that an earlier one replaced still comes, and is passed over.
        if at_us == self._at_us:
            self._at_us = None
            self._ring()
