"""At most burst + rate · t hits in any interval of length t (GCRA: one integer of state).

The state is the *arrival time*: when the bucket will be full again. A hit moves it by one interval,
window / requests. Hits fit when the arrival time after them is at most `burst` intervals ahead of now.
GCRA is the token bucket, turned around (ITU-T I.371).

Times are in units of 2⁻ᵏ µs, counted from an origin. k is the least that makes an interval at least
1,000 units: the interval is rounded **up**, so rounding never admits more, and it costs at most 0.1 %.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.algorithms.judgement import COUNT_MAX, NEVER_US, Judgement

_LEAST_UNITS: Final = 1_000


class Rate(msgspec.Struct, frozen=True):
    """How fast a bucket refills.

    Attributes:
        shift: k: one microsecond is 2**k units.
        interval: Units per hit, rounded up.
    """

    shift: int
    interval: int


def rate_of(requests: int, window_us: int) -> Rate:
    """The rate of `requests` (at least 1) per `window_us`."""
    shift = max(0, (_LEAST_UNITS * requests // window_us).bit_length())
    while shift and window_us << (shift - 1) >= _LEAST_UNITS * requests:
        shift -= 1
    return Rate(shift, -(-(window_us << shift) // requests))


def _units_up(units: int, shift: int) -> int:
    """Microseconds that hold `units`, rounded up."""
    return -(-units >> shift)


def judge(rate: Rate, burst: int, arrival: int, hits: int, now_us: int) -> Judgement:
    """Whether `hits` fit at `now_us` (from the origin); an arrival before now is a full bucket."""
    now = now_us << rate.shift
    base = max(now, arrival)
    deepest = now + burst * rate.interval
    left = (deepest - base) // rate.interval
    before = burst - left
    if hits <= left and left > 0:
        after = base + hits * rate.interval
        return Judgement(False, left - hits, _units_up(after - now, rate.shift), before)
    wanted = max(hits, 1)
    if wanted > burst:
        return Judgement(True, 0, NEVER_US, before)
    return Judgement(True, 0, _units_up(base + wanted * rate.interval - deepest, rate.shift), before)


def spend(rate: Rate, arrival: int, hits: int, now_us: int) -> int:
    """The arrival time after `hits`, whether or not they fit; saturates at `COUNT_MAX` intervals ahead."""
    now = now_us << rate.shift
    return min(max(now, arrival) + hits * rate.interval, now + COUNT_MAX * rate.interval)


def give_back(rate: Rate, arrival: int, hits: int, now_us: int) -> int:
    """The arrival time after `hits` were given back; a full bucket stays full."""
    return max(now_us << rate.shift, arrival - hits * rate.interval)


def convert(arrival: int, old: Rate, new: Rate, burst: int, changed_us: int, now_us: int) -> int:
    """The arrival time, under a new rate, of a bucket that was filled under an old one.

    The backlog at the change drains at the new rate from then on. Where the old rate went on being used after
    `changed_us` (a rollout), that is too strict by what drained in between; so the result is held to an empty
    bucket, or to the debt that is left now.
    """
    old_changed = changed_us << old.shift
    backlog = max(0, arrival - old_changed)
    # Rounded up twice: to a whole number of new units, never fewer hits than there were.
    moved = (changed_us << new.shift) + -(-backlog * new.interval // old.interval)
    owed = max(0, -(-(arrival - (now_us << old.shift)) // old.interval))
    return min(moved, (now_us << new.shift) + max(burst, owed) * new.interval)
