"""Plain integers for metrics, of a store that leases."""

from __future__ import annotations

import msgspec

from ratelimit_service.quota.store import Source


class LeaseStats(msgspec.Struct):
    """What a replica did; every field but `keys` only grows.

    Attributes:
        decisions: Charges decided, by who decided.
        takes: Takes, spends and looks that were sent.
        returns: Returns that were sent.
        granted: Hits that the store granted.
        spent: Hits of grants that were spent.
        returned: Unspent hits that a return was sent for.
        forfeited: Unspent hits that were let go of without a return.
        stranded: Of the returned and forfeited ones, those of grants that had ended before they were spent.
        late: Answers that came after their requests had been answered by the failure mode.
        lost: Takes that were never answered.
        degraded_us: Time in which at least one request was decided by its failure mode.
        keys: Cells held.
        overfull: Keys that found no room, and were asked for without being remembered.
        masters: New masters seen.
    """

    decisions: dict[Source, int] = msgspec.field(default_factory=lambda: dict.fromkeys(Source, 0))
    takes: int = 0
    returns: int = 0
    granted: int = 0
    spent: int = 0
    returned: int = 0
    forfeited: int = 0
    stranded: int = 0
    late: int = 0
    lost: int = 0
    degraded_us: int = 0
    keys: int = 0
    overfull: int = 0
    masters: int = 0
