"""The admin pages: one handler each, and the table of them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.identity import shown_values
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.quota.health import CountingStatus
from ratelimit_service.quota.store import NEVER_US, Usage
from ratelimit_service.telemetry.exposition import CONTENT_TYPE as METRICS_TYPE
from ratelimit_service.transport.admin_routes import JSON, TEXT, Page, Query, Route, refusal
from ratelimit_service.transport.admin_service import AdminView
from ratelimit_service.transport.rlconfig import render_rlconfig
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.messages import Descriptor, Request
from ratelimit_service.wire.rls.protojson import MalformedJson, decode_request_json, encode_verdict_json

MAX_PROBLEMS = 50
"""Problems that `/readyz` lists; it counts the rest."""

_NO_CONFIGURATION: Final = refusal(503, "no configuration is in force")
_MAX_PAGE: Final = 1_000_000
_UINT32_MAX: Final = 2**32 - 1


class _CounterRow(msgspec.Struct, frozen=True):
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


class _ConfigSummary(msgspec.Struct, frozen=True):
    """`/debug/config`."""

    program: str
    version: str | None
    domains: int
    rules: int
    ready: bool
    reason: str
    problems: Sequence[str]


async def livez(_view: AdminView, _query: Query) -> Page:
    """200 while the process turns its event loop."""
    return Page(200, b"ok\n")


async def readyz(view: AdminView, _query: Query) -> Page:
    """200 while traffic should come; the body names problems that do not keep it away (DECISIONS 34)."""
    state = view.readiness()
    lines = ["ok" if state.ready else f"not ready: {state.reason}"]
    if state.problems:
        lines[0] += "; degraded" if state.ready else ""
        lines += state.problems[:MAX_PROBLEMS]
    if len(state.problems) > MAX_PROBLEMS:
        lines.append(f"and {len(state.problems) - MAX_PROBLEMS} more")
    text = "".join(f"{line}\n" for line in lines)
    return Page(200 if state.ready else 503, text.encode("utf-8", "backslashreplace"))


async def healthcheck(view: AdminView, query: Query) -> Page:
    """`/readyz` as upstream's probes expect it: the body is `OK`."""
    return Page(200, b"OK") if view.readiness().ready else await readyz(view, query)


async def health_cache(view: AdminView, _query: Query) -> Page:
    """How each store is, level by level; 503 only when keys find no room: what the failure mode answers is served."""
    health = view.cache_health()
    status = 503 if health.status is CountingStatus.UNHEALTHY else 200
    return Page(status, msgspec.json.encode(health) + b"\n", JSON)


async def metrics(view: AdminView, _query: Query) -> Page:
    """Prometheus' text format."""
    return Page(200, view.render_metrics(), METRICS_TYPE)


async def decide_json(view: AdminView, query: Query) -> Page:
    """Upstream's `/json`: OK 200, OVER_LIMIT 429, bad JSON and errors of the service 400."""
    try:
        request = decode_request_json(query.body)
    except MalformedJson as error:
        return _bad_request(error)
    answer = await view.decide(request)
    if isinstance(answer, GrpcError):
        return refusal(500 if answer.code is GrpcCode.INTERNAL else 400, f"{answer.code.name}: {answer.message}")
    return Page(429 if answer.over else 200, encode_verdict_json(answer), JSON)


async def rlconfig(view: AdminView, _query: Query) -> Page:
    """Every limit in force, a line each."""
    snapshot = view.snapshot()
    return _NO_CONFIGURATION if snapshot is None else Page(200, render_rlconfig(snapshot), TEXT)


async def explain(view: AdminView, query: Query) -> Page:
    """Why a request would be decided as it would; GET takes one descriptor, POST what `/json` takes."""
    if view.snapshot() is None:
        return _NO_CONFIGURATION
    try:
        request = decode_request_json(query.body) if query.method == "POST" else _request_of_fields(query)
    except MalformedJson as error:
        return _bad_request(error)
    return Page(200, await view.explain(request), JSON)


