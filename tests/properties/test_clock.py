"""Laws of the slewed wall clock, for any system clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.clock import MOST_SLEW_PPM, SlewedWall

WALL_US = 1_700_000_000_000_000

readings = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 9), st.integers(1_990, 2_010), st.integers(0, 10**7)), st.integers(-(10**10), 10**10)
    ),
    min_size=1,
    max_size=30,
)
"""Time since the last reading, and how far the system's clock is off then."""

Read = tuple[int, int]


def read_all(wall: SlewedWall, steps: list[tuple[int, int]]) -> list[Read]:
    """(boot time, slewed wall time) of each reading."""
    boot_us, read = 0, [(0, WALL_US)]
    for passed_us, off_us in steps:
        boot_us += passed_us
        read.append((boot_us, wall.advance(WALL_US + boot_us + off_us, boot_us)))
    return read


def is_steady(read: list[Read]) -> bool:
    """Never back, and between any two readings at most 500 ppm off, to a microsecond."""
    return all(
        late >= early and abs((late - early) - (then - now)) * 1_000_000 <= MOST_SLEW_PPM * (then - now) + 1_000_000
        for (now, early), (then, late) in itertools.combinations(read, 2)
    )


@given(readings)
@example([(1_999, -5), (1, -5)])
def test_time_is_steady_whatever_the_system_clock_says(steps: list[tuple[int, int]]) -> None:
    """Read often or rarely, ahead or behind."""
    assert is_steady(read_all(SlewedWall(WALL_US, 0), steps))


@given(st.integers(-100, 100), st.integers(50, 5_000))
def test_difference_is_closed(off_us: int, every_us: int) -> None:
    """At 250 to 500 ppm, whether the clock is read every few microseconds or rarely; and it stays closed."""
    wall, needed_us = SlewedWall(WALL_US, 0), abs(off_us) * 4_000 + 2 * every_us + 4_000
    read = [wall.advance(WALL_US + boot_us + off_us, boot_us) - boot_us for boot_us in range(0, needed_us, every_us)]

    assert read[-1] == WALL_US + off_us
    assert abs(read[-2] - (WALL_US + off_us)) <= 2


class SystemTime(SlewedWall):
    """Planted: follows every step."""

    def advance(self, system_wall_us: int, boot_us: int) -> int:
        return system_wall_us


class HurriedWall(SlewedWall):
    """Planted: slews twice as fast."""

    def advance(self, system_wall_us: int, boot_us: int) -> int:
        passed_us = boot_us - self._boot_us
        most_us = passed_us * 2 * MOST_SLEW_PPM // 1_000_000
        off_us = system_wall_us - self._wall_us - passed_us
        self._wall_us, self._boot_us = self._wall_us + passed_us + max(-most_us, min(most_us, off_us)), boot_us
        return self._wall_us


@pytest.mark.parametrize("planted", [SystemTime, HurriedWall])
def test_unsteady_clock_is_seen(planted: Callable[[int, int], SlewedWall]) -> None:
    """The check of `test_time_is_steady_whatever_the_system_clock_says`."""
    steps = [(10_000, -(10**9)), (10_000, 10**9)]

    assert not is_steady(read_all(planted(WALL_US, 0), steps))
    assert is_steady(read_all(SlewedWall(WALL_US, 0), steps))
