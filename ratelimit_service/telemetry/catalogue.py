"""Every metric of the service: name, type, labels and meaning, written once.

The exposition takes HELP and TYPE from here, and so does the reference page (`render_metrics_reference`).
"""

from __future__ import annotations

from typing import Final

from ratelimit_service.quota.store import Role, Source
from ratelimit_service.telemetry import shared_store
from ratelimit_service.telemetry.metric import Kind, Metric, Together

_COUNTER, _GAUGE, _RULE, _PROFILE = Kind.COUNTER, Kind.GAUGE, ("domain", "rule"), ("profile",)
_GREATEST: Final = Together.GREATEST

DECISIONS: Final = Metric(
    "tidegate_decisions_total",
    _COUNTER,
    "Descriptors decided, by result: ok, over (rejected), shadow_over (would be), allow, deny (rules without limit).",
    ("domain", "rule", "result"),
    "descriptors",
)
NEAR_LIMIT_HITS: Final = Metric(
    "tidegate_near_limit_hits_total", _COUNTER, "Hits counted above the near-limit ratio of their limit.", _RULE, "hits"
)
HITS: Final = Metric("tidegate_hits_total", _COUNTER, "Hits asked for, whatever was decided.", _RULE, "hits")
ADMISSION_BOUND: Final = Metric(
    "tidegate_admission_bound",
    _GAUGE,
    "Greatest number of hits that may be admitted beyond the limits of a rule in one window; +Inf: no bound.",
    _RULE,
    "hits",
)
DECISION_SOURCES: Final = Metric(
    "tidegate_decision_sources_total",
    _COUNTER,
    f"Charges by who decided them: {', '.join(source.value for source in Source)}.",
    ("source",),
    "charges",
)
REQUEST_DURATION: Final = Metric(
    "tidegate_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the last byte of a call read to its answer handed to the socket.",
    (),
    "seconds",
)
REQUEST_ERRORS: Final = Metric(
    "tidegate_request_errors_total", _COUNTER, "Calls that ended without a verdict, by gRPC code.", ("code",), "calls"
)
UNKNOWN_DOMAINS: Final = Metric(
    "tidegate_unknown_domain_total", _COUNTER, "Calls whose domain no policy names.", (), "calls"
)
UNMATCHED: Final = Metric(
    "tidegate_unmatched_descriptors_total",
    _COUNTER,
    "Descriptors of known domains that reached no rule.",
    (),
    "descriptors",
)
REFUNDS_IGNORED: Final = Metric(
    "tidegate_refunds_ignored_total",
    _COUNTER,
    "Descriptors with negative hits whose rule takes no refunds.",
    (),
    "descriptors",
)
SERIES: Final = Metric(
    "tidegate_metrics_series",
    _GAUGE,
    "Series of rules that are shown under their own labels.",
    (),
    "series",
    together=_GREATEST,
)
SERIES_DROPPED: Final = Metric(
    "tidegate_metrics_series_dropped_total",
    _COUNTER,
    "Times that a series found the table full (--metrics-max-series) and was counted under _overflow.",
    (),
    "series",
)
CONFIG_INFO: Final = Metric(
    "tidegate_config_info", _GAUGE, "1 for the version in force.", ("version",), together=_GREATEST
)
CONFIG_APPLIED: Final = Metric(
    "tidegate_config_applied_timestamp_seconds",
    _GAUGE,
    "When the version in force was applied.",
    (),
    "Unix time",
    together=_GREATEST,
)
CONFIG_LOADS: Final = Metric(
    "tidegate_config_loads_total", _COUNTER, "Sets of policies that were applied.", (), "loads", together=_GREATEST
)
CONFIG_LOAD_ERRORS: Final = Metric(
    "tidegate_config_load_errors_total",
    _COUNTER,
    "Sets of policies that were refused.",
    (),
    "loads",
    together=_GREATEST,
)
CONFIG_REFUSED: Final = Metric(
    "tidegate_config_refused",
    _GAUGE,
    "1 while the newest set of policies is refused and an older one stays in force.",
    together=_GREATEST,
)
CONFIG_DOMAINS: Final = Metric(
    "tidegate_config_domains", _GAUGE, "Domains in force.", (), "domains", together=_GREATEST
)
CONFIG_RULES: Final = Metric("tidegate_config_rules", _GAUGE, "Rules in force.", (), "rules", together=_GREATEST)
CONFIG_SHADOW: Final = Metric(
    "tidegate_config_shadow",
    _GAUGE,
    "1 while nothing is rejected, by the kill switch (enforcement: Shadow) or by --shadow-mode.",
    together=_GREATEST,
)
XDS_CONNECTED: Final = Metric(
    "tidegate_xds_connected", _GAUGE, "1 while an operator serves this replica; absent without one to follow."
)
XDS_STREAMS: Final = Metric(
    "tidegate_xds_streams_total", _COUNTER, "Streams that an operator has taken.", (), "streams"
)
BUILD_INFO: Final = Metric(
    "tidegate_build_info",
    _GAUGE,
    "1 for this build and the interpreter that runs it.",
    ("version", "python"),
    together=_GREATEST,
)
READY: Final = Metric("tidegate_ready", _GAUGE, "1 while /readyz answers 200.")

