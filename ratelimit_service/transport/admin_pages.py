"""The admin pages: one handler each, and the table of them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_service.quota.health import CountingStatus
from ratelimit_service.telemetry.exposition import CONTENT_TYPE as METRICS_TYPE
from ratelimit_service.transport.admin_counters import counters, reset
from ratelimit_service.transport.admin_fields import NO_CONFIGURATION, bad_request, request_of_fields
from ratelimit_service.transport.admin_routes import JSON, TEXT, Page, Query, Route, refusal
from ratelimit_service.transport.admin_service import AdminView, Readiness
from ratelimit_service.transport.rlconfig import render_rlconfig
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.protojson import MalformedJson, decode_request_json, encode_verdict_json

MAX_PROBLEMS = 50
"""Problems that `/readyz` lists; it counts the rest."""


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
    return readiness_page(view.readiness())


def readiness_page(state: Readiness) -> Page:
    """What `/readyz` says of a state."""
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
        return bad_request(error)
    answer = await view.decide(request)
    if isinstance(answer, GrpcError):
        return refusal(500 if answer.code is GrpcCode.INTERNAL else 400, f"{answer.code.name}: {answer.message}")
    return Page(429 if answer.over else 200, encode_verdict_json(answer), JSON)


async def rlconfig(view: AdminView, _query: Query) -> Page:
    """Every limit in force, a line each."""
    snapshot = view.snapshot()
    return NO_CONFIGURATION if snapshot is None else Page(200, render_rlconfig(snapshot), TEXT)


async def explain(view: AdminView, query: Query) -> Page:
    """Why a request would be decided as it would; GET takes one descriptor, POST what `/json` takes."""
    if view.snapshot() is None:
        return NO_CONFIGURATION
    try:
        request = decode_request_json(query.body) if query.method == "POST" else request_of_fields(query)
    except MalformedJson as error:
        return bad_request(error)
    return Page(200, await view.explain(request), JSON)


async def debug_config(view: AdminView, _query: Query) -> Page:
    """Which version is in force, and how much it holds."""
    snapshot, state = view.snapshot(), view.readiness()
    summary = _ConfigSummary(
        program=view.version,
        version=None if snapshot is None else snapshot.version,
        domains=0 if snapshot is None else len(snapshot.domains),
        rules=0 if snapshot is None else snapshot.rule_count,
        ready=state.ready,
        reason=state.reason,
        problems=state.problems,
    )
    return Page(200, msgspec.json.encode(summary) + b"\n", JSON)


async def index(_view: AdminView, _query: Query) -> Page:
    """The list of pages."""
    return Page(200, "".join(f"{route.path:<14} {route.meaning}\n" for route in ROUTES).encode())


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
    Route("/reset", ("POST",), reset, "begin the counters of a request anew", "/reset"),
    Route("/debug/config", ("GET",), debug_config, "the version in force", "/debug"),
)
"""Every page; guards are those of `settings.LOOPBACK_ONLY`."""
