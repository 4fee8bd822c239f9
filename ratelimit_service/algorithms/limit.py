"""What a limit is: the values that the laws of this package work on.

Integers only; times are microseconds since the Unix epoch (wall) or since boot (monotonic).
A `Limit` that exists is valid: ranges are checked on construction.
"""

from __future__ import annotations

import enum

import msgspec

from ratelimit_service.errors import TidegateError

MAX_REQUESTS = 4_294_967_295
"""Greatest `requests` and `burst`: what Envoy's `requests_per_unit` (uint32) can carry."""


class InvalidLimit(TidegateError):
    """A limit's fields contradict each other or are out of range; raised on construction."""


class Algorithm(enum.Enum):
    """Which law judges a limit (DESIGN §4)."""

    FIXED_WINDOW = "FixedWindow"
    SLIDING_WINDOW = "SlidingWindow"
    TOKEN_BUCKET = "TokenBucket"  # noqa: S105 — the name of an algorithm, not a secret


class CalendarUnit(enum.Enum):
    """Length of a calendar window; weeks begin on Monday."""

    MINUTE = "Minute"
    HOUR = "Hour"
    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"
    YEAR = "Year"


class Calendar(msgspec.Struct, frozen=True):
    """Windows that follow the calendar of a time zone, daylight saving included."""

    unit: CalendarUnit
    time_zone: str = "UTC"


class Instant(msgspec.Struct, frozen=True, gc=False):
    """One reading of the clocks, taken once per read batch (DECISIONS 20).

    Attributes:
        wall_us: Microseconds since the Unix epoch, anchored once and slewed; places windows.
        boot_us: Microseconds of CLOCK_BOOTTIME; measures durations and lease validity.
    """

    wall_us: int
    boot_us: int


class Limit(msgspec.Struct, frozen=True):
    """How fast one key may spend hits.

    Attributes:
        algorithm: The law that judges it.
        requests: Hits per window, 0 to 4294967295; 0 (upstream YAML only) is always over.
        window_us: Length of the window in microseconds; 0 exactly when `calendar` is set.
        burst: Hits that a TokenBucket holds; equals `requests` for every other algorithm.
        calendar: Calendar windows instead of a length; FixedWindow only.

    Raises:
        InvalidLimit: A field is out of range; raised on construction.
    """

    algorithm: Algorithm
    requests: int
    window_us: int
    burst: int
    calendar: Calendar | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.requests <= MAX_REQUESTS or not 0 <= self.burst <= MAX_REQUESTS:
            raise InvalidLimit(f"requests and burst are 0 to {MAX_REQUESTS}: {self}")
        if (self.calendar is None) != (self.window_us > 0):
            raise InvalidLimit(f"exactly one of window_us and calendar: {self}")
        if self.calendar is not None and self.algorithm is not Algorithm.FIXED_WINDOW:
            raise InvalidLimit(f"a calendar takes FixedWindow only: {self}")
        if self.algorithm is not Algorithm.TOKEN_BUCKET and self.burst != self.requests:
            raise InvalidLimit(f"burst goes with TokenBucket: {self}")
        if self.algorithm is Algorithm.TOKEN_BUCKET and min(self.requests, self.burst) < 1:
            raise InvalidLimit(f"a bucket holds and refills at least 1: {self}")


class FailureMode(enum.Enum):
    """What decides while the store is away or full (DESIGN §5)."""

    CLOSED = "Closed"
    RESERVED = "Reserved"
    SHARE = "Share"
    OPEN = "Open"


class LimitSettings(msgspec.Struct, frozen=True):
    """One limit in force, as `apply` hands it to the store.

    Attributes:
        limit: Its numbers.
        domain, rule: Whose it is.
        failure: What decides while the store is away or full.
        exact: Refunds or debts move its count, so a shared store is asked on every request (DECISIONS 3, 4).
    """

    limit: Limit
    domain: str
    rule: str
    failure: FailureMode = FailureMode.SHARE
    exact: bool = False
