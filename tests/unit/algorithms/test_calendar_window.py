"""Calendar windows at the edges of calendars and of daylight saving."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import subprocess
import sys

import pytest

from ratelimit_service.algorithms.calendar_window import UnknownTimeZone, window_at, windows_around, zone
from ratelimit_service.algorithms.limit import Calendar, CalendarUnit

HOUR_US = 3_600_000_000


def us(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("place", "at", "hours"),
    [
        ("Europe/Berlin", "2024-03-31T12:00+00:00", 23),
        ("Europe/Berlin", "2024-10-27T12:00+00:00", 25),
        ("Europe/Berlin", "2024-06-01T12:00+00:00", 24),
        ("America/Sao_Paulo", "2018-11-04T12:00+00:00", 23),
        ("America/Havana", "2024-11-03T12:00+00:00", 25),
    ],
)
def test_day_is_as_long_as_the_clock_makes_it(place: str, at: str, hours: int) -> None:
    """Days of 23, 24 and 25 hours, changes at midnight included."""
    window = window_at(Calendar(CalendarUnit.DAY, place), us(at))

    assert window.end_us - window.start_us == hours * HOUR_US


def test_day_without_midnight_begins_where_the_clock_jumped() -> None:
    """São Paulo had no 00:00 on 4 November 2018."""
    window = window_at(Calendar(CalendarUnit.DAY, "America/Sao_Paulo"), us("2018-11-04T12:00+00:00"))

    assert window.start_us == us("2018-11-04T01:00-02:00")


def test_date_that_does_not_exist_is_no_window() -> None:
    """Apia went from 29 to 31 December 2011."""
    windows = windows_around(Calendar(CalendarUnit.DAY, "Pacific/Apia"), us("2011-12-29T12:00-10:00"))

    assert [window.start_us for window in windows] == [
        us("2011-12-28T00:00-10:00"),
        us("2011-12-29T00:00-10:00"),
        us("2011-12-31T00:00+14:00"),
        us("2012-01-01T00:00+14:00"),
    ]


@pytest.mark.parametrize(
    ("unit", "start", "end"),
    [
        (CalendarUnit.MINUTE, "2024-02-29T13:37+00:00", "2024-02-29T13:38+00:00"),
        (CalendarUnit.HOUR, "2024-02-29T13:00+00:00", "2024-02-29T14:00+00:00"),
        (CalendarUnit.WEEK, "2024-02-26T00:00+00:00", "2024-03-04T00:00+00:00"),
        (CalendarUnit.MONTH, "2024-02-01T00:00+00:00", "2024-03-01T00:00+00:00"),
        (CalendarUnit.YEAR, "2024-01-01T00:00+00:00", "2025-01-01T00:00+00:00"),
    ],
)
def test_window_spans_its_unit(unit: CalendarUnit, start: str, end: str) -> None:
    """Weeks begin on Monday."""
    assert window_at(Calendar(unit), us("2024-02-29T13:37:42+00:00")) == (us(start), us(end))


def test_repeated_hour_is_two_windows() -> None:
    """Berlin's 02:00 to 03:00 came twice on 27 October 2024."""
    calendar = Calendar(CalendarUnit.HOUR, "Europe/Berlin")
    first, second = (window_at(calendar, us(at)) for at in ("2024-10-27T00:30+00:00", "2024-10-27T01:30+00:00"))

    assert first == (us("2024-10-27T00:00+00:00"), us("2024-10-27T01:00+00:00"))
    assert second == (us("2024-10-27T01:00+00:00"), us("2024-10-27T02:00+00:00"))


def test_half_hour_change_cuts_an_hour() -> None:
    """Lord Howe goes back by 30 minutes at 02:00: the hour before the change ends there."""
    calendar = Calendar(CalendarUnit.HOUR, "Australia/Lord_Howe")
    change_us = us("2024-04-06T15:00+00:00")

    assert window_at(calendar, change_us - 1).end_us == change_us
    assert window_at(calendar, change_us) == (change_us, change_us + HOUR_US // 2)


def test_instant_lies_in_its_window_and_windows_touch() -> None:
    """Every 20 minutes around both changes of a year, for every unit."""
    calendars = [Calendar(unit, "America/Havana") for unit in CalendarUnit]
    times = [us(f"2024-{day}T00:00+00:00") + step * HOUR_US // 3 for day in ("03-09", "11-02") for step in range(150)]
    around = [(time, windows_around(calendar, time)) for calendar in calendars for time in times]

    assert all(windows[1].start_us <= time < windows[1].end_us for time, windows in around)
    assert all(
        one.start_us < one.end_us == two.start_us for _, windows in around for one, two in itertools.pairwise(windows)
    )


def test_repeated_end_of_a_date_is_in_the_window_that_had_begun() -> None:
    """St. John's went from 00:01 on 29 October 2006 back to 23:01: the 29th had begun, and lasts 25 hours."""
    window = window_at(Calendar(CalendarUnit.DAY, "America/St_Johns"), us("2006-10-29T03:00+00:00"))

    assert window == (us("2006-10-29T00:00-02:30"), us("2006-10-30T00:00-03:30"))


@pytest.mark.parametrize("name", ["Mars/Base", "../etc/passwd", "", "Europe", "zone.tab", "leapseconds", "a/b/c/d"])
def test_unknown_zone_is_named(name: str) -> None:
    """Names that are no zone, folders, paths and other files of the database included."""
    with pytest.raises(UnknownTimeZone, match=repr(name)):
        zone(name)


@pytest.mark.parametrize("name", ["UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires", "EST5EDT"])
def test_every_form_of_name_is_known(name: str) -> None:
    """One part to three, digits and signs."""
    assert zone(name).key == name


def test_zones_are_those_of_the_pinned_database() -> None:
    """On a system that has none, days of Lord Howe are as they are here."""
    program = (
        "from ratelimit_service.algorithms.calendar_window import window_at\n"
        "from ratelimit_service.algorithms.limit import Calendar, CalendarUnit\n"
        "print(*window_at(Calendar(CalendarUnit.DAY, 'Australia/Lord_Howe'), 1712450000000000))"
    )
    environment = {**os.environ, "PYTHONTZPATH": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert tuple(map(int, said.stdout.split())) == (us("2024-04-07T00:00+11:00"), us("2024-04-08T00:00+10:30"))


def test_an_hour_ends_where_the_clock_changes_inside_it() -> None:
    """St. John's put its clocks on at 00:01: the hour from midnight is one minute, and the rest of 01:00 its own."""
    before, after = us("2010-03-14T03:30+00:00"), us("2010-03-14T03:31+00:00")
    calendar = Calendar(CalendarUnit.HOUR, "America/St_Johns")

    assert window_at(calendar, before) == (before, after)
    assert window_at(calendar, after).start_us == after
