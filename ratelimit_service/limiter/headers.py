"""`response_headers_to_add`: what a client may be told about its limits.

LegacyFields are those of envoyproxy/ratelimit (`RateLimit-Limit`, `-Remaining`, `-Reset`, plain integers).
RateLimitFields follow the IETF draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers-10):
`RateLimit-Policy` lists the limits, `RateLimit` what is left of the one that each descriptor's status shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit_service.algorithms.limit import Limit
from ratelimit_service.limiter.plan import Kind, Plan, Side
from ratelimit_service.limiter.verdict import shown_place
from ratelimit_service.policy.snapshot import HeaderStyle
from ratelimit_service.quota.store import Outcome
from ratelimit_service.wire.rls.messages import Status

Headers = tuple[tuple[str, str], ...]
"""Names and values, in order."""


def response_headers(plan: Plan, outcomes: Sequence[Outcome], statuses: Sequence[Status], *, always: bool) -> Headers:
    """Headers of a response, in the style that the policy asks for.

    Args:
        plan: The request.
        outcomes: One per charge.
        statuses: Its answer.
        always: `--response-headers`: LegacyFields where no policy asks for a style.
    """
    if plan.headers is HeaderStyle.RATE_LIMIT_FIELDS:
        return _draft_fields(plan, outcomes, statuses)
    if plan.headers is HeaderStyle.LEGACY_FIELDS or always:
        return _legacy_fields(plan, statuses)
    return ()


def _legacy_fields(plan: Plan, statuses: Sequence[Status]) -> Headers:
    """Of the descriptor with the least remaining, the first of equals; of those that reject, the last one wins.

    Source: src/service/ratelimit.go of the original; a quota that is over does not win by that.
    """
    chosen: Status | None = None
    for status, part in zip(statuses, plan.parts, strict=True):
        if status.limit is None or part.side is None:
            continue
        if chosen is None or status.remaining < chosen.remaining or (status.over and not part.side.quota):
            chosen = status
    if chosen is None or chosen.limit is None:
        return ()
    fields = (("RateLimit-Limit", str(chosen.limit.requests)), ("RateLimit-Remaining", str(chosen.remaining)))
    # Hits that can never fit have no time of reset, and 0 would tell a client to try again at once.
    return fields if chosen.reset_s is None else (*fields, ("RateLimit-Reset", str(chosen.reset_s)))


def _draft_fields(plan: Plan, outcomes: Sequence[Outcome], statuses: Sequence[Status]) -> Headers:
    policies: list[str] = []
    states: list[str] = []
    for index, (status, part) in enumerate(zip(statuses, plan.parts, strict=True)):
        side = part.side
        if side is None or part.kind is Kind.REFUND:
            continue
        names = _names(side, index)
        limits = [charge.limit for charge in plan.charges[side.first : side.last]]
        policies.extend(f"{name};q={limit.requests}{_window(limit)}" for name, limit in zip(names, limits, strict=True))
        name = names[shown_place(side, plan.charges, outcomes) - side.first]
        reset = "" if status.reset_s is None else f";t={status.reset_s}"
        states.append(f"{name};r={status.remaining}{reset}")
    if not states:
        return ()
    # Two descriptors may meet one rule: its limits are said once.
    return (("RateLimit-Policy", ", ".join(dict.fromkeys(policies))), ("RateLimit", ", ".join(states)))


def _names(side: Side, index: int) -> list[str]:
    """Names of a descriptor's limits: the rule's, numbered where it has several."""
    base = side.shown[0].name or f"limit-{index + 1}"
    if len(side.shown) == 1:
        return [_quoted(base)]
    return [_quoted(f"{base}-{number}") for number in range(1, len(side.shown) + 1)]


def _window(limit: Limit) -> str:
    """`;w=` in whole seconds; a calendar's windows differ in length, and one under a second has none."""
    seconds = limit.window_us // 1_000_000
    return f";w={seconds}" if seconds else ""


def _quoted(text: str) -> str:
    """A Structured Fields string (RFC 9651): printable ASCII, quotes and backslashes escaped."""
    safe = "".join(character if " " <= character <= "~" else "?" for character in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'
