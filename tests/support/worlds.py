"""Random policies on a Gateway and its routes, or of a domain, and random requests that meet them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from hypothesis import strategies as st

from ratelimit_service.algorithms.limit import Algorithm
from ratelimit_service.cli.rehearsal import Rehearsal
from ratelimit_service.policy import compile as compiling
from ratelimit_service.policy.match import Entries
from ratelimit_service.policy.model import (
    RESERVED_DOMAIN,
    LayeredRules,
    LimitSpec,
    LocalLimit,
    Match,
    MatchType,
    Metadata,
    Mode,
    RateLimitPolicy,
    RateLimitPolicySpec,
    RuleSpec,
    SourceType,
    Strategy,
    TargetKind,
    TargetRef,
    ValueSource,
)
from ratelimit_service.policy.render.actions import Config
from ratelimit_service.policy.render.envoy import render_domain, render_gateway
from ratelimit_service.policy.render.local import LOCAL_FILTER
from ratelimit_service.policy.render.local_buckets import LocalBuckets
from ratelimit_service.policy.render.parts import ServiceAddress
from ratelimit_service.policy.render.requests import HttpRequest, descriptors
from ratelimit_service.policy.snapshot import Action
from ratelimit_service.policy.source_rules import chain_as_sent
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.topology import Gateway, Listener, Parent, Point, Route, Topology
from ratelimit_service.wire.rls.messages import Verdict

PREFIXES = ("/api/one", "/api/two")
"""Paths of the two rules of the route; anything else is the listener's."""

NOWHERE = ServiceAddress("127.0.0.1", 1)

WINDOW_US = 8_000 * 3_600_000_000
"""No window ends and no bucket refills while a test runs."""


class Sent(msgspec.Struct, frozen=True):
    """A request as a client sends it; the address goes along in x-forwarded-for."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    remote: str

    def at_filter(self) -> HttpRequest:
        """The same as Envoy's filter sees it: the tenant is metadata by then."""
        pairs = tuple((name.encode(), value.encode()) for name, value in self.headers)
        tenant = dict(self.headers).get("x-tenant", "")
        return HttpRequest(
            self.method.encode(), self.path.encode(), pairs, self.remote, {("e2e.tenant", "name"): tenant}
        )


class World(msgspec.Struct, frozen=True):
    """Policies and the requests that meet them, in order.

    Attributes:
        number: Makes its names its own.
        policies: Of one domain, or with targets.
        requests: What is sent.
    """

    number: int
    policies: tuple[RateLimitPolicy, ...]
    requests: tuple[Sent, ...]

    @property
    def domain(self) -> str:
        """What the filter asks in."""
        named = [policy.spec.domain for policy in self.policies if policy.spec.domain]
        return named[0] if named else RESERVED_DOMAIN

    @property
    def gateway(self) -> Gateway:
        return Gateway(f"w{self.number}", "edge", (Listener("http", 80),))

    @property
    def route(self) -> Route:
        parents = (Parent(f"w{self.number}", "edge"),)
        return Route(TargetKind.HTTP_ROUTE, f"w{self.number}", "api", (), parents, ("one", "two"))

    @property
    def coverage(self) -> Coverage:
        return Coverage(self.policies, Topology((self.gateway,), (self.route,)))

    def place(self, path: str) -> str:
        """The prefix by which a path is routed."""
        return next((prefix for prefix in PREFIXES if path.startswith(prefix)), "/")

    def rule(self, path: str) -> str | None:
        """Name of the route's rule that takes a path, None: no route does."""
        place = self.place(path)
        return self.route.rules[PREFIXES.index(place)] if place in PREFIXES else None

    def point(self, path: str) -> Point:
        """Where a path passes."""
        place = self.place(path)
        if place in PREFIXES:
            return Point(self.gateway, self.gateway.listeners[0], self.route, PREFIXES.index(place))
        return Point(self.gateway, self.gateway.listeners[0])


