"""The manifests that users write: `RateLimitPolicy`, `tidegate.dev/v1alpha1` (`CacheProfile`: `profile_model`).

One model gives the decoder, the CRDs and the reference pages, so a bound or a default is written once, here.
How to read it:

* Field names are camelCase on the wire; a field that is text there and an integer here (`window`, `200Mi`)
  has the unit in its name here and its wire name beside it.
* A default other than `None` or an empty tuple is the schema's default. `None` and `()` mean that the field was not
  written; its description says what holds then. Lists that may be written hold at least one item.
* What ties fields together is in `rules`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, field

from ratelimit_service.algorithms.limit import MAX_REQUESTS, Algorithm, CalendarUnit, FailureMode
from ratelimit_service.policy.origin import Origin
from ratelimit_service.policy.snapshot import Action, HeaderStyle, LabelMode

API_VERSION: Final = "tidegate.dev/v1alpha1"
"""Group and version of every manifest."""

RESERVED_DOMAIN: Final = "tidegate.dev"
"""Domain of targeted policies; no policy may name it."""

DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""Names of rules, namespaces and objects (RFC 1123)."""

WINDOW_MIN_US: Final = 100_000
"""Shortest window: 100 ms."""

WINDOW_MAX_US: Final = 8_784 * 3_600_000_000
"""Longest window: 8784 h, 366 days."""


class MatchType(enum.Enum):
    """How an entry's value is compared."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    ANY = "Any"


class Bucket(enum.Enum):
    """What the values that match a prefix share."""

    PER_VALUE = "PerValue"
    SHARED = "Shared"


class SourceType(enum.Enum):
    """Where Envoy takes an entry's value."""

    HEADER = "Header"
    QUERY_PARAMETER = "QueryParameter"
    PATH = "Path"
    METHOD = "Method"
    REMOTE_ADDRESS = "RemoteAddress"
    METADATA = "Metadata"
    STATIC = "Static"


class Mode(enum.Enum):
    """Whether a rule rejects, only counts and reports, or is absent."""

    ENFORCE = "Enforce"
    SHADOW = "Shadow"
    DISABLED = "Disabled"


class Strategy(enum.Enum):
    """How rules of a higher and a lower level meet."""

    PATCH = "Patch"
    ATOMIC = "Atomic"


class TargetKind(enum.Enum):
    """Kinds of Gateway API objects that a policy attaches to."""

    GATEWAY = "Gateway"
    HTTP_ROUTE = "HTTPRoute"
    GRPC_ROUTE = "GRPCRoute"


class ServiceErrorAction(enum.Enum):
    """What Envoy does when the service gives no answer."""

    ALLOW = "Allow"
    DENY = "Deny"


class _Model(msgspec.Struct, frozen=True, rename="camel"):
    """Base of all parts of a manifest: immutable, camelCase on the wire."""


ObjectName = Annotated[str, Meta(min_length=1, max_length=253)]
"""Name of a Kubernetes object."""

LabelValue = Annotated[str, Meta(max_length=63)]
"""Value of a Kubernetes label."""

Window = Annotated[int, Meta(ge=WINDOW_MIN_US, le=WINDOW_MAX_US, extra={"text": "duration"})]
"""Microseconds; on the wire a duration such as `1m30s`."""

Hits = Annotated[int, Meta(ge=1, le=MAX_REQUESTS)]
"""A number of hits that a limit or a bucket holds."""


class Metadata(_Model, frozen=True, kw_only=True):
    """Who a manifest is; other fields of Kubernetes' metadata are not read."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            description="Name, unique for its kind in its namespace",
        ),
    ]
    namespace: Annotated[
        str,
        Meta(min_length=1, max_length=63, pattern=DNS_LABEL, description="Namespace; files that name none use it"),
    ] = "default"
    labels: Annotated[Mapping[str, LabelValue], Meta(description="Labels")] = {}
    creation_timestamp: Annotated[
        str | None, Meta(description="Set by the API server; the older of two policies wins a conflict")
    ] = None


class TargetRef(_Model, frozen=True, kw_only=True):
    """A Gateway API object of the policy's namespace that the policy attaches to."""

    group: Annotated[str, Meta(max_length=253, description="API group of the target")] = "gateway.networking.k8s.io"
    kind: Annotated[TargetKind, Meta(description="Kind of the target")]
    name: Annotated[ObjectName, Meta(description="Name of the target")]
    section_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(description="A listener of a Gateway, a rule of a route; not given: the whole object"),
    ] = None


class WorkloadSelector(_Model, frozen=True, kw_only=True):
    """Istio gateways or sidecars of the policy's namespace, by their labels."""

    match_labels: Annotated[
        Mapping[str, LabelValue],
        Meta(min_length=1, max_length=8, description="Labels that the workload carries, all of them"),
    ]


