"""At most `requests` hits in each aligned window.

Law: the hits admitted in one window never exceed the limit. (Around an edge, an interval as long as the
window may hold twice as many: that is what an aligned window means.)

A window is its [start, end) in microseconds of wall time. Windows never go back: once a later one was
reached, a clock that steps back counts in that later one, so a step costs admissions and never gives any.
"""

from __future__ import annotations

from typing import NamedTuple

from ratelimit_service.algorithms.judgement import COUNT_MAX, NEVER_US, Judgement


class Window(NamedTuple):
    """One window, in microseconds of wall time; `end_us` is the first instant after it."""

    start_us: int
    end_us: int


def window_at(window_us: int, wall_us: int) -> Window:
    """The window of length `window_us`, aligned to the epoch, that holds `wall_us`."""
    start_us = wall_us - wall_us % window_us
    return Window(start_us, start_us + window_us)


def judge(requests: int, used: int, hits: int, until_end_us: int) -> Judgement:
    """Whether `hits` fit beside the `used` hits of a window that ends in `until_end_us`."""
    left = requests - used
    if hits > left or left < 1:
        return Judgement(True, 0, NEVER_US if max(hits, 1) > requests else until_end_us, used)
    return Judgement(False, left - hits, until_end_us if used + hits else 0, used)


def spend(used: int, hits: int) -> int:
    """The count after `hits`, whether or not they fit; saturates."""
    return min(used + hits, COUNT_MAX)


def give_back(used: int, hits: int) -> int:
    """The count after `hits` were given back, never below 0."""
    return max(0, used - hits)
