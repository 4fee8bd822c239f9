"""The service's clock by example."""

from __future__ import annotations

import time

from ratelimit_service.clock import Clock, SlewedWall

WALL_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000


def test_clock_starts_at_the_system_time() -> None:
    """Within a second of it, however slow the machine."""
    before_us = time.time_ns() // 1000
    read_us = Clock().read().wall_us

    assert 0 <= read_us - before_us < 1_000_000


def test_readings_follow_boot_time() -> None:
    """Neither goes back, and boot time is the machine's."""
    clock = Clock()
    before_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    one, two = clock.read(), clock.read()

    assert before_us <= one.boot_us <= two.boot_us
    assert one.wall_us <= two.wall_us


def test_glitch_of_an_hour_moves_time_by_microseconds() -> None:
    """An hour ahead for one reading, a millisecond long, jams nothing; then all is as before."""
    wall = SlewedWall(WALL_US, 0)
    ahead_us = wall.advance(WALL_US + HOUR_US, 10_000)
    after_us = wall.advance(WALL_US + 20_000, 20_000)

    assert ahead_us == WALL_US + 10_005
    assert after_us == WALL_US + 20_000


def test_step_back_of_an_hour_never_stops_time() -> None:
    """Time goes on, 500 ppm slow."""
    wall = SlewedWall(WALL_US, 0)

    assert wall.advance(WALL_US - HOUR_US, 1_000_000) == WALL_US + 999_500


def test_small_difference_is_closed_and_stays_closed() -> None:
    """A millisecond takes two seconds."""
    wall = SlewedWall(WALL_US, 0)
    read_us = [
        wall.advance(WALL_US + 1_000 + boot_us, boot_us) - boot_us for boot_us in (1_000_000, 2_000_000, 9_000_000)
    ]

    assert read_us == [WALL_US + 500, WALL_US + 1_000, WALL_US + 1_000]


def test_coasting_is_advancing_without_the_systems_clock() -> None:
    """Up to two milliseconds after a reading, whatever the system's clock says; and never backwards."""
    for passed_us in (0, 1, 1_999, 2_000, -1):
        wall, twin = SlewedWall(WALL_US, 10_000), SlewedWall(WALL_US, 10_000)
        coasted_us = wall.coast(10_000 + passed_us)

        if 0 <= passed_us < 2_000:
            assert coasted_us == twin.advance(WALL_US + HOUR_US, 10_000 + passed_us)
        else:
            assert coasted_us is None
