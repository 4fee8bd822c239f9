"""Which orders go into the next script call of a node: fairness, coalescing, and how long it may hold Redis. Pure.

Orders wait in lanes, one for each rule; those of one counted key are in one lane and keep their order. A batch takes
from the lanes in turn, so that a rule with a flood of keys delays another's orders by no more than its share.
Takes of all or nothing of the same hits on one counted key are carried out as one, which costs Redis the same as one;
what passes is handed out in the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ratelimit_service.quota.leases.orders import Answered
from ratelimit_service.quota.takes import Order, Take

__all__ = ["Batch", "BatchPace", "OrderQueue", "Slot", "Waiting"]

BATCH_US: Final = 500
"""How long one batch may hold Redis: others wait for as long."""

_FEWEST: Final = 16
_MOST: Final = 1_024
_FIRST_COST_US: Final = 4.0
_FASTER_COUNTS: Final = 0.25
_SLOWER_COUNTS: Final = 0.03


class Waiting:
    """One order that waits.

    Attributes:
        order: What is asked.
        name: Its key in Redis.
        deadline_us: Boot time from which it is no longer sent.
        done: Is told what came of it.
        is_again: It was refused once for the calendar windows that were listed.
    """

    __slots__ = ("deadline_us", "done", "is_again", "name", "order")

    def __init__(self, order: Order, name: bytes, deadline_us: int, done: Callable[[Answered], None]) -> None:
        self.order = order
        self.name = name
        self.deadline_us = deadline_us
        self.done = done
        self.is_again = False


class Slot:
    """One entry of a batch: an order, and whoever waits for it, in order of arrival.

    Attributes:
        order, name: What is asked, and its key in Redis.
        waiting: Several for takes that are carried out as one.
    """

    __slots__ = ("name", "order", "waiting")

    def __init__(self, first: Waiting) -> None:
        self.order = first.order
        self.name = first.name
        self.waiting = [first]

    def holds_too(self, order: Order) -> bool:
        """Whether an order can be carried out together with this one's."""
        mine = self.order
        return (
            isinstance(mine, Take)
            and isinstance(order, Take)
            and (mine.asks is order.asks or mine.asks == order.asks)
            and mine.least == order.least
            and mine.lease_us == order.lease_us
            and mine.equal == order.equal
            and _is_all_or_nothing(mine)
        )


def _is_all_or_nothing(take: Take) -> bool:
    """Whether every ask is granted what it wants, the same for all, or nothing."""
    least = take.least
    return least > 0 and (take.equal or len(take.asks) == 1) and all(ask.want == least for ask in take.asks)


class Batch:
    """What one script call, or in a cluster one pipeline of calls, carries out.

    Attributes:
        slots: In order.
        expired: Whose deadline passed while they waited.
    """

    __slots__ = ("expired", "slots")

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.expired: list[Waiting] = []


class OrderQueue:
    """The orders that wait for one node.

    Args:
        most_orders: More than these do not wait.
    """

    __slots__ = ("_lanes", "_most_orders", "waiting")

    def __init__(self, most_orders: int) -> None:
        self._lanes: dict[bytes, deque[Waiting]] = {}
        self._most_orders = most_orders
        self.waiting = 0

    def add(self, waiting: Waiting) -> bool:
        """Let an order wait; False: too many do."""
        if self.waiting >= self._most_orders:
            return False
        group = waiting.order.where.group
        lane = self._lanes.get(group)
        if lane is None:
            lane = self._lanes[group] = deque()
        lane.append(waiting)
        self.waiting += 1
        return True

    def add_first(self, waiting: Waiting) -> None:
        """Let an order wait that was in a batch already, before all others of its rule."""
        self._lanes.setdefault(waiting.order.where.group, deque()).appendleft(waiting)
        self.waiting += 1

    def next_batch(self, most_slots: int, now_us: int) -> Batch:
        """Take up to `most_slots` entries out of the lanes in turn.

        What is coalesced into an entry is not counted. A lane that was served goes behind the others.
        """
        batch = Batch()
        latest: dict[bytes, Slot] = {}
        lanes = self._lanes
        while lanes and len(batch.slots) < most_slots:
            for group in list(lanes):
                # One lane alone has nobody to be fair to.
                left = most_slots - len(batch.slots)
                share = left if len(lanes) == 1 else min(1, left)
                if not share:
                    break
                lane = lanes.pop(group)
                self._serve(lane, batch, latest, share, now_us)
                if lane:
                    lanes[group] = lane
        return batch

    def _serve(self, lane: deque[Waiting], batch: Batch, latest: dict[bytes, Slot], share: int, now_us: int) -> None:
        """Move entries from a lane into the batch until `share` new ones have begun, and what coalesces with them."""
        slots = batch.slots
        before = len(lane)
        while lane:
            waiting = lane[0]
            slot = latest.get(waiting.name)
            if waiting.deadline_us <= now_us:
                batch.expired.append(waiting)
            elif slot is not None and slot.holds_too(waiting.order):
                slot.waiting.append(waiting)
            elif share:
                share -= 1
                slot = latest[waiting.name] = Slot(waiting)
                slots.append(slot)
            else:
                break
            lane.popleft()
        self.waiting -= before - len(lane)


class BatchPace:
    """How many entries a batch may have, from how long the server had to do with earlier ones.

    The server's own clock tells, since a round trip is also as long as what this process does meanwhile, which is the
    more the larger its batches are. Fast batches count for more than slow ones: while another process has the server's
    core, its clock goes on, and orders cost it nothing.
    """

    __slots__ = ("_cost_us",)

    def __init__(self) -> None:
        self._cost_us = _FIRST_COST_US

    @property
    def most_slots(self) -> int:
        """Entries that hold Redis for at most `BATCH_US`, by estimate."""
        return max(_FEWEST, min(_MOST, int(BATCH_US / self._cost_us)))

    def observe(self, slots: int, took_us: int) -> None:
        """Take in how long the server had to do with a batch; what a small one took says little of its entries."""
        known_us, cost_us = self._cost_us, took_us / slots
        if cost_us < known_us:
            known_us += (cost_us - known_us) * _FASTER_COUNTS
        else:
            known_us += (min(cost_us, 2 * known_us) - known_us) * _SLOWER_COUNTS
        self._cost_us = max(BATCH_US / _MOST, min(BATCH_US / _FEWEST, known_us))
