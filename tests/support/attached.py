"""Hypothesis strategies of policies with targets, and of the Gateways and routes that they name."""

from __future__ import annotations

from hypothesis import strategies as st

from ratelimit_service.policy.model import (
    LayeredRules,
    LimitSpec,
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
from ratelimit_service.policy.targets.topology import Gateway, Listener, Parent, Point, Route

LISTENERS = (Listener("http", 80), Listener("other", 81))
EDGE = Gateway("shop", "edge", LISTENERS)
ROUTE = Route(TargetKind.HTTP_ROUTE, "shop", "api", (), (Parent("shop", "edge"),), ("one", "two"))

points = st.one_of(
    st.builds(Point, st.just(EDGE), st.sampled_from(LISTENERS)),
    st.builds(Point, st.just(EDGE), st.sampled_from(LISTENERS), st.just(ROUTE), st.sampled_from([0, 1])),
)

targets = st.sampled_from(
    [
        TargetRef(kind=TargetKind.GATEWAY, name="edge"),
        TargetRef(kind=TargetKind.GATEWAY, name="edge", section_name="http"),
        TargetRef(kind=TargetKind.HTTP_ROUTE, name="api"),
        TargetRef(kind=TargetKind.HTTP_ROUTE, name="api", section_name="one"),
    ]
)


@st.composite
def rules(draw: st.DrawFn) -> RuleSpec:
    """A rule whose name is one of three, so that names meet."""
    name = draw(st.sampled_from("abc"))
    source = ValueSource(type=SourceType.HEADER, name=draw(st.sampled_from(["x-a", "x-b"])))
    return RuleSpec(
        name=name,
        match=(Match(key=f"{name}-{source.name}", type=MatchType.ANY, source=source),),
        limits=(LimitSpec(requests=draw(st.integers(1, 3)), window_us=3_600_000_000),),
        mode=draw(st.sampled_from([None, None, None, Mode.DISABLED])),
    )


@st.composite
def attached_policies(draw: st.DrawFn) -> list[RateLimitPolicy]:
    """Up to five policies, each with a target or two, in any order."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        references = tuple(draw(st.lists(targets, min_size=1, max_size=2, unique_by=str)))
        inner = tuple(draw(st.lists(rules(), min_size=1, max_size=3, unique_by=lambda rule: rule.name)))
        on_gateways = all(each.kind is TargetKind.GATEWAY for each in references)
        field = draw(st.sampled_from(["rules", "defaults", "overrides"] if on_gateways else ["rules", "defaults"]))
        layered = LayeredRules(strategy=draw(st.sampled_from(Strategy)), rules=inner)
        spec = RateLimitPolicySpec(
            target_refs=references,
            rules=inner if field == "rules" else (),
            defaults=layered if field == "defaults" else None,
            overrides=layered if field == "overrides" else None,
        )
        created = draw(st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]))
        metadata = Metadata(name=f"p{number}", namespace="shop", creation_timestamp=created)
        found.append(RateLimitPolicy(metadata=metadata, spec=spec))
    return draw(st.permutations(found))
