"""`CacheProfile`: where hits are counted, and how the value cache behaves. How to read it: see `model`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, field

from ratelimit_service.policy.model import LabelValue, Metadata, ObjectName
from ratelimit_service.policy.origin import Origin

_SECOND_US: Final = 1_000_000
_HOUR_US: Final = 3_600 * _SECOND_US

DEFAULT_WARNING_PERCENT: Final = 70
"""`l1.warningPercent` where it is not written."""

DEFAULT_CRITICAL_PERCENT: Final = 85
"""`l1.criticalPercent` where it is not written."""


class Preset(enum.Enum):
    """Which shipped profile gives the defaults."""

    RATE_LIMITING = "RateLimiting"
    AUTH_TOKENS = "AuthTokens"
    SESSIONS = "Sessions"
    API_RESPONSES = "ApiResponses"


class NamespacesFrom(enum.Enum):
    """Whose policies may use a profile."""

    SAME = "Same"
    ALL = "All"
    SELECTOR = "Selector"


class StoreType(enum.Enum):
    """What counts hits."""

    MEMORY = "Memory"
    REDIS = "Redis"
    REDIS_SENTINEL = "RedisSentinel"
    REDIS_CLUSTER = "RedisCluster"


class TlsMode(enum.Enum):
    """How the store's certificate is checked."""

    DISABLE = "Disable"
    VERIFY = "Verify"
    SKIP_VERIFY = "SkipVerify"


class Durability(enum.Enum):
    """When a lease of the store counts as granted."""

    MARKS = "Marks"
    WAIT = "Wait"


class NewMaster(enum.Enum):
    """What replicas do when the store's master changes."""

    LEARN = "Learn"
    QUARANTINE = "Quarantine"
    TRUST = "Trust"


class LeaseMode(enum.Enum):
    """Whether replicas spend quota that they took in advance."""

    LEASED = "Leased"
    EXACT = "Exact"


class Eviction(enum.Enum):
    """Which entry leaves a full L1."""

    S3FIFO = "S3FIFO"
    SIEVE = "SIEVE"
    CLOCK = "CLOCK"
    LRU = "LRU"


class CompressionAlgorithm(enum.Enum):
    """How values are packed."""

    NONE = "None"
    GZIP = "Gzip"
    ZSTD = "Zstd"


class CoherenceMode(enum.Enum):
    """How a replica learns that a value changed."""

    TRACKING = "Tracking"
    PUB_SUB = "PubSub"
    TTL = "TTL"


class WarmingMode(enum.Enum):
    """How a cold cache is filled."""

    NONE = "None"
    BACKGROUND = "Background"
    ADAPTIVE = "Adaptive"


class _Model(msgspec.Struct, frozen=True, rename="camel"):
    """Base of all parts of a manifest: immutable, camelCase on the wire."""


Percent = Annotated[int, Meta(ge=0, le=100)]
"""0 to 100."""

Size = Annotated[int, Meta(ge=1, le=1 << 50, extra={"text": "quantity"})]
"""Bytes; on the wire a quantity such as `200Mi`."""

Lifetime = Annotated[int, Meta(ge=0, le=8_784 * _HOUR_US, extra={"text": "duration"})]
"""Microseconds; on the wire a duration such as `30m`."""

Timeout = Annotated[int, Meta(ge=1_000, le=60 * _SECOND_US, extra={"text": "duration"})]
"""Microseconds; on the wire a duration such as `8ms`."""

FileKey = Annotated[str, Meta(min_length=1, max_length=253)]
"""Key of a secret or ConfigMap."""


class NamespaceSelector(_Model, frozen=True, kw_only=True):
    """Namespaces by their labels."""

    match_labels: Annotated[
        Mapping[str, LabelValue],
        Meta(min_length=1, max_length=8, description="Labels that the namespace carries, all of them"),
    ]


class AllowedNamespaces(_Model, frozen=True, kw_only=True):
    """Whose policies may use this profile."""

    source: Annotated[NamespacesFrom, Meta(description="Which namespaces")] = field(
        name="from", default=NamespacesFrom.SAME
    )
    selector: Annotated[NamespaceSelector | None, Meta(description="Goes with Selector")] = None


class SecretRef(_Model, frozen=True, kw_only=True):
    """A Secret of the profile's own namespace; the chart has to mount it."""

    name: Annotated[ObjectName, Meta(description="Name of the Secret")]


