"""What every algorithm tells of one limit of a counted key, and how it is charged."""

from __future__ import annotations

from typing import Protocol

from ratelimit_service.algorithms.judgement import Judgement
from ratelimit_service.quota.redis.twin_state import Entry


class Counter(Protocol):
    """One limit at one instant of the store's clock; charges change it, `entry` is what to keep.

    Attributes:
        room: Hits that a take may be granted now; may be negative.
        window: The window that the latest charge counted in, or one now would.
        is_reserve_new: The reserve grew, or began anew: it is to be kept even if nothing is granted.
    """

    room: int
    window: int
    is_reserve_new: bool

    def judge(self, hits: int) -> Judgement:
        """What the law says of `hits` now; `before` saturates as the store's counts do."""

    def full_us(self) -> int:
        """Until nothing is counted any more; 0: nothing is."""

    def charge(self, hits: int, lease_us: int) -> None:
        """Count hits that may be spent for `spend_us(lease_us)`, at the latest of those instants; saturates."""

    def spend_us(self, lease_us: int) -> int:
        """How long a grant of now may be spent."""

    def give_back(self, hits: int) -> None:
        """Take hits out again, newest first, never below 0."""

    def give_back_to(self, window: int, hits: int) -> None:
        """Take hits of one window out again; those of a window that is over are not missed."""

    def entry(self) -> Entry:
        """What to keep."""