Model = Callable[[HttpRequest, Sequence[Config]], Sequence[Entries]]


def foreseen(
    world: World,
    limits_of: Callable[[World, str], list[Config]],
    model: Model = descriptors,
    *,
    has_local: bool = True,
) -> list[int]:
    """The status of each request, as `tidegate explain` foresees it; not `has_local`: without what Envoy keeps."""
    snapshot, _ = compiling.compile(world.policies, compiling.CompileOptions())
    rehearsal = Rehearsal(snapshot)
    statuses = []
    envoy = {place: LocalBuckets(local_at(world, place)) for place in ("/", *PREFIXES)}
    for sent in world.requests:
        if has_local and envoy[world.place(sent.path)].refuses(sent.at_filter()) is not None:
            statuses.append(429)
            continue
        verdict = rehearsal.decide(world.domain, model(sent.at_filter(), limits_of(world, sent.path)))
        assert isinstance(verdict, Verdict), verdict
        statuses.append(429 if verdict.over else 200)
    return statuses


def local_at(world: World, path: str) -> Config | None:
    """Settings of the local filter where a path passes, as rendered."""
    if world.domain != RESERVED_DOMAIN:
        config = render_domain(world.domain, world.policies, NOWHERE).config
        return config.get("typed_per_filter_config", {}).get(LOCAL_FILTER)  # type: ignore[attr-defined,no-any-return]
    for place in render_gateway(world.gateway, world.coverage, NOWHERE).config["places"]:  # type: ignore[attr-defined]
        if place.get("rule") == world.rule(path):
            return place.get("typed_per_filter_config", {}).get(LOCAL_FILTER)  # type: ignore[no-any-return]
    return None


_SOURCES = st.one_of(
    st.sampled_from(["x-a", "x-b"]).map(lambda name: ValueSource(type=SourceType.HEADER, name=name)),
    st.just(ValueSource(type=SourceType.QUERY_PARAMETER, name="q")),
    st.sampled_from([SourceType.PATH, SourceType.METHOD, SourceType.STATIC]).map(lambda kind: ValueSource(type=kind)),
    st.just(ValueSource(type=SourceType.METADATA, filter="e2e.tenant", path=("name",))),
    st.builds(
        ValueSource,
        type=st.just(SourceType.REMOTE_ADDRESS),
        ipv4_prefix=st.sampled_from([None, 24]),
        ipv6_prefix=st.sampled_from([None, 128, 48]),
    ),
)
_VALUES = {
    SourceType.HEADER: ["1", "2", ""],
    SourceType.QUERY_PARAMETER: ["1", "a b", ""],
    SourceType.PATH: ["/", "/api/one", "/api/two/x"],
    SourceType.METHOD: ["GET", "POST"],
    SourceType.STATIC: ["s", "t"],
    SourceType.METADATA: ["acme", "ac"],
    SourceType.REMOTE_ADDRESS: ["203.0.113.9", "2001:db8::1"],
}


@st.composite
def _matches(draw: st.DrawFn) -> Match:
    source = draw(_SOURCES)
    kinds = [MatchType.EXACT] if source.type is SourceType.STATIC else [MatchType.ANY, *MatchType]
    kind = draw(st.sampled_from(kinds))
    value = None if kind is MatchType.ANY else draw(st.sampled_from(_VALUES[source.type]))
    return Match(key=f"k-{source.name or source.type.value}", type=kind, value=value, source=source)


