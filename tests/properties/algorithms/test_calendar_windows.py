"""Calendar windows against a brute-force scan of local time, in many zones over many years."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.algorithms.calendar_window import window_at, windows_around, zone
from ratelimit_service.algorithms.fixed_window import Window
from ratelimit_service.algorithms.limit import Calendar, CalendarUnit

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DATES = (CalendarUnit.DAY, CalendarUnit.WEEK, CalendarUnit.MONTH, CalendarUnit.YEAR)
SHORT = {CalendarUnit.MINUTE: 60 * SECOND_US, CalendarUnit.HOUR: HOUR_US}
ZONES = [
    "UTC",
    "Africa/Casablanca",
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
]
"""Changes at midnight, across it, by half an hour, for Ramadan; winter time below zero; a date that was skipped."""

EDGES = [
    ("Pacific/Apia", "2011-12-29T12:00+00:00"),
    ("Pacific/Apia", "2011-12-31T09:59:59+00:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00+00:00"),
    ("America/Sao_Paulo", "2018-02-18T02:30+00:00"),
    ("America/St_Johns", "2006-10-29T03:00+00:00"),
    ("America/St_Johns", "2010-11-07T02:45+00:00"),
    ("Australia/Lord_Howe", "2024-04-06T15:10+00:00"),
    ("Australia/Lord_Howe", "2024-10-05T15:40+00:00"),
    ("Africa/Casablanca", "2024-03-10T02:00+00:00"),
    ("Europe/Dublin", "2023-10-29T00:59:59+00:00"),
    ("Asia/Gaza", "2016-03-25T23:00+00:00"),
    ("Asia/Gaza", "2011-08-01T00:00+00:00"),
    ("America/Havana", "2024-11-03T04:30+00:00"),
]

instants_us = st.one_of(
    st.integers(0, 80 * 365 * 86_400).map(lambda second: second * SECOND_US),
    st.builds(
        lambda edge, near_us: us(edge[1]) + near_us, st.sampled_from(EDGES), st.integers(-2 * DAY_US, 2 * DAY_US)
    ),
)
places = st.sampled_from(ZONES)


def us(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * SECOND_US


def local(place: str, wall_us: int) -> dt.datetime:
    return (EPOCH + dt.timedelta(microseconds=wall_us)).astimezone(zone(place))


def period(unit: CalendarUnit, date: dt.date) -> tuple[int, ...]:
    """What dates of one window share, ordered as the windows are."""
    return {
        CalendarUnit.DAY: (date.toordinal(),),
        CalendarUnit.WEEK: date.isocalendar()[:2],
        CalendarUnit.MONTH: (date.year, date.month),
        CalendarUnit.YEAR: (date.year,),
    }[unit]


Find = Callable[[Calendar, int], Window]


def begins_with_its_first_instant(find: Find, calendar: Calendar, wall_us: int) -> bool:
    """The start is in a later period than all of the two days before it; up to the end nothing is later still."""
    window = find(calendar, wall_us)
    now = period(calendar.unit, local(calendar.time_zone, window.start_us).date())
    before_us = [window.start_us - 1, *(window.start_us - step * HOUR_US // 4 for step in range(1, 192))]
    inside_us = range(window.start_us, min(window.end_us, window.start_us + 2 * DAY_US), HOUR_US // 4)
    last_us = [window.end_us - 1, *(window.end_us - step * HOUR_US // 4 for step in range(1, 8))]
    return (
        window.start_us <= wall_us < window.end_us
        and all(period(calendar.unit, local(calendar.time_zone, each).date()) < now for each in before_us)
        and all(
            period(calendar.unit, local(calendar.time_zone, each).date()) <= now
            for each in (*inside_us, *last_us)
            if each < window.end_us
        )
        and period(calendar.unit, local(calendar.time_zone, window.end_us).date()) > now
    )


@pytest.mark.parametrize("unit", DATES)
@given(place=places, wall_us=instants_us)
def test_window_begins_with_the_first_instant_of_its_first_date(unit: CalendarUnit, place: str, wall_us: int) -> None:
    """By scanning local dates around the start; weeks begin on Monday, as ISO weeks do."""
    assert begins_with_its_first_instant(window_at, Calendar(unit, place), wall_us)


@pytest.mark.parametrize("unit", DATES)
@pytest.mark.parametrize(("place", "edge"), EDGES)
def test_windows_hold_their_instants_around_known_changes(unit: CalendarUnit, place: str, edge: str) -> None:
    """Every ten minutes of the day before and after."""
    times_us = range(us(edge) - DAY_US, us(edge) + DAY_US, HOUR_US // 6)

    assert all(begins_with_its_first_instant(window_at, Calendar(unit, place), time_us) for time_us in times_us[::12])
    assert all(
        window.start_us <= time_us < window.end_us
        for time_us in times_us
        for window in [window_at(Calendar(unit, place), time_us)]
    )


@pytest.mark.parametrize("place", ZONES)
@pytest.mark.parametrize("unit", DATES[:3])
def test_windows_tile_the_years_without_gap_or_overlap(unit: CalendarUnit, place: str) -> None:
    """Walking from window to window from 2005 to 2026 meets every one, and each knows its neighbours."""
    calendar, ends_us = Calendar(unit, place), us("2026-01-01T00:00+00:00")
    windows = [window_at(calendar, us("2005-01-01T00:00+00:00"))]
    while windows[-1].end_us < ends_us:
        windows.append(window_at(calendar, windows[-1].end_us))

    assert all(one.start_us < one.end_us == two.start_us for one, two in itertools.pairwise(windows))
    assert all(
        windows_around(calendar, windows[number].end_us - 1) == tuple(windows[number - 1 : number + 3])
        for number in range(1, len(windows) - 3, 97)
    )


@pytest.mark.parametrize("unit", list(SHORT))
@given(place=places, wall_us=instants_us)
@example(place="Australia/Lord_Howe", wall_us=us("2024-04-06T15:10+00:00"))
@example(place="Europe/Berlin", wall_us=us("2024-03-31T00:59:59+00:00"))
def test_short_window_is_one_run_of_a_local_hour_or_minute(unit: CalendarUnit, place: str, wall_us: int) -> None:
    """It holds its instant, is no longer than its unit, and ends where that local hour ends or the clock changes."""
    calendar, length_us = Calendar(unit, place), SHORT[unit]
    before, window, after, _ = windows_around(calendar, wall_us)
    first, last, following = (local(place, each) for each in (window.start_us, window.end_us - 1, window.end_us))

    assert window.start_us <= wall_us < window.end_us
    assert before.end_us == window.start_us
    assert after.start_us == window.end_us
    assert window.end_us - window.start_us <= length_us
    assert (first.hour, first.utcoffset()) == (last.hour, last.utcoffset())
    assert following.second == 0 or following.utcoffset() != last.utcoffset()


def from_noon_midnight(calendar: Calendar, wall_us: int) -> Window:
    """Planted: a day is 24 hours from the local midnight of its noon."""
    noon = local(calendar.time_zone, wall_us).replace(hour=12, minute=0, second=0, microsecond=0)
    start_us = (noon - EPOCH) // dt.timedelta(microseconds=1) - DAY_US // 2
    return Window(start_us, start_us + DAY_US)


def by_local_date(calendar: Calendar, wall_us: int) -> Window:
    """Planted: the local date alone says which window it is, though a clock may go back across midnight."""
    date = local(calendar.time_zone, wall_us).date()
    starts = [
        dt.datetime(each.year, each.month, each.day, tzinfo=zone(calendar.time_zone))
        for each in (date, date + dt.timedelta(days=1))
    ]
    return Window(*((start.astimezone(dt.UTC) - EPOCH) // dt.timedelta(microseconds=1) for start in starts))


@pytest.mark.parametrize(
    ("planted", "place", "at"),
    [
        (from_noon_midnight, "Europe/Berlin", "2024-03-31T12:00+00:00"),
        (from_noon_midnight, "America/Sao_Paulo", "2018-11-04T12:00+00:00"),
        (by_local_date, "America/St_Johns", "2006-10-29T03:00+00:00"),
    ],
)
def test_wrong_window_is_seen(planted: Find, place: str, at: str) -> None:
    """The check of `test_window_begins_with_the_first_instant_of_its_first_date`."""
    calendar = Calendar(CalendarUnit.DAY, place)

    assert not begins_with_its_first_instant(planted, calendar, us(at))
    assert begins_with_its_first_instant(window_at, calendar, us(at))