async def counters(view: AdminView, query: Query) -> Page:
    """Live counters of a domain, 100 a page."""
    snapshot = view.snapshot()
    if snapshot is None:
        return _NO_CONFIGURATION
    try:
        name = _one(query, "domain", None)
        page = _whole(query, "page", _MAX_PAGE)
    except MalformedJson as error:
        return _bad_request(error)
    domain = snapshot.domains.get(name)
    if domain is None:
        return refusal(404, f"no domain {name.decode('utf-8', 'backslashreplace')!r} is in force")
    rows = _rows(snapshot, domain.profile, await view.usage(domain.name, page))
    return Page(200, msgspec.json.encode(rows) + b"\n", JSON)


async def debug_config(view: AdminView, _query: Query) -> Page:
    """Which version is in force, and how much it holds."""
    snapshot, state = view.snapshot(), view.readiness()
    domains = [] if snapshot is None else list(snapshot.domains.values())
    summary = _ConfigSummary(
        program=view.version,
        version=None if snapshot is None else snapshot.version,
        domains=len(domains),
        rules=sum(len(domain.rules) for domain in domains),
        ready=state.ready,
        reason=state.reason,
        problems=state.problems,
    )
    return Page(200, msgspec.json.encode(summary) + b"\n", JSON)


async def index(_view: AdminView, _query: Query) -> Page:
    """The list of pages."""
    return Page(200, "".join(f"{route.path:<14} {route.meaning}\n" for route in ROUTES).encode())


def _bad_request(error: MalformedJson) -> Page:
    # A lone surrogate in a field's name would not encode.
    return refusal(400, str(error).encode("utf-8", "backslashreplace").decode())


def _one(query: Query, name: str, default: bytes | None) -> bytes:
    """The only value of a field; `default` None: it must be there."""
    values = [value for field, value in query.fields if field == name]
    if len(values) > 1:
        raise MalformedJson(f"{name}: given twice")
    if values and values[0]:
        return values[0]
    if default is None:
        raise MalformedJson(f"{name}: missing")
    return default


def _whole(query: Query, name: str, high: int) -> int:
    text = _one(query, name, b"0")
    if not text.isdigit() or len(text) > 10 or int(text) > high:
        raise MalformedJson(f"{name}: not a whole number from 0 to {high}")
    return int(text)


def _request_of_fields(query: Query) -> Request:
    """`?domain=D&entry=k=v&entry=…&hits=N`; percent escapes carry any bytes."""
    pairs = [value.partition(b"=") for field, value in query.fields if field == "entry"]
    if not pairs:
        raise MalformedJson("entry: missing, write entry=KEY=VALUE")
    entries = tuple((key, value) for key, _, value in pairs)
    hits = _whole(query, "hits", _UINT32_MAX)
    return Request(domain=_one(query, "domain", None), descriptors=(Descriptor(entries=entries),), hits_addend=hits)


def _rows(snapshot: Snapshot, profile: str, usages: Sequence[Usage]) -> list[_CounterRow]:
    limits = snapshot.limits.get(profile, {})
    rows = []
    for usage in usages:
        settings = limits.get(usage.identity)
        if settings is None and usage.identity:  # its rule has just gone
            continue
        rows.append(
            _CounterRow(
                rule=None if settings is None else settings.rule,
                algorithm=None if settings is None else settings.limit.algorithm.value,
                requests=None if settings is None else settings.limit.requests,
                key=shown_values(usage.key),
                used=usage.used,
                remaining=None if settings is None else usage.remaining,
                wait_us=None if usage.wait_us == NEVER_US else usage.wait_us,
            )
        )
    return rows


ROUTES: Final = (
    Route("/", ("GET",), index, "this list"),
    Route("/livez", ("GET",), livez, "the process answers"),
    Route("/readyz", ("GET",), readyz, "a configuration is in force and the service is not draining"),
    Route("/healthcheck", ("GET",), healthcheck, "the same with the body OK"),
    Route("/health/cache", ("GET",), health_cache, "the stores that hits are counted in"),
    Route("/metrics", ("GET",), metrics, "for Prometheus"),
    Route("/json", ("POST",), decide_json, "decide a request sent as JSON", "/json"),
    Route("/rlconfig", ("GET",), rlconfig, "the limits in force", "/rlconfig"),
    Route("/explain", ("GET", "POST"), explain, "why a request is decided as it is", "/explain"),
    Route("/counters", ("GET",), counters, "live counters of a domain", "/counters"),
    Route("/debug/config", ("GET",), debug_config, "the version in force", "/debug"),
)
"""Every page; guards are those of `settings.LOOPBACK_ONLY`."""
