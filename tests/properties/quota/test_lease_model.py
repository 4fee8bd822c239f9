"""Every schedule of the lease protocol, over the twin of the scripts and over their specification.

The schedules are small: three takes of two hits each, a limit of three. Each planted bug needs no more than that.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, Limit
from support.explore import Explored
from support.lease_model import KEEPS_RULES, LeaseModel, ReplicaRules, Schedule
from support.lease_stores import (
    Altered,
    BucketStore,
    ChargesEarly,
    FixedStore,
    GrantOutlivesWindow,
    LeaseStore,
    Lent,
    ResetForgets,
    SlidingStore,
    TakesBackAcrossReset,
    TakesBackAfterLaterTake,
    TakesBackFromOtherWindow,
    TwinStore,
    WindowGoesBack,
)


class Case(NamedTuple):
    """The twin of one script, its specification, and instants that lie at its edges.

    `planted` are those at which the law is broken soonest.
    """

    store: TwinStore
    told: LeaseStore
    lease: int
    instants: tuple[int, ...]
    planted: tuple[int, ...]


# Windows of 2 µs; windows of 120 µs in parts of 2; a hit every 2 µs.
ALL = {
    "fixed": Case(
        TwinStore(Limit(Algorithm.FIXED_WINDOW, 3, 2, 3)), FixedStore(3, 2), 2, (0, 1, 2, 3, 4), (0, 1, 2, 3)
    ),
    "sliding": Case(
        TwinStore(Limit(Algorithm.SLIDING_WINDOW, 3, 120, 3)),
        SlidingStore(3, 120, 60),
        4,
        (0, 3, 119, 122, 126),
        (0, 3, 122, 126),
    ),
    "bucket": Case(
        TwinStore(Limit(Algorithm.TOKEN_BUCKET, 3, 6, 3)), BucketStore(3, 2), 3, (0, 1, 2, 3, 4, 5), (0, 1, 3, 5, 6)
    ),
}
over_stores = pytest.mark.parametrize("case", list(ALL.values()), ids=list(ALL))
# In `make soak` a run has one take and one return more.
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "soak"


def explored(store: LeaseStore, schedule: Schedule, rules: ReplicaRules = KEEPS_RULES) -> Explored:
    deeper = schedule._replace(takes=schedule.takes + DEEP, returns=schedule.returns + (DEEP and schedule.returns > 0))
    return LeaseModel(store, deeper if DEEP else schedule, rules).explored(most=30_000_000 if DEEP else 200_000)


@over_stores
def test_law_holds_whatever_is_lost_late_returned_or_executed_twice(case: Case) -> None:
    """Crashes too: a lease that is never spent, or a return that never comes."""
    found = explored(case.store, Schedule(case.instants, lease=case.lease, returns=1, duplicates=1))

    assert not found.breach, found.schedule
    assert found.states > 5_000


@over_stores
@pytest.mark.parametrize("step", ["within the window", "beyond it"])
def test_clock_of_the_store_may_be_set_either_way(case: Case, step: str) -> None:
    """Backwards gives nothing; forwards gives what would have been given then."""
    by = {"within the window": 2, "beyond it": case.store.window + 1}[step]

    found = explored(case.store, Schedule(case.planted, lease=case.lease, clock_step=by))

    assert not found.breach, found.schedule
    assert found.states > 5_000


@over_stores
def test_what_is_granted_after_a_reset_keeps_the_law(case: Case) -> None:
    """Whatever leases were out when it came; their returns change nothing."""
    found = explored(case.store, Schedule(case.planted, lease=case.lease, returns=1, resets=1))

    assert not found.breach, found.schedule
    assert found.states > 5_000


def assert_caught(found: Explored) -> None:
    assert found.breach
    assert found.schedule


@over_stores
def test_return_that_is_sent_again_is_caught(case: Case) -> None:
    """Hits given back twice are spent twice."""
    schedule = Schedule(case.planted, lease=case.lease, returns=1)

    assert_caught(explored(case.store, schedule, ReplicaRules(returns_once=False)))


@over_stores
def test_lease_measured_from_the_answer_is_caught(case: Case) -> None:
    """The store's window does not wait for a slow answer."""
    schedule = Schedule((*case.instants, case.instants[-1] + 2), takes=2, lease=case.lease)

    assert_caught(explored(case.store, schedule, ReplicaRules(lease_from_sending=False)))


PLANTED: list[tuple[str, type[Altered], list[str], dict[str, int]]] = [
    ("a window goes back with the clock", WindowGoesBack, ["fixed"], {"clock_step": 2}),
    ("a grant outlives its window", GrantOutlivesWindow, ["fixed"], {}),
    ("a take is charged at the earliest", ChargesEarly, ["sliding", "bucket"], {}),
    ("a return is taken after a later take", TakesBackAfterLaterTake, ["bucket"], {"returns": 1}),
    ("a return is taken in another window", TakesBackFromOtherWindow, ["fixed"], {"returns": 1}),
    ("a return is taken across a reset", TakesBackAcrossReset, list(ALL), {"returns": 1, "resets": 1}),
    ("a reset is a DEL", ResetForgets, list(ALL), {"returns": 1, "resets": 1}),
]


@pytest.mark.parametrize(
    ("alter", "case", "changes"),
    [
        pytest.param(alter, ALL[name], changes, id=f"{bug}: {name}")
        for bug, alter, names, changes in PLANTED
        for name in names
    ],
)
def test_store_with_a_rule_broken_is_caught(alter: type[Altered], case: Case, changes: dict[str, int]) -> None:
    """Each rule of the store is there for a schedule that needs it."""
    # What a reset brings about needs no time.
    instants = case.planted[:2] if "resets" in changes else case.planted
    schedule = Schedule(instants, lease=case.lease, **changes)

    assert_caught(explored(alter(case.store), schedule))


@over_stores
@given(data=st.data())
def test_twin_does_what_its_specification_says(case: Case, data: st.DataObject) -> None:
    """The same grants for takes, returns, resets and clocks that go back."""
    steps = st.tuples(st.sampled_from(["take", "take", "give back", "reset"]), st.integers(-2, 4), st.integers(0, 4))
    told, twin, now, lent = case.told.empty, case.store.empty, 0, [Lent(0, 0, 0, 0)] * 2
    for step, gap, hits in data.draw(st.lists(steps, max_size=30)):
        now = max(0, now + gap)
        if step == "take":
            told, said = case.told.take(told, now, hits, case.lease)
            twin, granted = case.store.take(twin, now, hits, case.lease)
            # A denial says nothing of a lease.
            assert (said.hits, said.spend * (said.hits > 0)) == (granted.hits, granted.spend)
            lent = [Lent(one.hits, one.number, one.epoch, one.window) for one in (said, granted)]
        elif step == "give back":
            told = case.told.give_back(told, now, lent[0])
            twin = case.store.give_back(twin, now, lent[1])
            lent = [one._replace(hits=0) for one in lent]
        else:
            told, twin = case.told.reset(told, now), case.store.reset(twin, now)
