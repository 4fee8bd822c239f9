"""Metrics of the operator; every name begins with `tidegate_operator_`. Rendered when they are asked for."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ratelimit_operator.api.conditions import ConditionType
from ratelimit_operator.plan.distribution import Enforcement


class Family(msgspec.Struct, frozen=True):
    """One metric.

    Attributes:
        name: Without the common begin.
        kind: `counter` or `gauge`.
        help: What it counts, as a sentence.
    """

    name: str
    kind: str
    help: str


CATALOGUE: Final[Mapping[str, Family]] = {
    each.name: each
    for each in (
        Family("leader", "gauge", "1: this process holds the Lease, serves xDS and writes status."),
        Family("ready", "gauge", "1: everything was listed and compiled and is given to the replicas."),
        Family("policies", "gauge", "RateLimitPolicies by condition and its status."),
        Family("profiles", "gauge", "CacheProfiles."),
        Family("compile_duration_seconds_sum", "gauge", "Seconds of the last 1000 compilations together."),
        Family("compilations_total", "counter", "Compilations since the start."),
        Family("snapshot_info", "gauge", "1, with the version of what is given to the replicas."),
        Family("enforcement_shadow", "gauge", "1: the kill switch says Shadow, nothing is rejected anywhere."),
        Family("rolled_back", "gauge", "1, with the version: a kept set is given out, whatever is applied."),
        Family("replicas", "gauge", "Replicas that there should be: ready endpoints and connected nodes together."),
        Family("xds_clients", "gauge", "Open xDS streams."),
        Family("xds_responses_total", "counter", "Answers of replicas by result."),
        Family("xds_held", "gauge", "1: the newest set is held back."),
        Family("quarantined", "gauge", "Resources that replicas refuse; their last accepted form is live."),
        Family("propagation_seconds", "gauge", "From publishing until every replica ran the newest set."),
        Family("watch_last_event_age_seconds", "gauge", "Seconds since the last event by kind."),
        Family("list_age_seconds", "gauge", "Seconds since the last complete list by kind."),
        Family("ghost_objects_total", "counter", "Objects that a list showed to be gone without an event, by kind."),
        Family("status_writes_total", "counter", "Writes of status by result."),
        Family("events_total", "counter", "Kubernetes Events by result: posted, suppressed, failed."),
        Family("api_requests_total", "counter", "Requests to the API server by verb and class of their status."),
        Family("resident_memory_bytes", "gauge", "Most memory of the process so far."),
    )
}
"""Every metric, in the order of the page."""

PREFIX: Final = "tidegate_operator_"
"""Begin of every name."""

Sample = tuple[str, Mapping[str, str], float]
"""Name without the prefix, labels, value."""


def render_metrics(operator: Any) -> str:
    """The page in Prometheus' text format."""
    return render(_samples(operator))


def render(samples: Iterable[Sample]) -> str:
    """Samples as text, in the catalogue's order."""
    by_name: dict[str, list[str]] = {name: [] for name in CATALOGUE}
    for name, labels, value in samples:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        number = f"{value:.9g}" if value != int(value) else str(int(value))
        by_name[name].append(f"{PREFIX}{name}{{{shown}}} {number}" if shown else f"{PREFIX}{name} {number}")
    lines = []
    for name, family in CATALOGUE.items():
        if by_name[name]:
            lines += [f"# HELP {PREFIX}{name} {family.help}", f"# TYPE {PREFIX}{name} {family.kind}", *by_name[name]]
    return "\n".join(lines) + "\n"


def render_operator_metrics_reference() -> str:
    """The reference page of these metrics."""
    rows = [f"| `{PREFIX}{each.name}` | {each.kind} | {each.help} |" for each in CATALOGUE.values()]
    lines = [
        "# Metrics of the operator",
        "",
        "<!-- Made by `make generate`; do not edit. -->",
        "",
        "At `/metrics` of `--admin`. A metric without anything to tell has no series.",
        "",
        "| metric | type | meaning |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _samples(operator: Any) -> Iterator[Sample]:
    control, xds, now_s = operator.control, operator.xds, time.monotonic()
    observation = control.observation
    yield "leader", {}, float(control.lease.held)
    yield "ready", {}, float(not control.held)
    yield from _conditions(observation.policies.objects())
    yield "profiles", {}, len(observation.profiles.objects())
    yield "compile_duration_seconds_sum", {}, sum(control.compile_seconds)
    yield "compilations_total", {}, control.compilations
    if control.rollback.given is not None:
        yield "snapshot_info", {"version": control.rollback.given.version}, 1
    yield "enforcement_shadow", {}, float(observation.enforcement() is Enforcement.SHADOW)
    if control.rollback.version:
        yield "rolled_back", {"version": control.rollback.version}, 1
    yield "replicas", {}, control.replicas().total
    yield "xds_clients", {}, xds.stats.streams
    yield "xds_responses_total", {"result": "ack"}, xds.stats.acks
    yield "xds_responses_total", {"result": "nack"}, xds.stats.nacks
    yield "xds_held", {}, float(bool(xds.held))
    yield "quarantined", {}, len(xds.quarantined())
    if xds.propagation_s is not None:
        yield "propagation_seconds", {}, xds.propagation_s
    for kind, at_s in observation.last_event_s.items():
        yield "watch_last_event_age_seconds", {"kind": kind}, now_s - at_s
    for kind, kept in observation.inventory.kinds.items():
        if kept.listed_at_s is not None:
            yield "list_age_seconds", {"kind": kind}, now_s - kept.listed_at_s
        yield "ghost_objects_total", {"kind": kind}, kept.index.ghosts
    for result, count in control.statuses.writes.items():
        yield "status_writes_total", {"result": result}, count
    for result, count in control.events.counts.items():
        yield "events_total", {"result": result}, count
    for (verb, code), count in operator.api.calls.items():
        yield "api_requests_total", {"verb": verb, "code": code}, count
    yield "resident_memory_bytes", {}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _conditions(policies: Mapping[str, Any]) -> Iterator[Sample]:
    counts: dict[tuple[str, str], int] = {}
    for policy in policies.values():
        for each in policy.status.conditions:
            key = (each.type, each.status.value)
            counts[key] = counts.get(key, 0) + 1
    known = [each.value for each in ConditionType]
    for (type_, status), count in sorted(counts.items()):
        if type_ in known:
            yield "policies", {"condition": type_, "status": status}, count
