"""The admin pages of live counters: what is used of every limit, and how to begin one anew."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import LimitSettings
from ratelimit_service.policy.identity import shown_values
from ratelimit_service.policy.snapshot import Domain
from ratelimit_service.quota.store import NEVER_US, Usage
from ratelimit_service.transport.admin_fields import NO_CONFIGURATION, bad_request, one_field, request_of, whole_field
from ratelimit_service.transport.admin_routes import JSON, Page, Query, refusal
from ratelimit_service.transport.admin_service import AdminView
from ratelimit_service.wire.rls.protojson import MalformedJson

MOST_SUMMED: Final = 100_000
"""Counters of a domain that a summary goes through."""

_MAX_PAGE: Final = 1_000_000
_MAX_TOP: Final = 1_000
_TOP: Final = 10


class CounterRow(msgspec.Struct, frozen=True):
    """One line of `/counters`; `key` is the counted values (`shown_values`).

    In compat mode keys are all there is: whose limit a count belongs to is None.
    """

    rule: str | None
    algorithm: str | None
    requests: int | None
    key: list[str]
    used: int
    remaining: int | None
    wait_us: int | None


class LimitUsage(msgspec.Struct, frozen=True):
    """What is used of one limit by all of its keys.

    Attributes:
        rule, algorithm, requests, window_us: The limit, None as in `CounterRow`; `window_us` 0: a calendar's.
        keys: Keys that count something.
        used: Hits counted, over all keys.
        exhausted: Keys with nothing left.
        top: Keys with the most hits, the most first.
    """

    rule: str | None
    algorithm: str | None
    requests: int | None
    window_us: int | None
    keys: int
    used: int
    exhausted: int
    top: list[CounterRow]


class UsageSummary(msgspec.Struct, frozen=True):
    """`/counters?by=limit`.

    Attributes:
        domain: As asked.
        whole: Every counter is in it; False: the domain has more than `MOST_SUMMED`.
        limits: Those with a live counter, the most used first.
    """

    domain: str
    whole: bool
    limits: list[LimitUsage]


async def counters(view: AdminView, query: Query) -> Page:
    """Live counters of a domain: 100 a page, or with `by=limit` their sums and the keys that use the most."""
    snapshot = view.snapshot()
    if snapshot is None:
        return NO_CONFIGURATION
    try:
        name = one_field(query, "domain", None)
        page = whole_field(query, "page", _MAX_PAGE)
        top = whole_field(query, "top", _MAX_TOP, _TOP)
        by = one_field(query, "by", b"key")
        if by not in {b"key", b"limit"}:
            raise MalformedJson("by: neither key nor limit")  # noqa: TRY301 — told as the others are
    except MalformedJson as error:
        return bad_request(error)
    domain = snapshot.domains.get(name)
    if domain is None:
        return refusal(404, f"no domain {name.decode('utf-8', 'backslashreplace')!r} is in force")
    limits = snapshot.limits.get(domain.profile, {})
    found = await (_summed(view, domain, limits, top) if by == b"limit" else _listed(view, domain, limits, page))
    if found is None:
        return refusal(503, f"the store of domain {domain.name!r} does not answer; /readyz and the log say why")
    return Page(200, msgspec.json.encode(found) + b"\n", JSON)


async def reset(view: AdminView, query: Query) -> Page:
    """Begin anew what a request would be counted in: 200 with what was there, 404 where nothing is counted.

    503: the store did not answer about one of them; then it may be begun anew, or not.
    """
    if view.snapshot() is None:
        return NO_CONFIGURATION
    try:
        request = request_of(query)
    except MalformedJson as error:
        return bad_request(error)
    answer = await view.reset(request)
    counted = [counter for counter in answer.counters if counter.key]
    status = 200
    if not counted:
        status = 400 if answer.problem else 404
    elif any(counter.counted is None for counter in counted):
        status = 503
    return Page(status, msgspec.json.encode(answer) + b"\n", JSON)


_Limits = Mapping[bytes, LimitSettings]


async def _listed(view: AdminView, domain: Domain, limits: _Limits, page: int) -> list[CounterRow] | None:
    usages = await view.usage(domain.name, page)
    return None if usages is None else list(_rows(limits, usages))


async def _summed(view: AdminView, domain: Domain, limits: _Limits, top: int) -> UsageSummary | None:
    """Go through the pages, with a turn of the loop between them."""
    sums: dict[bytes, _Sum] = {}
    seen = page = 0
    is_whole = False
    while seen < MOST_SUMMED and not is_whole:
        usages = await view.usage(domain.name, page)
        if usages is None:
            return None
        for usage in usages:
            if usage.identity in limits or not usage.identity:
                sums.setdefault(usage.identity, _Sum(top)).add(usage)
        seen, page, is_whole = seen + len(usages), page + 1, not usages
        await asyncio.sleep(0)
    shown = [each.shown(limits.get(identity), limits) for identity, each in sums.items()]
    return UsageSummary(domain.name, is_whole, sorted(shown, key=lambda one: (-one.used, one.rule or "")))


class _Sum:
    """Adds up the counters of one limit, and remembers the greatest."""

    def __init__(self, top: int) -> None:
        self._most = top
        self._top: list[tuple[int, int, Usage]] = []
        self._keys = self._used = self._exhausted = 0

    def add(self, usage: Usage) -> None:
        self._keys += 1
        self._used += usage.used
        self._exhausted += bool(usage.identity) and not usage.remaining
        heapq.heappush(self._top, (usage.used, -self._keys, usage))
        if len(self._top) > self._most:
            heapq.heappop(self._top)

    def shown(self, settings: LimitSettings | None, limits: _Limits) -> LimitUsage:
        limit = None if settings is None else settings.limit
        return LimitUsage(
            rule=None if settings is None else settings.rule,
            algorithm=None if limit is None else limit.algorithm.value,
            requests=None if limit is None else limit.requests,
            window_us=None if limit is None else limit.window_us,
            keys=self._keys,
            used=self._used,
            exhausted=self._exhausted,
            top=list(_rows(limits, [usage for _, _, usage in sorted(self._top, reverse=True)])),
        )


def _rows(limits: _Limits, usages: Sequence[Usage]) -> Iterator[CounterRow]:
    for usage in usages:
        settings = limits.get(usage.identity)
        if settings is None and usage.identity:  # its rule has just gone
            continue
        yield CounterRow(
            rule=None if settings is None else settings.rule,
            algorithm=None if settings is None else settings.limit.algorithm.value,
            requests=None if settings is None else settings.limit.requests,
            key=shown_values(usage.key),
            used=usage.used,
            remaining=None if settings is None else usage.remaining,
            wait_us=None if usage.wait_us == NEVER_US else usage.wait_us,
        )
