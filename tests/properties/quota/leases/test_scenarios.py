"""Whole replicas in a simulation whose course is told, not drawn: what random runs have missed, or found once.

Each claim is broken by a bug that is planted beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit
from ratelimit_service.quota.leases.masters import NewMasterRule
from ratelimit_service.quota.leases.membership import Beat
from support.simulated_network import NetworkOrders
from support.simulated_store import SimulatedStore
from support.simulation import SECOND_US, Carry, Member, Plan, Run

WINDOW_US = 10 * SECOND_US
STEP_US = 20_000

Store = Callable[[Callable[[], int]], SimulatedStore]


def course(
    limit: Limit,
    *,
    mode: FailureMode = FailureMode.CLOSED,
    standing_percent: int = 0,
    carry: Carry = NetworkOrders,
    store: Store = SimulatedStore,
) -> Run:
    """Two replicas with two slots, and a network that loses nothing."""
    plan = Plan(
        limit=limit,
        mode=mode,
        replicas=2,
        slots=2,
        standing_percent=standing_percent,
        horizon_us=100_000,
        new_master=NewMasterRule.QUARANTINE,
        loses=0.0,
        slow=0.0,
        faults=[],
        calls=[],
        length_us=0,
    )
    return Run(0, carry=carry, store=store, plan=plan)


def call(run: Run, member: Member, times: int) -> None:
    """One call after the other, each answered before the next."""
    for _ in range(times):
        member.call(b"key", 1)
        run.timeline.run(run.timeline.now_us + STEP_US)


def limit_of(algorithm: Algorithm, requests: int) -> Limit:
    """So many in ten seconds."""
    return Limit(algorithm, requests, WINDOW_US, requests)


def change_form_in_a_window(run: Run) -> None:
    """Slots spend what they own and leave; the first of the new form, which owns nothing, comes 4 s later."""
    old = list(run.members)
    run.timeline.run(22_500_000)
    for member in old:
        call(run, member, 5)
    for member in old:
        member.leave()
    run.timeline.run(22_900_000)
    for member in old:
        member.process.is_dead = True
    run.timeline.run(26_500_000)
    new = run.join(standing_percent=0)
    run.timeline.run(27_500_000)
    call(run, new, 30)


def join_with_another_form(run: Run) -> None:
    """A replica whose form is not in force takes what it can; then slots in form spend what they own."""
    run.timeline.run(5_000_000)
    old = list(run.members)
    other = run.join(standing_percent=0)
    run.timeline.run(22_500_000)
    call(run, other, 40)
    for member in old:
        call(run, member, 5)


def lose_heartbeats(run: Run, *, doubts: bool = True) -> None:
    """No heartbeat of the replicas without a share arrives any more, and slots of a form that owns something come."""
    old = list(run.members)
    run.timeline.run(1_000_000)
    for member in old:
        member.is_heard = False
    run.timeline.run(8_000_000)
    new = [run.join(standing_percent=50) for _ in old]
    run.timeline.run(22_500_000)
    spend_all(run, old[0], new, doubts=doubts)


def join_unheard(run: Run, *, doubts: bool = True) -> None:
    """Slots of a form that owns something are there, and a replica without a share comes, none of whose heartbeats do.

    It takes all that it is granted before the others spend what they own.
    """
    new = [run.join(standing_percent=50) for _ in range(2)]
    for member in run.members[:2]:
        member.is_gone = True
    run.timeline.run(12_000_000)
    fresh = run.join(standing_percent=0, is_heard=False)
    run.timeline.run(22_500_000)
    spend_all(run, fresh, new, doubts=doubts)


def spend_all(run: Run, unheard: Member, owners: list[Member], *, doubts: bool) -> None:
    """The one takes what it can, then slots spend what they own; one that does not doubt is sure of its form."""
    if not doubts:
        unheard.replica.membership.form_until_us = 2**62
    call(run, unheard, 40)
    for member in owners:
        call(run, member, 5)


class ForgetsForms(SimulatedStore):
    """Planted: the store does not say that another form owns something."""

    def beat(self, holder: bytes, form: bytes, slots: int, *, owns: bool) -> Beat:
        return msgspec.structs.replace(super().beat(holder, form, slots, owns=owns), other_until_us=0)


each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm))
each_change = pytest.mark.parametrize("change", [change_form_in_a_window, join_with_another_form])


@each_algorithm
@each_change
def test_change_of_the_form_keeps_the_law(change: Callable[[Run], None], algorithm: Algorithm) -> None:
    """What slots of one form own is left alone by replicas of another, as long as it counts."""
    run = course(limit_of(algorithm, 20), standing_percent=50)
    change(run)

    assert run.worst().hits == 0
    assert sum(made.hits for made in run.calls if made.admitted) >= 10


def test_store_that_forgets_forms_breaks_the_law() -> None:
    """A replica that goes by no share would take the whole limit beside what is owned."""
    run = course(limit_of(Algorithm.FIXED_WINDOW, 20), standing_percent=50, store=ForgetsForms)
    change_form_in_a_window(run)

    assert run.worst().hits > 0


each_silence = pytest.mark.parametrize("silence", [lose_heartbeats, join_unheard])


@each_algorithm
@each_silence
def test_replica_that_is_not_heard_leaves_alone_what_others_may_own(
    silence: Callable[[Run], None], algorithm: Algorithm
) -> None:
    """Though nobody ever told it of a share: the form in force may not be its own any more, or not yet."""
    run = course(limit_of(algorithm, 20))
    silence(run)

    assert run.worst().hits == 0
    assert sum(made.hits for made in run.calls if made.admitted) >= 10


@each_silence
def test_replica_that_does_not_doubt_breaks_the_law(silence: Callable[..., None]) -> None:
    """It would take the whole limit beside what the slots own."""
    run = course(limit_of(Algorithm.FIXED_WINDOW, 20))
    silence(run, doubts=False)

    assert run.worst().hits > 0


def test_doubt_ends_with_the_next_heartbeat() -> None:
    """What was left alone is granted in the same window: the store keeps no reserve of those who own nothing."""
    run = course(limit_of(Algorithm.FIXED_WINDOW, 20))
    run.timeline.run(1_000_000)
    for member in run.members:
        member.is_heard = False
    run.timeline.run(21_000_000)
    call(run, run.members[0], 15)
    in_doubt = sum(made.hits for made in run.calls if made.admitted)
    run.members[0].is_heard = True
    run.timeline.run(23_500_000)
    call(run, run.members[0], 30)

    assert 5 <= in_doubt <= 10
    assert 15 <= sum(made.hits for made in run.calls if made.admitted) <= 20


def test_new_form_has_the_whole_limit_in_the_next_window() -> None:
    """What was left alone for the old one is granted again."""
    run = course(limit_of(Algorithm.FIXED_WINDOW, 20), standing_percent=50)
    change_form_in_a_window(run)
    run.timeline.run(30_500_000)
    before = len(run.calls)
    call(run, run.members[-1], 30)

    assert sum(made.hits for made in run.calls[before:] if made.admitted) == 20


class MeetsAnyMemory(NetworkOrders):
    """Planted: a replica that starts does not ask how old the store's memory is."""

    def knows(self, boot: int) -> bool:
        self.on_found_memory = lambda _: None
        return super().knows(boot)


