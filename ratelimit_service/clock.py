"""The clock of the service: wall time that is anchored once and then only slewed.

The wall clock is read at the start. From then on it is advanced by the monotonic clock, and the difference to
the system's wall clock is closed by at most 500 ppm, so a clock that is set, or glitches, neither jams a limit
nor opens one. A pause of the machine's own clocks is outside this model.
"""

from __future__ import annotations

import time
from typing import Final

from ratelimit_service.algorithms.limit import Instant

MOST_SLEW_PPM: Final = 500
_STEP_US: Final = 1_000_000 // MOST_SLEW_PPM
"""In less time than this there is no microsecond to slew by."""


class SlewedWall:
    """Wall time as a function of the monotonic clock; pure, microseconds throughout."""

    __slots__ = ("_boot_us", "_wall_us")

    def __init__(self, wall_us: int, boot_us: int) -> None:
        self._wall_us = wall_us
        self._boot_us = boot_us

    def coast(self, boot_us: int) -> int | None:
        """As `advance`, where the system's clock makes no difference so soon after the last reading; else None."""
        passed_us = boot_us - self._boot_us
        return self._wall_us + passed_us if 0 <= passed_us < _STEP_US else None

    def advance(self, system_wall_us: int, boot_us: int) -> int:
        """The slewed wall time at `boot_us`, when the system's clock says `system_wall_us`.

        Never goes back, because `boot_us` does not; between two calls it runs at most 500 ppm off, to a microsecond.
        """
        passed_us = max(0, boot_us - self._boot_us)
        expected_us = self._wall_us + passed_us
        most_us = passed_us * MOST_SLEW_PPM // 1_000_000
        off_us = max(-most_us, min(most_us, system_wall_us - expected_us))
        # Time too short to slew in is kept for the next reading, so that even the most frequent
        # reading slews at no less than half the rate.
        if most_us:
            self._wall_us, self._boot_us = expected_us + off_us, boot_us
            return self._wall_us
        return expected_us


class Clock:
    """Reads the machine's clocks. One reading serves a whole read batch."""

    def __init__(self) -> None:
        self._wall = SlewedWall(time.time_ns() // 1000, _boot_us())

    def read(self) -> Instant:
        """Now."""
        boot_us = _boot_us()
        wall_us = self._wall.coast(boot_us)
        if wall_us is not None:
            return Instant(wall_us, boot_us)
        return Instant(self._wall.advance(time.time_ns() // 1000, boot_us), boot_us)


def _boot_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
