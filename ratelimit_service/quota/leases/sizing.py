"""How many hits a replica takes at once, for how long, and where it takes none in advance.

A slice follows demand: what the key is expected to spend within the horizon, never more than the replica's part of
what is left, so that slices taper toward the limit and nobody strands much of it. With c = 2 and N replicas a window
of limit L costs about c·N·(1 + ln(L / (c·N))) + N takes, whatever the demand.

Rates are hits per microsecond, as floats: they steer how often the store is asked, and never what is admitted.
"""

from __future__ import annotations

import math
from typing import Final

from ratelimit_service.algorithms.limit import Algorithm, CalendarUnit, Limit

LEAST_LEASED: Final = 20
"""Limits of fewer hits are exact: most of their takes would be slices of one (DECISIONS 18)."""

LEAST_WINDOW_US: Final = 1_000_000
"""Shorter windows are exact (DECISIONS 18)."""

EXACT_LEASE_US: Final = 50_000
"""How long what an exact take won stays in the replica when a companion lost (DECISIONS 18)."""

DRIFT_PPM: Final = 500
"""How much faster the store's clock may run than the replica's boot clock."""

TAPER: Final = 2
"""c: a slice is at most 1 / (c·N) of what is left."""

A_FEW_HITS: Final = 64
"""The most that a slice has for longer than the horizon: a key that is asked for now and then costs no order a hit."""

A_FEW_PARTS: Final = 2
"""Such a slice is at most one of so many parts of what a slice may be."""

WORTH_AHEAD_HITS: Final = 4
"""After a slice of so many hits the next one is taken when the last hit is spent, not when the next is asked for."""

IDLE_GAPS: Final = 4
"""What lies idle for so many times the mean gap between two hits goes back."""

_MILLION: Final = 1_000_000
_DAY_US: Final = 86_400 * _MILLION
_CALENDAR_US: Final = {
    CalendarUnit.MINUTE: 60 * _MILLION,
    CalendarUnit.HOUR: 3_600 * _MILLION,
    CalendarUnit.DAY: _DAY_US,
    CalendarUnit.WEEK: 7 * _DAY_US,
    CalendarUnit.MONTH: 31 * _DAY_US,
    CalendarUnit.YEAR: 366 * _DAY_US,
}


def length_us(limit: Limit) -> int:
    """Length of a limit's window, microseconds; of a calendar window the longest there is, within an hour."""
    return limit.window_us if limit.calendar is None else _CALENDAR_US[limit.calendar.unit]


def is_exact(limit: Limit) -> bool:
    """Whether a limit is too small or too quick to be taken in advance (DECISIONS 18)."""
    return min(limit.requests, limit.burst) < LEAST_LEASED or length_us(limit) < LEAST_WINDOW_US


def lease_us(limit: Limit, horizon_us: int) -> int:
    """How long a slice may be spent.

    A fixed window's slice lives as long as the window, which costs nothing; a sliding window or a bucket is charged
    as late as its slice may be spent, so there it lives for twice the horizon, at most W/8 (a bucket: an eighth of
    the time in which it fills).
    """
    match limit.algorithm:
        case Algorithm.FIXED_WINDOW:
            return length_us(limit) * 2
        case Algorithm.SLIDING_WINDOW:
            return min(2 * horizon_us, limit.window_us // 8)
        case Algorithm.TOKEN_BUCKET:
            return min(2 * horizon_us, limit.window_us * limit.burst // limit.requests // 8)


def patience_us(limit: Limit, horizon_us: int) -> int:
    """How far ahead a slice of a few hits may reach, microseconds; at least `horizon_us`.

    W/8 for a fixed window, whose slices cost nothing while they live; others are charged as late as they may be spent.
    """
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        return max(horizon_us, length_us(limit) // 8)
    return horizon_us


def slice_hits(rate: float, horizon_us: int, rest: int, replicas: int, patience_us: int = 0) -> int:
    """Size of a slice: what is spent within the horizon, or a few hits that last longer, tapering toward the limit.

    max(⌈λ·H⌉, min(⌈λ·P⌉, 64, ⌊rest / (2·c·N)⌋)), at most ⌊rest / (c·N)⌋ and at least 1.

    Args:
        rate: λ, hits per microsecond that the key is expected to spend here.
        horizon_us: H, microseconds.
        rest: What the store could still grant, as far as is known.
        replicas: N, replicas that are alive, at least 1.
        patience_us: P, microseconds; less than H: no few hits last longer.
    """
    part = rest // (TAPER * replicas)
    wanted = math.ceil(min(rate * horizon_us, 2.0**52))
    if wanted < A_FEW_HITS and patience_us > horizon_us:
        wanted = max(wanted, min(math.ceil(rate * patience_us), A_FEW_HITS, part // A_FEW_PARTS))
    return max(1, min(wanted, part))


def idle_us(rate: float, horizon_us: int, patience_us: int) -> int:
    """How long what is in hand may lie untouched before it goes back: a few times as long as a hit is due in.

    Args:
        rate: Hits per microsecond that the key was seen to spend.
        horizon_us: At the least.
        patience_us: At the most, where that is more.
    """
    if patience_us <= horizon_us:
        return horizon_us
    return max(horizon_us, min(patience_us, int(IDLE_GAPS / rate) if rate > 0 else horizon_us))


def alive_until(sent_us: int, spend_us: int) -> int:
    """Boot time until which a grant may be spent: local send, plus the store's span less the drift of clocks."""
    return sent_us + spend_us - -(-spend_us * DRIFT_PPM // _MILLION)


class RoundTrip:
    """How long the store takes to answer: a smoothed mean and deviation, microseconds (as TCP's estimate does)."""

    __slots__ = ("deviation_us", "mean_us")

    def __init__(self, mean_us: float = 1_000.0) -> None:
        self.mean_us = mean_us
        self.deviation_us = mean_us / 2

    def observe(self, took_us: int) -> None:
        """Take one more round trip into account."""
        error = took_us - self.mean_us
        self.mean_us += error / 8
        self.deviation_us += (abs(error) - self.deviation_us) / 4

    @property
    def ahead_us(self) -> float:
        """How far ahead of need a refill is asked for: R + σ."""
        return self.mean_us + self.deviation_us
