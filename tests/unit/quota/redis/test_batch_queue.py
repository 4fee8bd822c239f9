"""The pure part of the group commit: lanes, coalescing, caps and deadlines."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.redis.batch_queue import BATCH_US, Batch, BatchPace, OrderQueue, Waiting
from ratelimit_service.quota.takes import CountedKey, Order, Refund, Spend, Take
from support.counted_keys import FIXED_LIMIT, ask

LATE_US = 10**9


def where(group: str, key: str = "k") -> CountedKey:
    return CountedKey(group.encode(), key.encode())


def taking(group: str, key: str = "k", *, want: int = 1, least: int = 1, lease_us: int = 0) -> Take:
    return Take(where(group, key), (ask(FIXED_LIMIT, want),), least, lease_us)


def ignore(_: Answered) -> None:
    raise AssertionError


def waiting(order: Order, deadline_us: int = LATE_US) -> Waiting:
    return Waiting(order, order.where.group + b"/" + order.where.key, deadline_us, ignore)


def queue_of(orders: Sequence[Order], most: int = 1_000) -> OrderQueue:
    queue = OrderQueue(most)
    for order in orders:
        queue.add(waiting(order))
    return queue


def shape(batch: Batch) -> list[tuple[str, int]]:
    """Names and numbers of orders of a batch's entries."""
    return [(slot.name.decode(), len(slot.waiting)) for slot in batch.slots]


def test_takes_of_all_or_nothing_on_one_key_are_one_entry() -> None:
    """In order of arrival, whatever came between them on other keys."""
    queue = queue_of([taking("a"), taking("b"), taking("a"), taking("a")])

    assert shape(queue.next_batch(10, 0)) == [("a/k", 3), ("b/k", 1)]
    assert queue.waiting == 0


@pytest.mark.parametrize(
    "other",
    [
        taking("a", want=2, least=2),
        taking("a", want=2),
        taking("a", lease_us=1),
        Spend(where("a"), (ask(FIXED_LIMIT),)),
        Refund(where("a"), (ask(FIXED_LIMIT),)),
    ],
)
def test_what_differs_is_an_entry_of_its_own(other: Order) -> None:
    """And what comes after it does not overtake it."""
    queue = queue_of([taking("a"), other, taking("a")])

    assert shape(queue.next_batch(10, 0)) == [("a/k", 1), ("a/k", 1), ("a/k", 1)]


@pytest.mark.parametrize(
    "order",
    [
        taking("a", want=9, least=1),
        taking("a", want=0, least=0),
        Spend(where("a"), (ask(FIXED_LIMIT),)),
        Take(where("a"), (ask(FIXED_LIMIT), ask(FIXED_LIMIT, identity=b"b")), 1, 0, equal=False),
    ],
)
def test_slices_looks_and_debts_are_not_coalesced(order: Order) -> None:
    """Only what is granted wholly or not at all can be handed out in order of arrival."""
    assert shape(queue_of([order, order]).next_batch(10, 0)) == [("a/k", 1), ("a/k", 1)]


def test_several_limits_of_one_number_are_coalesced() -> None:
    """All of them are granted the same, or none."""
    both = Take(where("a"), (ask(FIXED_LIMIT), ask(FIXED_LIMIT, identity=b"b")), 1, 0)

    assert shape(queue_of([both, both]).next_batch(10, 0)) == [("a/k", 2)]


def test_a_capped_batch_takes_from_the_rules_in_turn() -> None:
    """A rule with a flood of keys leaves the others their share."""
    flood = [taking("flood", f"{number}") for number in range(100)]
    queue = queue_of([*flood, taking("quiet", "1"), taking("quiet", "2")])
    names = [slot.name for slot in queue.next_batch(4, 0).slots]

    assert names == [b"flood/0", b"quiet/1", b"flood/1", b"quiet/2"]
    assert len(queue.next_batch(4, 0).slots) == 4


def test_a_lane_that_was_served_goes_behind_the_others() -> None:
    """With fewer entries than rules each rule has its turn in the end."""
    queue = queue_of([taking(group, f"{number}") for number in range(3) for group in "abc"])
    names = [slot.name for _ in range(9) for slot in queue.next_batch(1, 0).slots]

    assert names == [f"{group}/{number}".encode() for number in range(3) for group in "abc"]


def test_what_coalesces_is_not_counted_by_the_cap() -> None:
    """A hot key costs one entry however many wait for it."""
    queue = queue_of([taking("a")] * 50 + [taking("a", "other")])

    assert shape(queue.next_batch(1, 0)) == [("a/k", 50)]
    assert shape(queue.next_batch(1, 0)) == [("a/other", 1)]


def test_expired_orders_are_not_sent() -> None:
    """At the deadline it is too late; what is still in time goes on."""
    queue = OrderQueue(10)
    late, in_time = waiting(taking("a"), 100), waiting(taking("a"), 101)
    queue.add(late)
    queue.add(in_time)
    batch = queue.next_batch(10, 100)

    assert batch.expired == [late]
    assert [slot.waiting for slot in batch.slots] == [[in_time]]


def test_a_full_queue_takes_no_more() -> None:
    """Until a batch has left."""
    queue = queue_of([taking("a")] * 3, most=3)

    assert not queue.add(waiting(taking("b")))
    queue.next_batch(10, 0)
    assert queue.add(waiting(taking("b")))


def test_what_waits_again_comes_first_of_its_rule() -> None:
    """It was there before all others."""
    queue = queue_of([taking("a", "later")])
    queue.add_first(waiting(taking("a", "first")))

    assert shape(queue.next_batch(10, 0)) == [("a/first", 1), ("a/later", 1)]


some_orders = st.lists(
    st.builds(taking, st.sampled_from("abc"), st.sampled_from("xy"), want=st.integers(1, 2), least=st.integers(1, 2)),
    max_size=30,
)


@given(arriving=some_orders, most_slots=st.integers(1, 5))
def test_every_order_leaves_once_and_those_of_a_key_in_order(arriving: list[Take], most_slots: int) -> None:
    """No cap and no coalescing changes what a key's orders see of each other."""
    queue = queue_of(arriving)
    left: list[Waiting] = []
    while queue.waiting:
        batch = queue.next_batch(most_slots, 0)
        left += [one for slot in batch.slots for one in slot.waiting]

        assert 0 < len(batch.slots) <= most_slots

    for key in {order.where for order in arriving}:
        assert [one.order for one in left if one.order.where == key] == [o for o in arriving if o.where == key]
    assert len(left) == len(arriving)


# Pace.


def test_pace_begins_with_a_guess_and_stays_within_bounds() -> None:
    """Whatever is seen, a batch has at least a few entries and at most so many."""
    pace = BatchPace()
    first = pace.most_slots
    for _ in range(200):
        pace.observe(100, 100_000)
    slowest = pace.most_slots
    for _ in range(200):
        pace.observe(1_000, 100)

    assert (slowest, pace.most_slots) == (16, 1_024)
    assert 16 < first < 1_024


@given(cost_us=st.integers(1, 25), preempted_us=st.integers(0, 20_000))
def test_pace_finds_what_an_entry_costs(cost_us: int, preempted_us: int) -> None:
    """Batches come to hold Redis for nearly as long as they may, though some wait for its core."""
    pace = BatchPace()
    for slots in [20, 50, 100, 200] * 100:
        pace.observe(slots, slots * cost_us + (preempted_us if slots == 50 else 0))

    assert BATCH_US * 4 // 5 - cost_us <= pace.most_slots * cost_us <= BATCH_US + cost_us
