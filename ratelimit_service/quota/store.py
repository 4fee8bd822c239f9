"""Where hits are counted: the interface that every store implements (DECISIONS 40).

One call of `charge` is one request of Envoy: its charges are decided together, atomically.
A store never raises because of a request; a lost store answers from the failure mode
and marks the outcome `degraded`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from ratelimit_service.algorithms.limit import FailureMode, Instant, Limit, LimitSettings

__all__ = [
    "NEVER_US",
    "Charge",
    "Done",
    "FailureMode",
    "LimitId",
    "LimitSettings",
    "Outcome",
    "Role",
    "Source",
    "Store",
    "Usage",
]

LimitId = bytes
"""Identity of a counter's limit, canonical bytes made by `policy.identity.limit_id`:
(domain, rule name or YAML path, algorithm, window or calendar), DECISIONS 8.
`requests`, `burst`, mode and order are not in it, so changing them keeps the count."""


class Role(enum.Enum):
    """How a charge takes part in the decision about its request (DECISIONS 3, 7)."""

    ENFORCE = "enforce"
    """Must fit; counted only if every ENFORCE charge (and PENALTY) of the request fits."""
    PENALTY = "penalty"
    """`countDenied: true`: must fit, and is counted in full past its limit whatever else happens."""
    SHADOW = "shadow"
    """Never rejects; counted alone, if the request is allowed and its unit fits."""
    QUOTA = "quota"
    """Envoy ratelimit's quota mode: over only when all quota units are over; fitting ones count when overall is OK."""
    OBSERVE = "observe"
    """Judged like the others, never counted (the other side of a rollout that shares a count)."""


class Source(enum.Enum):
    """Who decided; the label of `tidegate_decision_sources_total`."""

    MEMORY = "memory"
    LEASE = "lease"
    STANDING = "standing"
    BATCH = "batch"
    EXACT = "exact"
    FALLBACK = "fallback"


class Charge(msgspec.Struct, frozen=True, gc=False):
    """One limit that one descriptor of a request counts against.

    Attributes:
        identity: Which counter family; same identity, same key: same count.
        limit: The numbers in force now.
        key: The counted values, encoded so that different values never meet (`policy.identity.counter_key`).
        hits: 0 (check only) to 2**64-1.
        role: How it takes part in the decision.
        unit: Index of the descriptor; charges of one unit count all or none.
        failure: What decides where there is no count and the identity is not in force (a limit that a descriptor
            carries); of identities in force `LimitSettings.failure` does.
    """

    identity: bytes
    limit: Limit
    key: bytes
    hits: int
    role: Role = Role.ENFORCE
    unit: int = 0
    failure: FailureMode = FailureMode.SHARE


NEVER_US = -1
"""`Outcome.wait_us` of hits that can never fit."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a store says of one charge.

    Attributes:
        over: True: these hits do not fit (hits 0: nothing is left).
        remaining: Hits left after this request, 0 when over.
        wait_us: Over: microseconds until these hits fit, `NEVER_US` for never.
            Not over: microseconds until the budget is full again, 0 when it is.
        before: Hits counted (a bucket: burst minus whole tokens) before this request; saturates.
        source: Who decided.
        degraded: True: the failure mode decided, not the count.
    """

    over: bool
    remaining: int
    wait_us: int
    before: int
    source: Source = Source.MEMORY
    degraded: bool = False


class Usage(msgspec.Struct, frozen=True):
    """Live use of one counter, as `/counters` shows it."""

    identity: bytes
    key: bytes
    used: int
    remaining: int
    wait_us: int


Done = Callable[[Sequence[Outcome]], None]


class Store(Protocol):
    """Counts hits. Not thread-safe: one store belongs to one event loop."""

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome] | None:
        """Decide one request at once, or return None: then call `charge_later`. None counts nothing."""

    def charge_later(self, charges: Sequence[Charge], deadline_us: int, done: Done) -> None:
        """Decide one request, calling `done` once, never before this returns, by `deadline_us` (boot time)."""

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Judge without counting."""

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """Give `hits` of each charge back, never below 0, newest first (DECISIONS 4)."""

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool | None], None]) -> None:
        """Forget one counter; `done(True)` if it was there, `done(None)` if the store did not answer."""

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage] | None], None]) -> None:
        """List live counters of a domain, 100 a page, from page 0; `done(None)` if the store did not answer."""

    def bound(self, rule: str) -> int:
        """Greatest number of hits that may be admitted beyond the limits of a rule, in a window."""

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """Take the limits in force; counts of identities that stay are kept, others are reclaimed in slices."""

    async def start(self) -> None:
        """Begin background work."""

    async def close(self) -> None:
        """Stop background work and release what is held."""
