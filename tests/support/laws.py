"""The promises of limits, checked by brute force over the list of what was admitted.

Each function takes something that answers like a ledger and says what breaks; nothing here knows how counts are kept.
Time is the latest that the clock has shown: a clock that steps back gives nothing, and takes nothing away.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ratelimit_service.algorithms.judgement import NEVER_US
from ratelimit_service.algorithms.limit import Algorithm, Instant, Limit
from support.law_ledgers import Answering, perform
from support.strategies import START_US, Step


class Counted(NamedTuple):
    """Hits of one key that were counted and not given back."""

    time_us: int
    hits: int


class Broken(NamedTuple):
    """More hits counted in [since_us, time_us] than the law allows."""

    key: bytes
    since_us: int
    time_us: int
    counted: int


def _without_newest(counted: Sequence[Counted], hits: int) -> list[Counted]:
    kept = list(counted)
    while hits and kept:
        newest = kept.pop()
        out = min(hits, newest.hits)
        hits -= out
        kept.extend([Counted(newest.time_us, newest.hits - out)] * (newest.hits > out))
    return kept


class _InForce(NamedTuple):
    """A limit and when it was used last, so far."""

    limit: Limit
    time_us: int


def _allowed(limit: Limit, in_force: Sequence[_InForce], since_us: int, until_us: int) -> int | None:
    """Most hits in [since, until] times the window's length; None: the law says nothing of this interval."""
    span_us = until_us - since_us
    match limit.algorithm:
        case Algorithm.FIXED_WINDOW:
            aligned = since_us // limit.window_us == until_us // limit.window_us
            return limit.requests * limit.window_us if aligned else None
        case Algorithm.SLIDING_WINDOW:
            return limit.requests * limit.window_us if span_us <= limit.window_us else None
        case Algorithm.TOKEN_BUCKET:
            # A limit is in force until the next one is used.
            ends_us = [later.time_us for later in in_force[1:]] + [until_us]
            seen = [one.limit for one, end_us in zip(in_force, ends_us, strict=True) if end_us >= since_us]
            return max(one.burst for one in seen) * limit.window_us + max(one.requests for one in seen) * span_us


def over_admissions(ledger: Answering, limits: Sequence[Limit], steps: Sequence[Step]) -> list[Broken]:
    """Every interval that ends with an admission and holds more than the law allows.

    Hits that were counted by force (`spend`) are no breach themselves, and count for those that follow.
    With several limits: more than the greatest in force anywhere in the interval.
    """
    wall_us, latest_us = START_US, 0
    in_force: list[_InForce] = []
    by_key: dict[bytes, list[Counted]] = {b"a": [], b"b": []}
    broken: list[Broken] = []
    for step in steps:
        wall_us += step.gap_us
        latest_us = max(latest_us, wall_us)
        limit, now = limits[step.limit % len(limits)], Instant(wall_us, 0)
        counted = by_key[step.key]
        said = perform(ledger, limit, step, now)
        in_force.extend([_InForce(limit, latest_us)] * (step.operation != "reclaim"))
        if step.operation == "give_back":
            by_key[step.key] = _without_newest(counted, step.hits)
        elif step.operation == "spend":
            counted.append(Counted(latest_us, step.hits))
        elif said is not None and step.operation == "take" and step.hits and not said.over:
            counted.append(Counted(latest_us, step.hits))
            sums = itertools.accumulate(one.hits for one in reversed(counted))
            for one, total in zip(reversed(counted), sums, strict=True):
                allowed = _allowed(limit, in_force, one.time_us, latest_us)
                if allowed is not None and total * limit.window_us > allowed:
                    broken.append(Broken(step.key, one.time_us, latest_us, total))
    return broken


def is_wait_exact(make: Callable[[], Answering], limit: Limit, key: bytes, hits: int, now: Instant) -> bool:
    """Over: the hits fit at now + wait and not a microsecond before; never exactly when they are more than it can hold.

    Not over: once counted, the budget is full at now + wait and not a microsecond before.
    """
    wait_us = make().judge(limit, key, hits, now).wait_us
    if wait_us == NEVER_US:
        return max(hits, 1) > limit.burst
    due, early = (Instant(now.wall_us + wait_us - before_us, 0) for before_us in (0, 1))
    if make().judge(limit, key, hits, now).over:
        first = make().judge(limit, key, hits, early).over and not make().judge(limit, key, hits, due).over
        return max(hits, 1) <= limit.burst and wait_us > 0 and first
    left = []
    for instant in (early, due):
        ledger = make()
        ledger.spend(limit, key, hits, now)
        left.append(ledger.judge(limit, key, 0, instant).before)
    return left[1] == 0 and (wait_us == 0 or left[0] > 0)


def is_rest_exact(make: Callable[[], Answering], limit: Limit, key: bytes, hits: int, now: Instant) -> bool:
    """Once the hits are counted, exactly `remaining` more fit, and `before` has grown by just them."""
    ledger = make()
    said = ledger.take(limit, key, hits, now)
    after = ledger.judge(limit, key, 0, now)
    counted = 0 if said.over else hits
    more = not ledger.judge(limit, key, said.remaining, now).over
    too_many = ledger.judge(limit, key, said.remaining + 1, now).over
    if said.over:
        return said.remaining == 0 and after.before == said.before and (hits > after.remaining or not after.remaining)
    return after.before == said.before + counted and too_many and (more or not said.remaining)


def changes_nothing(
    make: Callable[[], Answering],
    asked: Callable[[Answering], object],
    limit: Limit,
    key: bytes,
    times_us: Sequence[int],
) -> bool:
    """Whether a ledger answers the same at all of these times, whatever `asked` did to it before."""
    plain, touched = make(), make()
    asked(touched)
    instants = [Instant(time_us, 0) for time_us in times_us]
    return [plain.take(limit, key, 1, now) for now in instants] == [
        touched.take(limit, key, 1, now) for now in instants
    ]
