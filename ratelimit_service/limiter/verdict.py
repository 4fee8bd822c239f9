"""From outcomes to the statuses of a response (DECISIONS 5, 6, 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ratelimit_service.limiter.plan import Kind, Part, Plan, Side
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.quota.decision import is_over
from ratelimit_service.quota.store import NEVER_US, Charge, Outcome
from ratelimit_service.wire.rls.messages import Status

ALLOWED_REMAINING: Final = 2**32 - 1
"""`limit_remaining` of what an Allow rule passes, as envoyproxy/ratelimit answers `unlimited`."""
_US_PER_S: Final = 1_000_000


def overall_over(plan: Plan, outcomes: Sequence[Outcome], settings: LimiterSettings) -> bool:
    """Whether the request is rejected."""
    if settings.shadow_mode:
        return False
    return plan.denied or is_over(plan.charges, outcomes)


def statuses(plan: Plan, outcomes: Sequence[Outcome], refunded: Sequence[Outcome]) -> tuple[Status, ...]:
    """One status per descriptor, in order.

    Args:
        plan: The request.
        outcomes: One per charge.
        refunded: One per refund.
    """
    return tuple(_status(plan, part, outcomes, refunded) for part in plan.parts)


def _status(plan: Plan, part: Part, outcomes: Sequence[Outcome], refunded: Sequence[Outcome]) -> Status:
    if part.kind is Kind.ALLOW:
        return Status(over=False, remaining=ALLOWED_REMAINING)
    if part.side is None:
        return Status(over=part.rejects)
    given_back = part.kind is Kind.REFUND
    charges, said = (plan.refunds, refunded) if given_back else (plan.charges, outcomes)
    place = shown_place(part.side, charges, said)
    outcome = said[place]
    return Status(
        # Where it never rejects (shadow, checks), the code stays OK and the numbers tell.
        over=outcome.over and part.rejects,
        limit=part.side.shown[place - part.side.first],
        remaining=0 if outcome.over else outcome.remaining,
        reset_s=reset_s(outcome),
    )


def shown_place(side: Side, charges: Sequence[Charge], outcomes: Sequence[Outcome]) -> int:
    """Which limit a status shows: over, the one with the longest wait; else the one with the least remaining share."""
    places = range(side.first, side.last)
    over = [place for place in places if outcomes[place].over]
    if over:
        return max(over, key=lambda place: (outcomes[place].wait_us == NEVER_US, outcomes[place].wait_us))
    return min(places, key=lambda place: outcomes[place].remaining / max(1, charges[place].limit.burst))


def reset_s(outcome: Outcome) -> int | None:
    """`duration_until_reset` in whole seconds, rounded up; at least 1 when over; None: never.

    A failure mode's rejection says 1 s: the store may be back by then.
    """
    if outcome.over:
        if outcome.degraded:
            return 1
        if outcome.wait_us == NEVER_US:
            return None
        return max(1, -(-outcome.wait_us // _US_PER_S))
    return -(-outcome.wait_us // _US_PER_S)