@st.composite
def _rules(draw: st.DrawFn, names: str) -> RuleSpec:
    action = draw(st.sampled_from([Action.LIMIT] * 6 + [Action.ALLOW, Action.DENY]))
    law = draw(st.sampled_from(Algorithm))
    limit = LimitSpec(requests=draw(st.integers(1, 3)), window_us=WINDOW_US, algorithm=law)
    entries = tuple(draw(st.lists(_matches(), min_size=1, max_size=2)))
    # Of several entries Envoy may have two wildcards that fit, and does not say which it takes.
    fits_local = len(entries) == 1 and (entries[0].type is MatchType.ANY or bool(entries[0].value))
    fits_local = fits_local and entries[0].type is not MatchType.PREFIX and action is Action.LIMIT
    local = draw(st.none() | st.integers(1, 3)) if fits_local else None
    return RuleSpec(
        name=draw(st.sampled_from(names)),
        match=entries,
        local=None if local is None else LocalLimit(requests=local, window_us=WINDOW_US),
        action=action,
        limits=(limit,) if action is Action.LIMIT else (),
        mode=draw(st.sampled_from([None] * 5 + [Mode.SHADOW, Mode.DISABLED])),
        count_denied=draw(st.sampled_from([False, False, False, True])),
    )


def _rule_lists(names: str) -> st.SearchStrategy[tuple[RuleSpec, ...]]:
    distinct = (lambda rule: rule.name, lambda rule: chain_as_sent(rule.match))
    return st.lists(_rules(names), min_size=1, max_size=3, unique_by=distinct).map(tuple)


@st.composite
def _targeted(draw: st.DrawFn, number: int, place: int) -> RateLimitPolicy:
    kind, name = draw(st.sampled_from([(TargetKind.GATEWAY, "edge"), (TargetKind.HTTP_ROUTE, "api")]))
    sections = ["http"] if kind is TargetKind.GATEWAY else ["one", "two"]
    section = draw(st.none() | st.sampled_from(sections))
    fields = ["rules", "defaults"] + ["overrides"] * (kind is TargetKind.GATEWAY)
    rules, field = draw(_rule_lists("abc")), draw(st.sampled_from(fields))
    layered = LayeredRules(strategy=draw(st.sampled_from([Strategy.PATCH, *Strategy])), rules=rules)
    spec = RateLimitPolicySpec(
        target_refs=(TargetRef(kind=kind, name=name, section_name=section),),
        rules=rules if field == "rules" else (),
        defaults=layered if field == "defaults" else None,
        overrides=layered if field == "overrides" else None,
    )
    return RateLimitPolicy(metadata=Metadata(name=f"p{place}", namespace=f"w{number}"), spec=spec)


@st.composite
def _of_domain(draw: st.DrawFn, number: int, place: int) -> RateLimitPolicy:
    rules = draw(_rule_lists("abcdef"))
    spec = RateLimitPolicySpec(domain=f"w{number}.api", rules=rules)
    return RateLimitPolicy(metadata=Metadata(name=f"p{place}", namespace=f"w{number}"), spec=spec)


_REQUESTS = st.builds(
    Sent,
    method=st.sampled_from(["GET", "GET", "POST"]),
    path=st.sampled_from(
        [
            "/", "/?q=1", "/api/one", "/api/one?q=1", "/api/one?q=a%20b&q=1", "/api/one?q=a+b",
            "/api/two/x", "/api/two/x?q=&z", "/api/two?q",
        ]
    ),
    headers=st.fixed_dictionaries(
        {},
        optional={
            "x-a": st.sampled_from(["1", "1", "2", ""]),
            "x-b": st.sampled_from(["1", "2"]),
            "x-tenant": st.sampled_from(["acme", "initech"]),
        },
    ).map(lambda headers: tuple(headers.items())),
    remote=st.sampled_from(["203.0.113.9", "203.0.113.10", "2001:db8::1", "2001:db8::2", "2001:db8:0:9::1"]),
)  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn, number: int) -> World:
    """A world of up to four policies and a dozen requests."""
    make = draw(st.sampled_from([_targeted, _targeted, _targeted, _of_domain]))
    policies = tuple(draw(make(number, place)) for place in range(draw(st.integers(1, 4))))
    return World(number, policies, tuple(draw(st.lists(_REQUESTS, min_size=8, max_size=12))))