class ValueSource(_Model, frozen=True, kw_only=True):
    """Where Envoy takes an entry's value; a missing source means that the rule does not apply to the request."""

    type: Annotated[SourceType, Meta(description="Part of the request; `Path` is without the query string")]
    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)] | None,
        Meta(description="Name of the header or query parameter; goes with Header and QueryParameter"),
    ] = None
    filter: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)] | None,
        Meta(description="Filter whose dynamic metadata is read; goes with Metadata"),
    ] = None
    path: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...],
        Meta(min_length=1, max_length=8, description="Keys that lead to the value; goes with Metadata"),
    ] = ()
    ipv4_prefix: Annotated[
        Annotated[int, Meta(ge=1, le=32)] | None,
        Meta(description="Bits of an IPv4 address that count; goes with RemoteAddress; not given: 32"),
    ] = None
    ipv6_prefix: Annotated[
        Annotated[int, Meta(ge=1, le=128)] | None,
        Meta(description="Bits of an IPv6 address that count; goes with RemoteAddress; not given: 64"),
    ] = None


class Match(_Model, frozen=True, kw_only=True):
    """One entry of the descriptor that a rule is for."""

    key: Annotated[str, Meta(min_length=1, max_length=128, description="Key of the entry")]
    type: Annotated[MatchType, Meta(description="How the entry's value is compared")] = MatchType.EXACT
    value: Annotated[
        Annotated[str, Meta(max_length=512)] | None,
        Meta(description="The value, or its prefix; goes with Exact and Prefix, which need it"),
    ] = None
    bucket: Annotated[
        Bucket | None,
        Meta(description="Whether values that match a prefix share one counter; goes with Prefix; not given: PerValue"),
    ] = None
    source: Annotated[
        ValueSource | None,
        Meta(description="Where Envoy takes the value; required without `domain`"),
    ] = field(name="from", default=None)


class CalendarWindow(_Model, frozen=True, kw_only=True):
    """Windows that follow the calendar; weeks begin on Monday."""

    unit: Annotated[CalendarUnit, Meta(description="Length of the window")]
    time_zone: Annotated[
        str, Meta(min_length=1, max_length=64, description="IANA time zone, daylight saving included")
    ] = "UTC"


class LimitSpec(_Model, frozen=True, kw_only=True):
    """How many requests fit, and in what time."""

    requests: Annotated[Hits, Meta(description="Requests that fit; at most 1000000 per millisecond of the window")]
    window_us: Annotated[
        Window | None,
        Meta(description="Length of the window, such as `100ms` or `1m30s`; exactly one of `window` and `calendar`"),
    ] = field(name="window", default=None)
    calendar: Annotated[
        CalendarWindow | None, Meta(description="Windows that follow the calendar instead; FixedWindow only")
    ] = None
    algorithm: Annotated[
        Algorithm | None,
        Meta(description="The law; not given: SlidingWindow for a window, FixedWindow for a calendar"),
    ] = None
    burst: Annotated[
        Hits | None,
        Meta(
            description="What the bucket holds, refilled with `requests` per `window`; "
            "goes with TokenBucket; not given: `requests`"
        ),
    ] = None

    @property
    def law(self) -> Algorithm:
        """The algorithm in force: the written one, else the default for its kind of window."""
        if self.algorithm is not None:
            return self.algorithm
        return Algorithm.SLIDING_WINDOW if self.calendar is None else Algorithm.FIXED_WINDOW


Limits = Annotated[tuple[LimitSpec, ...], Meta(min_length=1, max_length=4)]
"""Limits that must all fit; `()`: not written."""


class RolloutSpec(_Model, frozen=True, kw_only=True):
    """A limit on its way in, for a stable share of the keys."""

    percent: Annotated[int, Meta(ge=0, le=100, description="Percent of the keys that are judged by the new limits")]
    limits: Annotated[
        Limits,
        Meta(description="What judges them; not given: the rule itself is being introduced, the rest is shadow"),
    ] = ()


class LocalLimit(_Model, frozen=True, kw_only=True):
    """A limit that each Envoy keeps by itself, before it asks: a bucket of `requests`, refilled per `window`."""

    requests: Annotated[Hits, Meta(description="Requests of one key that one Envoy lets through at once")]
    window_us: Annotated[Window, Meta(description="Time in which they are refilled, such as `1s`")] = field(
        name="window"
    )