CONNECTIONS: Final[dict[str, Metric]] = {
    "open": Metric("tidegate_connections", _GAUGE, "Connections now; the native transport's.", (), "connections"),
    "accepted": Metric("tidegate_connections_accepted_total", _COUNTER, "Connections taken.", (), "connections"),
    "refused": Metric(
        "tidegate_connections_refused_total",
        _COUNTER,
        "Connections closed as they came: too many, or TLS without HTTP/2.",
        (),
        "connections",
    ),
    "streams": Metric("tidegate_calls_begun_total", _COUNTER, "Calls begun, health checks included.", (), "calls"),
    "held_bytes": Metric(
        "tidegate_unfinished_bytes", _GAUGE, "Kept of requests that have not come whole.", (), "bytes"
    ),
}
"""Field of a transport's statistics → its metric."""
CONNECTION_ABUSE: Final = Metric(
    "tidegate_connection_abuse_total",
    _COUNTER,
    "Connections closed because their peer did more of something cheap to send and costly to serve than any may.",
    ("kind",),
    "connections",
)

STORE: Final[dict[str, Metric]] = {
    "keys": Metric("tidegate_store_keys", _GAUGE, "Live counters, hashed ones included.", _PROFILE, "keys"),
    "max_keys": Metric("tidegate_store_max_keys", _GAUGE, "Bound of live counters.", _PROFILE, "keys"),
    "shared_keys": Metric(
        "tidegate_store_shared_keys", _GAUGE, "Hashed counters, each shared by several keys.", _PROFILE, "keys"
    ),
    "bytes": Metric("tidegate_store_bytes", _GAUGE, "Estimated memory of live counters.", _PROFILE, "bytes"),
    "max_bytes": Metric("tidegate_store_max_bytes", _GAUGE, "Bound of that memory.", _PROFILE, "bytes"),
    "created": Metric("tidegate_store_created_total", _COUNTER, "Counters made.", _PROFILE, "keys"),
    "reclaimed": Metric(
        "tidegate_store_reclaimed_total",
        _COUNTER,
        "Counters dropped because their budget was full again or their rule was gone.",
        _PROFILE,
        "keys",
    ),
    "shared_decisions": Metric(
        "tidegate_store_shared_decisions_total",
        _COUNTER,
        "Charges judged on a hashed counter, because there was no room for one of their own.",
        _PROFILE,
        "charges",
    ),
    "refused": Metric(
        "tidegate_store_refused_total", _COUNTER, "Charges denied because the store was full.", _PROFILE, "charges"
    ),
    "uncounted": Metric(
        "tidegate_store_uncounted_total",
        _COUNTER,
        "Charges let through uncounted by failure mode Open because the store was full.",
        _PROFILE,
        "charges",
    ),
}
"""Field of a store's statistics → its metric. A statistic that is not here is not shown."""
STORE_CHARGES: Final = Metric(
    "tidegate_store_charges_total",
    _COUNTER,
    f"Charges by role: {', '.join(role.value for role in Role)}.",
    ("profile", "role"),
    "charges",
)
STORE_ROLES: Final[dict[str, str]] = {f"{role.value}_charges": role.value for role in Role}
"""Field of a store's statistics → value of the label `role`."""

WORKERS: Final[dict[str, Metric]] = {
    "ready": Metric("tidegate_worker_ready", _GAUGE, "With --workers: 1 while a worker is ready.", ("worker",)),
    "connections": Metric(
        "tidegate_worker_connections", _GAUGE, "With --workers: connections of a worker.", ("worker",), "connections"
    ),
    "starts": Metric(
        "tidegate_worker_starts_total", _COUNTER, "With --workers: times it was started.", ("worker",), "starts"
    ),
}
"""Field of a worker's state → its metric; of the parent of workers only."""

METRICS: Final[tuple[Metric, ...]] = (
    DECISIONS,
    NEAR_LIMIT_HITS,
    HITS,
    ADMISSION_BOUND,
    DECISION_SOURCES,
    REQUEST_DURATION,
    REQUEST_ERRORS,
    UNKNOWN_DOMAINS,
    UNMATCHED,
    REFUNDS_IGNORED,
    *CONNECTIONS.values(),
    CONNECTION_ABUSE,
    *STORE.values(),
    STORE_CHARGES,
    *shared_store.METRICS,
    CONFIG_INFO,
    CONFIG_APPLIED,
    CONFIG_LOADS,
    CONFIG_LOAD_ERRORS,
    CONFIG_REFUSED,
    CONFIG_DOMAINS,
    CONFIG_RULES,
    CONFIG_SHADOW,
    XDS_CONNECTED,
    XDS_STREAMS,
    SERIES,
    SERIES_DROPPED,
    READY,
    BUILD_INFO,
)
"""All of them, in the order of the reference page."""

_INTRODUCTION: Final = """\
# Metrics

`GET /metrics` on the admin port answers in Prometheus' text format 0.0.4.
Beside the metrics below there are the usual `process_*` ones: CPU, memory, open files, start time.

- A rule has no series before its first event.
- `rule` is the rule's name, `<namespace>/<policy>/<rule>` for targeted policies,
  and the path of keys for envoyproxy/ratelimit YAML.
  It shows a request's values only where the policy asks for that.
- `profile` is `<namespace>/<name>` of a CacheProfile, `default` for the service's own store (`--store`).
- At most `--metrics-max-series` series of rules are shown (20,000 unless told otherwise).
  What comes later is summed under `domain="_overflow",rule="_overflow"`, so totals stay right.
- Label values longer than 256 characters keep their beginning and end in a digest of the whole.
- With `--workers`, values are the sum of all workers, but for what describes one state (the greatest: configuration,
  build, breakers; the least: whether a server is up, start time). What a worker that died had counted stays in the sum.

| Metric | Type | Labels | Unit | Meaning |
|---|---|---|---|---|
"""


def render_metrics_reference() -> str:
    """The page `docs/reference/metrics.md`."""
    rows = [
        f"| `{metric.name}` | {metric.kind.value} | {', '.join(f'`{label}`' for label in metric.labels)} "
        f"| {metric.unit} | {metric.meaning} |\n"
        for metric in (*METRICS, *WORKERS.values())
    ]
    return _INTRODUCTION + "".join(rows)
