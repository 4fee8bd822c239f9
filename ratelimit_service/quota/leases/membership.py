"""Membership: the slots of replicas in the shared store, and what a slot entitles to.

A slot is a key with a time to live that its replica renews by a heartbeat (`redis/lua/membership.lua`). The replica
stops relying on it before it can have expired. All replicas also hold the *form*, a digest of (slots, standing
share): only while every replica that is alive goes by the same form does anyone have a standing allowance
(DECISIONS 14). The store remembers until when each form owned anything, so that replicas of the next one leave alone
what is spent already of the windows that began before.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from ratelimit_service.quota.leases.sizing import DRIFT_PPM

SLOT_TTL_US: Final = 5_000_000
"""Time to live of a slot and of the form."""

HEARTBEAT_US: Final = 1_000_000
"""Between two renewals."""

_MILLION: Final = 1_000_000


class Beat(msgspec.Struct, frozen=True, gc=False):
    """What a heartbeat was answered.

    Attributes:
        slot: The replica's slot; below 0: all are taken.
        rank: How many live slots are below it.
        live: Live slots, its own included.
        in_form: The form in force is the replica's.
        wall_us: The store's clock.
        other_until_us: By that clock, until when slots of another form may have owned anything; 0: never.
    """

    slot: int
    rank: int
    live: int
    in_form: bool
    wall_us: int
    other_until_us: int = 0


def form_of(slots: int, standing_percent: int) -> bytes:
    """Digest of what all replicas have to agree on, 16 hexadecimal digits."""
    text = b"%d/%d" % (slots, standing_percent)
    return hashlib.blake2b(text, digest_size=8, person=b"tidegate-form").hexdigest().encode()


class Membership:
    """Where a replica stands among the others. Times are boot time, microseconds, unless they say wall.

    Attributes:
        slots: Most replicas that there will be; None: nobody said.
        slot: Held now; None: none.
        rank: Among those last seen alive; None: not known.
        live: Replicas last seen alive; None: never seen.
        since_us: When the slot was certainly not anybody else's any more.
        since_wall_us: The same by the store's clock.
        valid_until_us: Until when slot and form may be relied on.
        form_until_us: Until when the form in force is surely the replica's, whether or not it holds a slot.
        other_owns: When the store was last heard, slots of another form might still own something.
        other_until_us: By the store's clock, until when they may have; 0: never.
    """

    __slots__ = (
        "form_until_us",
        "live",
        "other_owns",
        "other_until_us",
        "rank",
        "since_us",
        "since_wall_us",
        "slot",
        "slots",
        "valid_until_us",
    )

    def __init__(self, slots: int | None) -> None:
        self.slots = slots
        self.slot: int | None = None
        self.rank: int | None = None
        self.live: int | None = None
        self.since_us = self.since_wall_us = self.valid_until_us = self.form_until_us = 0
        self.other_owns = False
        self.other_until_us = 0

    def take_in(self, beat: Beat, sent_us: int, received_us: int) -> None:
        """Take in the answer to a heartbeat sent at `sent_us`: the slot is good for its time from the sending."""
        self.live, self.rank = max(1, beat.live), (beat.rank if beat.slot >= 0 else None)
        self.other_owns = beat.other_until_us >= beat.wall_us
        self.other_until_us = max(self.other_until_us, beat.other_until_us)
        lasts_until_us = sent_us + SLOT_TTL_US - -(-SLOT_TTL_US * DRIFT_PPM // _MILLION)
        self.form_until_us = lasts_until_us if beat.in_form else 0
        if beat.slot < 0 or not beat.in_form:
            self.slot, self.valid_until_us = None, 0
            return
        if self.slot != beat.slot or sent_us >= self.valid_until_us:
            # Another's, or one's own that might have been another's in between: it begins anew.
            self.slot = beat.slot
            self.since_us, self.since_wall_us = received_us, beat.wall_us + (received_us - sent_us)
        self.valid_until_us = lasts_until_us

    def lose(self) -> None:
        """The store's memory is gone, and the slots with it."""
        self.slot, self.valid_until_us, self.form_until_us = None, 0, 0

    def holds(self, now_us: int) -> bool:
        """Whether the slot may be relied on."""
        return self.slot is not None and now_us < self.valid_until_us

    def is_in_form(self, now_us: int) -> bool:
        """Whether the form in force is surely the replica's."""
        return now_us < self.form_until_us

    def shares(self) -> tuple[int, int | None]:
        """Into how many parts a limit is cut without a store, and which one is this replica's (DECISIONS 13)."""
        if self.live is not None and self.rank is not None:
            return self.live, self.rank
        return self.slots or self.live or 1, None

    @property
    def is_alone(self) -> bool:
        """Whether nothing is known of any other replica, so that no bound can be told."""
        return self.live is None and self.slots is None
