"""The most frequent request, from plan to bytes without a detour.

One descriptor, one enforced limit, nothing to add to its status: the response is a code, one status, and in it the
code, the limit (the same for every request of a rule), what remains and when it resets. What does not depend on the
request is kept as a recipe per rule, so that a key that was never seen costs little more than its decoding.
`planning`, `verdict` and `encode_response` give the same answer the long way, which a property holds this to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Instant, Limit
from ratelimit_service.limiter.labels import Labels, shows_values
from ratelimit_service.limiter.near import near_threshold
from ratelimit_service.limiter.plan import current_limit
from ratelimit_service.limiter.planning import MOST_HITS, role_of
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.limiter.verdict import reset_s
from ratelimit_service.policy.identity import counter_key
from ratelimit_service.policy.match import match
from ratelimit_service.policy.snapshot import Action, Domain, HeaderStyle, Rule, RuleLimit
from ratelimit_service.quota.prompt import Counted, Glance, LeasingStore, PromptStore
from ratelimit_service.quota.store import Charge, Outcome, Role, Store
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.telemetry.counters import RuleCounters
from ratelimit_service.wire.protobuf import write_varint
from ratelimit_service.wire.rls.encode import encode_response
from ratelimit_service.wire.rls.messages import Descriptor, Request, Status, Verdict

_MOST: Final = 2**32 - 1
_US_PER_S: Final = 1_000_000
_TABLE_SIZE: Final = 4_096
_REMAINING: Final = [b"", *(b"\x18" + write_varint(count) for count in range(1, _TABLE_SIZE))]
"""Field 3 of a status, for small counts."""
_LOW_BITS: Final = 14
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_LOW: Final[list[bytes]] = [b""] * (_LOW_MASK + 1)
"""Field 3's tag and the first two bytes of a longer count, by its low bits; made when first needed."""
_HIGH: Final = [write_varint(high) for high in range(1_024)]
"""The bytes that follow, by the high bits: counts up to 16 million have entries."""
RESET: Final = [
    b"\x22\x00",
    *(b"\x22" + bytes((1 + len(write_varint(s)),)) + b"\x08" + write_varint(s) for s in range(1, _TABLE_SIZE)),
]
"""Field 4 of a status, a Duration, for up to about an hour."""
_OK: Final = [b"\x08\x01\x12" + write_varint(size) for size in range(512)]
_OVER: Final = [b"\x08\x02\x12" + write_varint(size) for size in range(512)]
"""Overall code, then tag and length of a status."""
_GRAVES_PER_RULE: Final = 4
"""What was known of so many rules is freed whenever a rule is met for the first time."""
_LONGEST_HEAD: Final = 480
"""Leaves room in `_OK` for what remains and when it resets."""
_PLAN_BYTES: Final = 120
"""Plan and the key's object, measured on CPython 3.11 and 3.13 with tracemalloc and rounded up."""


class Recipe(msgspec.Struct, frozen=True, gc=False):
    """What the simple requests of one limit have in common.

    Attributes:
        store: Counts them.
        take: Where the store decides one charge at once: its `charge_one`.
        at_hand: Where it decides some at once: its `at_hand`.
        identity, limit: The limit.
        counters: Metrics.
        near: Hits above this are near the limit.
        burst: The limit's, at least 1.
        head_ok, head_over: A status' bytes before `limit_remaining`.
    """

    store: Store
    take: Callable[[Counted, bytes, int, Instant], Outcome] | None
    at_hand: Glance | None
    identity: bytes
    limit: Limit
    counters: RuleCounters
    near: int
    burst: int
    head_ok: bytes
    head_over: bytes


class SimplePlan(msgspec.Struct, gc=False):
    """A resolved simple request; `used` and `size_bytes` as in `Plan`."""

    recipe: Recipe
    key: bytes
    hits: int
    used: bool = False
    size_bytes: int = _PLAN_BYTES

    @property
    def charges(self) -> tuple[Charge]:
        """What it asks of a store that may have to be asked later."""
        return (Charge(self.recipe.identity, self.recipe.limit, self.key, self.hits),)


class _Known(msgspec.Struct, frozen=True, gc=False):
    """What was made of a rule, which is kept so that its id is not given to another.

    Attributes:
        recipes: Of its limits; None: it is not plain.
        counts_values: Its counters' keys are made of the values that come, nothing stands in for one.
    """

    rule: Rule
    recipes: tuple[Recipe, ...] | None
    counts_values: bool