def restart_after_a_loss(run: Run) -> None:
    """The limit is spent, the store loses its memory, and a replica starts."""
    run.timeline.run(1_000_000)
    call(run, run.members[0], 8)
    run.store.lose()
    run.timeline.run(2_500_000)
    fresh = run.join()
    run.timeline.run(4_500_000)
    call(run, fresh, 8)


@pytest.mark.parametrize(("carry", "beyond"), [(NetworkOrders, 0), (MeetsAnyMemory, 7)])
def test_quarantine_outlives_the_replicas_that_saw_the_loss(carry: Carry, beyond: int) -> None:
    """One that starts afterwards waits for the next window too; if it did not ask, it would admit again."""
    run = course(limit_of(Algorithm.FIXED_WINDOW, 8), carry=carry)
    restart_after_a_loss(run)

    assert run.worst().hits == beyond


def test_replica_that_waited_for_a_young_memory_grants_in_the_next_window() -> None:
    """The quarantine ends."""
    run = course(limit_of(Algorithm.FIXED_WINDOW, 8))
    restart_after_a_loss(run)
    run.timeline.run(20_500_000)
    before = len(run.calls)
    call(run, run.members[-1], 10)

    assert [made.admitted for made in run.calls[before:]] == [True] * 8 + [False] * 2


def test_bound_of_a_bucket_covers_what_a_share_refills() -> None:
    """Within one window a replica that is cut off admits its part of what the bucket holds, and of what it refills."""
    run = course(Limit(Algorithm.TOKEN_BUCKET, 40, SECOND_US, 40), mode=FailureMode.SHARE)
    run.timeline.run(SECOND_US)
    cut, other = run.members
    cut.link.is_cut = [True, True]
    for at_us in range(SECOND_US, 2 * SECOND_US, 10_000):
        run.timeline.run(at_us)
        cut.call(b"key", 1)
        other.call(b"key", 1)
    run.timeline.run(2 * SECOND_US)

    assert 20 < run.worst().hits <= cut.bound == 40
