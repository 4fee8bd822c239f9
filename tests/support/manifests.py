"""Hypothesis strategies of manifests that are valid by construction, and of ways to spoil them."""

from __future__ import annotations

from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm, CalendarUnit, FailureMode
from ratelimit_service.policy.model import (
    WINDOW_MAX_US,
    Bucket,
    CalendarWindow,
    Failure,
    LimitSpec,
    LocalLimit,
    Match,
    MatchType,
    Metadata,
    Mode,
    Observability,
    ProfileRef,
    RateLimitPolicy,
    RateLimitPolicySpec,
    RolloutSpec,
    RuleSpec,
    SourceType,
    ValueSource,
)
from ratelimit_service.policy.profile_model import (
    CacheProfile,
    CacheProfileSpec,
    Compression,
    CompressionAlgorithm,
    L1Spec,
    Leases,
    Preset,
    StoreSpec,
    StoreTimeouts,
    StoreType,
)
from ratelimit_service.policy.snapshot import Action, HeaderStyle, LabelMode
from ratelimit_service.policy.source_rules import chain_as_sent

# Text that YAML, JSON and our decoder must all carry: printable, with what a careless scalar rule would change.
texts = st.one_of(
    st.sampled_from(["on", "yes", "010", "1e3", "~", "null", "true", "#", "- a", "a: b", "é", "\U0001f600", " a "]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"]), min_size=1, max_size=8),
)
names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,4}[a-z0-9])?", fullmatch=True)
header_names = st.sampled_from(["x-user", "X-User", ":authority", "a!#$%&'*+-.^_`|~9"])
addresses = st.sampled_from(["192.0.2.1", "2001:db8::1", "::"])
windows_us = st.one_of(
    st.sampled_from([100_000, WINDOW_MAX_US, 60_000_000, 3_600_001_000]),
    st.integers(100, WINDOW_MAX_US // 1_000).map(lambda value_ms: value_ms * 1_000),
)


@st.composite
def limits(draw: st.DrawFn) -> LimitSpec:
    """A limit with a window or a calendar, and a burst where it may have one."""
    if draw(st.booleans()):
        zone = draw(st.sampled_from(["UTC", "Europe/Zurich", "Pacific/Apia"]))
        calendar = CalendarWindow(unit=draw(st.sampled_from(CalendarUnit)), time_zone=zone)
        algorithm = draw(st.sampled_from([None, Algorithm.FIXED_WINDOW]))
        return LimitSpec(requests=draw(st.integers(1, 9)), calendar=calendar, algorithm=algorithm)
    window_us, requests = draw(windows_us), draw(st.integers(1, 9))
    algorithm = draw(st.sampled_from([None, *Algorithm]))
    burst = None
    if algorithm is Algorithm.TOKEN_BUCKET:
        burst = draw(st.none() | st.integers(1, WINDOW_MAX_US * requests // window_us).map(lambda hits: min(hits, 99)))
    return LimitSpec(requests=requests, window_us=window_us, algorithm=algorithm, burst=burst)


def _identity(limit: LimitSpec) -> object:
    return (limit.law, limit.window_us, limit.calendar)


limit_lists = st.lists(limits(), min_size=1, max_size=4, unique_by=_identity).map(tuple)


@st.composite
def sources(draw: st.DrawFn) -> ValueSource:
    """Where a value comes from, with exactly the fields that its type takes."""
    kind = draw(st.sampled_from([each for each in SourceType if each is not SourceType.STATIC]))
    named = {SourceType.HEADER, SourceType.QUERY_PARAMETER}
    from_metadata, from_address = kind is SourceType.METADATA, kind is SourceType.REMOTE_ADDRESS
    return ValueSource(
        type=kind,
        name=draw(header_names if kind is SourceType.HEADER else texts) if kind in named else None,
        filter=draw(texts) if from_metadata else None,
        path=tuple(draw(st.lists(texts, min_size=1, max_size=3))) if from_metadata else (),
        ipv4_prefix=draw(st.none() | st.sampled_from([1, 32])) if from_address else None,
        ipv6_prefix=draw(st.none() | st.sampled_from([1, 128])) if from_address else None,
    )


@st.composite
def matches(draw: st.DrawFn) -> Match:
    """One entry of a chain."""
    kind, source = draw(st.sampled_from(MatchType)), draw(st.none() | sources())
    of_address = source is not None and source.type is SourceType.REMOTE_ADDRESS and kind is MatchType.EXACT
    return Match(
        key=draw(texts),
        type=kind,
        value=None if kind is MatchType.ANY else draw(addresses if of_address else texts | st.just("")),
        bucket=draw(st.none() | st.sampled_from(Bucket)) if kind is MatchType.PREFIX else None,
        source=source,
    )


@st.composite
def rules(draw: st.DrawFn) -> RuleSpec:
    """A rule that replaces none."""
    action = draw(st.sampled_from(Action))
    limited = action is Action.LIMIT
    match = tuple(draw(st.lists(matches(), min_size=1, max_size=3)))
    local = st.builds(LocalLimit, requests=st.integers(1, 9), window_us=windows_us)
    rollout = st.builds(RolloutSpec, percent=st.sampled_from([0, 1, 100]), limits=st.just(()) | limit_lists)
    return RuleSpec(
        name=draw(names),
        match=match,
        action=action,
        limits=draw(limit_lists) if limited else (),
        mode=draw(st.none() | st.sampled_from(Mode)),
        count_denied=draw(st.booleans()),
        refunds=draw(st.booleans()),
        rollout=draw(st.none() | rollout) if limited else None,
        local=draw(st.none() | local) if limited and all(map(_fits_envoy, match)) else None,
    )


def _fits_envoy(match: Match) -> bool:
    """Whether Envoy can hold the entry in a local limit."""
    return match.type is MatchType.ANY or (match.type is MatchType.EXACT and bool(match.value))


def _chain(rule: RuleSpec) -> object:
    return chain_as_sent(rule.match)


policies = st.builds(
    RateLimitPolicy,
    metadata=st.builds(Metadata, name=names, namespace=names, labels=st.dictionaries(names, names, max_size=2)),
    spec=st.builds(
        RateLimitPolicySpec,
        domain=texts,
        rules=st.lists(rules(), min_size=1, max_size=3, unique_by=(lambda rule: rule.name, _chain)).map(tuple),
        mode=st.sampled_from(Mode),
        cache_profile_ref=st.none() | st.builds(ProfileRef, name=names, namespace=st.none() | names),
        failure=st.builds(Failure, on_store_error=st.sampled_from(FailureMode)),
        response_headers=st.sampled_from(HeaderStyle),
        observability=st.builds(
            Observability, metrics=st.sampled_from(LabelMode), max_series=st.sampled_from([1, 100, 1000])
        ),
    ),
)
"""Valid policies with a domain."""

profiles = st.builds(
    CacheProfile,
    metadata=st.builds(Metadata, name=names),
    spec=st.builds(
        CacheProfileSpec,
        preset=st.sampled_from(Preset),
        store=st.just(StoreSpec())
        | st.builds(
            StoreSpec,
            type=st.just(StoreType.REDIS_CLUSTER),
            endpoints=st.lists(st.sampled_from(["a:1", "b.c:65535", "[::1]:6379"]), min_size=1, unique=True).map(tuple),
            timeouts=st.none() | st.builds(StoreTimeouts, connect_us=st.sampled_from([1_000, 200_000, 60_000_000])),
        ),
        leases=st.builds(Leases, horizon_us=st.sampled_from([10_000, 200_000, 10_000_000])),
        l1=st.none()
        | st.builds(L1Spec, max_memory_bytes=st.sampled_from([1, 1000, 1024, 200 << 20, 1 << 50]), eviction=st.none()),
        compression=st.none()
        | st.builds(Compression, algorithm=st.just(CompressionAlgorithm.GZIP), level=st.none() | st.integers(1, 9)),
        ttl_us=st.none() | st.sampled_from([0, 1_000, 90_000_000]),
    ),
)
"""Valid profiles."""
