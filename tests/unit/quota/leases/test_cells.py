"""A book's cells: several grants in one hand, several cells in one request, limits that change."""

from __future__ import annotations

import msgspec
import pytest

from ratelimit_service.algorithms.limit import Algorithm, FailureMode
from ratelimit_service.quota.leases.cell import Cell, InHand
from ratelimit_service.quota.leases.sizing import (
    RoundTrip,
    alive_until,
    idle_us,
    is_exact,
    lease_us,
    length_us,
    patience_us,
    slice_hits,
)
from ratelimit_service.quota.store import Role, Source
from ratelimit_service.quota.takes import CountedKey, Grant, Spend, Take
from support.replicas import Rig
from support.store_harness import charge, fixed, in_force, limit_of

MS = 1_000
LIMIT = fixed(1_000)


@pytest.fixture
def rig() -> Rig:
    """A store, a clock, no replicas yet."""
    return Rig()


def in_hand(hits: int, spend_us: int, number: int = 1) -> InHand:
    """A grant sent for at time 0."""
    return InHand(Grant(hits, 500, 0, 0, spend_us, number, 0, 0), LIMIT, 0, dies=False)


def cell_of(*leases: InHand) -> Cell:
    """A cell with grants in hand."""
    cell = Cell(b"rule/1", CountedKey(b"rule", b"key"), LIMIT, 0)
    for lease in leases:
        cell.receive(lease)
    return cell


def test_what_ends_first_is_spent_first() -> None:
    """Whatever came first; what has ended is not spent."""
    cell = cell_of(in_hand(5, 2_000_000, 1), in_hand(5, 1_000_000, 2), in_hand(5, 3_000_000, 3))
    before = cell.held(0)
    spent = cell.spend(7, 0)
    ended = [(lease.number, lease.left) for lease in cell.drop(2_500_000)]

    assert (before, spent, ended, cell.held(2_500_000)) == (15, 7, [(1, 3)], 5)


def test_more_than_is_in_hand_is_not_spent() -> None:
    """Only what there is."""
    assert cell_of(in_hand(5, 1_000)).spend(9, 0) == 5


def test_grant_ends_by_the_sending_less_the_drift() -> None:
    """500 ppm, rounded up."""
    assert (alive_until(1_000, 10_000), alive_until(0, 1), alive_until(7, 0)) == (10_995, 0, 7)


def test_return_names_its_take() -> None:
    """Number, epoch and window are those of the grant."""
    lease = InHand(Grant(5, 0, 0, 0, 9, number=3, epoch=2, window=7), LIMIT, 0, dies=False)
    order = cell_of(lease).return_of(lease)

    assert (order.ask.want, order.number, order.epoch, order.window) == (5, 3, 2, 7)


def test_debts_of_different_ages_end_together() -> None:
    """A new one lets the old ones count as long; when all are over a new one begins alone."""
    cell = cell_of()
    cell.owe(3, 0, 100)
    cell.owe(4, 50, 200)
    during, after = cell.owes(199), cell.owes(200)
    cell.owe(5, 200, 300)

    assert (during, after, cell.owes(299)) == (7, 0, 5)


def test_rate_is_measured_over_time_only() -> None:
    """Two measures at one instant are one."""
    cell = cell_of(in_hand(100, 1_000_000))
    cell.spend(50, 0)
    first = cell.measure(1_000, 1_000)

    assert (first, cell.measure(1_000, 1_000)) == (0.025, 0.025)


@pytest.mark.parametrize(
    ("rate", "rest", "replicas", "hits"),
    [(0.0, 1_000, 1, 1), (0.001, 1_000, 1, 200), (1.0, 1_000, 1, 500), (1.0, 1_000, 5, 100), (1.0, 3, 2, 1)],
)
def test_slices_follow_demand_and_taper(rate: float, rest: int, replicas: int, hits: int) -> None:
    """Between one hit and this replica's part of what is left."""
    assert slice_hits(rate, 200_000, rest, replicas) == hits


@pytest.mark.parametrize(
    ("rate", "rest", "replicas", "hits"),
    [
        (1e-6, 10_000, 1, 8),  # a hit a second: what 7.5 s bring
        (1e-4, 10_000, 1, 64),  # more than a few hits last no longer than the horizon, if that is shorter
        (1e-3, 10_000, 1, 200),
        (1e-5, 200, 1, 50),  # half of what a slice may be
        (1e-5, 200, 5, 10),
        (0.0, 10_000, 1, 1),
    ],
)
def test_slices_of_keys_asked_for_now_and_then_reach_farther(rate: float, rest: int, replicas: int, hits: int) -> None:
    """A few hits, so that not each of them costs an order; less where little is left."""
    assert slice_hits(rate, 200_000, rest, replicas, 7_500_000) == hits


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_only_what_costs_nothing_reaches_farther(algorithm: Algorithm) -> None:
    """A fixed window's slices are charged when they are taken, others as late as they may be spent."""
    limit = msgspec.structs.replace(limit_of(algorithm, 100), window_us=60_000_000)

    assert patience_us(limit, 200_000) == (7_500_000 if algorithm is Algorithm.FIXED_WINDOW else 200_000)


