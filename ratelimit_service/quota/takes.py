"""What a replica asks of a shared store, and what the store says: the messages of the lease protocol.

A *counted key* is one rule and the values that it counts by; all limits of the rule are kept together there, so
that several limits are one atomic step and a reset needs no window (DECISIONS 8). The store tests a take at the
earliest and charges it at the latest instant at which its grant may be spent, so whatever is lost, late or crashed
only costs admission. Takes may be repeated; a return is sent at most once.
"""

from __future__ import annotations

import msgspec

from ratelimit_service.algorithms.limit import Limit


class CountedKey(msgspec.Struct, frozen=True, gc=False):
    """Where the limits of one rule count one caller.

    Attributes:
        group: Names the rule; the same for all of its limits.
        key: The counted values (`policy.identity.counter_key`).
    """

    group: bytes
    key: bytes


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One limit of a counted key.

    Attributes:
        identity: Which counter (`policy.identity.limit_id`).
        limit: The numbers in force at the replica.
        want: Hits, clamped to 2**53 - 1; 0: only look.
        reserve: Hits of its window that standing allowances own, which grants leave alone (DECISIONS 14).
        lasting: The store keeps the reserve for its window; False: only this order leaves it alone.
    """

    identity: bytes
    limit: Limit
    want: int
    reserve: int = 0
    lasting: bool = True


class Take(msgspec.Struct, frozen=True, gc=False):
    """Asks for hits that may be spent for a while.

    Attributes:
        where: The counted key.
        asks: Its limits, at least one.
        least: A smaller grant is none.
        lease_us: How long from the store's instant the grant may be spent, at the most.
        equal: Every ask is granted the same number, the least of what each could have.
    """

    where: CountedKey
    asks: tuple[Ask, ...]
    least: int
    lease_us: int
    equal: bool = True


class Spend(msgspec.Struct, frozen=True, gc=False):
    """Counts hits in full, past the limit if need be (a debt, DECISIONS 3); answered by a `Grant` of all or of 0.

    The answer's `granted` is `want` where the hits fitted before they were counted, else 0; they are counted anyhow.
    """

    where: CountedKey
    asks: tuple[Ask, ...]


class Refund(msgspec.Struct, frozen=True, gc=False):
    """Gives hits back, newest first, never below 0 (DECISIONS 4)."""

    where: CountedKey
    asks: tuple[Ask, ...]


class Return(msgspec.Struct, frozen=True, gc=False):
    """Gives back what is left of a lease; sent at most once, passed over where the state moved on (DECISIONS 15).

    Attributes:
        where: The counted key.
        ask: The limit, `want` the hits that were not spent.
        number: Of the take that granted them.
        epoch: The reset epoch under which they were granted.
        window: The window they count in.
    """

    where: CountedKey
    ask: Ask
    number: int
    epoch: int
    window: int


class Reset(msgspec.Struct, frozen=True, gc=False):
    """Begins every limit of a counted key anew, under the next reset epoch."""

    where: CountedKey


class Grant(msgspec.Struct, frozen=True, gc=False):
    """What the store says of one ask.

    Attributes:
        granted: Hits that may be spent.
        remaining: What could still be granted after it.
        before: Hits counted before it (a bucket: burst minus whole tokens); saturates.
        wait_us: Nothing granted, and `least` (a spend: `want`; at least 1) does not fit: until it does, `NEVER_US` for
            never. Else until the budget is full again.
        spend_us: The grant may be spent until the local send of the take plus this, less the drift of clocks.
        number: Of this take among those of its state.
        epoch: Reset epoch.
        window: The window that it counts in (fixed: its id; sliding: its sub-bucket; bucket: 0).
    """

    granted: int
    remaining: int
    before: int
    wait_us: int
    spend_us: int
    number: int
    epoch: int
    window: int


Order = Take | Spend | Refund | Return | Reset
"""One step of a shared store; takes, spends and refunds are answered by a `Grant` for each ask, in order."""