class SecretKeyRef(_Model, frozen=True, kw_only=True):
    """One key of a Secret of the profile's own namespace."""

    name: Annotated[ObjectName, Meta(description="Name of the Secret")]
    key: Annotated[FileKey | None, Meta(description="Key in it; not given: `ca.crt`")] = None


class StoreAuth(_Model, frozen=True, kw_only=True):
    """How the service logs in to the store."""

    secret_ref: Annotated[SecretRef, Meta(description="Secret with keys `username` and `password`")]


class StoreTls(_Model, frozen=True, kw_only=True):
    """TLS towards the store."""

    mode: Annotated[TlsMode, Meta(description="How its certificate is checked")] = TlsMode.DISABLE
    ca_ref: Annotated[
        SecretKeyRef | None, Meta(description="Authorities that are trusted; not given: the system's")
    ] = None
    client_cert_ref: Annotated[SecretRef | None, Meta(description="Secret with keys `tls.crt` and `tls.key`")] = None
    server_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(description="Name in the certificate; not given: the endpoint's host"),
    ] = None


class StoreTimeouts(_Model, frozen=True, kw_only=True):
    """How long the service waits for the store."""

    connect_us: Annotated[Timeout, Meta(description="For a connection")] = field(name="connect", default=200_000)
    command_us: Annotated[Timeout, Meta(description="For one command; capped below the request's deadline")] = field(
        name="command", default=8_000
    )


class StoreSpec(_Model, frozen=True, kw_only=True, omit_defaults=True):
    """Where hits are counted, and where L2 lives."""

    type: Annotated[StoreType, Meta(description="What counts; immutable")] = StoreType.MEMORY
    endpoints: Annotated[
        tuple[Annotated[str, Meta(min_length=3, max_length=260)], ...],
        Meta(min_length=1, max_length=16, description="`host:port`; needed by and only for Redis"),
    ] = ()
    master_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(description="Name of the master that Sentinel watches; goes with RedisSentinel, which needs it"),
    ] = None
    database: Annotated[
        Annotated[int, Meta(ge=0, le=65_535)] | None,
        Meta(description="Number of the database; goes with Redis and RedisSentinel; not given: 0"),
    ] = None
    auth: Annotated[StoreAuth | None, Meta(description="How the service logs in")] = None
    tls: Annotated[StoreTls | None, Meta(description="TLS; not given: none")] = None
    timeouts: Annotated[
        StoreTimeouts | None, Meta(description="How long the service waits; not given: the defaults")
    ] = None
    key_prefix: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)] | None,
        Meta(description="Before every key, so that several releases share one Redis"),
    ] = None
    durability: Annotated[Durability | None, Meta(description="When a lease counts as granted; not given: Marks")] = (
        None
    )
    new_master: Annotated[
        NewMaster | None, Meta(description="What replicas do when the master changes; not given: Learn")
    ] = None


class Leases(_Model, frozen=True, kw_only=True):
    """Quota that a replica takes in advance and spends without asking."""

    mode: Annotated[LeaseMode, Meta(description="Exact asks the store on every request")] = LeaseMode.LEASED
    horizon_us: Annotated[
        Annotated[int, Meta(ge=10_000, le=10 * _SECOND_US, extra={"text": "duration"})],
        Meta(description="How far ahead a lease reaches"),
    ] = field(name="horizon", default=200_000)
    standing_share: Annotated[
        int, Meta(ge=0, le=50, description="Percent of a limit that the replicas own without asking")
    ] = 0
    slots: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="Most replicas times workers that there will be; not given: the service's `--slots`"),
    ] = None


class L1Spec(_Model, frozen=True, kw_only=True):
    """The cache in the process's memory."""

    max_entries: Annotated[
        Annotated[int, Meta(ge=1, le=100_000_000)] | None, Meta(description="Most entries; not given: the preset's")
    ] = None
    max_memory_bytes: Annotated[Size | None, Meta(description="Most memory; not given: the preset's")] = field(
        name="maxMemory", default=None
    )
    warning_percent: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None,
        Meta(description="From here on expired entries go first and nothing is warmed; not given: 70"),
    ] = None
    critical_percent: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None,
        Meta(description="From here on fills are refused; above `warningPercent`; not given: 85"),
    ] = None
    eviction: Annotated[Eviction | None, Meta(description="Which entry leaves; not given: S3FIFO")] = None


