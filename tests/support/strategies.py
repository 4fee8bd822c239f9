"""Limits and schedules for laws: ranges are tight, so that edges are hit and planted bugs are found."""

from __future__ import annotations

from typing import Final, NamedTuple

from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Limit

START_US: Final = 1_700_000_000_000_000


WINDOWS_US: Final = st.integers(1, 200)


class Step(NamedTuple):
    """One call of a schedule: `operation` names a method of a ledger, `gap_us` is the clock's step before it.

    `limit` is an index, modulo, into the limits that take turns on one identity.
    """

    operation: str
    key: bytes
    hits: int
    gap_us: int
    limit: int = 0


def limits(algorithm: Algorithm, windows_us: st.SearchStrategy[int] = WINDOWS_US) -> st.SearchStrategy[Limit]:
    """Small limits of one algorithm; a bucket's burst is below, at and above its requests."""
    requests = st.integers(1, 9)
    if algorithm is Algorithm.TOKEN_BUCKET:
        return st.builds(Limit, st.just(algorithm), requests, windows_us, st.integers(1, 9))
    return st.builds(lambda most, window_us: Limit(algorithm, most, window_us, most), requests, windows_us)


def rollouts(algorithm: Algorithm, most: int = 3) -> st.SearchStrategy[list[Limit]]:
    """One to `most` limits of one identity: the same window, other numbers."""
    return WINDOWS_US.flatmap(
        lambda window_us: st.lists(limits(algorithm, st.just(window_us)), min_size=1, max_size=most)
    )


hits = st.one_of(st.integers(0, 4), st.sampled_from([9, 10, 2**64 - 1]))
"""Hits of one call: check only, few, about a limit, and the most that the wire carries."""

gaps_us = st.one_of(st.integers(0, 9), st.integers(-60, 260))
"""Steps of the clock, back as well as forth."""


def schedules_of(*operations: str) -> st.SearchStrategy[list[Step]]:
    """Calls in order, of the operations named; one that is named twice comes twice as often."""
    step = st.builds(Step, st.sampled_from(operations), st.sampled_from([b"a", b"b"]), hits, gaps_us, st.integers(0, 2))
    return st.lists(step, max_size=40)


schedules = schedules_of("take", "take", "take", "judge", "spend", "give_back", "reclaim")
"""Calls in order, for ledgers."""
