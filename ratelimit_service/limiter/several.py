"""The frequent request with several limits, from plan to bytes without a detour.

As `simple`, for a few descriptors that all meet plain rules of one or more limits: nothing is refunded, shadowed,
replaced or rolled out, and nothing is added to the statuses. `planning`, `verdict` and `encode_response` give the same
answer the long way, which a property holds this to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.limiter.direct import MOST_DESCRIPTORS, read_plain
from ratelimit_service.limiter.simple import RESET, Recipe, Recipes, SimplePlan, remaining_field, reset_field
from ratelimit_service.limiter.verdict import reset_s
from ratelimit_service.policy.match import match
from ratelimit_service.policy.snapshot import Domain
from ratelimit_service.quota.prompt import PromptStore, enforced_charges
from ratelimit_service.quota.store import NEVER_US, Charge, Outcome, Store
from ratelimit_service.wire.protobuf import write_varint
from ratelimit_service.wire.rls.messages import Request

_US_PER_S: Final = 1_000_000
_MOST_FORMS: Final = 1_000
_PLAN_BYTES: Final = 120
_KEY_BYTES: Final = 50
"""Measured on CPython 3.11 and 3.13 with tracemalloc and rounded up; the form is shared."""
_STATUS: Final = [b"\x12" + write_varint(size) for size in range(512)]
"""Tag and length of a status in a response."""

_Counted = tuple[tuple[Recipe, ...], bytes, int]
"""Recipes of a descriptor's rule, key of its counters, hits."""
_Charging = Callable[["Form", Sequence[bytes], Instant], Sequence[Outcome]]


class Side(msgspec.Struct, frozen=True, gc=False):
    """One descriptor.

    Attributes:
        limits: Recipes of its limits, in order; all of one rule, and so with the same counters.
        hits: Hits asked for.
    """

    limits: tuple[Recipe, ...]
    hits: int


class Form(msgspec.Struct, frozen=True):
    """What requests that meet the same rules have in common.

    Attributes:
        store: Counts them.
        charge: Where the store decides at once: its `charge_form`.
        sides: By descriptor.
        charges: Limits of all sides together.
    """

    store: Store
    charge: _Charging | None
    sides: tuple[Side, ...]
    charges: int


class SeveralPlan(msgspec.Struct, gc=False):
    """A resolved request of several limits: `keys` are those of the form's sides; the rest is as in `Plan`."""

    form: Form
    keys: tuple[bytes, ...]
    size_bytes: int
    used: bool = False

    @property
    def charges(self) -> tuple[Charge, ...]:
        """What it asks of a store that may have to be asked later."""
        return enforced_charges(self.form, self.keys)


class Forms:
    """Forms by the limits that they charge, each made when a request first needs it; a bounded number."""

    def __init__(self) -> None:
        # By identity, as `Recipes` has it; a form keeps its recipes, so that their ids are not given to others.
        self._known: dict[tuple[int, ...], Form] = {}

    def clear(self) -> None:
        """Forget all: another snapshot is in force."""
        self._known = {}

    def plan(self, counted: Sequence[_Counted]) -> SeveralPlan | None:
        """One plan of all descriptors, None when two of them count the same."""
        key = tuple([number for found, _, hits in counted for number in (id(found), hits)])
        form = self._known.get(key)
        if form is None:
            form = _make_form(counted)
            if form is None:
                return None
            if len(self._known) >= _MOST_FORMS:
                self._known.clear()
            self._known[key] = form
        return SeveralPlan(form, tuple([key for _, key, _ in counted]), _PLAN_BYTES + _KEY_BYTES * len(counted))


def _make_form(counted: Sequence[_Counted]) -> Form | None:
    limits = [recipe for found, _, _ in counted for recipe in found]
    if len({recipe.identity for recipe in limits}) != len(limits):
        return None
    store = limits[0].store
    charge = store.charge_form if isinstance(store, PromptStore) else None
    return Form(store, charge, tuple(Side(found, hits) for found, _, hits in counted), len(limits))


def plan_several(recipes: Recipes, forms: Forms, domain: Domain, request: Request) -> SeveralPlan | None:
    """The plan of a request that is not refused, None unless all of its descriptors are plain."""
    if not recipes.any_simple or not 0 < len(request.descriptors) <= MOST_DESCRIPTORS:
        return None
    counted: list[_Counted] = []
    for descriptor in request.descriptors:
        if descriptor.override is not None or descriptor.is_negative:
            return None
        rule = match(domain, descriptor.entries)
        found = None if rule is None else recipes.of_rule(domain, rule, descriptor)
        if rule is None or found is None or rule.replaces:
            return None
        counted.append((found, *recipes.counted(rule, request, descriptor)))
    return forms.plan(counted)


def plan_directly(
    recipes: Recipes, forms: Forms, body: bytes, domains: Mapping[bytes, Domain]
) -> SimplePlan | SeveralPlan | None:
    """The plan of request bytes as most clients send them, of rules that were met before; None: go the long way."""
    met = read_plain(body, domains)
    if met is None:
        return None
    if len(met) == 1:
        rule, key = met[0]
        found = recipes.made(rule)
        if found is None:
            return None
        if len(found) == 1:
            return SimplePlan(found[0], key, 1)
    counted: list[_Counted] = []
    for rule, key in met:
        found = recipes.made(rule)
        if found is None or rule.replaces:
            return None
        counted.append((found, key, 1))
    return forms.plan(counted)


def answer_several(form: Form, outcomes: Sequence[Outcome]) -> bytes:
    """Count and encode the outcomes of a request of this form."""
    parts = [b"\x08\x01"]
    place = -1
    for side in form.sides:
        recipes, hits = side.limits, side.hits
        place += 1
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