class L2Spec(_Model, frozen=True, kw_only=True):
    """The cache in the store's Redis."""

    enabled: Annotated[bool, Meta(description="Whether it is used")] = False


class L3Spec(_Model, frozen=True, kw_only=True):
    """The cache on disk."""

    enabled: Annotated[bool, Meta(description="Whether it is used")] = False
    path: Annotated[Annotated[str, Meta(min_length=1, max_length=4096)] | None, Meta(description="Its folder")] = None
    max_size_bytes: Annotated[Size | None, Meta(description="Most disk space")] = field(name="maxSize", default=None)
    encryption_secret_ref: Annotated[
        SecretRef | None, Meta(description="Secret with the key that values are encrypted with")
    ] = None


class Compression(_Model, frozen=True, kw_only=True):
    """Values that are kept packed where it pays."""

    algorithm: Annotated[CompressionAlgorithm | None, Meta(description="Not given: the preset's")] = None
    level: Annotated[
        Annotated[int, Meta(ge=1, le=22)] | None, Meta(description="Gzip 1 to 9, Zstd 1 to 22; not given: the preset's")
    ] = None
    threshold: Annotated[
        Annotated[int, Meta(ge=0, le=1 << 30)] | None,
        Meta(description="Bytes from which a value is packed; not given: the preset's"),
    ] = None
    dictionary: Annotated[bool, Meta(description="Train a dictionary for small values; Zstd only")] = False


class Coherence(_Model, frozen=True, kw_only=True):
    """How stale a value may be."""

    mode: Annotated[CoherenceMode | None, Meta(description="Not given: the preset's")] = None
    max_staleness_us: Annotated[
        Annotated[int, Meta(ge=0, le=60 * _SECOND_US, extra={"text": "duration"})] | None,
        Meta(description="Most time that a replaced value is still served; not given: the preset's"),
    ] = field(name="maxStaleness", default=None)


class Warming(_Model, frozen=True, kw_only=True):
    """How a cold cache is filled."""

    mode: Annotated[WarmingMode | None, Meta(description="Not given: the preset's")] = None
    top_keys: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(description="Most keys that are warmed; not given: the preset's"),
    ] = None


class CacheProfileSpec(_Model, frozen=True, kw_only=True):
    """Everything that is not written has the preset's default."""

    preset: Annotated[Preset, Meta(description="Where the defaults come from")] = Preset.RATE_LIMITING
    default: Annotated[bool, Meta(description="Whether policies that name no profile use this one")] = False
    allowed_namespaces: Annotated[AllowedNamespaces, Meta(description="Whose policies may use it")] = (
        AllowedNamespaces()
    )
    store: Annotated[StoreSpec, Meta(description="Where hits are counted and L2 lives")] = StoreSpec()
    leases: Annotated[Leases, Meta(description="Quota that replicas take in advance")] = Leases()
    l1: Annotated[L1Spec | None, Meta(description="The cache in memory")] = None
    l2: Annotated[L2Spec | None, Meta(description="The cache in Redis")] = None
    l3: Annotated[L3Spec | None, Meta(description="The cache on disk")] = None
    compression: Annotated[Compression | None, Meta(description="Values kept packed")] = None
    coherence: Annotated[Coherence | None, Meta(description="How stale a value may be")] = None
    warming: Annotated[Warming | None, Meta(description="How a cold cache is filled")] = None
    ttl_us: Annotated[Lifetime | None, Meta(description="How long a value lives; not given: the preset's")] = field(
        name="ttl", default=None
    )
    stale_on_error_us: Annotated[
        Lifetime | None, Meta(description="How long an expired value is served while loading fails")
    ] = field(name="staleOnError", default=None)
    negative_ttl_us: Annotated[Lifetime | None, Meta(description="How long the absence of a value is remembered")] = (
        field(name="negativeTTL", default=None)
    )
    early_refresh: Annotated[
        Percent | None, Meta(description="Percent of the TTL at whose end a value is loaded anew before it expires")
    ] = None


class CacheProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded and valid CacheProfile.

    Attributes:
        metadata: Who it is.
        spec: What its author wants.
        origin: Where it is written.
    """

    metadata: Metadata
    spec: CacheProfileSpec
    origin: Origin = Origin()