@pytest.mark.parametrize(
    ("rate", "patience_us", "idle"),
    [(1e-6, 7_500_000, 4_000_000), (1e-4, 7_500_000, 200_000), (1e-7, 7_500_000, 7_500_000)],
)
def test_what_lies_idle_goes_back_by_its_own_pace(rate: float, patience_us: int, idle: int) -> None:
    """Four gaps without a hit, the horizon at the least and the patience at the most."""
    assert idle_us(rate, 200_000, patience_us) == idle
    assert idle_us(0.0, 200_000, patience_us) == idle_us(rate, 200_000, 200_000) == 200_000


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_slices_of_what_is_charged_late_are_short(algorithm: Algorithm) -> None:
    """A fixed window's live as long as the window, others for twice the horizon and at most an eighth of it."""
    limit = limit_of(algorithm, 100)
    spans_us = lease_us(limit, 100_000), lease_us(limit, 5_000_000)

    assert (
        spans_us
        == {
            Algorithm.FIXED_WINDOW: (2 * length_us(limit), 2 * length_us(limit)),
            Algorithm.SLIDING_WINDOW: (200_000, 1_250_000),
            Algorithm.TOKEN_BUCKET: (200_000, 1_250_000),
        }[algorithm]
    )


def test_limits_are_exact_by_size_and_window() -> None:
    """20 hits and a second are the least that is leased."""
    assert [is_exact(fixed(*numbers)) for numbers in ((19, 1_000_000), (20, 999_999), (20, 1_000_000))] == [
        True,
        True,
        False,
    ]


def test_refills_are_asked_for_ahead_by_the_round_trip() -> None:
    """Its mean and deviation follow what is seen."""
    trip = RoundTrip(1_000)
    for _ in range(100):
        trip.observe(200)

    assert trip.ahead_us == pytest.approx(200, abs=1)


def test_request_of_several_cells_is_decided_from_them(rig: Rig) -> None:
    """Two leases, several grants each: at once, and refilled ahead."""
    replica = rig.replica()
    one, two = charge(fixed(100_000), rule=b"one"), charge(fixed(100_000), rule=b"two", unit=1)
    waited = []
    for number in range(3_000):
        if replica.charge([one, two], rig.clock.read()) is None:
            waited.append(number)
            rig.ask(replica, one, two)
        rig.advance(20, replica)

    assert waited[-1] < 2_000
    assert replica.stats().decisions[Source.LEASE] > 5_000


def test_hits_may_come_from_several_grants(rig: Rig) -> None:
    """What is in front and what is behind it."""
    replica, asked = rig.replica(), charge(LIMIT, hits=9)
    cell = replica.book.cell(asked, rig.clock.read())
    for hits in (4, 5):
        cell.receive(InHand(Grant(hits, 0, 0, 0, 1_000_000, 1, 0, 0), LIMIT, rig.clock.boot_us, dies=True))
    (outcome,) = rig.ask(replica, asked)

    assert (outcome.over, outcome.remaining, outcome.source) == (False, 0, Source.LEASE)


def test_other_number_for_the_same_identity_in_one_request(rig: Rig) -> None:
    """Overrides of one unit share a count; each is judged by its own number."""
    replica = rig.replica()
    rig.ask(replica, charge(fixed(1_000)))
    for _ in range(60):
        rig.ask(replica, charge(fixed(1_000)), charge(fixed(2_000), b"other", unit=1))
        rig.advance(10, replica)

    assert not rig.ask(replica, charge(fixed(2_000)), charge(fixed(1_000), b"other", unit=1))[0].over


def test_rule_that_becomes_exact_stops_leasing(rig: Rig) -> None:
    """From the reload on; what is in hand is spent first."""
    replica, asked = rig.replica(), charge(LIMIT)
    limits = in_force(asked)
    replica.apply(limits)
    for _ in range(30):
        rig.ask(replica, asked)
        rig.advance(100, replica)
    replica.apply({key: msgspec.structs.replace(of, exact=True) for key, of in limits.items()})
    for _ in range(100):
        rig.ask(replica, asked)
    before = len(replica.orders.sent)
    for _ in range(5):
        rig.ask(replica, asked)

    takes = [order for order in replica.orders.sent[before:] if isinstance(order, Take)]
    assert [take.asks[0].want for take in takes] == [1] * 5


def test_volatile_limits_remember_no_denial(rig: Rig) -> None:
    """A refund elsewhere may make room at any time."""
    replica, other, asked = rig.replica(), rig.replica(), charge(fixed(5))
    replica.apply({key: msgspec.structs.replace(of, exact=True) for key, of in in_force(asked).items()})
    for _ in range(6):
        rig.ask(replica, asked)
    other.refund([asked], rig.clock.read(), lambda outcomes: None)
    rig.scheduler.run()

    assert rig.admitted(replica, asked)


def test_penalty_while_the_breaker_opens_is_owed(rig: Rig) -> None:
    """The take was answered, the debt cannot be sent: it is charged later."""
    replica, penalty = rig.replica(), charge(fixed(10), role=Role.PENALTY, hits=25)
    replica.apply(in_force(penalty, failure=FailureMode.CLOSED))
    done: list[bool] = []
    replica.charge_later(
        [penalty], rig.clock.boot_us + 10 * MS, lambda outcomes: done.extend(each.over for each in outcomes)
    )
    replica.orders.up = False
    rig.scheduler.run()
    replica.orders.up = True
    rig.ask(replica, charge(fixed(10), hits=0))

    assert done == [True]
    assert [order.asks[0].want for order in replica.orders.sent if isinstance(order, Spend)] == [25]


def test_exact_answer_of_a_doubtful_memory_is_not_spent(rig: Rig) -> None:
    """The failure mode decides, and the grant is forfeited."""
    replica, asked = rig.replica(), charge(fixed(5))
    replica.apply(in_force(asked, failure=FailureMode.OPEN))
    replica.orders.good = False
    (outcome,) = rig.ask(replica, asked)

    assert (outcome.over, outcome.source) == (False, Source.FALLBACK)
    assert replica.stats().forfeited == 1