class Recipes:
    """Recipes by rule, each made when a request first meets the rule.

    Args:
        settings: Process-wide switches; some leave no request simple.
        table: Where counters of rules come from.
        labels: What the rules are called there.
        store_of: The store that counts a domain's hits.

    Attributes:
        any_simple: The switches leave requests that are simple.
    """

    def __init__(
        self, settings: LimiterSettings, table: CounterTable, labels: Labels, store_of: Callable[[Domain], Store]
    ) -> None:
        self._settings = settings
        self._table = table
        self._labels = labels
        self._store_of = store_of
        self.any_simple = not (
            settings.compat
            or settings.shadow_mode
            or settings.quota_mode
            or settings.response_headers
            or settings.response_dynamic_metadata
        )
        # By identity: hashing a rule would read all of it.
        self._by_rule: dict[int, _Known] = {}
        self._graves: list[dict[int, _Known]] = []

    def clear(self) -> None:
        """Forget all: another snapshot is in force. What was known is freed little by little, as rules are met."""
        if self._by_rule:
            self._graves.append(self._by_rule)
        self._by_rule = {}

    def _bury(self) -> None:
        """Free some of what was cleared; twice as fast as there can be more of it."""
        grave = self._graves[-1]
        for _ in range(min(_GRAVES_PER_RULE, len(grave))):
            grave.popitem()
        if not grave:
            self._graves.pop()

    def plan(self, domain: Domain, request: Request) -> SimplePlan | None:
        """The plan of a request that is not refused, None unless it is simple."""
        if len(request.descriptors) != 1 or not self.any_simple:
            return None
        descriptor = request.descriptors[0]
        if descriptor.override is not None or descriptor.is_negative:
            return None
        rule = match(domain, descriptor.entries)
        if rule is None:
            return None
        recipes = self.of_rule(domain, rule, descriptor)
        if recipes is None or len(recipes) != 1:
            return None
        key, hits = self.counted(rule, request, descriptor)
        return SimplePlan(recipes[0], key, hits)

    @staticmethod
    def counted(rule: Rule, request: Request, descriptor: Descriptor) -> tuple[bytes, int]:
        """(key, hits) of a descriptor that meets a rule."""
        values = [value for _, value in descriptor.entries]
        for place, bucket in enumerate(rule.shared):
            if bucket is not None:
                values[place] = bucket
        hits = descriptor.hits
        # As `hits_of`, which costs a tenth of all that is done here.
        if hits is None:
            hits = request.hits_addend or 1
        elif hits > MOST_HITS:
            hits = MOST_HITS
        return counter_key(values), hits

    def of_rule(self, domain: Domain, rule: Rule, descriptor: Descriptor) -> tuple[Recipe, ...] | None:
        """Recipes of a rule's limits, None unless it is plain."""
        known = self._by_rule.get(id(rule))
        if known is None:
            counts_values = all(bucket is None for bucket in rule.shared)
            known = self._by_rule[id(rule)] = _Known(rule, self._make(domain, rule, descriptor), counts_values)
            if self._graves:
                self._bury()
        return known.recipes

    def made(self, rule: Rule) -> tuple[Recipe, ...] | None:
        """As `of_rule`, of a rule that was met before and counts the values that come; else None."""
        known = self._by_rule.get(id(rule))
        return known.recipes if known is not None and known.counts_values else None

    def _make(self, domain: Domain, rule: Rule, descriptor: Descriptor) -> tuple[Recipe, ...] | None:
        is_plain = (
            rule.action is Action.LIMIT
            and rule.rollout is None
            and rule.headers is HeaderStyle.OFF
            and not shows_values(rule)
            and role_of(rule, self._settings) is Role.ENFORCE
        )
        if not is_plain:
            return None
        counters = self._table.rule(rule.domain, self._labels.label(rule, descriptor))
        recipes = tuple(self._recipe(domain, entry, rule.limit_name, counters) for entry in rule.limits)
        return None if any(len(recipe.head_ok) > _LONGEST_HEAD for recipe in recipes) else recipes

    def _recipe(self, domain: Domain, entry: RuleLimit, name: str, counters: RuleCounters) -> Recipe:
        store = self._store_of(domain)
        shown = current_limit(entry.limit, name)
        head_ok, head_over = (_status_head(Status(over, shown)) for over in (False, True))
        return Recipe(
            store=store,
            take=store.charge_one if isinstance(store, PromptStore) else None,
            at_hand=store.at_hand if isinstance(store, LeasingStore) else None,
            identity=entry.identity,
            limit=entry.limit,
            counters=counters,
            near=near_threshold(entry.limit, self._settings.near_limit_ratio),
            burst=max(1, entry.limit.burst),
            head_ok=head_ok,
            head_over=head_over,
        )


def _status_head(status: Status) -> bytes:
    """A status' fields before `limit_remaining`."""
    whole = encode_response(Verdict(status.over, (status,)))
    # Overall code 2 bytes, tag 1, then the length's varint.
    at = 3
    while whole[at] >= 0x80:
        at += 1
    return whole[at + 1 :]


def answer_simple(recipe: Recipe, hits: int, outcome: Outcome) -> bytes:
    """Count and encode the one outcome of a simple request."""
    counters = recipe.counters
    counters.hits += hits
    if outcome.over:
        counters.over += 1
        body = recipe.head_over
        wait_s = reset_s(outcome)
        if wait_s is not None:
            body += RESET[wait_s] if wait_s < _TABLE_SIZE else reset_field(wait_s)
        return _OVER[len(body)] + body
    counters.ok += 1
    after = outcome.before + hits
    if after > recipe.near:
        counters.near_limit_hits += min(hits, after - recipe.near)
    wait_s = -(-outcome.wait_us // _US_PER_S)
    body = (
        recipe.head_ok
        + remaining_field(outcome.remaining)
        + (RESET[wait_s] if wait_s < _TABLE_SIZE else reset_field(wait_s))
    )
    return _OK[len(body)] + body


def remaining_field(count: int) -> bytes:
    """Field 3 of a status; saturates."""
    if count < _TABLE_SIZE:
        return _REMAINING[count]
    high = count >> _LOW_BITS
    if 0 < high < len(_HIGH):
        low = count & _LOW_MASK
        return (_LOW[low] or _low_bytes(low)) + _HIGH[high]
    return b"\x18" + write_varint(min(count, _MOST))


def _low_bytes(low: int) -> bytes:
    made = _LOW[low] = bytes((0x18, low & 0x7F | 0x80, low >> 7 | 0x80))
    return made


def reset_field(seconds: int) -> bytes:
    """Field 4 of a status, a Duration."""
    if seconds < _TABLE_SIZE:
        return RESET[seconds]
    number = write_varint(seconds)
    return b"\x22" + bytes((1 + len(number),)) + b"\x08" + number
