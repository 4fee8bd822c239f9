"""Clocks that tests move by hand."""

from __future__ import annotations

from ratelimit_service.algorithms.limit import Instant


class ManualClock:
    """Stands still until moved; wall and boot time move together unless told otherwise."""

    def __init__(self, wall_us: int = 1_700_000_000_000_000, boot_us: int = 1_000_000) -> None:
        self.wall_us = wall_us
        self.boot_us = boot_us

    def read(self) -> Instant:
        return Instant(self.wall_us, self.boot_us)

    def advance(self, us: int) -> Instant:
        self.wall_us += us
        self.boot_us += us
        return self.read()

    def step_wall(self, us: int) -> Instant:
        """The wall clock is set; the monotonic one goes on."""
        self.wall_us += us
        return self.read()
