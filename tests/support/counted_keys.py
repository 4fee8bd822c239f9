"""Counted keys, limits and orders for the laws of shared stores."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Calendar, CalendarUnit, Limit
from ratelimit_service.quota.takes import Ask, CountedKey, Order, Refund, Reset, Return, Spend, Take
from support.strategies import START_US, limits

WHERE: Final = CountedKey(b"rule", b"\x05alice")
GREATEST_WANT: Final = 2**53 - 1

FIXED, SLIDING, BUCKET = Algorithm
MINUTE_US: Final = 60_000_000

FIXED_LIMIT: Final = Limit(FIXED, 10, MINUTE_US, 10)
SLIDING_LIMIT: Final = Limit(SLIDING, 10, MINUTE_US, 10)
BUCKET_LIMIT: Final = Limit(BUCKET, 60, MINUTE_US, 10)
LIMITS: Final = (FIXED_LIMIT, SLIDING_LIMIT, BUCKET_LIMIT)


def ask(limit: Limit, want: int = 1, reserve: int = 0, identity: bytes = b"limit") -> Ask:
    """An ask of one limit, named by its algorithm."""
    return Ask(identity + limit.algorithm.value.encode(), limit, want, reserve)


def take(limit: Limit, want: int = 1, *, least: int = 1, lease_us: int = 0, reserve: int = 0) -> Take:
    """A take of one limit."""
    return Take(WHERE, (ask(limit, want, reserve),), least, lease_us)


wants = st.one_of(st.integers(0, 6), st.sampled_from([9, 10, 1_000_000, GREATEST_WANT]))
"""Hits of an ask: none, few, about a limit, and the most there is."""

leases_us = st.one_of(st.just(0), st.integers(0, 250), st.just(GREATEST_WANT))
"""Lengths of leases: none, about a window, and absurd."""

reserves = st.sampled_from([0, 0, 0, 1, 2, 4, 20])

DAYS: Final = Limit(FIXED, 5, 0, 5, Calendar(CalendarUnit.DAY, "Europe/Berlin"))
MINUTES: Final = Limit(FIXED, 5, 0, 5, Calendar(CalendarUnit.MINUTE))
WIDE: Final = (
    DAYS,
    MINUTES,
    Limit(FIXED, 0, 1_000_000, 0),
    Limit(FIXED, 2**32 - 1, 366 * 86_400_000_000, 2**32 - 1),
    Limit(SLIDING, 2**32 - 1, 86_400_000_000, 2**32 - 1),
    Limit(BUCKET, 10**9, 1_000_000, 2**32 - 1),
    Limit(BUCKET, 1, 366 * 86_400_000_000, 1),
    Limit(BUCKET, 7, 1_000_000, 2**32 - 1),
)
"""Limits whose numbers are great, or whose windows follow a calendar."""

some_limits = st.one_of(*(limits(algorithm) for algorithm in Algorithm), st.sampled_from(WIDE))


def asks(in_turn: list[Limit]) -> st.SearchStrategy[tuple[Ask, ...]]:
    """One to three asks of different identities; a limit of `in_turn` and its doubled twin share theirs."""

    def of(index: int) -> st.SearchStrategy[Ask]:
        base = in_turn[index]
        numbers = [base, doubled(base)]
        identity = b"limit %d" % index
        lasting = st.sampled_from([True, True, False])
        return st.builds(Ask, st.just(identity), st.sampled_from(numbers), wants, reserves, lasting)

    chosen = st.lists(st.sampled_from(range(len(in_turn))), min_size=1, max_size=len(in_turn), unique=True)
    return chosen.flatmap(lambda indexes: st.tuples(*(of(index) for index in indexes)))


def doubled(limit: Limit) -> Limit:
    """The same identity with other numbers."""
    requests, burst = min(2 * limit.requests, 2**32 - 1), min(2 * limit.burst, 2**32 - 1)
    return Limit(limit.algorithm, requests, limit.window_us, burst, limit.calendar)


wheres = st.sampled_from([WHERE, CountedKey(b"rule", b"\x03bob"), CountedKey(b"other", b"")])


def orders(in_turn: list[Limit]) -> st.SearchStrategy[Order]:
    """Any order on a few counted keys; what a `Return` names is filled in by whoever knows a take."""
    some = asks(in_turn)
    taking = st.builds(Take, wheres, some, st.integers(0, 4), leases_us, st.booleans())
    returning = some.flatmap(
        lambda several: st.builds(
            Return,
            wheres,
            st.just(several[0]),
            st.integers(START_US, START_US + 60),
            st.integers(0, 2),
            st.sampled_from([0, START_US - START_US % 86_400_000_000, START_US // 2]),
        )
    )
    return st.one_of(
        taking,
        taking,
        taking,
        st.builds(Spend, wheres, some),
        st.builds(Refund, wheres, some),
        returning,
        st.builds(Reset, wheres),
    )
