"""The frequent request with several limits, from plan to bytes without a detour.

As `simple`, for a few descriptors that all meet plain rules of one or more limits: nothing is refunded, shadowed,
replaced or rolled out, and nothing is added to the statuses. `planning`, `verdict` and `encode_response` give the same
answer the long way, which a property holds this to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.limiter.simple import RESET, Recipe, Recipes, remaining_field, reset_field
from ratelimit_service.limiter.verdict import reset_s
from ratelimit_service.policy.match import match
from ratelimit_service.policy.snapshot import Domain
from ratelimit_service.quota.store import NEVER_US, Charge, EnforcedCharges, Outcome, Store, as_enforced
from ratelimit_service.wire.protobuf import write_varint
from ratelimit_service.wire.rls.messages import Request

_MOST_DESCRIPTORS: Final = 8
_US_PER_S: Final = 1_000_000
_PLAN_BYTES: Final = 300
_SIDE_BYTES: Final = 200
_CHARGE_BYTES: Final = 250
"""Measured on CPython 3.11 with tracemalloc and rounded up."""
_STATUS: Final = [b"\x12" + write_varint(size) for size in range(512)]
"""Tag and length of a status in a response."""


class _Side(msgspec.Struct, frozen=True, gc=False):
    """One descriptor.

    Attributes:
        recipes: Per limit, in order; all of one rule, and so with the same counters.
        first: Place of the first limit among the charges.
        hits: Hits asked for.
    """

    recipes: tuple[Recipe, ...]
    first: int
    hits: int


class SeveralPlan(msgspec.Struct, gc=False):
    """A resolved request of several limits; `used` and `size_bytes` as in `Plan`."""

    store: Store
    charges: EnforcedCharges
    sides: tuple[_Side, ...]
    size_bytes: int
    used: bool = False


def plan_several(recipes: Recipes, domain: Domain, request: Request) -> SeveralPlan | None:
    """The plan of a request that is not refused, None unless all of its descriptors are plain."""
    if not recipes.any_simple or not 0 < len(request.descriptors) <= _MOST_DESCRIPTORS:
        return None
    sides: list[_Side] = []
    charges: list[Charge] = []
    for unit, descriptor in enumerate(request.descriptors):
        if descriptor.override is not None or descriptor.is_negative:
            return None
        rule = match(domain, descriptor.entries)
        found = None if rule is None else recipes.of_rule(domain, rule, descriptor)
        if rule is None or found is None or rule.replaces:
            return None
        key, hits = recipes.counted(rule, request, descriptor)
        sides.append(_Side(found, len(charges), hits))
        charges += [Charge(recipe.identity, recipe.limit, key, hits, unit=unit) for recipe in found]
    together = as_enforced(charges)
    if not isinstance(together, EnforcedCharges):
        return None
    size_bytes = _PLAN_BYTES + _SIDE_BYTES * len(sides) + _CHARGE_BYTES * len(charges)
    return SeveralPlan(sides[0].recipes[0].store, together, tuple(sides), size_bytes)


def answer_several(plan: SeveralPlan, outcomes: Sequence[Outcome]) -> bytes:
    """Count and encode the outcomes of a plan."""
    parts = [b"\x08\x01"]
    for side in plan.sides:
        recipes, place, hits = side.recipes, side.first, side.hits
        recipe, outcome = recipes[0], outcomes[place]
        over, near = outcome.over, 0
        if not over and outcome.before + hits > recipe.near:
            near = min(hits, outcome.before + hits - recipe.near)
        for other in recipes[1:]:
            place += 1
            said = outcomes[place]
            if said.over:
                # Over, the longest wait is shown; never is the longest.
                if not over or (outcome.wait_us != NEVER_US and not -1 < said.wait_us <= outcome.wait_us):
                    recipe, outcome = other, said
                over = True
                continue
            if said.before + hits > other.near:
                near = max(near, min(hits, said.before + hits - other.near))
            # Not over, the least remaining share is.
            if not over and said.remaining / other.burst < outcome.remaining / recipe.burst:
                recipe, outcome = other, said
        counters = recipe.counters
        counters.hits += hits
        counters.near_limit_hits += near
        if over:
            counters.over += 1
            parts[0] = b"\x08\x02"
            wait_s = reset_s(outcome)
            body = recipe.head_over if wait_s is None else recipe.head_over + reset_field(wait_s)
        else:
            counters.ok += 1
            wait_s = -(-outcome.wait_us // _US_PER_S)
            body = (
                recipe.head_ok
                + remaining_field(outcome.remaining)
                + (RESET[wait_s] if wait_s < len(RESET) else reset_field(wait_s))
            )
        parts += (_STATUS[len(body)], body)
    return b"".join(parts)
