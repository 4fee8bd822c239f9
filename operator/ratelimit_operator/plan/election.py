"""Who holds the Lease. Pure: a record of the API server and the local monotonic clock in, one step out.

As client-go does it: another's record is judged by how long it has not changed on the local clock, never by the times
that are written in it, so clocks that differ by minutes elect nobody twice. A holder that could not renew for
`RENEW_S` steps down by itself before another may take over after `LEASE_S`.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

LEASE_S: Final = 15.0
"""How long a record must stand still before another may take it."""

RENEW_S: Final = 10.0
"""How long a holder goes on without having renewed."""

RETRY_S: Final = 2.0
"""Between two looks."""


class Record(msgspec.Struct, frozen=True):
    """What the Lease says.

    Attributes:
        holder: Identity of the holder, empty: released.
        renewed: Its time of renewal as it is written; compared for change only.
        transitions: How often the holder changed.
        resource_version: For a write that fails when another was first.
        lease_s: After how many seconds without a change it may be taken.
    """

    holder: str
    renewed: str
    transitions: int
    resource_version: str
    lease_s: float = LEASE_S


class Step(enum.Enum):
    """What to do next."""

    CREATE = "create"
    RENEW = "renew"
    TAKE = "take"
    WAIT = "wait"


class Election:
    """One candidate's view."""

    def __init__(self, identity: str, *, lease_s: float = LEASE_S, renew_s: float = RENEW_S) -> None:
        self.identity = identity
        self.lease_s = lease_s
        self.renew_s = renew_s
        self._seen: tuple[str, str] | None = None
        self._seen_at_s = 0.0
        self._renewed_at_s: float | None = None

    def step(self, record: Record | None, now_s: float) -> Step:
        """What to do about the record that was just read; None: there is none."""
        if record is None:
            return Step.CREATE
        if record.holder == self.identity:
            return Step.RENEW
        self._renewed_at_s = None
        mark = (record.holder, record.renewed)
        if mark != self._seen:
            self._seen, self._seen_at_s = mark, now_s
        if not record.holder or now_s - self._seen_at_s >= record.lease_s:
            return Step.TAKE
        return Step.WAIT

    def renewed(self, sent_at_s: float) -> None:
        """A write that makes or keeps this candidate the holder succeeded; it counts from when it was sent."""
        self._renewed_at_s = sent_at_s

    def lost(self) -> None:
        """Another was first, or the lease was released."""
        self._renewed_at_s = None

    def holds(self, now_s: float) -> bool:
        """Whether this candidate may act as the holder."""
        return self._renewed_at_s is not None and now_s - self._renewed_at_s < self.renew_s
