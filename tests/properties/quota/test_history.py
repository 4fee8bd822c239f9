"""The history checker against brute force: it never accuses a good history, and finds what was planted."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, Limit
from support.history import Call, Excess, excess

FIXED, SLIDING, BUCKET = Algorithm
over_algorithms = pytest.mark.parametrize("algorithm", list(Algorithm))


def limit_of(algorithm: Algorithm, requests: int, window_us: int, burst: int = 1) -> Limit:
    return Limit(algorithm, requests, window_us, burst if algorithm is BUCKET else requests)


def excess_at(limit: Limit, instants: Sequence[tuple[int, int]]) -> int:
    """By the words of the law: the greatest excess of (instant, hits) over every interval between two of them."""
    worst = 0
    for since, until in itertools.product([time_us for time_us, _ in instants], repeat=2):
        hits = sum(hits for time_us, hits in instants if since <= time_us <= until)
        span = until - since
        allowed = limit.requests * limit.window_us
        judged = {
            FIXED: since // limit.window_us == until // limit.window_us,
            SLIDING: 0 <= span <= limit.window_us,
            BUCKET: span >= 0,
        }
        if limit.algorithm is BUCKET:
            allowed = limit.burst * limit.window_us + limit.requests * span
        over = -(-(hits * limit.window_us - allowed) // limit.window_us)
        worst = max(worst, over * judged[limit.algorithm])
    return worst


def least_excess(limit: Limit, calls: Sequence[Call]) -> int:
    """Over every choice of whole instants; a law of whole numbers is kept best at some of those."""
    admitted = [call for call in calls if call.admitted]
    choices = itertools.product(*(range(call.sent_us, call.answered_us + 1) for call in admitted))
    return min(
        excess_at(limit, list(zip(instants, (call.hits for call in admitted), strict=True))) for instants in choices
    )


limits = st.builds(limit_of, st.sampled_from(Algorithm), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))


def calls_of(longest_us: int, most_hits: int, size: int = 5) -> st.SearchStrategy[list[Call]]:
    call = st.builds(
        lambda sent, took, hits, admitted: Call(sent, sent + took, hits, admitted),
        st.integers(0, 8),
        st.integers(0, longest_us),
        st.integers(1, most_hits),
        st.sampled_from([True, True, True, False]),
    )
    return st.lists(call, max_size=size)


@given(limits, calls_of(longest_us=3, most_hits=3))
@example(limit_of(SLIDING, 1, 3), [Call(0, 4, 1, True)] * 3)
@example(limit_of(BUCKET, 1, 4), [Call(0, 4, 1, True), Call(2, 2, 1, True)])
def test_no_history_is_accused_of_more_than_every_choice_of_instants_has(limit: Limit, calls: list[Call]) -> None:
    """What the checker says is a lower bound of the least excess."""
    assert excess(limit, calls).hits <= least_excess(limit, calls)


@given(limits, calls_of(longest_us=0, most_hits=3, size=9))
def test_excess_is_exact_where_calls_take_no_time(limit: Limit, calls: list[Call]) -> None:
    """With one instant for each call there is nothing to choose."""
    assert excess(limit, calls).hits == least_excess(limit, calls)


@given(st.integers(1, 3), st.integers(1, 4), calls_of(longest_us=4, most_hits=1))
def test_excess_of_a_fixed_window_is_exact_for_calls_of_one_hit(
    requests: int, window_us: int, calls: list[Call]
) -> None:
    """Calls over an edge are laid where they do the least harm."""
    limit = limit_of(FIXED, requests, window_us)

    assert excess(limit, calls).hits == least_excess(limit, calls)


@pytest.mark.parametrize(("algorithm", "over"), [(FIXED, 2), (SLIDING, 2), (BUCKET, 1)])
def test_hits_beyond_the_law_are_found_within_calls_that_overlap(algorithm: Algorithm, over: int) -> None:
    """Twelve calls in half a window, where ten fit; a bucket of 5 has refilled by less than 6 meanwhile."""
    limit = limit_of(algorithm, 10, 1_000, burst=6)
    calls = [Call(2_100 + 40 * n, 2_160 + 40 * n, 1, admitted=True) for n in range(12)]
    denied = [Call(2_100, 2_200, 5, admitted=False)] * 9

    assert excess(limit, [*calls, *denied]).hits == over
    assert excess(limit, [*calls, *denied, *calls]).hits == over + 12


@over_algorithms
def test_excess_is_of_one_key(algorithm: Algorithm) -> None:
    """Each key has its own budget, and the worst is named."""
    limit = limit_of(algorithm, 2, 1_000, burst=2)
    calls = [Call(5, 6, 1, admitted=True, key=b"a")] * 2 + [Call(5, 5, 1, admitted=True, key=b"b")] * 4

    found = excess(limit, calls)

    assert (found.hits, found.key) == (2, b"b")


def test_worst_interval_is_named() -> None:
    """So that a failure can be read."""
    calls = [Call(10 * n, 10 * n + 1, 2, admitted=True) for n in range(5)]

    assert excess(limit_of(SLIDING, 5, 25), calls) == Excess(1, b"", 20, 45)
    assert excess(limit_of(BUCKET, 1, 10, burst=1), calls) == Excess(5, b"", 0, 41)


def test_stopped_process_is_not_accused() -> None:
    """Answers that come after a pause of three windows may have been decided in each of them."""
    calls = [Call(0, 3_500, 1, admitted=True)] * 4

    assert excess(limit_of(FIXED, 1, 1_000), calls).hits == 0
    assert excess(limit_of(FIXED, 1, 2_000), calls).hits == 1


@over_algorithms
def test_no_calls_have_no_excess(algorithm: Algorithm) -> None:
    """Nor have calls that were denied."""
    limit = limit_of(algorithm, 1, 10, burst=1)

    assert excess(limit, []).hits == excess(limit, [Call(0, 0, 9, admitted=False)]).hits == 0


def test_nothing_may_be_admitted_under_a_limit_of_zero() -> None:
    """The limit that upstream's YAML may have."""
    assert excess(limit_of(FIXED, 0, 10), [Call(9, 12, 3, admitted=True)]).hits == 2


def test_calendar_windows_and_backward_calls_are_refused() -> None:
    """A wrong question is no answer of 0."""
    calendar = Limit(FIXED, 1, 0, 1, Calendar(CalendarUnit.DAY))

    with pytest.raises(ValueError, match="one length"):
        excess(calendar, [])
    with pytest.raises(ValueError, match="answered before"):
        excess(limit_of(FIXED, 1, 1), [Call(2, 1, 1, admitted=True)])


@over_algorithms
def test_long_histories_are_judged(algorithm: Algorithm) -> None:
    """Ten thousand calls of one key, just under the limit's own pace, and a burst planted in the middle."""
    seeded = random.Random(7)
    limit = limit_of(algorithm, 100, 10_000, burst=100)
    calls = [Call(101 * n, 101 * n + seeded.randint(0, 90), 1, admitted=True) for n in range(10_000)]
    planted = [Call(500_000, 500_050, 1, admitted=True)] * 150

    assert excess(limit, calls).hits == 0
    assert excess(limit, calls + planted).hits >= 50