class RuleSpec(_Model, frozen=True, kw_only=True):
    """One chain of entries, and what a descriptor that matches it is charged."""

    name: Annotated[str, Meta(min_length=1, max_length=63, pattern=DNS_LABEL, description="Name, unique in the policy")]
    match: Annotated[
        tuple[Match, ...],
        Meta(min_length=1, max_length=8, description="The entries of the descriptor, in order, all of them"),
    ]
    action: Annotated[
        Action, Meta(description="Allow exempts only its own descriptor; to lift another rule use `replaces`")
    ] = Action.LIMIT
    limits: Annotated[
        Limits, Meta(description="All must fit; counted all or none; goes with action Limit, which needs it")
    ] = ()
    mode: Annotated[Mode | None, Meta(description="Not given: the policy's")] = None
    count_denied: Annotated[
        bool, Meta(description="Charge denied requests too, past the limit: penalties, charges after the response")
    ] = False
    refunds: Annotated[bool, Meta(description="Apply negative hits; the rule then runs exact")] = False
    replaces: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=63)], ...],
        Meta(min_length=1, max_length=16, description="Rules of this policy whose charge this one lifts"),
    ] = ()
    rollout: Annotated[RolloutSpec | None, Meta(description="A limit on its way in; goes with action Limit")] = None
    local: Annotated[
        LocalLimit | None,
        Meta(description="A limit in Envoy itself, on the same route, so that a flood never reaches the service"),
    ] = None


Rules = Annotated[tuple[RuleSpec, ...], Meta(min_length=1, max_length=64, extra={"map_key": "name"})]
"""Rules of a policy, unique by name; `()`: not written."""


class LayeredRules(_Model, frozen=True, kw_only=True):
    """Rules that a Gateway and its routes share out."""

    strategy: Annotated[
        Strategy, Meta(description="Patch: union by rule name, the higher level wins a name; Atomic: one level whole")
    ] = Strategy.PATCH
    rules: Annotated[Rules, Meta(description="The rules")]


class ProfileRef(_Model, frozen=True, kw_only=True):
    """A CacheProfile."""

    name: Annotated[ObjectName, Meta(description="Name of the CacheProfile")]
    namespace: Annotated[
        Annotated[str, Meta(min_length=1, max_length=63)] | None,
        Meta(description="Namespace of the CacheProfile; not given: the policy's"),
    ] = None


class Failure(_Model, frozen=True, kw_only=True):
    """What decides when something is away."""

    on_store_error: Annotated[FailureMode, Meta(description="While the store is away or full")] = FailureMode.SHARE
    on_service_error: Annotated[
        ServiceErrorAction, Meta(description="While the service is away: Envoy's `failure_mode_deny`, one per filter")
    ] = ServiceErrorAction.ALLOW


class Observability(_Model, frozen=True, kw_only=True):
    """What the metrics of the policy's rules show."""

    metrics: Annotated[LabelMode, Meta(description="How much of a matched descriptor the `rule` label shows")] = (
        LabelMode.RULE
    )
    max_series: Annotated[int, Meta(ge=1, le=1000, description="Most series with values; the overflow is counted")] = (
        100
    )


class RateLimitPolicySpec(_Model, frozen=True, kw_only=True):
    """Exactly one of `domain`, `targetRefs`, `workloadSelector`, and one of `rules`, `defaults`, `overrides`."""

    domain: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(description="What Envoy sends as its domain; immutable; goes with `rules`"),
    ] = None
    target_refs: Annotated[
        tuple[TargetRef, ...],
        Meta(min_length=1, max_length=16, description="Gateway API objects of the same namespace"),
    ] = ()
    workload_selector: Annotated[
        WorkloadSelector | None, Meta(description="Istio gateways or sidecars of the same namespace")
    ] = None
    rules: Annotated[Rules, Meta(description="The rules, one per chain of entries")] = ()
    defaults: Annotated[LayeredRules | None, Meta(description="Rules that a lower level may override")] = None
    overrides: Annotated[
        LayeredRules | None, Meta(description="Rules that no lower level may change; on Gateways only")
    ] = None
    mode: Annotated[Mode, Meta(description="Mode of every rule that names none")] = Mode.ENFORCE
    cache_profile_ref: Annotated[
        ProfileRef | None,
        Meta(description="Where hits are counted; not given: the default profile, else the service's own store"),
    ] = None
    failure: Annotated[Failure, Meta(description="What decides when something is away")] = Failure()
    response_headers: Annotated[
        HeaderStyle,
        Meta(description="RateLimitFields: the IETF draft; LegacyFields: `RateLimit-Limit`, `-Remaining`, `-Reset`"),
    ] = HeaderStyle.OFF
    observability: Annotated[Observability, Meta(description="What the metrics of its rules show")] = Observability()


class RateLimitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded and valid RateLimitPolicy.

    Attributes:
        metadata: Who it is.
        spec: What its author wants.
        origin: Where it is written.
    """

    metadata: Metadata
    spec: RateLimitPolicySpec
    origin: Origin = Origin()
