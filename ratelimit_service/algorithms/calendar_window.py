"""Windows that follow a calendar: minutes to years of a time zone, daylight saving included.

A window begins at the first instant whose local time is in it. That is not always midnight: some dates have
none (clocks go from 00:00 to 01:00), and some dates do not exist (Pacific/Apia had no 30 December 2011).
Time zones come from the `tzdata` distribution, pinned with the code, never from the system.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from typing import TYPE_CHECKING, Final

from ratelimit_service.algorithms.fixed_window import Window
from ratelimit_service.algorithms.limit import Calendar, CalendarUnit, InvalidLimit

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+_-]*(/[A-Za-z0-9+_-]+){0,2}").fullmatch
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SECOND_US: Final = 1_000_000
_UTC_LENGTHS_S: Final = {CalendarUnit.MINUTE: 60, CalendarUnit.HOUR: 3600}


class UnknownTimeZone(InvalidLimit):
    """A name that the time zone database does not have."""


@functools.lru_cache(maxsize=512)
def zone(name: str) -> ZoneInfo:
    """The time zone `name` of the pinned database.

    Raises:
        UnknownTimeZone: There is none.
    """
    if not _NAME(name):
        raise UnknownTimeZone(f"{name!r} is no time zone name")
    # A megabyte that a service without calendars does without.
    import importlib.resources  # noqa: PLC0415
    import zoneinfo  # noqa: PLC0415

    file = importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    try:
        with file.open("rb") as data:
            return zoneinfo.ZoneInfo.from_file(data, key=name)
    except (OSError, ValueError):
        raise UnknownTimeZone(f"there is no time zone {name!r}") from None


def window_at(calendar: Calendar, wall_us: int) -> Window:
    """The window that holds `wall_us`."""
    return _Windows(calendar).at(wall_us)


def windows_around(calendar: Calendar, wall_us: int) -> tuple[Window, Window, Window, Window]:
    """The window before the one that holds `wall_us`, that one, and the two after it.

    A store that has a clock of its own picks among them.
    """
    windows = _Windows(calendar)
    current = windows.at(wall_us)
    following = windows.at(current.end_us)
    return windows.at(current.start_us - 1), current, following, windows.at(following.end_us)


class _Windows:
    """The windows of one calendar, in microseconds of wall time."""

    def __init__(self, calendar: Calendar) -> None:
        self._unit = calendar.unit
        self._zone = zone(calendar.time_zone)

    def at(self, wall_us: int) -> Window:
        """The window that holds `wall_us`."""
        local = self._local(wall_us)
        if self._unit in _UTC_LENGTHS_S:
            start_us = self._short_start(local, wall_us)
            return Window(start_us, self._short_next(start_us))
        start_us = self._first_instant(_first_date(self._unit, local.date()))
        window = Window(start_us, self._next_after(start_us))
        # Clocks that go back across midnight repeat the end of a date whose next date has begun already.
        while window.end_us <= wall_us:
            window = Window(window.end_us, self._next_after(window.end_us))
        return window

    def _next_after(self, start_us: int) -> int:
        """The start of the window after the one that begins at `start_us`."""
        date = _first_date(self._unit, self._local(start_us).date())
        return self._first_instant(_next_date(self._unit, date))

    def _local(self, wall_us: int) -> dt.datetime:
        return (_EPOCH + dt.timedelta(microseconds=wall_us)).astimezone(self._zone)

    def _short_start(self, local: dt.datetime, wall_us: int) -> int:
        """Where a minute or hour begins: real time, aligned to the local clock; an hour that repeats is two windows."""
        offset_us = _offset_us(local)
        length_us = _UTC_LENGTHS_S[self._unit] * _SECOND_US
        start_us = wall_us - (wall_us + offset_us) % length_us
        if _offset_us(self._local(start_us)) == offset_us:
            return start_us
        return self._change_before(start_us, wall_us)

    def _short_next(self, start_us: int) -> int:
        offset_us = _offset_us(self._local(start_us))
        length_us = _UTC_LENGTHS_S[self._unit] * _SECOND_US
        following_us = start_us + length_us - (start_us + offset_us) % length_us
        if _offset_us(self._local(following_us - 1)) == offset_us:
            return following_us
        return self._change_before(start_us, following_us - 1)

    def _change_before(self, low_us: int, high_us: int) -> int:
        """The first instant in (low, high] with the offset of `high_us`: where the clock changed, to the second."""
        wanted = _offset_us(self._local(high_us))
        low_s, high_s = low_us // _SECOND_US, high_us // _SECOND_US
        while high_s - low_s > 1:
            middle_s = (low_s + high_s) // 2
            if _offset_us(self._local(middle_s * _SECOND_US)) == wanted:
                high_s = middle_s
            else:
                low_s = middle_s
        return high_s * _SECOND_US

    def _first_instant(self, date: dt.date) -> int:
        """The first instant whose local date is `date` or later."""
        midnight = dt.datetime(date.year, date.month, date.day, tzinfo=self._zone)
        start_us = _wall_us(midnight)
        if self._local(start_us) == midnight:
            return start_us
        # Midnight was skipped: the date begins where the clock jumped, at most a day from where it would have.
        low_us, high_us = start_us - 86_400 * _SECOND_US, start_us + 86_400 * _SECOND_US
        while high_us - low_us > 1:
            middle_us = (low_us + high_us) // 2
            if self._local(middle_us).date() >= date:
                high_us = middle_us
            else:
                low_us = middle_us
        return high_us


def _offset_us(local: dt.datetime) -> int:
    offset = local.utcoffset()
    assert offset is not None
    return offset // dt.timedelta(microseconds=1)


def _wall_us(local: dt.datetime) -> int:
    return (local.astimezone(dt.UTC) - _EPOCH) // dt.timedelta(microseconds=1)


def _first_date(unit: CalendarUnit, date: dt.date) -> dt.date:
    """The first date of the window that holds `date`; weeks begin on Monday."""
    match unit:
        case CalendarUnit.WEEK:
            return date - dt.timedelta(days=date.weekday())
        case CalendarUnit.MONTH:
            return date.replace(day=1)
        case CalendarUnit.YEAR:
            return date.replace(month=1, day=1)
        case _:
            return date


def _next_date(unit: CalendarUnit, date: dt.date) -> dt.date:
    match unit:
        case CalendarUnit.WEEK:
            return date + dt.timedelta(days=7)
        case CalendarUnit.MONTH:
            return (date.replace(day=28) + dt.timedelta(days=4)).replace(day=1)
        case CalendarUnit.YEAR:
            return date.replace(year=date.year + 1)
        case _:
            return date + dt.timedelta(days=1)
