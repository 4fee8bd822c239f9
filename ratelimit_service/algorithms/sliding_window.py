"""At most `requests` hits in **any** interval as long as the window.

The window is cut into `SUB_BUCKETS` parts of equal width, rounded up to a microsecond. A hit counts in the
part of its time, and the sum runs over the current part and the `SUB_BUCKETS` before it. An interval as long
as the window touches at most `SUB_BUCKETS` + 1 parts, so no such interval holds more than the limit.
The price: a hit is remembered up to one part too long, so the sustained rate is 1/61 under the limit.
(The usual two counters with a weight admit close to twice the limit; see "How hits are counted".)

A state is a tuple of (part, count), oldest part first, counts at least 1.
"""

from __future__ import annotations

from typing import Final

from ratelimit_service.algorithms.judgement import COUNT_MAX, NEVER_US, Judgement

SUB_BUCKETS: Final = 60

State = tuple[tuple[int, int], ...]
EMPTY: Final[State] = ()


def part_width_us(window_us: int) -> int:
    """Width of one part; `SUB_BUCKETS` of them cover the window."""
    return -(-window_us // SUB_BUCKETS)


def part_at(window_us: int, wall_us: int, newest: int) -> int:
    """The part that a hit at `wall_us` counts in.

    Never one before the `newest` part reached, so that a clock that steps back gives nothing.
    """
    return max(wall_us // part_width_us(window_us), newest)


def leaves_us(window_us: int, part: int) -> int:
    """Wall time from which `part` counts no more."""
    return (part + SUB_BUCKETS + 1) * part_width_us(window_us)


def live(state: State, part: int) -> State:
    """What still counts when the current part is `part`."""
    return tuple(entry for entry in state if entry[0] >= part - SUB_BUCKETS)


def judge(requests: int, window_us: int, state: State, part: int, hits: int, wall_us: int) -> Judgement:
    """Whether `hits` fit at `wall_us`, which counts in `part` (`part_at`)."""
    counted = live(state, part)
    used = sum(count for _, count in counted)
    left = requests - used
    if hits <= left and left > 0:
        newest = part if hits else (counted[-1][0] if counted else None)
        full_us = 0 if newest is None else leaves_us(window_us, newest) - wall_us
        return Judgement(False, left - hits, full_us, used)
    wanted = max(hits, 1)
    if wanted > requests:
        return Judgement(True, 0, NEVER_US, used)
    leaving, entries = part, iter(counted)
    while left < wanted:
        leaving, count = next(entries)
        left += count
    return Judgement(True, 0, leaves_us(window_us, leaving) - wall_us, used)


def spend(state: State, part: int, hits: int) -> State:
    """The state after `hits` in `part`, whether or not they fit; the sum saturates."""
    counted = live(state, part)
    hits = min(hits, COUNT_MAX - sum(count for _, count in counted))
    if hits < 1:
        return counted
    if counted and counted[-1][0] == part:
        return (*counted[:-1], (part, counted[-1][1] + hits))
    return (*counted, (part, hits))


def give_back(state: State, part: int, hits: int) -> State:
    """The state after `hits` were given back, newest part first, never below 0.

    Newest first, so that giving back what was just taken leaves the state as if it had not been taken.
    What was counted and not given back stays at most the limit in every interval as long as the window.
    """
    counted = list(live(state, part))
    while hits > 0 and counted:
        part, count = counted.pop()
        if count > hits:
            counted.append((part, count - hits))
        hits -= count
    return tuple(counted)
