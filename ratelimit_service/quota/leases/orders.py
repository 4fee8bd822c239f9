"""How orders reach a shared store: what a replica needs of whoever carries them.

`redis.batch` carries them to Redis in group commits; models and tests carry them out at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.quota.takes import CountedKey, Grant, Order


class Answered(msgspec.Struct, frozen=True, gc=False):
    """What came of an order.

    Attributes:
        grants: What the store said, an entry for each ask; None: nothing is known of it, or it was refused.
        sent_us: Boot time just before the order was sent, in its last sending.
        is_good: What was granted may be spent: the store has the memory that it had (DECISIONS 17).
        heard: One reading of the clocks for all answers of a batch; None: read them.
    """

    grants: Sequence[Grant] | None
    sent_us: int
    is_good: bool = True
    heard: Instant | None = None


class Orders(Protocol):
    """Carries orders to the store; those on one counted key in the order of their submission, as far as it can."""

    def submit(self, order: Order, deadline_us: int, done: Callable[[Answered], None]) -> None:
        """Carry out an order.

        Takes may be sent again, everything else is sent at most once. `done` is called once, never before this
        returns; after `deadline_us` (boot time), or when nothing will be known any more, with `grants` None.
        It may be called with grants later than the deadline, if the answer comes then.
        """

    def is_up(self, where: CountedKey) -> bool:
        """Whether asking makes sense now; costs nothing."""
